use std::time::Duration;

use headworks::config::{TelemetryConfig, TelemetryProtocol};

/// What is exported, and where to; nothing where nothing is.
pub(super) fn telemetry(telemetry: &TelemetryConfig) -> Option<(&'static str, String)> {
    let endpoint = telemetry.endpoint.as_ref()?;
    let traces = match telemetry.trace_one_in {
        0 => None,
        1 => Some("a trace of every batch".to_owned()),
        many => Some(format!("a trace of one batch in {many} and of every one that fails")),
    };
    let metrics = (telemetry.metrics_every > Duration::ZERO)
        .then(|| format!("metrics every {}", humantime::format_duration(telemetry.metrics_every)));
    let what: Vec<_> = traces.into_iter().chain(metrics).collect();
    if what.is_empty() {
        return Some(("telemetry", "neither traces nor metrics".to_owned()));
    }
    let by = match telemetry.protocol {
        TelemetryProtocol::Grpc => "OTLP over gRPC",
        _ => "OTLP over HTTP",
    };
    Some(("telemetry", format!("{} to {endpoint}, {by}", what.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_told_and_where_to() {
        let told = |config: TelemetryConfig| super::telemetry(&config).map(|(_, told)| told);
        assert_eq!(told(TelemetryConfig::default()), None);
        let config = TelemetryConfig { endpoint: Some("http://c:4318".into()), ..TelemetryConfig::default() };
        let expected = "a trace of every batch, metrics every 1m to http://c:4318, OTLP over HTTP";
        assert_eq!(told(config.clone()).unwrap(), expected);
        let some = TelemetryConfig {
            trace_one_in: 10,
            metrics_every: Duration::ZERO,
            protocol: TelemetryProtocol::Grpc,
            ..config.clone()
        };
        let expected = "a trace of one batch in 10 and of every one that fails to http://c:4318, OTLP over gRPC";
        assert_eq!(told(some.clone()).unwrap(), expected);
        assert_eq!(told(TelemetryConfig { trace_one_in: 0, ..some }).unwrap(), "neither traces nor metrics");
    }
}
