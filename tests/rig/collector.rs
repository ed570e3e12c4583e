//! A collector that is not ours: it decodes OTLP with what PyPI has for that, in an environment that is kept beside the build.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::python::environment;
use super::{Place, Process};

/// Of the tests' own: what decodes, what speaks gRPC, and what makes certificates.
const PACKAGES: [&str; 3] = ["opentelemetry-proto==1.45.2", "grpcio==1.85.1", "trustme==1.2.1"];

/// A collector that runs.
pub(crate) struct Collector {
    process: Process,
    address: SocketAddr,
}

/// A span, as far as tests ask.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    pub(crate) is_error: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) events: Vec<String>,
}

impl Collector {
    /// Speaks `http`, `https` or `grpc`; port 0 is any that is free. The first so many exports of traces are refused.
    pub(crate) fn start(place: &Place, protocol: &str, port: u16, refusals: usize) -> Self {
        let mut command = Command::new(environment(&PACKAGES).join("python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/collector/collector.py"));
        command.args([protocol, &port.to_string(), &refusals.to_string()]).current_dir(place.path(""));
        let mut process = Process::spawn(&mut command);
        let address = process.says("listening")["address"].as_str().unwrap().parse().unwrap();
        Self { process, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it says this.
    #[track_caller]
    pub(crate) fn says(&mut self, message: &str) -> Value {
        self.process.says(message)
    }

    /// Takes spans in until there is one for each of the wishes; all that came.
    #[track_caller]
    pub(crate) fn spans(&mut self, wishes: &[&dyn Fn(&Span) -> bool]) -> Vec<Span> {
        let mut all: Vec<Span> = vec![];
        while !wishes.iter().all(|wish| all.iter().any(wish)) {
            all.extend(spans(&self.says("traces")));
        }
        all
    }

    /// Takes metrics in until a sum, or a gauge, has this value; those that came with it.
    #[track_caller]
    pub(crate) fn metrics(&mut self, name: &str, value: &str) -> Vec<Value> {
        loop {
            let metrics = metrics(&self.says("metrics"));
            let is = |metric: &&Value| metric["name"] == name;
            if metrics.iter().find(is).is_some_and(|metric| point(metric)["asInt"] == value) {
                return metrics;
            }
        }
    }
}

/// The first point of a metric.
pub(crate) fn point(metric: &Value) -> &Value {
    ["sum", "gauge", "histogram"].iter().find_map(|kind| metric[kind]["dataPoints"].get(0)).unwrap_or(&Value::Null)
}

pub(crate) fn metrics(entry: &Value) -> Vec<Value> {
    entry["export"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap().clone()
}

/// By name, whatever type of value.
pub(crate) fn attributes(list: &Value) -> BTreeMap<String, String> {
    let each = list.as_array().into_iter().flatten();
    let value = |value: &Value| match value.as_object().unwrap().values().next().unwrap() {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    each.map(|attribute| (attribute["key"].as_str().unwrap().to_owned(), value(&attribute["value"]))).collect()
}

pub(crate) fn spans(entry: &Value) -> Vec<Span> {
    let spans = entry["export"]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let time = |value: &Value| value.as_str().unwrap().parse().unwrap();
    let span = |span: &Value| Span {
        name: text(&span["name"]),
        trace: text(&span["traceId"]),
        id: text(&span["spanId"]),
        parent: span["parentSpanId"].as_str().map(str::to_owned),
        is_error: span["status"]["code"] == "STATUS_CODE_ERROR",
        start: time(&span["startTimeUnixNano"]),
        end: time(&span["endTimeUnixNano"]),
        attributes: attributes(&span["attributes"]),
        events: span["events"].as_array().into_iter().flatten().map(|event| text(&event["name"])).collect(),
    };
    spans.iter().map(span).collect()
}
