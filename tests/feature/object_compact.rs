//! Batches that become part of larger objects: each event is there once for every reader at every moment, whatever fails in between, and
//! each batch is known by its id ever after.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headworks::store::{ObjectFormat, ObjectOptions, ObjectReader, ObjectStore};
use headworks::{Attempt, Batch, Storage, StorageError, TenantId, UnixMillis, conformance};
use tempfile::TempDir;

use super::object_store::id;
use crate::rig::batches::{batch_at, put, tenant};
use crate::rig::s3::{Fault, Held, S3, objects};
use crate::rig::{DEADLINE, python};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: i64 = 86_400_000;

fn at(folder: &TempDir, name: &str, after: Duration) -> ObjectOptions {
    let options = ObjectOptions::at(format!("file://{}", folder.path().join(name).display()));
    compacting(options, after)
}

fn compacting(mut options: ObjectOptions, after: Duration) -> ObjectOptions {
    options.compact_after = Some(after);
    options
}

fn open(options: &ObjectOptions) -> ObjectStore {
    ObjectStore::open(options.clone()).unwrap()
}

/// Opened and closed: what waits does not wait any more.
async fn compact(options: &ObjectOptions) {
    open(options).close().await.unwrap();
}

fn read(options: &ObjectOptions) -> Vec<String> {
    let bodies = ObjectReader::new(options.clone()).unwrap().bodies(&tenant("acme")).unwrap();
    bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
}

fn totals(options: &ObjectOptions) -> Vec<(String, u64, u64)> {
    let totals = ObjectReader::new(options.clone()).unwrap().tenants().unwrap();
    totals.into_iter().map(|totals| (totals.tenant.to_string(), totals.events, totals.batches)).collect()
}

fn text(bytes: &[u8]) -> Vec<String> {
    String::from_utf8(zstd::stream::decode_all(bytes).unwrap()).unwrap().lines().map(str::to_owned).collect()
}

/// The events that others find, who know nothing of this store, by the names of the objects.
fn others(root: &Path) -> Vec<String> {
    objects(root).values().flat_map(|bytes| text(bytes)).collect()
}

/// Two events of each.
fn numbered(seq: u64) -> Batch {
    batch_at("acme", seq, &[&format!("{seq}.0"), &format!("{seq}.1")], UnixMillis(5 * DAY))
}

fn events(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
    seqs.into_iter().flat_map(|seq| [format!("{seq}.0"), format!("{seq}.1")]).collect()
}

async fn keeps_the_contract(options: impl Fn(&str) -> ObjectOptions) {
    for (format, path, after, most) in [
        (ObjectFormat::Parquet, "day={date}/tenant={tenant}/{batch}", Duration::from_millis(1), 1 << 20),
        (ObjectFormat::Ndjson, "{tenant}/{batch}", HOUR, 1),
    ] {
        let opened = Cell::new(0);
        let options = |number: i32| {
            let mut options =
                compacting(options(&format!("{}-{}-{most}-{number}", format.ending(), path.len())), after);
            (options.format, options.path, options.compact_bytes) = (format, path.into(), most);
            options
        };
        let make = async || {
            opened.set(opened.get() + 1);
            open(&options(opened.get()))
        };
        let bodies = async |_: &ObjectStore, tenant: &TenantId| {
            let (reader, began) = (ObjectReader::new(options(opened.get())).unwrap(), Instant::now());
            loop {
                match reader.bodies(tenant) {
                    Ok(bodies) => return bodies,
                    // This server fails over what goes while it lists it.
                    Err(why) if why.to_string().contains("InternalError") => {
                        assert!(began.elapsed() < DEADLINE, "{why}")
                    }
                    Err(why) => panic!("{why}"),
                }
            }
        };
        conformance::storage(make, bodies).await;
    }
}

#[tokio::test]
async fn a_store_that_compacts_all_the_time_or_by_size_keeps_the_contract_in_a_directory() {
    let folder = TempDir::new().unwrap();
    keeps_the_contract(|name| at(&folder, name, HOUR)).await;
}

