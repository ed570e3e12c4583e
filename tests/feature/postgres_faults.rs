//! The store on PostgreSQL while its server is killed, cut off, full, away: what is answered is true, and what comes again is there
//! once.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures::future::join_all;
use headworks::store::PostgresStore;
use headworks::{Storage, StorageError};

use crate::rig::batches::{Stream, assert_outage, batch, put, tenant};
use crate::rig::disk::Tmpfs;
use crate::rig::postgres::{AGAIN, PLENTY, Postgres, Way, url};

/// Events that have no batch, and batches that have not all of their events.
const TORN: &str = "
    SELECT count(*) FROM (SELECT batch, count(*) n FROM headworks.events GROUP BY batch) e
    FULL JOIN (SELECT * FROM headworks.batches WHERE stored) b ON b.number = e.batch
    WHERE e.n IS DISTINCT FROM b.events";

fn bodies(name: &str, seq: u64) -> Vec<String> {
    (0..200).map(|n| format!("{{\"tenant\":\"{name}\",\"seq\":{seq},\"n\":{n}}}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_killed_again_and_again_in_mid_batch_every_batch_is_there_once_whole_and_in_order() {
    let stream = Stream { tenants: 8, batches: 40, kills: 6, again: AGAIN, bodies };
    let mut postgres = Postgres::start();
    let store = postgres.open("headworks");
    let outages = stream
        .stored_over_kills(store.clone(), || {
            postgres.kill();
            postgres.restart();
        })
        .await;
    let reader = postgres.reader("headworks");
    for name in stream.names() {
        assert!(reader.bodies(&tenant(&name)).unwrap() == stream.all(&name), "{name}");
        assert_eq!(store.count(&tenant(&name)).await, Some(stream.batches * 200));
    }
    assert_eq!(postgres.ask(TORN), "0");
    eprintln!("{} kills of the server, {outages} outages, {} events stored once", stream.kills, 8 * 40 * 200);
}

/// Every few bytes, in each direction: before the claim, in the rows, before the commit, and before its answer.
#[tokio::test]
async fn a_connection_that_is_cut_anywhere_is_an_outage_or_a_success_and_the_batch_that_comes_again_is_there_once() {
    let postgres = Postgres::start();
    let way = Way::to(postgres.address());
    let mut options = postgres.options("headworks");
    (options.url, options.pool_size) = (url(way.address), 1);
    let store = PostgresStore::open(options).unwrap();
    let events = ["one", "two", "three"];
    let (mut outages, mut landed) = (0, 0);
    let mut seq = 0;
    let length = async |seq, down: bool| {
        let budget = if down { &way.down } else { &way.up };
        let before = budget.left();
        put(&store, &batch("acme", seq, &events), 1).await.unwrap();
        before - budget.left()
    };
    for down in [false, true] {
        seq += 1;
        let whole = length(seq, down).await;
        assert!(whole > 50, "{whole}");
        // What the server says is shorter; of the last answer the end of the one before may take some.
        let (step, end) = if down { (5, whole + 20) } else { (17, whole) };
        for cut in (0..end).step_by(step) {
            seq += 1;
            let batch = batch("acme", seq, &events);
            // The connection is there before it is cut.
            assert!(store.count(&tenant("acme")).await.is_some());
            if down { &way.down } else { &way.up }.set(cut);
            match put(&store, &batch, 1).await {
                Ok(()) => {}
                Err(StorageError::Unavailable { .. }) => outages += 1,
                Err(why) => panic!("{why:?}"),
            }
            let there = format!("SELECT count(*) FROM headworks.batches WHERE stored AND id = '{}'", batch.id());
            landed += postgres.ask(&there).parse::<u32>().unwrap();
            way.down.set(PLENTY);
            way.up.set(PLENTY);
            put(&store, &batch, 2).await.unwrap();
            assert_eq!(postgres.ask(&there), "1", "cut {cut}, down {down}");
        }
    }
    assert_eq!(store.count(&tenant("acme")).await, Some(seq * 3));
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), (seq * 3).to_string());
    assert_eq!(postgres.ask(TORN), "0");
    eprintln!("{} cuts: {outages} outages, of which {landed} had landed all the same", seq - 2);
    assert!(outages > 10 && landed > 0, "{outages} {landed}");
}

