//! The store behind a webhook, against a server that is not ours.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use headworks::store::webhook::{Compression, OpenError};
use headworks::store::{WebhookOptions, WebhookStore};
use headworks::{Attempt, Storage, StorageError, TenantId, conformance};

use super::crash_acks::{self, MORE_POINTS, POINTS, killed};
use crate::rig::batches::{batch, put};
use crate::rig::crash::Daemon;
use crate::rig::webhook::{Receiver, SECRET, database, stored};
use crate::rig::{Place, Process, lines, send, sorted, until_metric};

/// The file with the secret, for its owner alone.
fn secret(place: &Place, text: &str) -> std::path::PathBuf {
    let path = place.write("secret", text);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn options(place: &Place, receiver: &Receiver) -> WebhookOptions {
    let mut options = WebhookOptions::at(receiver.url());
    options.rollback_url = Some(receiver.rollback_url());
    options.secret_file = Some(secret(place, SECRET));
    options.request_timeout = Duration::from_secs(60);
    options
}

fn bodies(place: &Place, tenant: &str) -> Vec<Vec<u8>> {
    stored(place).remove(tenant).unwrap_or_default()
}

#[tokio::test]
async fn a_store_behind_a_webhook_keeps_the_contract_however_its_bodies_are_compressed() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let place = Place::new();
        let receiver = Receiver::start(&place, SECRET);
        let make = async || {
            // Each has a server of its own, as far as it can tell.
            if let Some(database) = database(&place) {
                database.execute_batch("DELETE FROM batches; DELETE FROM events").unwrap();
            }
            let mut options = options(&place, &receiver);
            options.compression = compression;
            WebhookStore::open(options).unwrap()
        };
        let bodies = async |_: &WebhookStore, tenant: &TenantId| bodies(&place, tenant.as_str());
        conformance::storage(make, bodies).await;
    }
}

#[tokio::test]
async fn a_request_says_whose_batch_it_is_and_is_signed_and_compressed() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, SECRET);
    let mut options = options(&place, &receiver);
    options.compression = Compression::Zstd;
    // The old secret and the new one, while they change.
    options.secret_file = Some(secret(&place, &format!("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n{SECRET}\n")));
    let store = WebhookStore::open(options).unwrap();
    let body = format!("{{\"text\":\"{}\"}}", "again and ".repeat(1000));
    put(&store, &batch("a.b", 7, &[&body, "{}"]), 3).await.unwrap();
    let kept = receiver.says("kept");
    let header = |name: &str| kept["headers"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(header("idempotency-key"), "0000000000000001/a.b/7");
    assert_eq!(header("webhook-id"), "0000000000000001/a%2Eb/7");
    assert_eq!(
        [header("headworks-tenant"), header("headworks-attempt"), header("headworks-events")],
        ["a.b", "3", "2"]
    );
    assert_eq!(header("webhook-signature").matches("v1,").count(), 2);
    assert_eq!(header("content-encoding"), "zstd");
    assert!(kept["bytes"].as_u64().unwrap() < 200, "{kept}");
    assert_eq!(bodies(&place, "a.b"), [body.as_bytes(), b"{}"]);
}