#[tokio::test]
async fn a_store_that_compacts_all_the_time_or_by_size_keeps_the_contract_on_s3() {
    let s3 = S3::start();
    keeps_the_contract(|name| s3.options_in(name)).await;
}

#[tokio::test]
async fn batches_wait_out_of_sight_become_one_object_with_the_day_and_are_known_by_their_ids_ever_after() {
    for format in [ObjectFormat::Ndjson, ObjectFormat::Parquet] {
        let folder = TempDir::new().unwrap();
        let mut options = at(&folder, "events", HOUR);
        options.format = format;
        let root = folder.path().join("events");
        let store = open(&options);
        for seq in 1..=9 {
            put(&store, &numbered(seq), 1).await.unwrap();
        }
        put(&store, &batch_at("acme", 10, &["10.0", "10.1"], UnixMillis(6 * DAY)), 1).await.unwrap();
        put(&store, &batch_at("zen", 1, &["z"], UnixMillis(5 * DAY)), 1).await.unwrap();
        assert_eq!(objects(&root).len(), 0, "they wait");
        let expected = || (events(1..=10), vec![("acme".to_owned(), 20, 10), ("zen".to_owned(), 1, 1)]);
        assert_eq!((read(&options), totals(&options)), expected());
        store.close().await.unwrap();

        let keys: Vec<_> = objects(&root).into_keys().collect();
        let named = [
            "acme/1970-01-06/0000000000000001-000000000001-000000000009",
            "acme/1970-01-07/0000000000000001-000000000010-000000000010",
            "zen/1970-01-06/0000000000000001-000000000001-000000000001",
        ];
        assert_eq!(keys, named.map(|name| format!("{name}.{}", format.ending())));
        assert_eq!(objects(&root.join("_headworks/batches")).len(), 0, "none waits any more");
        assert_eq!((read(&options), totals(&options)), expected());

        // They come again: as they were, with other content, to be rolled back.
        let store = open(&options);
        put(&store, &numbered(3), 2).await.unwrap();
        let other = put(&store, &batch_at("acme", 3, &["x"], UnixMillis(5 * DAY)), 2).await.unwrap_err();
        assert!(
            matches!(&other, StorageError::Permanent { .. }) && other.to_string().contains("other content"),
            "{other}"
        );
        store.rollback(&id("acme", 3), Attempt(1)).await.unwrap();
        assert_eq!((read(&options), totals(&options)), expected(), "a later attempt was told that it is there");
        store.rollback(&id("acme", 3), Attempt(2)).await.unwrap();
        store.rollback(&id("acme", 5), Attempt(1)).await.unwrap();
        assert_eq!(read(&options), events([1, 2, 4, 6, 7, 8, 9, 10]));
        let refused = put(&store, &numbered(3), 2).await.unwrap_err();
        assert!(refused.to_string().contains("was rolled back"), "{refused}");
        put(&store, &numbered(3), 3).await.unwrap();
        assert_eq!(read(&options), events([1, 2, 3, 4, 6, 7, 8, 9, 10]), "in its place");
        store.close().await.unwrap();
        assert_eq!(read(&options), events([1, 2, 3, 4, 6, 7, 8, 9, 10]), "in its place, from an object of its own");
        assert_eq!(totals(&options)[0], ("acme".to_owned(), 18, 9));
        assert_eq!(objects(&root).len(), 4);
        if format == ObjectFormat::Ndjson {
            let sorted: BTreeSet<_> = others(&root).into_iter().collect();
            assert_eq!(sorted.len(), others(&root).len(), "nothing is there twice");
            assert_eq!(sorted.len(), 19);
        }
    }
}