#[tokio::test]
async fn a_server_that_is_cut_off_between_batches_is_not_noticed() {
    let postgres = Postgres::start();
    let way = Way::to(postgres.address());
    let mut options = postgres.options("headworks");
    (options.url, options.pool_size) = (url(way.address), 1);
    let store = PostgresStore::open(options).unwrap();
    for seq in 1..=3 {
        put(&store, &batch("acme", seq, &["a"]), 1).await.unwrap();
        way.cut();
        // As any time that passes: until the end of the connection has come to the store's thread.
        while store.count(&tenant("acme")).await.is_none() {}
    }
}

#[tokio::test]
async fn a_server_that_is_away_when_the_store_is_opened_is_waited_for_and_its_tables_are_made_then() {
    let mut postgres = Postgres::prepared(&[]);
    let store = postgres.open("headworks");
    for _ in 0..2 {
        assert_outage(put(&store, &batch("acme", 1, &["a"]), 1).await, "Connection refused");
    }
    postgres.restart();
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "1");
}

#[tokio::test]
async fn a_server_that_has_stopped_answering_is_an_outage_for_all_who_wait_within_twice_the_limit_of_a_statement() {
    let postgres = Postgres::start();
    let mut options = postgres.options("headworks");
    (options.pool_size, options.statement_timeout, options.connect_timeout) =
        (2, Duration::from_millis(300), Duration::from_millis(300));
    let store = PostgresStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    postgres.freeze(true);
    let batches: Vec<_> = (0..100).map(|n| batch(&format!("t{n}"), 1, &["a"])).collect();
    let began = std::time::Instant::now();
    for answer in join_all(batches.iter().map(|batch| put(&store, batch, 1))).await {
        assert_outage(answer, "does not answer");
    }
    // Nobody waited for the patience of everybody before.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    postgres.freeze(false);
    for batch in &batches {
        while let Err(why) = put(&store, batch, 2).await {
            assert!(matches!(why, StorageError::Unavailable { .. }), "{why:?}");
            tokio::time::sleep(AGAIN).await;
        }
    }
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "101");
}

#[tokio::test]
async fn a_full_disk_of_the_server_is_an_outage_and_passes() {
    let postgres = Postgres::start();
    let place = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let Some(disk) = Tmpfs::on(&place.path().join("disk"), "4m") else { return };
    let tablespace = place.path().join("disk/tablespace");
    std::fs::create_dir(&tablespace).unwrap();
    postgres.give(&tablespace);
    postgres.ask(&format!("CREATE TABLESPACE small LOCATION '{}'", tablespace.display()));
    postgres.ask("ALTER DATABASE postgres SET default_tablespace = small");
    let store = postgres.open("headworks");
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    disk.fill();
    // More than a page is left for, and not to be compressed.
    let large: String = std::iter::repeat_with(fastrand::alphanumeric).take(100_000).collect();
    let big = batch("acme", 2, &[large.as_str(); 8]);
    for attempt in 1..3 {
        assert_outage(put(&store, &big, attempt).await, "make room on the server's disk");
    }
    disk.free();
    put(&store, &big, 3).await.unwrap();
    assert_eq!(store.count(&tenant("acme")).await, Some(9));
    assert_eq!(postgres.ask(TORN), "0");
    drop(postgres);
}

#[tokio::test]
async fn a_server_without_a_connection_left_is_an_outage_and_passes() {
    let postgres =
        Postgres::start_with(&["max_connections=4", "superuser_reserved_connections=0", "max_wal_senders=0"]);
    let mut others: Vec<_> = (0..4).map(|_| postgres.session()).collect();
    others.iter_mut().for_each(|other| other.run("SELECT 1"));
    let store = postgres.open("headworks");
    assert_outage(put(&store, &batch("acme", 1, &["a"]), 1).await, "raise the server's max_connections");
    drop(others);
    // The server lets go of them in its own time.
    while let Err(why) = put(&store, &batch("acme", 1, &["a"]), 1).await {
        assert!(matches!(why, StorageError::Unavailable { .. }), "{why:?}");
        tokio::time::sleep(AGAIN).await;
    }
}
