//! The store in a NATS JetStream, against a server and a client that are not ours: its contract, what is in the stream, and what becomes
//! of a server that is killed, hangs, is full or refuses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use headworks::store::nats::OpenError;
use headworks::store::postgres::SchemaMode;
use headworks::store::{NatsStore, NatsStoreOptions};
use headworks::{Attempt, Storage, StorageError, TenantId, conformance};
use serde_json::Value;

use crate::rig::batches::{Stream, assert_outage, batch, put};
use crate::rig::nats::Nats;
use crate::rig::{DEADLINE, Place};

const STREAM: &str = "BATCHES";

fn options(nats: &Nats) -> NatsStoreOptions {
    NatsStoreOptions::at(nats.url(), STREAM)
}

fn open(nats: &Nats) -> NatsStore {
    NatsStore::open(options(nats)).unwrap()
}

#[track_caller]
fn assert_refused(opened: Result<NatsStore, OpenError>, says: &str) {
    let why = opened.unwrap_err();
    assert!(matches!(why, OpenError::Refused { .. }) && why.to_string().contains(says), "{why}");
}

#[track_caller]
fn assert_permanent(answer: Result<(), StorageError>, says: &str) {
    let why = answer.unwrap_err();
    assert!(matches!(why, StorageError::Permanent { .. }) && why.to_string().contains(says), "{why:?}");
}