#[tokio::test]
async fn an_object_is_made_as_soon_as_batches_take_so_many_bytes_and_none_is_much_larger() {
    let folder = TempDir::new().unwrap();
    let mut options = at(&folder, "events", HOUR);
    options.compact_bytes = 4 << 10;
    let store = open(&options);
    let mut expected = vec![];
    for seq in 1..=40 {
        // Not to be compressed to nothing.
        let body: String = std::iter::repeat_with(fastrand::alphanumeric).take(1000).collect();
        put(&store, &batch_at("acme", seq, &[&body], UnixMillis(5 * DAY)), 1).await.unwrap();
        expected.push(body);
    }
    let (root, began) = (folder.path().join("events"), Instant::now());
    while objects(&root).len() < 6 {
        assert!(began.elapsed() < DEADLINE, "{:?}", objects(&root).keys());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close().await.unwrap();
    assert!(objects(&root).values().all(|bytes| bytes.len() < 8 << 10));
    assert_eq!((read(&options), others(&root)), (expected.clone(), expected));
}

/// At every moment, for those who know of the store and for those who do not; with batches that are rolled back and come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_batches_become_part_of_larger_objects_no_reader_ever_sees_one_twice_or_misses_one_that_was_stored() {
    const BATCHES: u64 = 300;
    let folder = TempDir::new().unwrap();
    let mut options = at(&folder, "events", Duration::from_millis(1));
    options.compact_bytes = 2000;
    let root = folder.path().join("events");
    let store = open(&options);
    let (stored, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let looks = |look: fn(&ObjectOptions, &Path, u64)| {
        let (options, root, stored, is_over) = (options.clone(), root.clone(), stored.clone(), is_over.clone());
        std::thread::spawn(move || {
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                look(&options, &root, stored.load(Ordering::Acquire) as u64);
                looks += 1;
            }
            looks
        })
    };
    let ours = looks(|options, _, stored| {
        let found = read(options);
        let order: Vec<(u64, u64)> = found
            .iter()
            .map(|event| event.split_once('.').map(|(seq, n)| (seq.parse().unwrap(), n.parse().unwrap())).unwrap())
            .collect();
        assert!(order.is_sorted_by(|a, b| a < b), "each once and in order: {found:?}");
        let found: BTreeSet<_> = found.into_iter().collect();
        // What is rolled back later than it was stored may be missing for a while.
        assert!(events((1..=stored).filter(|seq| seq % 7 != 3)).iter().all(|event| found.contains(event)));
    });
    let summed = looks(|options, _, stored| {
        let found = totals(options).first().map_or(0, |(_, events, _)| *events);
        let sure = (1..=stored).filter(|seq| seq % 7 != 3).count() as u64 * 2;
        assert!((sure..=2 * BATCHES).contains(&found), "{sure}: {found}");
    });
    let theirs = looks(|_, root, _| {
        let found = others(root);
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "each at most once");
    });
    for seq in 1..=BATCHES {
        put(&store, &numbered(seq), 1).await.unwrap();
        if seq % 7 == 3 {
            // At any step of its way.
            tokio::time::sleep(Duration::from_millis(seq % 29)).await;
            store.rollback(&id("acme", seq), Attempt(1)).await.unwrap();
            put(&store, &numbered(seq), 2).await.unwrap();
        }
        stored.store(seq as usize, Ordering::Release);
    }
    store.close().await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    let looked = [ours, summed, theirs].map(|looking| looking.join().unwrap());
    let mut found = others(&root);
    assert_eq!(read(&options), events(1..=BATCHES));
    assert_eq!(totals(&options), [("acme".to_owned(), 2 * BATCHES, BATCHES)]);
    found.sort();
    let mut expected = events(1..=BATCHES);
    expected.sort();
    assert_eq!(found, expected);
    let objects = objects(&root).len();
    eprintln!("{BATCHES} batches in {objects} objects, looked at {looked:?} times meanwhile");
    assert!(objects < 200 && looked.iter().all(|looks| *looks > 3));
}

