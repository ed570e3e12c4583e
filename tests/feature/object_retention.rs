//! Retention of objects: what is due goes object by object, the oldest first, and is counted; whatever fails in between, each event is there
//! or counted, and nothing younger goes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use headworks::retention::{Pass, PrunedStore, Report, Rest};
use headworks::store::{ObjectFormat, ObjectOptions, ObjectReader, ObjectStore};
use headworks::{Attempt, Batch, RetentionPolicy, Storage, StorageError, StoreName, TenantId, UnixMillis};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use super::object_store::id;
use super::retention::{assert_pruned_from_the_front, audited, told};
use crate::rig::batches::{assert_outage, batch_at, put, tenant};
use crate::rig::crash::{Daemon, kill_at_random};
use crate::rig::prometheus::{samples, scrape};
use crate::rig::s3::{BUCKET, Fault, S3, objects, stored};
use crate::rig::{DEADLINE, Place, Process, lines, pour, send, settled};

const HOUR: Duration = Duration::from_secs(3600);

fn rules(max_age: Option<u64>, max_bytes: usize) -> RetentionPolicy {
    RetentionPolicy { max_age: max_age.map(Duration::from_millis), max_bytes, ..RetentionPolicy::default() }
}

/// A pass by these rules for `acme`; all others keep all.
async fn pass(
    store: &ObjectStore,
    of_acme: &RetentionPolicy,
    rest: Rest,
    now: i64,
    dry_run: bool,
) -> (Report, Result<(), StorageError>) {
    let mut report = Report::default();
    let of = |id: &TenantId| (if id.as_str() == "acme" { of_acme.clone() } else { RetentionPolicy::default() }, rest);
    let stores = vec![(StoreName::ONLY, PrunedStore::from(store.clone()))];
    let pass = Pass::begin(stores).await.unwrap();
    let ran = pass.run(UnixMillis(now), of, async { Ok(()) }, dry_run, &mut report).await;
    (report, ran)
}

async fn pruned(store: &ObjectStore, of_acme: &RetentionPolicy, rest: Rest, now: i64) -> u64 {
    let (report, ran) = pass(store, of_acme, rest, now, false).await;
    ran.unwrap();
    events(&report)
}

fn events(report: &Report) -> u64 {
    report.events.iter().map(|row| row.pruned.events).sum()
}

fn at(folder: &TempDir, compact_after: Option<Duration>) -> ObjectOptions {
    let mut options = ObjectOptions::at(format!("file://{}", folder.path().join("events").display()));
    options.compact_after = compact_after;
    options
}

fn read(options: &ObjectOptions, of: &str) -> Vec<String> {
    let bodies = ObjectReader::new(options.clone()).unwrap().bodies(&tenant(of)).unwrap();
    bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
}

fn total(options: &ObjectOptions, of: &str) -> u64 {
    let totals = ObjectReader::new(options.clone()).unwrap().tenants().unwrap();
    totals.iter().find(|totals| totals.tenant.as_str() == of).map_or(0, |totals| totals.events)
}

/// How many events are counted as gone, by the word of the object that counts them.
fn counted(own: &std::collections::BTreeMap<String, Vec<u8>>) -> u64 {
    let Some(bytes) = own.get("gone/acme.json") else { return 0 };
    let gone: Value = serde_json::from_slice(bytes).unwrap();
    gone["openings"].as_object().unwrap().values().map(|of| of["pruned"].as_u64().unwrap()).sum()
}

/// Objects of a directory that were put there just now are as old as that.
fn dated(root: &Path, at: i64) {
    let mut folders = vec![root.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if modified.elapsed().unwrap_or_default() < HOUR {
                let file = std::fs::File::options().append(true).open(entry.path()).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(at.cast_unsigned())).unwrap();
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// So much later a batch of two events of so many bytes each.
    Store(i64, usize),
    RollBack,
    /// So much later all is pruned that is due, while the newest may or may not come again.
    Prune {
        later: i64,
        max_age: Option<u64>,
        max_bytes: usize,
        in_flight: bool,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..20i64, 0..50usize).prop_map(|(later, bytes)| Op::Store(later, bytes)),
        1 => Just(Op::RollBack),
        2 => (0..30i64, prop::option::of(0..200u64), 0..3_000usize, any::<bool>())
            .prop_map(|(later, max_age, max_bytes, in_flight)| Op::Prune { later, max_age, max_bytes, in_flight }),
    ];
    prop::collection::vec(op, 1..30)
}