/// Until it is stored; nothing but an outage may come before.
async fn at_last(store: &NatsStore, batch: &headworks::Batch, attempt: u32) {
    let began = Instant::now();
    while let Err(why) = put(store, batch, attempt).await {
        assert!(matches!(why, StorageError::Unavailable { .. }) && began.elapsed() < DEADLINE, "{why:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_store_keeps_the_contract() {
    // One body of the suite is as large as what a server takes by default.
    let nats = Nats::start_with("max_payload: 8MB");
    for queue in [256, 1] {
        let opened = Cell::new(0);
        let stream = || format!("S{queue}-{}", opened.get());
        let make = async || {
            opened.set(opened.get() + 1);
            let mut options = NatsStoreOptions::at(nats.url(), stream());
            (options.subject, options.queue) = (format!("{}.{{tenant}}.{{batch}}", stream()), queue);
            NatsStore::open(options).unwrap()
        };
        let bodies =
            async |_: &NatsStore, tenant: &TenantId| nats.events(&stream()).remove(tenant.as_str()).unwrap_or_default();
        conformance::storage(make, bodies).await;
    }
}

#[tokio::test]
async fn a_consumer_finds_a_message_a_batch_and_learns_what_was_taken_back() {
    let nats = Nats::start();
    let store = open(&nats);
    let batches = [batch("a.b", 7, &["{\"n\":1}", "{\"n\":2}"]), batch("acme", 1, &["{\"n\":3}"])];
    for batch in &batches {
        put(&store, batch, 3).await.unwrap();
    }
    let found = nats.published(STREAM);
    let headers = |names: [&str; 5]| names.map(|name| found[0].header(name).to_owned());
    assert_eq!(found[0].subject, "headworks.a%2Eb.0000000000000001-7");
    assert_eq!(
        headers(["Nats-Msg-Id", "Headworks-Tenant", "Headworks-Batch", "Headworks-Attempt", "Headworks-Events"]),
        ["0000000000000001/a.b/7", "a.b", "0000000000000001/a.b/7", "3", "2"]
    );
    assert_eq!(found[0].header("Headworks-Arrived"), "1970-01-01T00:00:07.000Z");
    assert_eq!(found[0].bodies, [b"{\"n\":1}", b"{\"n\":2}"]);

    store.rollback(batches[0].id(), Attempt(3)).await.unwrap();
    let found = nats.published(STREAM);
    // The batch is gone; whoever had it before is told.
    assert_eq!((found.len(), found[0].number, found[1].number), (2, 2, 3));
    assert_eq!(found[1].subject, "headworks.a%2Eb.0000000000000001-7");
    let headers = ["Headworks-Rolled-Back", "Headworks-Batch", "Headworks-Events"].map(|name| found[1].header(name));
    assert_eq!(headers, ["3", "0000000000000001/a.b/7", ""]);
    assert!(found[1].bodies.is_empty());
    // What was on its way all the while, by whichever process, does not land.
    for expected in ["0", "1"] {
        let told = nats.run("late", &["headworks.a%2Eb.0000000000000001-7", "late", expected]);
        assert_eq!(told.trim(), "10071");
    }
    // And what has more than one message is not doubled by it.
    put(&store, &batches[0], 4).await.unwrap();
    put(&store, &batches[0], 5).await.unwrap();
    assert_eq!(nats.events(STREAM)["a.b"], [b"{\"n\":1}", b"{\"n\":2}"]);
}

#[tokio::test]
async fn a_batch_that_comes_again_is_there_once_also_when_the_server_has_forgotten_its_name_or_was_another_process() {
    let nats = Nats::start();
    nats.run("make", &[STREAM, "headworks.>", "{\"duplicate_window\":0.2}"]);
    let first = batch("acme", 1, &["{\"n\":1}"]);
    put(&open(&nats), &first, 1).await.unwrap();
    nats.run("forget", &["headworks.probe"]);
    let store = open(&nats);
    put(&store, &first, 1).await.unwrap();
    put(&store, &first, 2).await.unwrap();
    assert_eq!(nats.published(STREAM).iter().filter(|found| found.header("Headworks-Tenant") == "acme").count(), 1);
    let other = batch("acme", 1, &["{\"n\":2}"]);
    for attempt in 1..3 {
        assert_permanent(put(&store, &other, attempt).await, "already there with other content");
    }
    assert_eq!(nats.events(STREAM)["acme"], [b"{\"n\":1}"]);
}

#[tokio::test]
async fn a_batch_that_was_rolled_back_comes_again_though_the_server_knows_its_name_and_one_that_was_deleted_too() {
    let nats = Nats::start();
    let store = open(&nats);
    let batch = batch("acme", 1, &["{\"n\":1}"]);
    for attempt in [1, 3, 5] {
        put(&store, &batch, attempt).await.unwrap();
        assert_eq!(nats.events(STREAM)["acme"].len(), 1);
        store.rollback(batch.id(), Attempt(attempt + 1)).await.unwrap();
        assert!(nats.events(STREAM).is_empty());
        assert_permanent(put(&store, &batch, attempt + 1).await, "was rolled back");
    }
    // By an operator, fence and all, while its name is known.
    nats.run("delete", &[STREAM, &nats.published(STREAM)[0].number.to_string()]);
    put(&store, &batch, 7).await.unwrap();
    assert_eq!(nats.events(STREAM)["acme"].len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_full_is_waited_for_and_what_does_not_fit_is_refused() {
    let nats = Nats::start();
    nats.run("make", &[STREAM, "headworks.>", "{\"discard\":\"new\",\"max_msgs\":2,\"max_msg_size\":4096}"]);
    let store = open(&nats);
    for seq in 1..3 {
        put(&store, &batch("acme", seq, &["{}"]), 1).await.unwrap();
    }
    for attempt in 1..3 {
        assert_outage(put(&store, &batch("acme", 3, &["{}"]), attempt).await, "make room");
    }
    nats.run("edit", &[STREAM, "{\"max_msgs\":100}"]);
    put(&store, &batch("acme", 3, &["{}"]), 3).await.unwrap();
    let large = "x".repeat(4096);
    assert_permanent(put(&store, &batch("acme", 4, &[&large]), 1).await, "lower window.max_bytes");
    let larger = "x".repeat(1 << 20);
    assert_permanent(put(&store, &batch("acme", 4, &[&larger]), 2).await, "max_payload");
    store.rollback(batch("acme", 4, &["{}"]).id(), Attempt(2)).await.unwrap();
    assert_eq!(nats.events(STREAM)["acme"].len(), 3);
}

#[tokio::test]
async fn a_stream_that_denies_purges_keeps_the_batch_and_says_so() {
    let nats = Nats::start();
    nats.run("make", &[STREAM, "headworks.>", "{\"deny_purge\":true}"]);
    let store = open(&nats);
    let batch = batch("acme", 1, &["{}"]);
    put(&store, &batch, 1).await.unwrap();
    for _ in 0..2 {
        assert_permanent(store.rollback(batch.id(), Attempt(1)).await, "deny_purge");
    }
    let found = nats.published(STREAM);
    assert_eq!((found.len(), found[1].header("Headworks-Rolled-Back")), (2, "1"));
    assert_permanent(put(&store, &batch, 1).await, "was rolled back");
}

#[tokio::test]
async fn a_stream_is_made_where_none_is_and_one_that_does_not_fit_is_refused() {
    let nats = Nats::start();
    let mut checked = options(&nats);
    checked.schema = SchemaMode::Check;
    assert_refused(NatsStore::open(checked.clone()), "make the stream, or check its name");
    drop(open(&nats));
    let made: Value = serde_json::from_str(&nats.run("config", &[STREAM])).unwrap();
    assert_eq!(
        (&made["discard"], &made["retention"], &made["subjects"][0]),
        (&"new".into(), &"limits".into(), &"headworks.*.*".into())
    );
    drop(NatsStore::open(checked).unwrap());
    for (name, more, says) in [
        ("QUEUE", "{\"retention\":\"workqueue\"}", "set its retention to limits"),
        ("SILENT", "{\"no_ack\":true}", "no_ack"),
    ] {
        nats.run("make", &[name, &format!("{name}.>"), more]);
        let mut options = NatsStoreOptions::at(nats.url(), name);
        options.subject = format!("{name}.{{tenant}}.{{batch}}");
        assert_refused(NatsStore::open(options), says);
    }
    let mut elsewhere = options(&nats);
    elsewhere.subject = "other.{tenant}.{batch}".into();
    assert_refused(NatsStore::open(elsewhere), "takes the subjects headworks.*.*, and not other.*.*");
    // Its subjects are another stream's.
    let mut taken = options(&nats);
    taken.stream = "SECOND".into();
    assert_refused(NatsStore::open(taken), "overlap");
}

#[tokio::test]
async fn wrong_secrets_are_refused_at_the_start_and_waited_for_later_until_the_file_has_the_right_ones() {
    let place = Place::new();
    let users = |password: &str| format!("authorization {{ user: app, password: {password} }}");
    let mut nats = Nats::start_with(&users("right"));
    let mut options = options(&nats);
    options.credentials_file = Some(place.secret("secrets", "app:wrong\n"));
    let why = NatsStore::open(options.clone()).unwrap_err().to_string();
    assert!(why.to_lowercase().contains("authorization violation") && why.contains("check credentials_file"), "{why}");
    assert!(!why.contains("wrong"), "{why}");
    place.secret("secrets", "app:right\n");
    let store = NatsStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &["{}"]), 1).await.unwrap();
    nats.kill();
    nats.configure(&users("changed"));
    nats.restart();
    let began = Instant::now();
    loop {
        let why = put(&store, &batch("acme", 2, &["{}"]), 1).await.unwrap_err();
        assert!(matches!(why, StorageError::Unavailable { .. }) && began.elapsed() < DEADLINE, "{why:?}");
        if why.to_string().to_lowercase().contains("authorization violation") {
            break;
        }
    }
    place.secret("secrets", "app:changed\n");
    at_last(&store, &batch("acme", 2, &["{}"]), 1).await;
}

#[tokio::test]
async fn a_right_that_is_lacking_is_an_outage_that_names_it() {
    let nats = Nats::start_with(
        "authorization { users: [ { user: app, password: right, permissions: { publish: { deny: [\"headworks.zen.>\"] } } } ] }",
    );
    let place = Place::new();
    let mut options = options(&nats);
    options.credentials_file = Some(place.secret("secrets", "app:right\n"));
    options.request_timeout = DEADLINE;
    let store = NatsStore::open(options).unwrap();
    // And nobody else's: they share the connection.
    for seq in 1..20 {
        let (zen, acme) = (batch("zen", seq, &["{}"]), batch("acme", seq, &["{}"]));
        let (denied, stored) = join(put(&store, &zen, 1), put(&store, &acme, 1)).await;
        assert_outage(denied, "Permissions Violation");
        stored.unwrap();
    }
}

fn bodies(name: &str, seq: u64) -> Vec<String> {
    (0..100).map(|n| format!("{{\"tenant\":\"{name}\",\"seq\":{seq},\"n\":{n}}}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_killed_again_and_again_in_mid_batch_every_batch_is_there_once_whole_and_in_order() {
    let stream = Stream { tenants: 8, batches: 40, kills: 6, again: Duration::from_millis(20), bodies };
    let mut nats = Nats::start();
    let store = open(&nats);
    let outages = stream
        .stored_over_kills(store.clone(), || {
            nats.kill();
            nats.restart();
        })
        .await;
    let found = nats.events(STREAM);
    for name in stream.names() {
        assert!(found[&name] == stream.all(&name), "{name}");
    }
    assert_eq!(nats.published(STREAM).len(), 8 * 40);
    eprintln!("{} kills of the server, {outages} outages, {} events stored once", stream.kills, 8 * 40 * 100);
}

#[tokio::test]
async fn a_server_that_hangs_is_an_outage_for_all_who_wait_and_what_it_took_meanwhile_is_there_once() {
    let nats = Nats::start();
    let mut options = options(&nats);
    (options.request_timeout, options.connect_timeout) = (Duration::from_millis(300), Duration::from_millis(300));
    let store = NatsStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &["{}"]), 1).await.unwrap();
    nats.freeze(true);
    let batches: Vec<_> = (0..100).map(|n| batch(&format!("t{n}"), 1, &["{}"])).collect();
    let began = Instant::now();
    for attempt in 1..3 {
        for answer in join_all(batches.iter().map(|batch| put(&store, batch, attempt))).await {
            assert!(matches!(answer, Err(StorageError::Unavailable { .. })), "{answer:?}");
        }
    }
    // Nobody waited for the patience of everybody before.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    nats.freeze(false);
    for batch in &batches {
        at_last(&store, batch, 3).await;
    }
    let found = nats.published(STREAM);
    assert_eq!(found.len(), 101);
}

#[tokio::test]
async fn a_server_that_is_away_when_the_store_is_opened_is_waited_for_and_a_stream_that_is_deleted_is_made_again() {
    let mut nats = Nats::start();
    nats.kill();
    let store = open(&nats);
    for _ in 0..2 {
        assert_outage(put(&store, &batch("acme", 1, &["{}"]), 1).await, "cannot connect to nats://127.0.0.1");
    }
    nats.restart();
    put(&store, &batch("acme", 1, &["{}"]), 1).await.unwrap();
    nats.run("remove", &[STREAM]);
    assert_outage(put(&store, &batch("acme", 2, &["{}"]), 1).await, "was it changed or deleted?");
    put(&store, &batch("acme", 2, &["{}"]), 1).await.unwrap();
    assert_eq!(nats.published(STREAM).len(), 1);
    let clone = store.clone();
    store.close().await.unwrap();
    clone.close().await.unwrap();
    assert_outage(put(&clone, &batch("acme", 3, &["{}"]), 1).await, "is closed");
}

#[tokio::test]
async fn what_somebody_else_published_on_a_batchs_subject_is_named_and_left_alone() {
    let nats = Nats::start();
    let store = open(&nats);
    nats.run("raw", &["headworks.acme.0000000000000001-1", "theirs"]);
    let batch = batch("acme", 1, &["{}"]);
    assert_outage(
        put(&store, &batch, 1).await,
        "message 1 of the stream, on headworks.acme.0000000000000001-1, is none",
    );
    assert_outage(store.rollback(batch.id(), Attempt(1)).await, "is none of this store's");
    nats.run("delete", &[STREAM, "1"]);
    put(&store, &batch, 1).await.unwrap();
}
