use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Problem;
use crate::units;

/// `[telemetry]`: traces and metrics for a collector, by OTLP. It needs a program that was built with the feature `otlp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The URL of the collector; by `http`, `/v1/traces` and `/v1/metrics` are added to it. Default unset: nothing is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How the collector is spoken to. Default `http`.
    pub protocol: TelemetryProtocol,
    /// A file of further headers, `name: value` a line, for a collector that asks for a key; nobody but its owner and group may
    /// read it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// `service.name`. Default `headworks`.
    pub service_name: String,
    /// Further attributes of this process, as `name=value,name=value`. Default none.
    pub resource_attributes: String,
    /// How often the metrics are exported; zero turns that off. Default 60 s.
    #[serde(with = "units::duration")]
    pub metrics_every: Duration,
    /// Of so many batches that go well one is traced; of those that do not, all are. Zero turns traces off. Default 1.
    pub trace_one_in: u32,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: TelemetryProtocol::Http,
            headers_file: None,
            service_name: "headworks".into(),
            resource_attributes: String::new(),
            metrics_every: Duration::from_secs(60),
            trace_one_in: 1,
        }
    }
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TelemetryProtocol {
    /// Protobuf over HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

impl TelemetryConfig {
    /// The further attributes of this process, by name; what is none is left out.
    #[must_use]
    pub fn attributes(&self) -> Vec<(&str, &str)> {
        pairs(&self.resource_attributes).filter_map(Result::ok).collect()
    }
}

/// The parts of a text that should be `name=value`; an error is one that is not.
fn pairs(text: &str) -> impl Iterator<Item = Result<(&str, &str), &str>> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let pair = part.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        pair.filter(|(name, value)| !name.is_empty() && !value.is_empty()).ok_or(part)
    })
}

/// Whether the address is `http` or `https` and a host, and nothing that a path cannot be added to.
fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    !host.is_empty()
        && !host.starts_with(':')
        && !host.contains('@')
        && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte))
}

pub(super) fn check(telemetry: &TelemetryConfig) -> Result<(), Problem> {
    let TelemetryConfig { endpoint, protocol: _, headers_file, service_name, resource_attributes, .. } = telemetry;
    let problem = |key, what: String| Err(Problem::new(["telemetry", key], what));
    if let Some(endpoint) = endpoint {
        if !cfg!(feature = "otlp") {
            let what = "is set, but this headworks was built without OpenTelemetry: build it with `--features otlp`, or leave \
                        the key out";
            return problem("endpoint", what.into());
        }
        if !is_endpoint(endpoint) {
            let what = format!(
                "is {endpoint:?}, but must be the URL of a collector, like \"http://127.0.0.1:4318\" (4317 for grpc); what it \
                 asks for as a secret goes into a file that telemetry.headers_file names"
            );
            return problem("endpoint", what);
        }
    }
    let path = headers_file.as_ref().map(|path| path.to_str());
    if path.is_some_and(|path| path.is_none_or(|path| path.is_empty() || path.contains('\0'))) {
        return problem("headers_file", "must be the path of a file in UTF-8 that is not empty".into());
    }
    if service_name.is_empty() || service_name.len() > 256 {
        return problem("service_name", "must be from 1 to 256 bytes".into());
    }
    if let Some(Err(part)) = pairs(resource_attributes).find(Result::is_err) {
        let what = format!("has {part:?} in it, but must be like \"deployment.environment.name=prod,team=data\"");
        return problem("resource_attributes", what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_that_a_path_can_be_added_to() {
        for right in ["http://127.0.0.1:4318", "https://otel.example/base/", "http://[::1]:4317", "http://collector"] {
            assert!(is_endpoint(right), "{right}");
        }
        let wrong = [
            "",
            "collector:4317",
            "http://",
            "http:///x",
            "http://a b",
            "http://a?x=1",
            "https://key@a",
            "ftp://a",
            "http://:1",
        ];
        for wrong in wrong {
            assert!(!is_endpoint(wrong), "{wrong}");
        }
    }

    #[test]
    fn attributes_are_pairs_and_what_is_none_is_refused() {
        let with = |text: &str| TelemetryConfig { resource_attributes: text.into(), ..TelemetryConfig::default() };
        let two = with("deployment.environment.name=prod, team=a=b,");
        assert_eq!(two.attributes(), [("deployment.environment.name", "prod"), ("team", "a=b")]);
        assert!(check(&two).is_ok() && check(&with("")).is_ok());
        for wrong in ["prod", "=prod", "a=", "a=1,b"] {
            assert!(check(&with(wrong)).is_err(), "{wrong}");
        }
    }

    #[cfg(not(feature = "otlp"))]
    #[test]
    fn a_program_without_the_feature_says_so() {
        let endpoint = Some("http://127.0.0.1:4318".to_owned());
        let problem = check(&TelemetryConfig { endpoint, ..TelemetryConfig::default() }).unwrap_err();
        assert!(problem.what.contains("built without OpenTelemetry"), "{}", problem.what);
    }
}
