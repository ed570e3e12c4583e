//! `/metrics` of a real daemon: right, valid by Prometheus' own tools, and what the rules, the dashboard and the README speak of.

use std::collections::{BTreeMap, BTreeSet};

use headworks::metrics::{Format, Metrics};
use headworks::{Framing, IngressSpec, Json, NullStore, System};

use crate::rig::prometheus::{names, promtool, samples, scrape, shipped};
use crate::rig::{Place, Process, lines, send};

/// A daemon with events of three tenants stored, two frames that are none, and events of a muted tenant.
fn busy(place: &Place) -> Process {
    let mut command = place.daemon();
    command.env("HEADWORKS__TENANTS__MUTE", "[\"quiet\"]").env("HEADWORKS__METRICS__MAX_TENANTS", "2");
    let mut daemon = Process::spawn(&mut command);
    let input =
        [&lines("acme", 0..3)[..], b"no JSON\n\n", &lines("b", 0..5), &lines("other", 0..7), &lines("quiet", 0..2)];
    send(daemon.listens(), &input.concat());
    place.until("SELECT count(*) FROM events", 15);
    place.until("SELECT count(*) FROM dead_letters", 2);
    daemon
}

/// The sum over all samples of a name, whatever their labels.
fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of = samples.iter().filter(|(sample, _)| sample.split('{').next() == Some(name));
    let values: Vec<_> = of.map(|(_, value)| *value).collect();
    assert!(!values.is_empty(), "there is no {name}");
    values.iter().sum()
}