/// A model that keeps objects in a queue, and an innocent neighbour.
#[test]
fn what_goes_is_the_oldest_that_is_due_and_all_of_it_is_counted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ops in ops(), packed: bool)| {
        runtime.block_on(async {
            let folder = TempDir::new().unwrap();
            // What waits is an object as any other.
            let options = at(&folder, packed.then_some(HOUR));
            let root = folder.path().join("events");
            let batches = if packed { root.join("_headworks/batches") } else { root.clone() };
            let store = ObjectStore::open(options.clone()).unwrap();
            let (mut now, mut seq, mut gone) = (1_000_000, 0, 0);
            // Each with its time, its size, and whether it has events.
            let mut model: Vec<(Option<Batch>, i64, u64)> = vec![];
            put(&store, &batch_at("zen", 1, &["z", "z"], UnixMillis(0)), 1).await.unwrap();
            dated(&root, 0);
            let sizes = || -> Vec<u64> {
                let found = objects(&batches);
                found.iter().filter(|(key, _)| key.starts_with("acme/")).map(|(_, bytes)| bytes.len() as u64).collect()
            };
            for op in ops {
                match op {
                    Op::Store(later, bytes) => {
                        (now, seq) = (now + later, seq + 1);
                        let body = format!("{:width$}", seq, width = bytes.max(2));
                        let batch = batch_at("acme", seq, &[&body, &body], UnixMillis(now));
                        put(&store, &batch, 1).await.unwrap();
                        model.push((Some(batch), now, 0));
                    }
                    Op::RollBack => if let Some((batch, at, _)) = model.last_mut()
                        && let Some(taken) = batch.take()
                    {
                        store.rollback(taken.id(), Attempt(1)).await.unwrap();
                        *at = now;
                    },
                    Op::Prune { later, max_age, max_bytes, in_flight } => {
                        now += later;
                        for (object, size) in model.iter_mut().zip(sizes()) {
                            object.2 = size;
                        }
                        let (rules, rest) = (rules(max_age, max_bytes), if in_flight { Rest::InFlight } else { Rest::Settled });
                        let (would, ran) = pass(&store, &rules, rest, now, true).await;
                        ran.unwrap();
                        let (did, ran) = pass(&store, &rules, rest, now, false).await;
                        ran.unwrap();
                        prop_assert_eq!(&would, &did);
                        let mut went = 0;
                        while model.len() > usize::from(in_flight) {
                            let all: u64 = model.iter().map(|(.., bytes)| bytes).sum();
                            let is_old = max_age.is_some_and(|age| model[0].1 <= now - age.cast_signed());
                            if !is_old && (max_bytes == 0 || all <= max_bytes as u64) { break; }
                            if model.remove(0).0.is_some() { went += 2; }
                        }
                        prop_assert_eq!(events(&did), went);
                        gone += went;
                    }
                }
                dated(&root, now);
            }
            let expected: Vec<String> = model.iter().flat_map(|(batch, ..)| batch).flat_map(|batch| {
                batch.events().map(|event| String::from_utf8(event.body.to_vec()).unwrap()).collect::<Vec<_>>()
            }).collect();
            prop_assert_eq!(read(&options, "acme"), expected.clone());
            prop_assert_eq!(total(&options, "acme"), expected.len() as u64);
            prop_assert_eq!(counted(&objects(&root.join("_headworks"))), gone);
            prop_assert_eq!(total(&options, "zen"), 2, "it keeps all");
            store.close().await.unwrap();
            prop_assert_eq!((read(&options, "acme"), read(&options, "zen").len()), (expected, 2));
            Ok(())
        })?;
    });
}

