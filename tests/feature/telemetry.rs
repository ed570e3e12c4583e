//! OTLP to a collector that is not ours.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::rig::collector::{Collector, Span, attributes, point};
use crate::rig::prometheus::{samples, scrape};
use crate::rig::{Place, Process, lines, send};

/// A daemon that exports to this address; metrics at its end alone, where nothing else is set.
fn exporting(place: &Place, endpoint: &str) -> Command {
    let mut command = place.daemon();
    command
        .env("HEADWORKS__TELEMETRY__ENDPOINT", endpoint)
        .env("HEADWORKS__TELEMETRY__METRICS_EVERY", "1day")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "10ms");
    command
}

fn headers(place: &Place, text: &str, mode: u32) -> String {
    let path = place.write("headers", text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

fn is<'s>(name: &'s str, key: &'s str, value: &'s str) -> impl Fn(&Span) -> bool + 's {
    move |span| span.name == name && span.attributes.get(key).is_some_and(|told| told == value)
}

#[test]
fn a_collector_gets_a_trace_of_a_batch_with_each_attempt_and_what_befell_it() {
    let place = Place::new();
    let mut collector = Collector::start(&place, "http", 0, 0);
    let mut command = exporting(&place, &format!("http://{}/", collector.address()));
    command
        .env("HEADWORKS__TELEMETRY__HEADERS_FILE", headers(&place, "api-key: s3cret\n", 0o600))
        .env("HEADWORKS__TELEMETRY__SERVICE_NAME", "intake")
        .env("HEADWORKS__TELEMETRY__RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        // Of those that go well none, as good as.
        .env("HEADWORKS__TELEMETRY__TRACE_ONE_IN", "1000000")
        .env("HEADWORKS__STORE__BUSY_TIMEOUT", "20ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "200ms");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    send(to, &lines("calm", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(to, &lines("acme", 0..3));
    let failed = |span: &Span| span.name == "store store" && span.is_error;
    let mut spans = collector.spans(&[&failed]);
    lock.execute_batch("ROLLBACK").unwrap();
    spans.extend(collector.spans(&[&is("process", "headworks.tenant", "acme")]));
    daemon.terminated().succeeded();

    let batch = spans.iter().find(|span| span.name == "process").unwrap();
    for (key, value) in [
        ("messaging.system", "headworks"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "acme"),
        ("messaging.batch.message_count", "3"),
        ("headworks.outcome", "stored"),
    ] {
        assert_eq!(batch.attributes.get(key).map(String::as_str), Some(value), "{key} of {batch:?}");
    }
    assert!(!batch.is_error && batch.parent.is_none() && batch.events.contains(&"parked".to_owned()), "{batch:?}");
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "store store").collect();
    assert!(attempts.len() >= 2, "{spans:?}");
    for attempt in &attempts {
        assert_eq!((&attempt.trace, attempt.parent.as_ref()), (&batch.trace, Some(&batch.id)), "{attempt:?}");
        // The clock of the wall and that of the waits are two.
        assert!(
            attempt.start + 50_000_000 > batch.start && attempt.end <= batch.end + 50_000_000,
            "{attempt:?} {batch:?}"
        );
        let why = attempt.attributes.get("error.type").map(String::as_str);
        assert_eq!(why, attempt.is_error.then_some("store_unavailable"), "{attempt:?}");
    }
    assert_eq!(attempts.iter().filter(|attempt| !attempt.is_error).count(), 1, "the last one stored it");
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), spans.len(), "each has an id of its own: {spans:?}");
    assert!(spans.iter().all(|span| span.attributes["headworks.tenant"] == "acme"), "what went well is not chosen");
    let last = collector.says("metrics");
    assert_eq!(last["headers"]["api-key"], "s3cret");
    let resource = attributes(&last["export"]["resourceMetrics"][0]["resource"]["attributes"]);
    for (key, value) in [("service.name", "intake"), ("deployment.environment.name", "test")] {
        assert_eq!(resource.get(key).map(String::as_str), Some(value), "{resource:?}");
    }
    assert!(resource.contains_key("service.instance.id") && resource.contains_key("service.version"), "{resource:?}");
}

