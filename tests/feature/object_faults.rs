//! The store in objects while its server is killed, cut off, slow, refusing, or its disk full: what is answered is true, and what comes
//! again is there once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headworks::store::{ObjectOptions, ObjectReader, ObjectStore};
use headworks::{Attempt, Storage, StorageError};

use super::object_store::id;
use crate::rig::batches::{Stream, assert_outage, batch, put, tenant};
use crate::rig::disk::Tmpfs;
use crate::rig::s3::{AGAIN, Fault, S3, objects};

fn bodies(name: &str, seq: u64) -> Vec<String> {
    (0..50).map(|n| format!("{{\"tenant\":\"{name}\",\"seq\":{seq},\"n\":{n}}}")).collect()
}

/// Events that are in the objects, counted past the store: lines of the frames.
fn lines(s3: &S3, prefix: &str) -> usize {
    let objects = s3.objects(prefix);
    let lines = |bytes: &Vec<u8>| zstd::stream::decode_all(&**bytes).unwrap().split(|byte| *byte == b'\n').count() - 1;
    objects.values().map(lines).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_killed_again_and_again_in_mid_batch_every_batch_is_there_once_whole_and_in_order() {
    let stream = Stream { tenants: 6, batches: 20, kills: 5, again: AGAIN, bodies };
    let mut s3 = S3::start();
    let store = s3.open("p");
    let outages = stream
        .stored_over_kills(store, || {
            s3.kill();
            // Until somebody has felt it.
            let before = s3.requests();
            s3.restart();
            while s3.requests() == before {
                std::thread::yield_now();
            }
        })
        .await;
    for name in stream.names() {
        assert!(s3.reader("p").bodies(&tenant(&name)).unwrap() == stream.all(&name), "{name}");
    }
    assert_eq!(lines(&s3, "p"), 6 * 20 * 50);
    eprintln!("{} kills of the server, {outages} outages, {} events stored once", stream.kills, 6 * 20 * 50);
}

/// Every request of a batch, of the one that comes again, of a rollback and of what comes after it, fails in every way.
#[tokio::test]
async fn whichever_request_fails_and_however_it_is_an_outage_and_what_comes_again_ends_as_if_it_had_not() {
    let mut s3 = S3::start();
    let mut outages = 0;
    for fault in [
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "SlowDown"),
        Fault::Hang,
    ] {
        for nth in 0.. {
            let prefix = format!("{}", s3.requests());
            let mut options = s3.options(&prefix);
            if let Fault::Hang = fault {
                options.request_timeout = Duration::from_millis(400);
            }
            let store = ObjectStore::open(options).unwrap();
            let asked = Arc::new(AtomicUsize::new(0));
            let (counted, fails) = (asked.clone(), fault.clone());
            s3.plan(move |_, _| match counted.fetch_add(1, Ordering::Relaxed) {
                now if now == nth => fails.clone(),
                _ => Fault::None,
            });
            let kept = batch("acme", 1, &["a", "b"]);
            let given_up = batch("acme", 2, &["c"]);
            let mut again = async |step: usize| {
                // A machine that is busy may be late by itself.
                for _ in 0..50 {
                    let answer = match step {
                        0 => put(&store, &kept, 1).await,
                        1 => put(&store, &kept, 2).await,
                        2 => put(&store, &given_up, 1).await,
                        3 => store.rollback(given_up.id(), Attempt(1)).await,
                        4 => store.rollback(kept.id(), Attempt(1)).await,
                        _ => put(&store, &given_up, 2).await,
                    };
                    match answer {
                        Ok(()) => return,
                        Err(StorageError::Unavailable { .. }) => outages += 1,
                        Err(why) => panic!("step {step}, request {nth}: {why:?}"),
                    }
                }
                panic!("step {step}, request {nth}: one fault, and fifty outages");
            };
            for step in 0..=5 {
                again(step).await;
            }
            s3.well();
            let there = s3.reader(&prefix).bodies(&tenant("acme")).unwrap();
            assert_eq!(there, [&b"a"[..], b"b", b"c"], "request {nth}");
            assert_eq!(lines(&s3, &prefix), 3);
            if asked.load(Ordering::Relaxed) <= nth {
                assert!(nth > 12, "{nth}");
                break;
            }
        }
        // Connections that hang are at an end.
        s3.kill();
        s3.restart();
    }
    eprintln!("{outages} outages");
}

#[tokio::test]
async fn a_server_that_is_away_when_the_store_is_opened_is_waited_for_and_looked_at_then() {
    let mut s3 = S3::start();
    s3.kill();
    let store = s3.open("p");
    for _ in 0..2 {
        assert_outage(
            put(&store, &batch("acme", 1, &["a"]), 1).await,
            "store batch 0000000000000001/acme/1 in s3://bucket/p",
        );
    }
    s3.restart();
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    assert_eq!(lines(&s3, "p"), 1);
}

#[tokio::test]
async fn keys_that_are_changed_while_it_runs_count_from_the_next_request_and_wrong_ones_are_an_outage() {
    let s3 = S3::start();
    let store = s3.open("p");
    let keys = std::fs::read_to_string(s3.keys()).unwrap();
    std::fs::write(s3.keys(), keys.replace("s3cret", "wrong")).unwrap();
    assert_outage(put(&store, &batch("acme", 1, &["a"]), 1).await, "check the keys in credentials_file");
    std::fs::write(s3.keys(), keys).unwrap();
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_for_the_server_is_refused_for_good_and_a_bucket_that_vanishes_is_waited_for() {
    let s3 = S3::start();
    let store = s3.open("p");
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    for (status, code) in [(400, "EntityTooLarge"), (413, "Large")] {
        s3.plan(move |_, _| Fault::Status(status, code));
        let refused = put(&store, &batch("acme", 2, &["a"]), 1).await.unwrap_err();
        assert!(matches!(refused, StorageError::Permanent { .. }), "{refused:?}");
    }
    s3.plan(|_, _| Fault::Status(404, "NoSuchBucket"));
    assert_outage(put(&store, &batch("acme", 2, &["a"]), 1).await, "make the bucket");
    s3.plan(|_, _| Fault::Status(400, "Odd"));
    let odd = put(&store, &batch("acme", 2, &["a"]), 1).await.unwrap_err();
    assert!(matches!(odd, StorageError::Transient { .. }), "{odd:?}");
}

#[tokio::test]
async fn a_full_disk_is_an_outage_and_passes_and_leaves_no_half_of_an_object() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("disk");
    let Some(disk) = Tmpfs::on(&folder, "4m") else { return };
    let options = ObjectOptions::at(format!("file://{}", folder.display()));
    let store = ObjectStore::open(options.clone()).unwrap();
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    disk.fill();
    // Not to be compressed to nothing.
    let large: String = std::iter::repeat_with(fastrand::alphanumeric).take(1_000_000).collect();
    let big = batch("acme", 2, &[&large]);
    for attempt in 1..3 {
        assert_outage(put(&store, &big, attempt).await, "the disk is full; make room");
        assert_eq!(objects(&folder).keys().filter(|key| key.starts_with("acme")).count(), 1);
    }
    disk.free();
    put(&store, &big, 3).await.unwrap();
    store.rollback(&id("acme", 1), Attempt(1)).await.unwrap();
    assert_eq!(ObjectReader::new(options).unwrap().bodies(&tenant("acme")).unwrap(), [large.as_bytes()]);
}