/// Two events of each.
fn numbered(seq: u64) -> Batch {
    batch_at("acme", seq, &[&format!("{seq}.0"), &format!("{seq}.1")], UnixMillis(seq.cast_signed() * 1_000))
}

fn names(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
    seqs.into_iter().flat_map(|seq| [format!("{seq}.0"), format!("{seq}.1")]).collect()
}

#[tokio::test]
async fn a_batch_that_may_come_again_stays_and_who_is_owed_compensations_keeps_all() {
    for compact_after in [None, Some(HOUR)] {
        let folder = TempDir::new().unwrap();
        let options = at(&folder, compact_after);
        let store = ObjectStore::open(options.clone()).unwrap();
        for seq in 1..=5 {
            put(&store, &numbered(seq), 1).await.unwrap();
        }
        let all = rules(Some(1_000), 0);
        let (owed, ran) = pass(&store, &all, Rest::Owed, i64::MAX, false).await;
        ran.unwrap();
        assert_eq!((events(&owed), owed.held_back.len()), (0, 1));
        assert_eq!(pruned(&store, &all, Rest::InFlight, i64::MAX).await, 8);
        put(&store, &numbered(5), 2).await.unwrap();
        assert_eq!(read(&options, "acme"), names([5]));
        assert_eq!(pruned(&store, &all, Rest::Settled, i64::MAX).await, 2);
        // What is stored later goes on as ever, and is rolled back as ever.
        for seq in 6..=8 {
            put(&store, &numbered(seq), 1).await.unwrap();
        }
        store.rollback(&id("acme", 7), Attempt(1)).await.unwrap();
        let late = put(&store, &numbered(7), 1).await.unwrap_err();
        assert!(late.to_string().contains("was rolled back"), "{late}");
        store.close().await.unwrap();
        assert_eq!((read(&options, "acme"), total(&options, "acme")), (names([6, 8]), 4));
    }
}

#[tokio::test]
async fn a_pack_goes_whole_once_its_youngest_is_due_and_what_lies_between_stays_with_it() {
    for format in [ObjectFormat::Ndjson, ObjectFormat::Parquet] {
        let folder = TempDir::new().unwrap();
        let mut options = at(&folder, Some(HOUR));
        options.format = format;
        let root = folder.path().join("events");
        for (from, to, at) in [(1, 9, 10_000), (10, 20, 30_000)] {
            let store = ObjectStore::open(options.clone()).unwrap();
            for seq in from..=to {
                put(&store, &numbered(seq), 1).await.unwrap();
            }
            store.close().await.unwrap();
            dated(&root, at);
        }
        assert_eq!(objects(&root).len(), 2);
        let store = ObjectStore::open(options.clone()).unwrap();
        put(&store, &numbered(21), 1).await.unwrap();
        dated(&root, 40_000);
        let old = rules(Some(15_000), 0);
        assert_eq!(pruned(&store, &old, Rest::InFlight, 24_999).await, 0);
        assert_eq!(pruned(&store, &old, Rest::InFlight, 25_000).await, 18);
        assert_eq!((read(&options, "acme"), objects(&root).len()), (names(10..=21), 1));
        // One of the second pack is rolled back late, and comes again behind the pack.
        store.rollback(&id("acme", 15), Attempt(1)).await.unwrap();
        put(&store, &numbered(15), 2).await.unwrap();
        dated(&root, 60_000);
        assert_eq!(pruned(&store, &old, Rest::Settled, 50_000).await, 0, "the one that came again lies between");
        assert_eq!(pruned(&store, &old, Rest::Settled, 80_000).await, 24);
        store.close().await.unwrap();
        assert_eq!((objects(&root).len(), total(&options, "acme")), (0, 0));
        assert_eq!(counted(&objects(&root.join("_headworks"))), 42);
    }
}