/// Every request of a compaction, and of a rollback after it, fails in every way, and the process is gone after that.
#[tokio::test]
async fn whichever_request_of_a_compaction_fails_and_however_all_is_there_once_and_the_next_process_ends_it() {
    let mut compactions = 0;
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Status(503, "SlowDown")] {
        for is_rolled_back in [false, true] {
            for nth in 0.. {
                let s3 = S3::start();
                let options = compacting(s3.options("p"), HOUR);
                let store = open(&options);
                for seq in 1..=3 {
                    put(&store, &numbered(seq), 1).await.unwrap();
                }
                let asked = Arc::new(AtomicUsize::new(0));
                let (counted, fails) = (asked.clone(), fault.clone());
                let plan = move |_: &str, _: &str| match counted.fetch_add(1, Ordering::Relaxed) {
                    now if now == nth => fails.clone(),
                    _ => Fault::None,
                };
                let there = || s3.objects("p").values().flat_map(|bytes| text(bytes)).collect::<Vec<_>>();
                let mut expected = events(1..=3);
                if is_rolled_back {
                    store.close().await.unwrap();
                    let store = open(&options);
                    s3.plan(plan);
                    // Whatever it says, what was acknowledged is there; and one that is asked for again ends.
                    let mut tries = 0;
                    while let Err(why) = store.rollback(&id("acme", 2), Attempt(1)).await {
                        assert!(matches!(why, StorageError::Unavailable { .. }), "{nth}: {why}");
                        tries += 1;
                        assert!(tries < 50, "one fault, and fifty outages");
                    }
                    expected = events([1, 3]);
                    store.close().await.unwrap();
                } else {
                    s3.plan(plan);
                    store.close().await.unwrap();
                }
                s3.well();
                let is_done = asked.load(Ordering::Relaxed) <= nth;
                assert_eq!(
                    (read(&options), totals(&options)[0].1),
                    (expected.clone(), expected.len() as u64),
                    "request {nth}"
                );
                let found = there();
                assert!(found.is_empty() && !is_rolled_back || found == expected, "request {nth}: {found:?}");
                let again = open(&options);
                put(&again, &numbered(3), 2).await.unwrap();
                put(&again, &numbered(4), 1).await.unwrap();
                again.close().await.unwrap();
                compact(&options).await;
                compactions += 3;
                expected.extend(events([4]));
                assert_eq!((read(&options), there()), (expected.clone(), expected), "request {nth}");
                let waiting = s3.waiting("p");
                assert!(waiting.values().all(|bytes| text(bytes).is_empty()), "request {nth}: {:?}", waiting.keys());
                if is_done {
                    assert!(nth > 5, "{nth}");
                    break;
                }
            }
        }
    }
    eprintln!("{compactions} compactions");
}

/// The first process dies over a request that is under way, and it arrives when the second has long gone on.
#[tokio::test]
async fn a_request_of_a_compaction_that_arrives_late_changes_nothing() {
    for rolls_back in [false, true] {
        for (method, held) in [("PUT", "p/acme/"), ("PUT", "/pack-"), ("POST", "")] {
            let s3 = S3::start();
            let mut options = compacting(s3.options("p"), HOUR);
            options.request_timeout = Duration::from_millis(200);
            options.connect_timeout = Duration::from_millis(200);
            let first = open(&options);
            for seq in 1..=3 {
                put(&first, &numbered(seq), 1).await.unwrap();
            }
            let held_back = Arc::new(Held::default());
            let (hold, mut is_held) = (held_back.clone(), false);
            s3.plan(move |by, path| {
                let is_first = !is_held && by == method && path.contains(held);
                is_held |= is_first;
                if is_first { Fault::Hold(hold.clone()) } else { Fault::None }
            });
            first.close().await.unwrap();
            let second = open(&options);
            let mut expected = events(1..=3);
            if rolls_back {
                second.rollback(&id("acme", 2), Attempt(1)).await.unwrap();
                expected = events([1, 3]);
            }
            second.close().await.unwrap();
            let there = || s3.objects("p").values().flat_map(|bytes| text(bytes)).collect::<Vec<_>>();
            assert_eq!((read(&options), there()), (expected.clone(), expected.clone()), "{method} {held}");
            held_back.let_go().await;
            assert_eq!((read(&options), there()), (expected.clone(), expected.clone()), "{method} {held}");
            let third = open(&options);
            let refused = put(&third, &numbered(2), 1).await;
            assert_eq!(refused.is_err(), rolls_back, "{refused:?}");
            third.close().await.unwrap();
            assert_eq!((read(&options), there()), (expected.clone(), expected), "{method} {held}");
        }
    }
}