#[tokio::test]
async fn a_wrong_secret_is_an_outage_that_ends_when_the_file_has_the_right_one() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, SECRET);
    let mut options = options(&place, &receiver);
    options.secret_file = Some(secret(&place, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    let store = WebhookStore::open(options).unwrap();
    let outage = put(&store, &batch("acme", 1, &["{}"]), 1).await.unwrap_err();
    let StorageError::Unavailable { detail, .. } = &outage else { panic!("{outage:?}") };
    assert!(detail.contains("answers 401 Unauthorized; check the secret in secret_file"), "{detail}");
    assert!(detail.contains("it says \"who are you?\\u{1b}[31m\""), "{detail}");
    assert!(receiver.says("refused")["why"].as_str().unwrap().contains("No matching signature"));
    secret(&place, SECRET);
    put(&store, &batch("acme", 1, &["{}"]), 1).await.unwrap();
    std::fs::remove_file(place.path("secret")).unwrap();
    let outage = put(&store, &batch("acme", 2, &["{}"]), 1).await.unwrap_err();
    assert!(
        matches!(&outage, StorageError::Unavailable { detail, .. } if detail.contains("cannot read the secret")),
        "{outage:?}"
    );
}

#[tokio::test]
async fn what_an_answer_is_decides_what_becomes_of_the_batch() {
    let place = Place::new();
    let receiver = Receiver::start(&place, "");
    let store = WebhookStore::open(options(&place, &receiver)).unwrap();
    let long = "x".repeat(1 << 20);
    let mut seq = 0;
    for (status, class) in [
        (400, "permanent"),
        (422, "permanent"),
        (500, "transient"),
        (502, "transient"),
        (404, "unavailable"),
        (307, "unavailable"),
    ] {
        let elsewhere = receiver.rollback_url();
        let answer =
            format!("{{\"status\":{status},\"headers\":{{\"location\":\"{elsewhere}\"}},\"body\":\"{long}\"}}");
        receiver.mode(&format!("{{\"answers\":[{answer}]}}"));
        seq += 1;
        let error = put(&store, &batch("acme", seq, &["{}"]), 1).await.unwrap_err();
        let found = match &error {
            StorageError::Permanent { .. } => "permanent",
            StorageError::Transient { .. } => "transient",
            StorageError::Unavailable { .. } => "unavailable",
            _ => "other",
        };
        assert_eq!(found, class, "{status}: {error:?}");
        assert!(error.to_string().contains(&status.to_string()) && error.to_string().len() < 1000, "{error}");
        put(&store, &batch("acme", seq, &["{}"]), 2).await.unwrap();
    }
    assert_eq!(bodies(&place, "acme").len(), 6);
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is_and_no_longer_than_it_asked_for() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, "");
    let store = WebhookStore::open(options(&place, &receiver)).unwrap();
    for (status, holds_others) in [(429, false), (503, true)] {
        receiver.mode(&format!("{{\"answers\":[{{\"status\":{status},\"headers\":{{\"retry-after\":\"4\"}}}}]}}"));
        let (began, seq) = (Instant::now(), u64::from(status == 503) + 1);
        let outage = put(&store, &batch("acme", seq, &["{}"]), 1).await.unwrap_err();
        assert!(matches!(outage, StorageError::Unavailable { .. }), "{outage:?}");
        receiver.says("answered");
        let held = put(&store, &batch("acme", seq, &["{}"]), 1).await.unwrap_err();
        assert!(held.to_string().contains("asked to be left alone, for another"), "{held}");
        let other = put(&store, &batch("zen", seq, &["{}"]), 1).await;
        assert_eq!(other.is_err(), holds_others, "{other:?}");
        // Until the time is over: what is asked meanwhile is not sent.
        while put(&store, &batch("acme", seq, &["{}"]), 1).await.is_err() {
            assert!(began.elapsed() < crate::rig::DEADLINE);
            tokio::task::yield_now().await;
        }
        assert!(began.elapsed() >= Duration::from_secs(4));
    }
}

#[test]
fn a_tenant_that_is_resumed_has_a_server_asked_at_once_that_wanted_to_be_left_alone_for_an_hour() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, "");
    receiver.mode("{\"answers\":[{\"status\":503,\"headers\":{\"retry-after\":\"3600\"}}]}");
    let mut command = place.daemon();
    command.env("HEADWORKS__STORE__TYPE", "webhook").env("HEADWORKS__STORE__URL", receiver.url());
    // It asks soon, unless it is asked not to.
    command
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "1ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "1ms");
    let mut process = Process::spawn(&mut command);
    send(process.listens(), &lines("acme", 0..5));
    receiver.says("answered");
    until_metric(&place, "headworks_tenants{status=\"parked\"}", 1);
    let explained = place.run(&["explain", "acme", "--data", "data"]).succeeded().text();
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    let why = "it asks to be left alone for 1h (`headworks tenants resume acme` has it asked before)";
    assert!(explained.contains("; the store is asked again at ") && explained.contains(", in 59 min"), "{explained}");
    assert!(explained.contains("attempt 0 of ") && explained.contains(why), "{explained}");
    let told = place.run(&["tenants", "resume", "acme", "--data", "data"]).succeeded();
    assert!(told.text().contains("its store had asked to be left alone, and is asked again now"), "{}", told.text());
    until_metric(&place, "headworks_events_stored_total", 5);
    assert_eq!(bodies(&place, "acme").len(), 5);
    // Nothing was tried while it was left alone.
    let receiver = database(&place).unwrap();
    assert_eq!(receiver.query_row("SELECT attempt FROM batches", [], |row| row.get::<_, i64>(0)), Ok(2));
    process.terminated().succeeded();
}

#[test]
fn a_server_that_cannot_be_connected_to_is_not_ready_before_anything_is_sent_to_it() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, "");
    receiver.kill();
    let mut command = place.daemon();
    command.env("HEADWORKS__STORE__TYPE", "webhook").env("HEADWORKS__STORE__URL", receiver.url());
    let mut process = Process::spawn(&mut command);
    process.listens();
    let told = place.run(&["ready", "--data", "data"]).with(1).text();
    assert!(told.contains("the store cannot be reached: cannot connect to http://127.0.0.1:"), "{told}");
    receiver.restart();
    let began = Instant::now();
    while place.run(&["ready", "--data", "data"]).code != Some(0) {
        assert!(began.elapsed() < crate::rig::DEADLINE);
    }
    process.terminated().succeeded();
}