#[test]
fn the_numbers_add_up_and_promtool_finds_nothing_wrong_with_them() {
    let place = Place::new();
    let daemon = busy(&place);
    let (head, text) = scrape(&place, "*/*");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    promtool(&["check", "metrics"], &text);
    let told = samples(&text);
    let is = |name: &str| sum(&told, name);
    let answers = ["accepted", "duplicate", "muted", "throttled", "rejected", "malformed"];
    let frames: f64 = answers.iter().map(|answer| is(&format!("headworks_events_{answer}_total"))).sum();
    assert_eq!((is("headworks_events_received_total"), frames), (19.0, 19.0));
    let outcomes = ["stored_total", "dead_lettered_total", "shed_total", "discarded_total", "in_flight"];
    let events: f64 = outcomes.iter().map(|outcome| is(&format!("headworks_events_{outcome}"))).sum();
    assert_eq!((is("headworks_events_accepted_total"), events), (15.0, 15.0));
    for (sample, value) in [
        ("headworks_events_stored_total", 15.0),
        ("headworks_events_muted_total", 2.0),
        ("headworks_events_malformed_total{reason=\"bad_json\"}", 1.0),
        ("headworks_events_malformed_total{reason=\"empty\"}", 1.0),
        ("headworks_source_received_total{source=\"tcp\"}", 19.0),
        ("headworks_dead_letters_kept", 2.0),
        ("headworks_tenants_muted", 1.0),
        ("headworks_budget_limit_bytes", (16 << 20) as f64),
        ("headworks_journal_failing", 0.0),
        ("headworks_hung_seconds", 0.0),
        // The two busiest, one of which is really named so; and the sum of the others.
        ("headworks_tenant_stored_total{tenant=\"_other\"}", 7.0),
        ("headworks_tenant_stored_total{tenant=\"b\"}", 5.0),
        ("headworks_tenant_stored_total{tenant=\"other\"}", 3.0),
        ("headworks_tenant_muted_total{tenant=\"other\"}", 2.0),
    ] {
        assert_eq!(told.get(sample), Some(&value), "{sample}\n{text}");
    }
    assert_eq!(is("headworks_tenants"), 4.0);
    assert!(told.contains_key(&format!("headworks_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))));
    let batches = is("headworks_batches_stored_total");
    assert_eq!(is("headworks_batch_duration_seconds_count"), batches);
    assert_eq!(is("headworks_store_call_duration_seconds_count"), batches);
    assert_eq!((is("headworks_window_events_count"), is("headworks_window_events_sum")), (batches, 15.0));
    assert!(is("headworks_journal_commit_duration_seconds_count") > 0.0 && is("headworks_journal_bytes") > 0.0);
    assert!(is("process_resident_memory_bytes") > 1e6 && is("process_start_time_seconds") > 1.7e9);
    daemon.terminated().succeeded();
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    let place = Place::new();
    let daemon = busy(&place);
    let (head, text) = scrape(&place, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE headworks_events_stored counter\n"), "{text}");
    assert!(text.contains("# UNIT headworks_batch_duration_seconds seconds\n"), "{text}");
    assert_eq!(samples(&text)["headworks_events_stored_total"], 15.0);
    daemon.terminated().succeeded();
}

/// Words that look like one of our metrics.
fn spoken_of(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| word.starts_with("headworks_") || word.starts_with("process_");
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn rules_dashboard_and_readme_speak_of_metrics_that_are_there_and_the_readme_of_all() {
    let place = Place::new();
    let daemon = busy(&place);
    let (_, text) = scrape(&place, "");
    daemon.terminated().succeeded();
    let there = names(&text);
    for file in ["deploy/prometheus/headworks.rules.yml", "deploy/grafana/headworks.json"] {
        let spoken_of = spoken_of(&shipped(file));
        assert!(spoken_of.len() > 10, "{file}: {spoken_of:?}");
        let missing: Vec<_> = spoken_of.difference(&there).collect();
        assert!(missing.is_empty(), "{file} speaks of {missing:?}, which are not there");
    }
    let readme = shipped("README.md");
    let (_, section) = readme.split_once("### Metrics").unwrap();
    let told = spoken_of(section.split("\n## ").next().unwrap());
    let families: BTreeSet<_> =
        text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect();
    let untold: Vec<_> = families.difference(&told).collect();
    assert!(untold.is_empty(), "the README does not tell of {untold:?}");
    let stale: Vec<_> = told.iter().filter(|name| !families.contains(*name) && !there.contains(*name)).collect();
    assert!(stale.is_empty(), "the README tells of {stale:?}, which are not there");
}

#[test]
fn the_rules_are_valid() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/headworks.rules.yml");
    promtool(&["check", "rules", "--lint-fatal", rules], "");
}

#[test]
fn names_from_outside_are_inert() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let evil = ["../../etc", "<script>", "a\\\"} 1\\nheadworks_failed 1\\n#", "'; DROP TABLE events; --", "\\u0000"];
    let bad: Vec<u8> = evil.iter().flat_map(|id| format!("{{\"tenant\":\"{id}\"}}\n").into_bytes()).collect();
    send(daemon.listens(), &[&bad[..], &lines("acme", 0..1)].concat());
    place.until("SELECT count(*) FROM events", 1);
    let (_, text) = scrape(&place, "");
    promtool(&["check", "metrics"], &text);
    let told = samples(&text);
    assert_eq!(told["headworks_events_malformed_total{reason=\"bad_tenant\"}"], 5.0);
    assert_eq!(told["headworks_failed"], 0.0);
    assert!(!text.contains("script") && !text.contains("DROP"), "{text}");
    daemon.terminated().succeeded();
}

/// The bound, with the default of series; the time is for whoever looks: `cargo test -- --nocapture`.
#[tokio::test]
async fn ten_thousand_tenants_take_less_than_a_megabyte() {
    const TENANTS: usize = 10_000;
    let system = System::builder().store(NullStore::default()).max_tenants(TENANTS).start().unwrap();
    let ingress = system.ingress(IngressSpec::new("test", Framing::lines(), Json::new())).await.unwrap();
    // The longest names there may be, a thousand of them a little busier than those before, and the last one the busiest.
    let name = |n: usize| format!("{n:->64}").replacen('-', "t", 1);
    for from in (0..TENANTS).step_by(100) {
        ingress
            .feed(
                (from..from + 100)
                    .flat_map(|n| lines(&name(n), 0..1 + n / 1_000 + n / (TENANTS - 1)))
                    .collect::<Vec<_>>(),
            )
            .await
            .unwrap();
    }
    let metrics = Metrics::new(system.clone()).process();
    let began = std::time::Instant::now();
    let text = metrics.text(Format::Prometheus);
    println!("{} bytes within {:?}", text.len(), began.elapsed());
    assert!(text.len() < 1 << 20, "{}", text.len());
    promtool(&["check", "metrics"], &text);
    let told = samples(&text);
    let with_series = told.keys().filter(|sample| sample.starts_with("headworks_tenant_received_total{")).count();
    assert_eq!(with_series, Metrics::MAX_TENANTS + 1);
    assert_eq!(sum(&told, "headworks_tenant_received_total"), sum(&told, "headworks_events_received_total"));
    assert_eq!(told[&format!("headworks_tenant_received_total{{tenant=\"{}\"}}", name(TENANTS - 1))], 11.0);
    system.drain(crate::rig::DEADLINE).await;
}