#[tokio::test]
async fn of_two_rollbacks_out_of_one_object_the_first_arrives_late_and_brings_nothing_back() {
    let s3 = S3::start();
    let options = compacting(s3.options("p"), HOUR);
    let mut hurried = options.clone();
    (hurried.request_timeout, hurried.connect_timeout) = (Duration::from_millis(200), Duration::from_millis(200));
    let store = open(&options);
    for seq in 1..=4 {
        put(&store, &numbered(seq), 1).await.unwrap();
    }
    store.close().await.unwrap();
    let (first, second) = (open(&hurried), open(&options));
    let held_back = Arc::new(Held::default());
    let (hold, mut is_held) = (held_back.clone(), false);
    s3.plan(move |method, path| {
        let is_first = !is_held && method == "PUT" && path.contains("p/acme/");
        is_held |= is_first;
        if is_first { Fault::Hold(hold.clone()) } else { Fault::None }
    });
    first.rollback(&id("acme", 2), Attempt(1)).await.unwrap_err();
    second.rollback(&id("acme", 3), Attempt(1)).await.unwrap();
    held_back.let_go().await;
    let there = || s3.objects("p").values().flat_map(|bytes| text(bytes)).collect::<Vec<_>>();
    assert_eq!((read(&options), there()), (events([1, 4]), events([1, 4])));
}

#[tokio::test]
async fn whether_batches_are_put_together_is_decided_at_the_first_start() {
    let folder = TempDir::new().unwrap();
    let compacts = at(&folder, "events", HOUR);
    compact(&compacts).await;
    compact(&at(&folder, "events", 2 * HOUR)).await;
    let mut plain = compacts;
    plain.compact_after = None;
    let why = ObjectStore::open(plain.clone()).unwrap_err().to_string();
    assert!(why.contains("made with compact_after = a time, but compact_after = \"never\""), "{why}");
    let mut elsewhere = plain;
    elsewhere.url += "-more";
    ObjectStore::open(elsewhere.clone()).unwrap().close().await.unwrap();
    let why = ObjectStore::open(compacting(elsewhere, HOUR)).unwrap_err().to_string();
    assert!(why.contains("made with compact_after = \"never\""), "{why}");
}