#[tokio::test]
async fn a_server_that_is_silent_costs_an_attempt_and_what_it_took_in_vain_is_there_once() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, "");
    let mut options = options(&place, &receiver);
    options.request_timeout = Duration::from_millis(200);
    let store = WebhookStore::open(options).unwrap();
    receiver.mode("{\"hang\":true}");
    let late = put(&store, &batch("acme", 1, &["{}"]), 1).await.unwrap_err();
    assert!(
        matches!(&late, StorageError::Transient { detail, .. } if detail.contains("did not answer within 200ms")),
        "{late:?}"
    );
    receiver.says("hanging");
    receiver.mode("{\"lose\":1}");
    let lost = put(&store, &batch("acme", 1, &["{}"]), 2).await.unwrap_err();
    assert!(matches!(lost, StorageError::Transient { .. }), "{lost:?}");
    receiver.says("lost");
    let mut options = self::options(&place, &receiver);
    options.rollback_url = None;
    let store = WebhookStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &["{}"]), 3).await.unwrap();
    assert_eq!(bodies(&place, "acme").len(), 1);
    receiver.kill();
    let away = put(&store, &batch("acme", 2, &["{}"]), 1).await.unwrap_err();
    // The connection that was kept may have been cut in the middle of it.
    assert!(!matches!(away, StorageError::Permanent { .. }), "{away:?}");
    let away = put(&store, &batch("acme", 2, &["{}"]), 1).await.unwrap_err();
    assert!(matches!(away, StorageError::Unavailable { .. }), "{away:?}");
}

#[tokio::test]
async fn without_a_rollback_url_what_was_refused_needs_none_and_what_may_be_there_cannot_be_taken_back() {
    let place = Place::new();
    let receiver = Receiver::start(&place, "");
    let mut options = options(&place, &receiver);
    options.rollback_url = None;
    let store = WebhookStore::open(options).unwrap();
    let [refused, stored, lost] = [1, 2, 3].map(|seq| batch("acme", seq, &["{}"]));
    receiver.mode("{\"answers\":[{\"status\":422}]}");
    put(&store, &refused, 1).await.unwrap_err();
    store.rollback(refused.id(), Attempt(1)).await.unwrap();
    put(&store, &stored, 1).await.unwrap();
    receiver.mode("{\"lose\":1}");
    put(&store, &lost, 1).await.unwrap_err();
    receiver.mode("{\"answers\":[{\"status\":422}]}");
    put(&store, &lost, 2).await.unwrap_err();
    for batch in [&stored, &lost] {
        let why = store.rollback(batch.id(), Attempt(2)).await.unwrap_err();
        assert!(
            matches!(&why, StorageError::Permanent { detail } if detail.contains("without a rollback_url")),
            "{why:?}"
        );
    }
}

#[tokio::test]
async fn over_tls_a_server_is_trusted_by_the_certificates_of_the_file_and_no_other() {
    let (place, other) = (Place::new(), Place::new());
    let receiver = Receiver::with_tls(&place, SECRET);
    drop(Receiver::with_tls(&other, SECRET));
    let mut options = WebhookOptions::at(format!("https://{}/batches", receiver.address));
    options.secret_file = Some(secret(&place, SECRET));
    options.ca_file = Some(place.path("ca.pem"));
    put(&WebhookStore::open(options.clone()).unwrap(), &batch("acme", 1, &["{}"]), 1).await.unwrap();
    assert_eq!(bodies(&place, "acme").len(), 1);
    options.ca_file = Some(other.path("ca.pem"));
    let refused = put(&WebhookStore::open(options.clone()).unwrap(), &batch("acme", 2, &["{}"]), 1).await.unwrap_err();
    assert!(
        matches!(&refused, StorageError::Unavailable { detail, .. } if detail.contains("certificate")),
        "{refused:?}"
    );
    options.ca_file = Some(place.path("secret"));
    let refused = WebhookStore::open(options).unwrap_err();
    assert!(matches!(&refused, OpenError::Options(why) if why.contains("ca_file")), "{refused:?}");
}

fn daemon<'p>(daemon: Daemon<'p>, place: &Place, receiver: &Receiver, store: &str) -> Daemon<'p> {
    daemon
        .with(&format!("{store}.type"), "webhook")
        .with(&format!("{store}.url"), &receiver.url())
        .with(&format!("{store}.rollback_url"), &receiver.rollback_url())
        .with(&format!("{store}.secret_file"), secret(place, SECRET).to_str().unwrap())
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.retry.cap", "200ms")
}