#[test]
fn the_metrics_are_those_of_the_scrape_under_the_names_that_a_collector_makes_the_same() {
    let place = Place::new();
    let mut collector = Collector::start(&place, "http", 0, 0);
    let mut command = exporting(&place, &format!("http://{}", collector.address()));
    command.env("HEADWORKS__TELEMETRY__METRICS_EVERY", "1s");
    let mut daemon = Process::spawn(&mut command);
    send(daemon.listens(), &[&lines("acme", 0..3)[..], b"no JSON\n"].concat());
    place.until("SELECT count(*) FROM events", 3);
    let metrics = collector.metrics("headworks_events_stored", "3");
    let (_, scraped) = scrape(&place, "*/*");
    let families = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let scraped_families: BTreeSet<_> = families.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    let with_values: BTreeSet<_> =
        samples(&scraped).into_keys().map(|sample| sample.split('{').next().unwrap().to_owned()).collect();
    let mut told = BTreeSet::new();
    for metric in &metrics {
        let unit = match metric["unit"].as_str() {
            Some("By") => "_bytes",
            Some("s") => "_seconds",
            unit => {
                assert_eq!(unit, None, "{metric}");
                ""
            }
        };
        let (ending, kind) = match () {
            () if metric["sum"]["isMonotonic"] == true => ("_total", "counter"),
            () if metric.get("histogram").is_some() => ("", "histogram"),
            () => ("", "gauge"),
        };
        assert!(metric["description"].as_str().is_some_and(|help| !help.is_empty()), "{metric}");
        told.insert((format!("{}{unit}{ending}", metric["name"].as_str().unwrap()), kind.to_owned()));
    }
    let has_value = |name: &str| with_values.contains(name) || with_values.contains(&format!("{name}_count"));
    let expected: BTreeSet<_> = scraped_families.into_iter().filter(|(name, _)| has_value(name)).collect();
    assert!(expected.len() > 60, "{expected:?}");
    assert_eq!(told, expected);
    let found = |name: &str| metrics.iter().find(|metric| metric["name"] == name).unwrap();
    let batches = found("headworks_batch_duration");
    assert_eq!(batches["histogram"]["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    let buckets = |key: &str| point(batches)[key].as_array().unwrap().len();
    assert_eq!(buckets("bucketCounts"), buckets("explicitBounds") + 1);
    let malformed = found("headworks_events_malformed")["sum"]["dataPoints"].as_array().unwrap();
    let of_json = malformed.iter().find(|point| attributes(&point["attributes"])["reason"] == "bad_json").unwrap();
    assert_eq!(of_json["asInt"], "1");
    daemon.terminated().succeeded();
}

/// All spans of 3 batches, and the last numbers, are there after a stop right behind the events.
fn flushed_at_the_end(protocol: &str) {
    let place = Place::new();
    let mut collector = Collector::start(&place, protocol, 0, 0);
    let endpoint = match protocol {
        "https" => format!("https://localhost:{}", collector.address().port()),
        _ => format!("http://{}", collector.address()),
    };
    let mut command = exporting(&place, &endpoint);
    command
        .env("HEADWORKS__TELEMETRY__PROTOCOL", if protocol == "grpc" { "grpc" } else { "http" })
        .env("HEADWORKS__TELEMETRY__HEADERS_FILE", headers(&place, "api-key: s3cret", 0o640))
        .env("SSL_CERT_FILE", place.path("ca.pem"))
        // The window stays open until the end.
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h");
    let mut daemon = Process::spawn(&mut command);
    let to = daemon.listens();
    ["a", "b", "c"].iter().for_each(|tenant| send(to, &lines(tenant, 0..3)));
    let ended = daemon.terminated().succeeded();
    assert!(!ended.err.contains("telemetry"), "{}", ended.err);
    let last = collector.says("metrics");
    assert_eq!(last["headers"]["api-key"], "s3cret");
    let of = |tenant| is("process", "headworks.tenant", tenant);
    let spans = collector.spans(&[&of("a"), &of("b"), &of("c")]);
    assert_eq!(spans.len(), 6, "each batch and its only attempt: {spans:?}");
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 3, "{spans:?}");
}

#[test]
fn a_stop_exports_what_is_left_over_http() {
    flushed_at_the_end("http");
}

#[test]
fn a_stop_exports_what_is_left_over_tls() {
    flushed_at_the_end("https");
}

#[test]
fn a_stop_exports_what_is_left_over_grpc() {
    flushed_at_the_end("grpc");
}

#[test]
fn a_collector_that_refuses_for_now_gets_the_same_spans_later_and_the_log_has_a_line_for_each_end() {
    for protocol in ["http", "grpc"] {
        let place = Place::new();
        let mut collector = Collector::start(&place, protocol, 0, 1);
        let mut command = exporting(&place, &format!("http://{}", collector.address()));
        command.env("HEADWORKS__TELEMETRY__PROTOCOL", protocol);
        let mut daemon = Process::spawn(&mut command);
        send(daemon.listens(), &lines("acme", 0..3));
        let began = "telemetry does not reach its collector (telemetry.endpoint); it is tried again, and what does not fit \
                     the queue until then is dropped and counted";
        let why = daemon.says(began)["why"].as_str().unwrap().to_owned();
        assert!(why.contains("503") || why.contains("gRPC status 14: come again"), "{why}");
        collector.says("refused");
        let spans = collector.spans(&[&is("process", "headworks.tenant", "acme")]);
        assert_eq!(spans.len(), 2, "{spans:?}");
        assert_eq!(daemon.says("telemetry reaches its collector again")["spans_dropped"], 0);
        let told = samples(&scrape(&place, "*/*").1);
        for (sample, value) in [
            ("headworks_telemetry_spans_total{outcome=\"exported\"}", 2.0),
            ("headworks_telemetry_spans_total{outcome=\"dropped\"}", 0.0),
            ("headworks_telemetry_exports_failed_total", 1.0),
        ] {
            assert_eq!(told.get(sample), Some(&value), "{sample}");
        }
        let ended = daemon.terminated().succeeded();
        assert_eq!(ended.err.matches("does not reach its collector").count(), 1, "{}", ended.err);
    }
}

#[test]
fn a_collector_that_never_answers_holds_up_neither_the_stream_nor_the_end() {
    let place = Place::new();
    // Who connects is never heard.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = exporting(&place, &format!("http://{}", deaf.local_addr().unwrap()));
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "1").env("HEADWORKS__DAEMON__DRAIN_DEADLINE", "4s");
    let mut daemon = Process::spawn(&mut command);
    // Two spans each.
    send(daemon.listens(), &lines("acme", 0..4_000));
    place.until("SELECT count(*) FROM events", 4_000);
    let dropped = samples(&scrape(&place, "*/*").1)["headworks_telemetry_spans_total{outcome=\"dropped\"}"];
    assert!(dropped >= 8_000.0 - 4096.0 - 2.0 * 512.0, "{dropped}");
    let ended = daemon.terminated().succeeded();
    assert!(ended.err.contains("not all telemetry could be exported before the end"), "{}", ended.err);
}

#[test]
fn what_cannot_be_used_is_told_before_anything_is_made() {
    let place = Place::new();
    let mut command = exporting(&place, "http://127.0.0.1:4318");
    command.env("HEADWORKS__TELEMETRY__HEADERS_FILE", headers(&place, "api-key: s3cret", 0o644));
    let ended = Process::spawn(&mut command).ended().with(78);
    assert!(ended.err.contains("(telemetry.headers_file): its mode is 0644"), "{}", ended.err);
    headers(&place, "s3cret", 0o600);
    let ended = Process::spawn(&mut command).ended().with(78);
    assert!(ended.err.contains("line 1 is no header") && !ended.err.contains("s3cret"), "{}", ended.err);
    let ended = Process::spawn(&mut exporting(&place, "collector:4317")).ended().with(78);
    assert!(ended.err.contains("telemetry.endpoint is \"collector:4317\", but must be the URL"), "{}", ended.err);
}