/// DuckDB of PyPI reads whole folders: what is in larger objects, and each event once.
#[tokio::test]
async fn another_tool_reads_larger_objects_of_both_formats_with_the_ids_of_their_batches() {
    let folder = TempDir::new().unwrap();
    for format in [ObjectFormat::Ndjson, ObjectFormat::Parquet] {
        let mut options = at(&folder, format.ending(), HOUR);
        options.format = format;
        let store = open(&options);
        for seq in 1..=50 {
            put(&store, &batch_at("acme", seq, &[&format!("{{\"n\":{seq}}}")], UnixMillis(5 * DAY)), 1).await.unwrap();
        }
        store.close().await.unwrap();
        open(&options).rollback(&id("acme", 7), Attempt(1)).await.unwrap();
    }
    let script = "
import duckdb, sys
rows = f\"read_parquet('{sys.argv[1]}/parquet/*/*/*.parquet')\"
lines = f\"read_json('{sys.argv[1]}/ndjson.zst/*/*/*.ndjson.zst', format='newline_delimited')\"
print(duckdb.sql(f\"SELECT count(*), count(DISTINCT batch), sum((body::JSON->>'n')::int), min(batch) FROM {rows}\").fetchall())
print(duckdb.sql(f'SELECT count(*), sum(n) FROM {lines}').fetchall())
";
    let python = python::environment(&["duckdb==1.4.2", "pytz==2025.2"]).join("python");
    let ended = Command::new(python).args(["-c", script]).arg(folder.path()).output().unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{out}{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(out, "[(49, 49, 1268, '0000000000000001/acme/1')]\n[(49, 1268)]\n");
    assert_eq!(objects(folder.path()).keys().filter(|key| !key.contains("_headworks")).count(), 2);
}

/// Holds the first request like this, and tells when it is there.
fn hold(s3: &S3, method: &'static str, held: &'static str) -> (Arc<Held>, Arc<AtomicBool>) {
    let (held_back, is_held) = (Arc::new(Held::default()), Arc::new(AtomicBool::new(false)));
    let (back, is) = (held_back.clone(), is_held.clone());
    s3.plan(move |by, path| {
        let is_first = by == method && path.contains(held) && !is.swap(true, Ordering::SeqCst);
        if is_first { Fault::Hold(back.clone()) } else { Fault::None }
    });
    (held_back, is_held)
}

async fn until(is_held: &AtomicBool) {
    let began = Instant::now();
    while !is_held.load(Ordering::SeqCst) {
        assert!(began.elapsed() < DEADLINE, "nothing is asked for");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The rollback finds no mark of the object, which is made of what was there before it.
#[tokio::test]
async fn what_is_rolled_back_while_an_object_is_announced_is_left_out_of_it() {
    let s3 = S3::start();
    let mut options = compacting(s3.options("p"), HOUR);
    options.request_timeout = DEADLINE;
    let (first, second) = (open(&options), open(&options));
    for seq in 1..=3 {
        put(&first, &numbered(seq), 1).await.unwrap();
    }
    let (held, is_held) = hold(&s3, "PUT", "/pack-");
    let closing = tokio::spawn(async move { first.close().await });
    until(&is_held).await;
    second.rollback(&id("acme", 2), Attempt(1)).await.unwrap();
    held.let_go().await;
    closing.await.unwrap().unwrap();
    let there: Vec<_> = s3.objects("p").values().flat_map(|bytes| text(bytes)).collect();
    assert_eq!((read(&options), there), (events([1, 3]), events([1, 3])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_moves_while_a_reader_is_on_its_way_to_it_is_read_where_it_is_then() {
    let s3 = S3::start();
    let mut options = compacting(s3.options("p"), HOUR);
    options.request_timeout = DEADLINE;
    let store = open(&options);
    for seq in 1..=3 {
        put(&store, &numbered(seq), 1).await.unwrap();
    }
    let (held, is_held) = hold(&s3, "GET", "p/_headworks/batches/acme/");
    let reader = options.clone();
    let reading = tokio::task::spawn_blocking(move || read(&reader));
    until(&is_held).await;
    store.close().await.unwrap();
    assert!(s3.waiting("p").is_empty());
    held.let_go().await;
    assert_eq!(reading.await.unwrap(), events(1..=3));
}

/// A process that does not know that the batch is in a larger object by now.
#[tokio::test]
async fn a_batch_that_waits_once_more_is_dropped_and_its_later_attempt_is_known() {
    let s3 = S3::start();
    let options = compacting(s3.options("p"), HOUR);
    let store = open(&options);
    for seq in 1..=3 {
        put(&store, &numbered(seq), 1).await.unwrap();
    }
    compact(&options).await;
    put(&store, &numbered(2), 2).await.unwrap();
    assert_eq!(s3.waiting("p").len(), 1);
    assert_eq!((read(&options), totals(&options)[0].1), (events(1..=3), 6));
    compact(&options).await;
    assert_eq!(s3.waiting("p").len(), 0);
    open(&options).rollback(&id("acme", 2), Attempt(1)).await.unwrap();
    let there: Vec<_> = s3.objects("p").values().flat_map(|bytes| text(bytes)).collect();
    assert_eq!((read(&options), there), (events(1..=3), events(1..=3)));
}