/// Every request of a pass fails in every way, and the process is gone after that.
#[tokio::test]
async fn whichever_request_of_a_pass_fails_and_however_each_event_is_there_or_counted_and_the_next_pass_ends_it() {
    let mut passes = 0;
    for compact_after in [None, Some(HOUR)] {
        for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Status(503, "SlowDown")] {
            for nth in 0.. {
                let s3 = S3::start();
                let mut options = s3.options("p");
                options.compact_after = compact_after;
                let store = ObjectStore::open(options.clone()).unwrap();
                for seq in 1..=4 {
                    put(&store, &numbered(seq), 1).await.unwrap();
                }
                put(&store, &batch_at("zen", 1, &["z"], UnixMillis(0)), 1).await.unwrap();
                if compact_after.is_some() {
                    store.close().await.unwrap();
                }
                let store = ObjectStore::open(options.clone()).unwrap();
                put(&store, &numbered(5), 1).await.unwrap();
                let all = rules(Some(1_000), 0);
                let asked = Arc::new(AtomicUsize::new(0));
                let (counts, fails) = (asked.clone(), fault.clone());
                s3.plan(move |_, _| match counts.fetch_add(1, Ordering::Relaxed) {
                    now if now == nth => fails.clone(),
                    _ => Fault::None,
                });
                let of = |id: &TenantId| {
                    (if id.as_str() == "acme" { all.clone() } else { RetentionPolicy::default() }, Rest::InFlight)
                };
                let pass_of = Pass::begin(vec![(StoreName::ONLY, PrunedStore::from(store.clone()))]).await.unwrap();
                let mut report = Report::default();
                let _ = pass_of.run(UnixMillis(i64::MAX), of, async { Ok(()) }, false, &mut report).await;
                s3.well();
                let is_done = asked.load(Ordering::Relaxed) <= nth;
                let holds = |at: &str| {
                    let there = read(&options, "acme");
                    assert_eq!(there.len() as u64 + counted(&s3.own("p")), 10, "{at} {nth}: {there:?}");
                    assert_eq!(total(&options, "acme"), there.len() as u64, "{at} {nth}");
                    assert!(there.ends_with(&names([5])), "{at} {nth}");
                    assert_eq!(read(&options, "zen"), ["z"]);
                };
                holds("after the fault");
                drop(store);
                let store = ObjectStore::open(options.clone()).unwrap();
                pruned(&store, &all, Rest::InFlight, i64::MAX).await;
                holds("after the next pass");
                assert_eq!(counted(&s3.own("p")), 8, "request {nth}");
                store.close().await.unwrap();
                holds("at the end");
                let left = |key: &&String| key.contains("acme/") && !key.ends_with("000000000005.ndjson.zst");
                let there = s3.objects("p");
                let left: Vec<_> = there.keys().filter(left).collect();
                assert!(left.is_empty(), "request {nth}: {left:?}");
                passes += 1;
                if is_done {
                    break;
                }
            }
        }
    }
    eprintln!("{passes} passes with a fault");
    assert!(passes > 30);
}

#[tokio::test]
async fn while_it_is_pruned_and_packed_a_reader_sees_an_end_of_what_was_stored_without_a_gap() {
    const BATCHES: u64 = 200;
    let folder = TempDir::new().unwrap();
    let mut options = at(&folder, Some(Duration::from_millis(1)));
    options.compact_bytes = 2_000;
    let store = ObjectStore::open(options.clone()).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = {
        let (options, is_over) = (options.clone(), is_over.clone());
        std::thread::spawn(move || {
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                let found = read(&options, "acme");
                let seqs: Vec<u64> =
                    found.iter().step_by(2).map(|event| event.split_once('.').unwrap().0.parse().unwrap()).collect();
                assert!(seqs.is_sorted_by(|a, b| a < b), "each once and in order: {seqs:?}");
                looks += 1;
            }
            looks
        })
    };
    let (by_size, mut gone) = (rules(None, 3_000), 0);
    for seq in 1..=BATCHES {
        put(&store, &numbered(seq), 1).await.unwrap();
        if seq % 10 == 0 {
            gone += pruned(&store, &by_size, Rest::InFlight, UnixMillis::now().0).await;
        }
    }
    gone += pruned(&store, &by_size, Rest::InFlight, UnixMillis::now().0).await;
    store.close().await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    let looks = reading.join().unwrap();
    let there = read(&options, "acme");
    assert!(gone > 0 && looks > 3, "{gone} gone, {looks} looks");
    assert_eq!((there.len() as u64 + gone, total(&options, "acme")), (2 * BATCHES, there.len() as u64));
    assert_eq!(there, names(gone / 2 + 1..=BATCHES));
    assert_eq!(counted(&objects(&folder.path().join("events/_headworks"))), gone);
}

