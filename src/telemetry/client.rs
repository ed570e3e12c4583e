use std::fmt;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::crypto::ring;

use crate::config::TelemetryProtocol;
use crate::text::chain;

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        })
    }
}

/// Why an export failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: String,
    /// Whether the same may go through later, and after what time the collector wants it at the earliest.
    pub(super) again: Option<Duration>,
}

impl Failed {
    fn later(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: Some(Duration::ZERO) }
    }

    fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: None }
    }
}

/// The connection to a collector, made when it is needed.
pub(super) struct Client {
    client: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    traces: Uri,
    metrics: Uri,
    headers: HeaderMap,
    protocol: TelemetryProtocol,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("traces", &self.traces).finish_non_exhaustive()
    }
}

/// An answer is a few bytes.
const LONGEST_ANSWER: usize = 64 << 10;

impl Client {
    /// To the collector at `endpoint`, each request with these headers.
    pub(super) fn new(endpoint: &str, protocol: TelemetryProtocol, headers: HeaderMap) -> Result<Self, String> {
        let base = endpoint.trim_end_matches('/');
        let uri = |path: &str| format!("{base}{path}").parse::<Uri>().map_err(|why| format!("{endpoint}: {why}"));
        let [traces, metrics] = match protocol {
            TelemetryProtocol::Grpc => [
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            ],
            TelemetryProtocol::Http => ["/v1/traces", "/v1/metrics"],
        };
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?;
        let tls = if endpoint.starts_with("https:") {
            tls.with_native_roots().map_err(|why| format!("the system's certificates cannot be read: {why}"))?
        } else {
            tls.with_root_certificates(rustls::RootCertStore::empty())
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth()).https_or_http();
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(1);
        let client = match protocol {
            TelemetryProtocol::Grpc => builder.http2_only(true).build(connector.enable_http2().build()),
            TelemetryProtocol::Http => builder.build(connector.enable_http1().build()),
        };
        Ok(Self { client, traces: uri(traces)?, metrics: uri(metrics)?, headers, protocol })
    }

    /// Sends a message, and gives back the answer to it.
    pub(super) async fn export(&self, signal: Signal, message: Vec<u8>) -> Result<Bytes, Failed> {
        let uri = match signal {
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
        };
        let (kind, body) = match self.protocol {
            TelemetryProtocol::Grpc => ("application/grpc", framed(&message)?),
            TelemetryProtocol::Http => ("application/x-protobuf", message.into()),
        };
        let mut request =
            Request::post(uri.clone()).body(Full::new(body)).map_err(|why| Failed::for_good(why.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("headworks/", env!("CARGO_PKG_VERSION"))));
        if self.protocol == TelemetryProtocol::Grpc {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let answer = self.client.request(request).await.map_err(|why| Failed::later(chain(&why)))?;
        let told = match self.protocol {
            TelemetryProtocol::Grpc => of_grpc(answer).await,
            TelemetryProtocol::Http => of_http(answer).await,
        };
        told.map_err(|failed| Failed { why: format!("{uri} {}", failed.why), ..failed })
    }
}

/// A message as gRPC has it: not compressed, behind its length.
fn framed(message: &[u8]) -> Result<Bytes, Failed> {
    let length = u32::try_from(message.len()).map_err(|_| Failed::for_good("a message of more than 4 GiB"))?;
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    Ok(framed.freeze())
}

async fn of_http(answer: Response<Incoming>) -> Result<Bytes, Failed> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map(|body| body.to_bytes());
    match head.status {
        // What it says beside is of no weight.
        status if status.is_success() => Ok(body.unwrap_or_default()),
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => {
            let after = head.headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
            Err(Failed { why: format!("answers {status}"), again: Some(Duration::from_secs(after.unwrap_or(0))) })
        }
        status => Err(Failed::for_good(format!("answers {status}"))),
    }
}

async fn of_grpc(answer: Response<Incoming>) -> Result<Bytes, Failed> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(Failed::later(format!("answers {}", head.status)));
    }
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|why| Failed::later(why.to_string()))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let told = |name: &str| trailers.get(name).or_else(|| head.headers.get(name)).and_then(|value| value.to_str().ok());
    let status = told("grpc-status").and_then(|status| status.parse::<u32>().ok());
    let why =
        || format!("answers with the gRPC status {}: {}", status.unwrap_or(2), told("grpc-message").unwrap_or(""));
    match status {
        Some(0) => Ok(body.to_bytes().get(5..).map(Bytes::copy_from_slice).unwrap_or_default()),
        // Cancelled, deadline, exhausted, aborted, out of range, unavailable, data loss: by the specification of OTLP.
        Some(1 | 4 | 8 | 10 | 11 | 14 | 15) => Err(Failed::later(why())),
        _ => Err(Failed::for_good(why())),
    }
}

/// The headers in a text: `name: value` a line. Nothing shows their values.
pub(super) fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (nth, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let header = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        });
        // Not what it says: that may be a secret.
        let (name, value) =
            header.ok_or_else(|| format!("line {} is no header: one reads like \"api-key: SECRET\"", nth + 1))?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_line_by_line_and_an_error_does_not_tell_the_secret() {
        let read = headers("api-key: s3cret\n\nX-Scope-OrgID:  7 \r\n").unwrap();
        assert_eq!((read["api-key"].as_bytes(), read["x-scope-orgid"].as_bytes()), (&b"s3cret"[..], &b"7"[..]));
        assert!(!format!("{read:?}").contains("s3cret"));
        let why = headers("a: b\ns3cret").unwrap_err();
        assert!(why.starts_with("line 2 is no header") && !why.contains("s3cret"), "{why}");
    }
}
