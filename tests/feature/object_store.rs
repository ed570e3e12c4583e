//! The store in objects, in a directory and on a server of S3 that we did not write (`s3s-fs`, in the test's own process): its contract, what
//! is in its objects, and who wins a race.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headworks::store::object::OpenError;
use headworks::store::{ObjectFormat, ObjectOptions, ObjectReader, ObjectStore};
use headworks::{Attempt, BatchId, Opening, Seq, Storage, StorageError, TenantId, UnixMillis, conformance};
use tempfile::TempDir;

use crate::rig::batches::{assert_outage, batch, batch_at, put, tenant};
use crate::rig::s3::{BUCKET, Fault, Held, S3, objects};
use crate::rig::{Place, python};

const FORMATS: [ObjectFormat; 2] = [ObjectFormat::Ndjson, ObjectFormat::Parquet];
/// A day in milliseconds.
const DAY: i64 = 86_400_000;

pub(super) fn id(name: &str, seq: u64) -> BatchId {
    BatchId::new(Opening(1), tenant(name), Seq(seq))
}

#[track_caller]
fn assert_refused(opened: Result<ObjectStore, OpenError>, says: &str) {
    let why = opened.unwrap_err();
    assert!(matches!(why, OpenError::Refused { .. }) && why.to_string().contains(says), "{why}");
    assert!(!why.to_string().contains("s3cret"), "{why}");
}

#[track_caller]
fn assert_permanent(answer: Result<(), StorageError>, says: &str) {
    let why = answer.unwrap_err();
    assert!(matches!(why, StorageError::Permanent { .. }) && why.to_string().contains(says), "{why:?}");
}

fn in_directory(folder: &TempDir, name: &str) -> ObjectOptions {
    ObjectOptions::at(format!("file://{}", folder.path().join(name).display()))
}

async fn keeps_the_contract(options: impl Fn(&str) -> ObjectOptions) {
    for (format, path, queue) in [
        (ObjectFormat::Ndjson, "{tenant}/{date}/{batch}", 256),
        (ObjectFormat::Parquet, "day={date}/tenant={tenant}/{batch}", 256),
        (ObjectFormat::Ndjson, "{tenant}/{batch}", 1),
    ] {
        let opened = Cell::new(0);
        let options = |number: i32| {
            let mut options = options(&format!("{}-{queue}-{number}", format.ending()));
            (options.format, options.path, options.queue) = (format, path.into(), queue);
            options
        };
        let make = async || {
            opened.set(opened.get() + 1);
            ObjectStore::open(options(opened.get())).unwrap()
        };
        let bodies = async |_: &ObjectStore, tenant: &TenantId| {
            ObjectReader::new(options(opened.get())).unwrap().bodies(tenant).unwrap()
        };
        conformance::storage(make, bodies).await;
    }
}

#[tokio::test]
async fn the_store_keeps_the_contract_in_a_directory_with_every_format_and_order_of_names() {
    let folder = TempDir::new().unwrap();
    keeps_the_contract(|name| in_directory(&folder, name)).await;
}

#[tokio::test]
async fn the_store_keeps_the_contract_on_s3_with_every_format_and_order_of_names() {
    let s3 = S3::start();
    // Each in a bucket of its own, since this server looks at all of a bucket for each listing.
    keeps_the_contract(|name| s3.options_in(name)).await;
}

#[tokio::test]
async fn a_late_rollback_does_not_take_away_what_a_later_attempt_was_told_is_stored_not_even_after_a_restart() {
    let s3 = S3::start();
    let batch = batch("acme", 1, &["a"]);
    let store = s3.open("p");
    for attempt in [1, 2] {
        put(&store, &batch, attempt).await.unwrap();
    }
    store.close().await.unwrap();
    let store = s3.open("p");
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    assert_eq!(s3.reader("p").bodies(&tenant("acme")).unwrap(), [b"a"]);
    store.rollback(batch.id(), Attempt(2)).await.unwrap();
    assert!(s3.reader("p").bodies(&tenant("acme")).unwrap().is_empty());
    assert!(s3.reader("p").tenants().unwrap().is_empty());
    assert_permanent(put(&s3.open("p"), &batch, 2).await, "was rolled back");
}