#[tokio::test]
async fn a_server_that_heeds_no_versions_or_grants_no_deletes_is_told_of_and_loses_nothing() {
    let s3 = S3::start();
    let options = s3.options("p");
    let store = ObjectStore::open(options.clone()).unwrap();
    for seq in 1..=3 {
        put(&store, &numbered(seq), 1).await.unwrap();
    }
    s3.plan(|method, path| match (method, path.ends_with("store.json")) {
        // As one that does not know the condition: it says that it is done.
        ("PUT", true) => Fault::Status(200, "-"),
        _ => Fault::None,
    });
    let all = rules(Some(1_000), 0);
    let (report, ran) = pass(&store, &all, Rest::Settled, i64::MAX, false).await;
    assert_outage(ran, "(If-Match), which erasing and retention need");
    assert_eq!((events(&report), read(&options, "acme").len()), (0, 6));
    s3.plan(|method, _| match method {
        "POST" | "DELETE" => Fault::Status(403, "AccessDenied"),
        _ => Fault::None,
    });
    let (_, ran) = pass(&store, &all, Rest::Settled, i64::MAX, false).await;
    let why = ran.unwrap_err().to_string();
    assert!(why.contains("delete"), "{why}");
    // It is gone for whoever reads, and its objects go as soon as they may.
    assert_eq!((read(&options, "acme").len(), counted(&s3.own("p")), s3.objects("p").len()), (0, 6, 3));
    s3.well();
    assert_eq!(pruned(&store, &all, Rest::Settled, i64::MAX).await, 0);
    assert_eq!((counted(&s3.own("p")), s3.objects("p").len()), (6, 0));
}

fn daemon<'p>(place: &'p Place, s3: &S3, compact_after: &str) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.type", "object")
        .with("store.url", &format!("s3://{BUCKET}/events"))
        .with("store.endpoint", &s3.endpoint())
        .with("store.credentials_file", s3.keys().to_str().unwrap())
        .with("store.compact_after", compact_after)
        .with("retention.every", "100ms")
        .with("tenants.defaults.window.max_events", "20")
        .with("tenants.defaults.window.max_age", "20ms")
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.retry.cap", "200ms")
        .with("tenants.defaults.throttle.events_per_second", "2000")
        .with("tenants.defaults.throttle.delay_for", "1day")
        .with("tenants.by_id.acme.retention.max_bytes", "5KiB")
}

#[test]
fn killed_while_it_prunes_it_has_pruned_and_counted_or_neither_and_goes_on() {
    for compact_after in ["never", "1s"] {
        let (place, mut s3) = (Place::new(), S3::start());
        let mut next = 0;
        for point in ["in-prune:1", "in-prune:3", "after-prune:2", "after-store:40", "", "server"] {
            let daemon = daemon(&place, &s3, compact_after);
            let (process, address) = match point {
                "" | "server" => daemon.start(),
                point => daemon.start_doomed(point),
            };
            match point {
                "" => std::thread::scope(|scope| {
                    scope.spawn(|| pour(address, next, 20_000));
                    kill_at_random(process, next, Duration::from_millis(400));
                }),
                "server" => {
                    std::thread::scope(|scope| {
                        let pouring = scope.spawn(|| pour(address, next, 2_000));
                        for _ in 0..3 {
                            s3.kill();
                            s3.restart();
                        }
                        pouring.join().unwrap();
                    });
                    process.terminated().succeeded();
                }
                _ => {
                    pour(address, next, 200_000);
                    process.died();
                }
            }
            // All that was accepted is stored, and what is sent next follows it.
            let (process, _) = daemon.start();
            settled(&place);
            process.terminated().succeeded();
            assert_pruned_from_the_front(&place, &stored(&place));
            let audit = audited(&place);
            // One of the two may be ahead by what a torn connection brought of it.
            let (acme, zen) = (told(&audit, "acme").0, told(&audit, "zen").0);
            if acme != zen {
                let (process, address) = daemon.start();
                let (who, from, upto) = if acme < zen { ("acme", acme, zen) } else { ("zen", zen, acme) };
                send(address, &lines(who, usize::try_from(from).unwrap()..usize::try_from(upto).unwrap()));
                process.terminated().succeeded();
            }
            next = acme.max(zen);
        }
        assert!(told(&audited(&place), "acme").1 > 0, "{compact_after}");
        assert_pruned_from_the_front(&place, &stored(&place));
    }
}