#[track_caller]
fn assert_all_there(place: &Place, input: &[u8]) {
    let (expected, stored) = (sorted(input).0, stored(place));
    let counts = |of: &crate::rig::Bodies| of.iter().map(|(t, of)| format!("{t} {}", of.len())).collect::<Vec<_>>();
    let dead = place.number("SELECT count(*) FROM dead_letters");
    let (there, wanted) = (counts(&stored), counts(&expected));
    assert!(
        stored == expected,
        "every event is there once and in order: {there:?} of {wanted:?}, and {dead} dead letters"
    );
}

#[test]
fn while_its_server_is_killed_slow_and_refusing_the_daemon_takes_events_in_and_each_is_there_once_and_in_order() {
    let place = Place::new();
    let mut receiver = Receiver::start(&place, SECRET);
    let daemon = daemon(Daemon::new(&place), &place, &receiver, "store")
        .with("tenants.defaults.window.max_events", "50")
        .with("tenants.defaults.window.max_age", "50ms")
        .with("store.compression", "gzip")
        .with("store.request_timeout", "1s")
        // All that the server loses and refuses may fall upon one batch.
        .with("tenants.defaults.retry.attempts", "50");
    let (process, address) = daemon.start();
    let input = place.generated(&["--events", "20000", "--tenants", "4", "--seed", "5"]);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(address, &input));
        for _ in 0..3 {
            receiver.says("kept");
            receiver.kill();
            receiver.restart();
        }
        for mode in [
            "{\"lose\":5}",
            "{\"answers\":[{\"status\":500},{\"status\":429,\"headers\":{\"retry-after\":\"1\"}},{\"status\":503}]}",
        ] {
            receiver.mode(mode);
            receiver.says("kept");
        }
        sender.join().unwrap();
    });
    let audit = place.run(&["audit", "--data", "data"]).succeeded().text();
    assert!(audit.contains("what is stored in store: it is a webhook"), "{audit}");
    process.terminated().succeeded();
    assert_all_there(&place, &input);
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
    assert_eq!(place.run(&["audit", "--data", "data"]).code, Some(0));
    let refused = place.run(&["query", "acme", "--data", "data"]);
    assert!(refused.code != Some(0) && refused.err.contains("cannot be read back"), "{}", refused.err);
}

#[test]
fn an_event_that_the_server_refuses_is_found_and_becomes_a_dead_letter_and_all_others_are_there() {
    let place = Place::new();
    let receiver = Receiver::start(&place, SECRET);
    receiver.mode("{\"refuse\":\"\\\"n\\\":77}\"}");
    // What was refused is certainly not there: nothing has to be taken back.
    let daemon = Daemon::new(&place)
        .with("store.type", "webhook")
        .with("store.url", &receiver.url())
        .with("store.secret_file", secret(&place, SECRET).to_str().unwrap());
    let (process, address) = daemon.start();
    send(address, &lines("acme", 0..400));
    process.terminated().succeeded();
    assert_all_there(&place, &[lines("acme", 0..77), lines("acme", 78..400)].concat());
    assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE kind = 'event'"), 1);
    assert_eq!(place.json(&["uncompensated", "--data", "data", "--json"]).as_array().map(Vec::len), Some(0));
    assert_eq!(place.run(&["audit", "--data", "data"]).code, Some(0));
}

#[test]
fn killed_a_hundred_times_over_a_webhook_all_that_was_acknowledged_is_there_once() {
    let place = Place::new();
    let receiver = Receiver::start(&place, SECRET);
    let daemon = daemon(crash_acks::daemon(&place, "sqlite"), &place, &receiver, "store");
    let run = killed(&place, "webhook", daemon, &POINTS);
    assert_eq!((run.acknowledged, run.stored), (run.events, run.events));
    assert_eq!(place.number("SELECT count(*) FROM batches"), 0);
}

#[test]
fn killed_a_hundred_times_over_a_webhook_and_sqlite_both_hold_the_same_and_what_one_refuses_is_in_neither() {
    let place = Place::new();
    let receiver = Receiver::start(&place, SECRET);
    let daemon = daemon(crash_acks::daemon(&place, "sqlite"), &place, &receiver, "stores.hook")
        .with("tenants.stores", "['store', 'hook']")
        .with("tenants.defaults.overflow.max_in_flight", "64KiB")
        .with("daemon.drain_deadline", "2m");
    receiver.mode("{\"poison\":true}");
    // Those that come up with each batch, and some that only a refused one comes to.
    let few = MORE_POINTS.into_iter().filter(|point| ["after-step", "after-rollback", "after-split"].contains(point));
    let points: Vec<_> = POINTS.into_iter().chain(few).collect();
    let run = killed(&place, "sqlite, then webhook", daemon, &points);
    assert_eq!((run.acknowledged, run.stored + run.dead.len() as u64), (run.events, run.events));
    assert!(!run.dead.is_empty());
    assert!(place.stored() == stored(&place), "the two hold the same");
}