#[tokio::test]
async fn other_content_under_the_same_id_is_refused_for_good_and_nothing_changes() {
    for format in FORMATS {
        let s3 = S3::start();
        let mut options = s3.options("p");
        options.format = format;
        let store = ObjectStore::open(options.clone()).unwrap();
        put(&store, &batch("acme", 1, &["a", "b"]), 1).await.unwrap();
        let other = put(&store, &batch("acme", 1, &["a", "c"]), 1).await;
        assert_permanent(other, "already stored with other content: 2 events there, 2 events now");
        assert_eq!(ObjectReader::new(options).unwrap().bodies(&tenant("acme")).unwrap(), [b"a", b"b"]);
    }
}

#[tokio::test]
async fn batches_of_many_pages_and_days_come_back_in_order_and_a_page_costs_two_requests() {
    const BATCHES: u64 = 130;
    let s3 = S3::start();
    let store = s3.open("p");
    let (puts, lists) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    s3.plan({
        let (puts, lists) = (puts.clone(), lists.clone());
        move |method, path| {
            let is_of_tenant = method == "PUT" && path.contains("/acme/");
            puts.fetch_add(usize::from(is_of_tenant), Ordering::Relaxed);
            lists.fetch_add(usize::from(!is_of_tenant), Ordering::Relaxed);
            Fault::None
        }
    });
    for seq in 1..=BATCHES {
        let at = UnixMillis(1_732_233_600_000 + i64::from(seq > 100) * DAY);
        put(&store, &batch_at("acme", seq, &[&seq.to_string()], at), 1).await.unwrap();
    }
    // Pages 0, 1 and 2, and 1 for another day again.
    assert_eq!(puts.load(Ordering::Relaxed), 130 + 4);
    // And once, at some time after its start, the store looks for what is gone, for whoever counts.
    assert!(matches!(lists.load(Ordering::Relaxed), 4 | 5), "{lists:?}");
    let expected: Vec<_> = (1..=BATCHES).map(|seq| seq.to_string().into_bytes()).collect();
    assert_eq!(s3.reader("p").bodies(&tenant("acme")).unwrap(), expected);
    let [totals] = &s3.reader("p").tenants().unwrap()[..] else { panic!("one tenant") };
    assert_eq!((totals.events, totals.batches), (BATCHES, BATCHES));
    assert_eq!(totals.last_arrived, Some(UnixMillis(1_732_233_600_000 + DAY)));
    for seq in [1, 101] {
        store.rollback(&id("acme", seq), Attempt(1)).await.unwrap();
    }
    assert_eq!(s3.reader("p").bodies(&tenant("acme")).unwrap().len(), 128);
    // Of the days on the page of 101, one has its batch and one never will.
    let fences = s3.objects("p").keys().filter(|key| key.contains("000000000101")).count();
    assert_eq!(fences, 2);
}

/// The request is under way when its caller gives up; the batch is rolled back, and then the request arrives.
#[tokio::test]
async fn a_request_that_arrives_after_the_rollback_of_its_attempt_does_not_land_be_it_of_this_process_or_of_a_dead_one()
{
    for held in ["p/acme/", "/day-"] {
        for is_dead in [false, true] {
            let s3 = S3::start();
            let mut options = s3.options("p");
            options.request_timeout = std::time::Duration::from_millis(200);
            options.connect_timeout = std::time::Duration::from_millis(200);
            let (first, second) = (ObjectStore::open(options.clone()).unwrap(), s3.open("p"));
            let held_back = Arc::new(Held::default());
            let hold = held_back.clone();
            let mut is_held = false;
            s3.plan(move |method, path| {
                let is_first = !is_held && method == "PUT" && path.contains(held);
                is_held |= is_first;
                if is_first { Fault::Hold(hold.clone()) } else { Fault::None }
            });
            let late = batch("acme", 1, &["late"]);
            assert_outage(put(&first, &late, 1).await, "");
            let by = if is_dead { &second } else { &first };
            by.rollback(late.id(), Attempt(1)).await.unwrap();
            held_back.let_go().await;
            let there = || s3.reader("p").bodies(&tenant("acme")).unwrap();
            assert!(there().is_empty(), "{held} {is_dead}");
            for store in [&first, &second] {
                assert_permanent(put(store, &late, 1).await, "was rolled back");
                assert!(there().is_empty(), "{held} {is_dead}");
            }
            put(&second, &late, 2).await.unwrap();
            assert_eq!(there(), [b"late"]);
            put(&first, &late, 2).await.unwrap();
            assert_eq!(there(), [b"late"]);
        }
    }
}