#[test]
fn metrics_log_query_and_dry_run_tell_of_it_live_and_at_rest() {
    let (place, s3) = (Place::new(), S3::start());
    let never = |daemon: Daemon<'_>| daemon.with("retention.every", "1day").command(None);
    let mut process = Process::spawn(&mut never(daemon(&place, &s3, "never")));
    send(process.listens(), &[lines("acme", 0..1_000), lines("zen", 0..1_000)].concat());
    settled(&place);
    let would = place.json(&["prune", "--dry-run", "--json", "--data", "data"]);
    let events = would["events"][0]["events"].as_u64().unwrap();
    assert!(events >= 100 && would["events"][0]["tenant"] == "acme", "{would}");
    assert_eq!(counted(&s3.own("events")), 0);
    let did = place.run(&["prune", "--data", "data"]).succeeded().text();
    assert!(did.ends_with(&format!("\n{events} events and 0 dead letters were pruned.\n")), "{did}");
    let size = |s3: &S3| -> usize {
        let there = s3.objects("events");
        there.iter().filter(|(key, _)| key.starts_with("acme/")).map(|(_, bytes)| bytes.len()).sum()
    };
    assert!(size(&s3) <= 5 << 10);
    assert_pruned_from_the_front(&place, &stored(&place));
    let text = scrape(&place, "").1;
    assert_eq!(samples(&text)["headworks_events_pruned_total"], events as f64);
    let log = place.run(&["log", "--data", "data", "--what", "pruned"]).succeeded().text();
    assert!(log.contains(&format!("{events} events: {events} of acme")), "{log}");
    // A rule that is set while it runs is obeyed, and all of a tenant may go.
    place.run(&["tenants", "set", "acme", "retention.max_bytes=1B", "--data", "data"]).succeeded();
    place.run(&["prune", "--data", "data"]).succeeded();
    assert_eq!(told(&audited(&place), "acme"), (1_000, 1_000));
    let nothing = place.run(&["query", "acme", "--data", "data"]).succeeded();
    assert_eq!(nothing.text(), "", "it is known, and has nothing");
    process.terminated().succeeded();
    let mut process = Process::spawn(&mut never(daemon(&place, &s3, "never")));
    send(process.listens(), &[lines("acme", 1_000..2_000), lines("zen", 1_000..2_000)].concat());
    process.terminated().succeeded();
    let prune = |more: &[&str]| {
        let mut command = place.command(&[&["prune", "--data", "data"], more].concat());
        command.env("HEADWORKS__TENANTS__BY_ID__ACME__RETENTION__MAX_BYTES", "4KiB");
        Process::spawn(&mut command).ended().succeeded().text()
    };
    let would = prune(&["--dry-run"]);
    assert!(would.contains("store  acme"), "{would}");
    let did = prune(&[]);
    assert_eq!(did, would.replace("would be", "were"));
    assert!(size(&s3) <= 4 << 10);
    assert_pruned_from_the_front(&place, &stored(&place));
    // Counted on, over a restart, once the server has said so.
    let all = told(&audited(&place), "acme").1;
    let mut process = Process::spawn(&mut never(daemon(&place, &s3, "never")));
    process.listens();
    let began = Instant::now();
    while samples(&scrape(&place, "").1).get("headworks_events_pruned_total") != Some(&(all as f64)) {
        assert!(began.elapsed() < DEADLINE);
    }
    process.terminated().succeeded();
}