#[tokio::test]
async fn what_was_decided_at_the_first_start_holds_and_another_choice_is_refused_with_it() {
    let folder = TempDir::new().unwrap();
    let options = in_directory(&folder, "events");
    ObjectStore::open(options.clone()).unwrap();
    let with = |change: &dyn Fn(&mut ObjectOptions)| {
        let mut options = options.clone();
        change(&mut options);
        ObjectStore::open(options)
    };
    assert_refused(with(&|options| options.format = ObjectFormat::Parquet), "choose format = \"ndjson.zst\"");
    assert_refused(
        with(&|options| options.path = "{tenant}/{batch}".into()),
        "choose path = \"{tenant}/{date}/{batch}\"",
    );
    with(&|_| {}).unwrap();
    let decided = folder.path().join("events/_headworks/store.json");
    let text = std::fs::read_to_string(&decided).unwrap();
    std::fs::write(&decided, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert_refused(with(&|_| {}), "has version 2, but this headworks knows only 1");
}

#[tokio::test]
async fn wrong_keys_a_missing_bucket_and_a_server_that_heeds_no_condition_are_refused_at_once_with_what_helps() {
    let s3 = S3::start();
    let mut options = s3.options("p");
    let place = Place::new();
    options.credentials_file = Some(place.secret("keys", "aws_access_key_id=AKIDHEADWORKS\naws_secret_access_key=x\n"));
    assert_refused(ObjectStore::open(options.clone()), "check the keys in credentials_file");
    options.credentials_file = Some(place.path("nowhere"));
    assert_refused(ObjectStore::open(options), "nowhere (credentials_file)");
    s3.plan(|_, _| Fault::Status(404, "NoSuchBucket"));
    assert_refused(ObjectStore::open(s3.options("p")), "make the bucket, or check url");
    let heedless = S3::start();
    heedless.heeds_no_condition();
    assert_refused(ObjectStore::open(heedless.options("p")), "choose a server that heeds conditions");
    let why = ObjectStore::open(ObjectOptions::at("file:///proc/headworks")).unwrap_err();
    assert!(why.to_string().contains("cannot use /proc/headworks (url)"), "{why}");
}

#[tokio::test]
async fn an_object_of_lines_is_the_bodies_as_they_came_to_every_reader_of_zstd_and_empty_once_it_is_rolled_back() {
    let folder = TempDir::new().unwrap();
    let store = ObjectStore::open(in_directory(&folder, "events")).unwrap();
    let batch = batch_at("acme", 42, &["{\"n\":1}", "{\"n\":2}"], UnixMillis(1_732_233_600_000));
    put(&store, &batch, 1).await.unwrap();
    let key = "acme/2024-11-22/0000000000000001-000000000042.ndjson.zst";
    let only = || {
        let found = objects(&folder.path().join("events"));
        assert_eq!(found.keys().collect::<Vec<_>>(), [key]);
        zstd::stream::decode_all(&*found[key]).unwrap()
    };
    assert_eq!(only(), b"{\"n\":1}\n{\"n\":2}\n");
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    assert_eq!(only(), b"");
}

/// DuckDB of PyPI reads what both formats left, whole folders at once, with what was rolled back among it.
#[tokio::test]
async fn another_tool_reads_whole_folders_of_parquet_and_of_lines_with_their_columns_and_nothing_that_was_rolled_back()
{
    let folder = TempDir::new().unwrap();
    for format in FORMATS {
        let mut options = in_directory(&folder, format.ending());
        options.format = format;
        if format == ObjectFormat::Parquet {
            options.columns = ["level", "at.ms:integer", "ok:boolean", "took:number"].map(str::to_owned).into();
        }
        let store = ObjectStore::open(options).unwrap();
        for seq in 1..=3 {
            let one = format!("{{\"level\":\"l{seq}\",\"at\":{{\"ms\":{seq}}},\"ok\":true,\"took\":0.5,\"n\":{seq}}}");
            let batch = batch_at(
                "acme",
                seq,
                &[&one, "{\"level\":{\"a\":1},\"ok\":\"odd\",\"n\":0}"],
                UnixMillis(seq.cast_signed() * DAY),
            );
            put(&store, &batch, 1).await.unwrap();
        }
        store.rollback(&id("acme", 2), Attempt(1)).await.unwrap();
        store.rollback(&id("acme", 9), Attempt(1)).await.unwrap();
    }
    let script = "
import duckdb, sys
ask = lambda sql: print(duckdb.sql(sql).fetchall())
rows = f\"read_parquet('{sys.argv[1]}/parquet/*/*/*.parquet')\"
ask(f'SELECT batch, seq, idx, tenant, epoch_ms(arrived_at), level, \"at.ms\", ok, took FROM {rows} ORDER BY seq, idx')
ask(f'SELECT sum((body::JSON->>\\'n\\')::int) FROM {rows}')
ask(f\"SELECT n, count(*) FROM read_json('{sys.argv[1]}/ndjson.zst/*/*/*.ndjson.zst', format='newline_delimited') GROUP BY n ORDER BY n\")
";
    let python = python::environment(&["duckdb==1.4.2", "pytz==2025.2"]).join("python");
    let ended = Command::new(python).args(["-c", script]).arg(folder.path()).output().unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{out}{}", String::from_utf8_lossy(&ended.stderr));
    let expected = "\
[('0000000000000001/acme/1', 1, 0, 'acme', 86400000, 'l1', 1, True, 0.5), ('0000000000000001/acme/1', 1, 1, 'acme', 86400000, '{\"a\":1}', None, None, None), \
('0000000000000001/acme/3', 3, 0, 'acme', 259200000, 'l3', 3, True, 0.5), ('0000000000000001/acme/3', 3, 1, 'acme', 259200000, '{\"a\":1}', None, None, None)]
[(4,)]
[(0, 2), (1, 1), (3, 1)]
";
    assert_eq!(out, expected);
}

#[tokio::test]
async fn an_object_that_others_changed_is_named_and_never_written_over() {
    let folder = TempDir::new().unwrap();
    let store = ObjectStore::open(in_directory(&folder, "events")).unwrap();
    let (batch, next) = (batch("acme", 1, &["a"]), batch("acme", 2, &["b"]));
    put(&store, &batch, 1).await.unwrap();
    let root = folder.path().join("events");
    let key = objects(&root).into_keys().next().unwrap();
    std::fs::write(root.join(&key), "else").unwrap();
    assert_outage(put(&store, &batch, 2).await, &format!("{key} is not as it was left"));
    assert_outage(store.rollback(batch.id(), Attempt(2)).await, &key);
    assert_eq!(std::fs::read(root.join(&key)).unwrap(), b"else");
    put(&store, &next, 1).await.unwrap();
    let why = ObjectReader::new(in_directory(&folder, "events")).unwrap().bodies(&tenant("acme")).unwrap_err();
    assert!(why.to_string().contains(&key), "{why}");
}

#[tokio::test]
async fn calls_after_a_close_are_answered_as_unavailable() {
    let s3 = S3::start();
    let store = s3.open("p");
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    let clone = store.clone();
    store.close().await.unwrap();
    clone.close().await.unwrap();
    assert_outage(put(&clone, &batch("acme", 2, &["a"]), 1).await, &format!("s3://{BUCKET}/p is closed"));
}
