//! Retention on PostgreSQL: what is due goes batch by batch with its ledger and its partitions, what goes is counted, and what may come
//! again is there to be known by; against a server.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use headworks::retention::{Pass, PrunedStore, Report, Rest};
use headworks::store::postgres::{Partition, SchemaMode};
use headworks::store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore};
use headworks::{Attempt, Batch, RetentionPolicy, Storage, StorageError, StoreName, TenantId, UnixMillis};
use proptest::prelude::*;

use super::retention::{assert_pruned_from_the_front, audited, told};
use crate::rig::batches::{assert_outage, batch, batch_at, put, tenant};
use crate::rig::crash::{Daemon, kill_at_random};
use crate::rig::postgres::{Postgres, stored};
use crate::rig::prometheus::{samples as samples_of, scrape};
use crate::rig::{DEADLINE, Place, Process, lines, pour, send, settled};

fn rules(max_age: Option<u64>, max_bytes: usize) -> RetentionPolicy {
    RetentionPolicy { max_age: max_age.map(Duration::from_millis), max_bytes, ..RetentionPolicy::default() }
}

/// A pass by these rules for `acme`; all others keep all.
async fn pass_over(
    stores: Vec<(StoreName, PrunedStore)>,
    of_acme: &RetentionPolicy,
    rest: Rest,
    now: i64,
    dry_run: bool,
) -> (Report, Result<(), StorageError>) {
    let mut report = Report::default();
    let of = |id: &TenantId| (if id.as_str() == "acme" { of_acme.clone() } else { RetentionPolicy::default() }, rest);
    let pass = Pass::begin(stores).await.unwrap();
    let ran = pass.run(UnixMillis(now), of, async { Ok(()) }, dry_run, &mut report).await;
    (report, ran)
}

async fn pass(store: &PostgresStore, of_acme: &RetentionPolicy, rest: Rest, now: i64) -> Report {
    let (report, ran) = pass_over(vec![(StoreName::ONLY, store.clone().into())], of_acme, rest, now, false).await;
    ran.unwrap();
    report
}

fn events(report: &Report) -> u64 {
    report.events.iter().map(|row| row.pruned.events).sum()
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
        2 => (0..30i64, prop::option::of(0..200u64), 0..600usize, any::<bool>())
            .prop_map(|(later, max_age, max_bytes, in_flight)| Op::Prune { later, max_age, max_bytes, in_flight }),
    ];
    prop::collection::vec(op, 1..30)
}

/// A model that keeps whole batches in a queue, and an innocent neighbour.
#[test]
fn what_goes_is_the_oldest_that_is_due_and_all_of_it_is_counted() {
    let postgres = Postgres::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let case = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ops in ops(), parts: bool)| {
        runtime.block_on(async {
            case.set(case.get() + 1);
            let namespace = format!("case_{}", case.get());
            let mut options = postgres.options(&namespace);
            if parts {
                options.partition = Partition::Day;
            }
            let store = PostgresStore::open(options).unwrap();
            let (mut now, mut seq, mut gone) = (1_000_000, 0, 0);
            let mut model: VecDeque<(Batch, i64, usize)> = VecDeque::new();
            put(&store, &batch_at("zen", 1, &["z", "z"], UnixMillis(0)), 1).await.unwrap();
            for op in ops {
                match op {
                    Op::Store(later, bytes) => {
                        (now, seq) = (now + later, seq + 1);
                        let body = format!("{:width$}", seq, width = bytes.max(2));
                        let batch = batch_at("acme", seq, &[&body, &body], UnixMillis(now));
                        put(&store, &batch, 1).await.unwrap();
                        model.push_back((batch, now, body.len() * 2));
                    }
                    Op::RollBack => if let Some((batch, ..)) = model.pop_back() {
                        store.rollback(batch.id(), Attempt(1)).await.unwrap();
                    },
                    Op::Prune { later, max_age, max_bytes, in_flight } => {
                        now += later;
                        let (rules, rest) = (rules(max_age, max_bytes), if in_flight { Rest::InFlight } else { Rest::Settled });
                        let only = vec![(StoreName::ONLY, store.clone().into())];
                        let (would, ran) = pass_over(only, &rules, rest, now, true).await;
                        ran.unwrap();
                        let did = pass(&store, &rules, rest, now).await;
                        prop_assert_eq!(&would, &did);
                        while model.len() > usize::from(in_flight) {
                            let all: usize = model.iter().map(|(.., bytes)| bytes).sum();
                            let is_old = max_age.is_some_and(|age| model[0].1 <= now - age.cast_signed());
                            if !is_old && (max_bytes == 0 || all <= max_bytes) { break; }
                            model.pop_front();
                            gone += 2;
                        }
                    }
                }
            }
            let expected: Vec<Vec<u8>> = model.iter().flat_map(|(batch, ..)| batch.events().map(|event| event.body.to_vec())).collect();
            prop_assert_eq!(postgres.reader(&namespace).bodies(&tenant("acme")).unwrap(), expected);
            let counted = format!("SELECT coalesce(sum(events), 0) FROM {namespace}.pruned");
            prop_assert_eq!(postgres.ask(&counted), gone.to_string());
            // Nothing is there that no batch knows.
            let rows = format!("SELECT count(*) FROM {namespace}.events WHERE tenant = 'acme'");
            prop_assert_eq!(postgres.ask(&rows), (model.len() * 2).to_string());
            prop_assert_eq!(store.count(&tenant("zen")).await, Some(2), "it keeps all");
            store.close().await.unwrap();
            Ok(())
        })?;
    });
}

#[tokio::test]
async fn a_batch_that_may_come_again_stays_and_is_known_when_it_comes_and_who_is_owed_compensations_keeps_all() {
    let postgres = Postgres::start();
    let store = postgres.open("headworks");
    let batches: Vec<_> = (1..=5).map(|seq| batch("acme", seq, &["a", "b"])).collect();
    for batch in &batches {
        put(&store, batch, 1).await.unwrap();
    }
    let all = rules(Some(1_000), 0);
    let owed = pass(&store, &all, Rest::Owed, i64::MAX).await;
    assert_eq!((events(&owed), owed.held_back.len()), (0, 1));
    assert_eq!(events(&pass(&store, &all, Rest::InFlight, i64::MAX).await), 8);
    put(&store, &batches[4], 2).await.unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "2");
    assert_eq!(events(&pass(&store, &all, Rest::Settled, i64::MAX).await), 2);
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.batches"), "0", "nothing of it has to be remembered");
    // What is stored later goes on as ever.
    put(&store, &batch("acme", 6, &["c"]), 1).await.unwrap();
    assert_eq!(store.count(&tenant("acme")).await, Some(1));
}

#[tokio::test]
async fn a_fence_stays_for_an_hour_whatever_the_rules_say_and_goes_then_once_its_tenant_is_settled() {
    let postgres = Postgres::start();
    let store = postgres.open("headworks");
    let batch = batch("acme", 1, &["a"]);
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    let all = rules(Some(1_000), 0);
    pass(&store, &all, Rest::Settled, i64::MAX).await;
    let late = put(&store, &batch, 1).await.unwrap_err();
    assert!(matches!(late, StorageError::Permanent { .. }), "{late:?}");
    postgres.ask("UPDATE headworks.batches SET stored_at = stored_at - interval '2 hours'");
    pass(&store, &all, Rest::InFlight, i64::MAX).await;
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.batches"), "1");
    pass(&store, &all, Rest::Settled, i64::MAX).await;
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.batches"), "0");
}

#[tokio::test]
async fn without_the_journals_word_nothing_is_pruned_in_any_store() {
    let (postgres, place) = (Postgres::start(), tempfile::tempdir().unwrap());
    let on_server = postgres.open("headworks");
    let here = SqliteStore::open(place.path().join("events.db"), SqliteOptions::default()).unwrap();
    let batch = batch("acme", 1, &["a"]);
    put(&on_server, &batch, 1).await.unwrap();
    put(&here, &batch, 1).await.unwrap();
    let stores: Vec<(StoreName, PrunedStore)> =
        vec![(StoreName::new("pg").unwrap(), on_server.clone().into()), (StoreName::ONLY, here.clone().into())];
    let of = |_: &TenantId| (rules(Some(1_000), 0), Rest::Settled);
    let refused = async { Err(StorageError::unavailable("the journal cannot be written")) };
    let mut report = Report::default();
    let pass = Pass::begin(stores).await.unwrap();
    let ran = pass.run(UnixMillis(i64::MAX), of, refused, false, &mut report).await;
    assert_outage(ran, "the journal cannot be written");
    assert_eq!(report, Report::default());
    let acme = tenant("acme");
    assert_eq!((on_server.count(&acme).await, here.count(&acme).await), (Some(1), Some(1)));
    here.close().await.unwrap();
}

#[tokio::test]
async fn where_the_server_is_away_or_silent_the_other_stores_are_pruned_all_the_same_and_that_is_told() {
    let (mut postgres, place) = (Postgres::start(), tempfile::tempdir().unwrap());
    let mut options = postgres.options("headworks");
    options.statement_timeout = Duration::from_millis(300);
    let on_server = PostgresStore::open(options).unwrap();
    let here = SqliteStore::open(place.path().join("events.db"), SqliteOptions::default()).unwrap();
    let stores = || -> Vec<(StoreName, PrunedStore)> {
        vec![(StoreName::new("pg").unwrap(), on_server.clone().into()), (StoreName::ONLY, here.clone().into())]
    };
    put(&on_server, &batch("acme", 1, &["a"]), 1).await.unwrap();
    for (seq, is_frozen) in [(1, true), (2, false)] {
        put(&here, &batch("acme", seq, &["a"]), 1).await.unwrap();
        if is_frozen {
            postgres.freeze(true)
        } else {
            postgres.kill()
        }
        let (report, ran) = pass_over(stores(), &rules(Some(1_000), 0), Rest::Settled, i64::MAX, false).await;
        assert_outage(ran, "look for what is to be pruned in PostgreSQL");
        assert_eq!(events(&report), 1, "of the one that is here");
        if is_frozen {
            postgres.freeze(false);
        }
    }
    postgres.restart();
    let mut done = Report::default();
    let began = Instant::now();
    while events(&done) == 0 {
        done = pass_over(stores(), &rules(Some(1_000), 0), Rest::Settled, i64::MAX, false).await.0;
        assert!(began.elapsed() < DEADLINE);
    }
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "0");
    here.close().await.unwrap();
}

const DAY: i64 = 86_400_000;

fn partitions(postgres: &Postgres) -> String {
    postgres.ask(
        "SELECT coalesce(string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text), '') FROM pg_inherits
         WHERE inhparent = 'headworks.events'::regclass",
    )
}

fn by_day(postgres: &Postgres) -> PostgresOptions {
    let mut options = postgres.options("headworks");
    options.partition = Partition::Day;
    options
}

#[tokio::test]
async fn a_partition_goes_once_all_in_it_is_pruned_and_what_comes_late_into_one_that_is_gone_is_stored() {
    let postgres = Postgres::start();
    let store = PostgresStore::open(by_day(&postgres)).unwrap();
    let at = |day: i64| UnixMillis((day - 1) * DAY + DAY / 2);
    for day in 1..=4_i64 {
        put(&store, &batch_at("acme", day.cast_unsigned(), &["a"], at(day)), 1).await.unwrap();
    }
    put(&store, &batch_at("zen", 1, &["z"], at(3)), 1).await.unwrap();
    postgres.ask(
        "CREATE TABLE headworks.mine PARTITION OF headworks.events FOR VALUES FROM ('1969-01-01Z') TO ('1969-01-02Z')",
    );
    let now = at(4).0;
    let two_days = rules(Some((2 * DAY).cast_unsigned()), 0);
    // Somebody reads all of it, for long: nothing is held up, and nothing dropped.
    let mut reader = postgres.session();
    reader.run("BEGIN; SELECT count(*) FROM headworks.events");
    assert_eq!(events(&pass(&store, &two_days, Rest::Settled, now).await), 2);
    assert_eq!(partitions(&postgres).split(' ').count(), 5);
    put(&store, &batch_at("acme", 5, &["a"], at(4)), 1).await.unwrap();
    reader.run("COMMIT");
    pass(&store, &two_days, Rest::Settled, now).await;
    let left = "headworks.events_1970_01_03 headworks.events_1970_01_04 headworks.mine";
    assert_eq!(partitions(&postgres), left);
    // Of the third day there is something of one that keeps all.
    assert_eq!(events(&pass(&store, &rules(Some(1_000), 0), Rest::Settled, now + DAY).await), 3);
    assert_eq!(partitions(&postgres), left);
    // It was accepted on the first day, and its server was away since.
    let late = batch_at("acme", 6, &["late"], at(1));
    put(&store, &late, 1).await.unwrap();
    assert_eq!(postgres.reader("headworks").bodies(&tenant("acme")).unwrap(), [b"late"]);
    assert!(partitions(&postgres).starts_with("headworks.events_1970_01_01 "));
    assert_eq!(events(&pass(&store, &rules(Some(1_000), 0), Rest::Settled, now).await), 1);
    assert_eq!(partitions(&postgres), left);
}

#[tokio::test]
async fn a_batch_that_is_on_its_way_into_a_partition_is_not_dropped_with_it() {
    let postgres = Postgres::start();
    let mut options = by_day(&postgres);
    options.statement_timeout = Duration::from_secs(5);
    let store = PostgresStore::open(options).unwrap();
    put(&store, &batch_at("acme", 1, &["a"], UnixMillis(0)), 1).await.unwrap();
    let mut other = postgres.session();
    other.run(
        "BEGIN; INSERT INTO headworks.batches (id, tenant, seq, attempt, stored, events, body_bytes, content_hash, first_arrived, last_arrived)
         VALUES ('0000000000000001/zen/1', 'zen', 1, 1, true, 1, 1, 7, '1970-01-01Z', '1970-01-01Z');
         INSERT INTO headworks.events SELECT number, 0, 'zen', first_arrived, NULL, 'z' FROM headworks.batches WHERE tenant = 'zen'",
    );
    let all = rules(Some(1_000), 0);
    // It ends once the one who drops waits for it, or has given that up.
    let ending = async {
        for _ in 0..100 {
            if postgres.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") != "0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        other.run("COMMIT");
    };
    let ran = tokio::join!(pass(&store, &all, Rest::Settled, DAY * 9), ending);
    assert_eq!(events(&ran.0), 1);
    pass(&store, &all, Rest::Settled, DAY * 9).await;
    assert_eq!(postgres.reader("headworks").bodies(&tenant("zen")).unwrap(), [b"z"]);
}

#[tokio::test]
async fn tables_of_the_first_version_are_brought_to_this_one_with_all_that_is_in_them_by_who_may() {
    let postgres = Postgres::start();
    let store = postgres.open("headworks");
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    store.close().await.unwrap();
    postgres
        .ask("DROP TABLE headworks.pruned, headworks.erased; DROP INDEX headworks.fences; UPDATE headworks.headworks SET version = 1");
    assert_eq!(postgres.reader("headworks").bodies(&tenant("acme")).unwrap(), [b"a"]);
    let mut options = postgres.options("headworks");
    options.schema = SchemaMode::Check;
    let why = PostgresStore::open(options.clone()).unwrap_err().to_string();
    assert!(why.contains("have version 1, and this headworks needs 3") && why.contains("schema = \"make\""), "{why}");
    let opened = (0..4).map(|_| {
        let options = postgres.options("headworks");
        std::thread::spawn(move || PostgresStore::open(options).map(drop))
    });
    opened.collect::<Vec<_>>().into_iter().for_each(|opened| opened.join().unwrap().unwrap());
    let store = PostgresStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &["a"]), 2).await.unwrap();
    assert_eq!(events(&pass(&store, &rules(Some(1_000), 0), Rest::Settled, i64::MAX).await), 1);
    assert_eq!(postgres.ask("SELECT version FROM headworks.headworks"), "3");
}

/// Small batches of two tenants, of which one keeps the newest 20 KiB, and the other all.
fn daemon<'p>(place: &'p Place, postgres: &Postgres) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.type", "postgres")
        .with("store.url", &postgres.url())
        .with("retention.every", "100ms")
        .with("tenants.defaults.window.max_events", "20")
        .with("tenants.defaults.window.max_age", "20ms")
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.throttle.events_per_second", "2000")
        .with("tenants.defaults.throttle.delay_for", "1day")
        .with("tenants.by_id.acme.retention.max_bytes", "20KiB")
}

fn sum_of_acme(postgres: &Postgres) -> u64 {
    let sum = "SELECT coalesce(sum(body_bytes), 0) FROM headworks.batches WHERE tenant = 'acme'";
    postgres.ask(sum).parse().unwrap()
}

#[test]
fn killed_while_it_prunes_the_daemon_and_the_server_have_pruned_and_counted_or_neither_and_go_on() {
    let (place, mut postgres) = (Place::new(), Postgres::start());
    let mut next = 0;
    for point in ["in-prune:1", "in-prune:3", "after-prune:2", "after-store:40", "", "server"] {
        let (process, address) = match point {
            "" | "server" => daemon(&place, &postgres).start(),
            point => daemon(&place, &postgres).start_doomed(point),
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
                        postgres.kill();
                        postgres.restart();
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
        let (process, _) = daemon(&place, &postgres).start();
        settled(&place);
        process.terminated().succeeded();
        assert_pruned_from_the_front(&place, &stored(&place));
        let audit = audited(&place);
        // One of the two may be ahead by what a torn connection brought of it.
        let (acme, zen) = (told(&audit, "acme").0, told(&audit, "zen").0);
        if acme != zen {
            let (process, address) = daemon(&place, &postgres).start();
            let (who, from, upto) = if acme < zen { ("acme", acme, zen) } else { ("zen", zen, acme) };
            send(address, &lines(who, usize::try_from(from).unwrap()..usize::try_from(upto).unwrap()));
            process.terminated().succeeded();
        }
        next = acme.max(zen);
    }
    assert!(told(&audited(&place), "acme").1 > 0);
    assert_pruned_from_the_front(&place, &stored(&place));
    let orphans =
        "SELECT count(*) FROM headworks.events WHERE batch NOT IN (SELECT number FROM headworks.batches WHERE stored)";
    assert_eq!(postgres.ask(orphans), "0");
}

#[test]
fn the_newest_stay_within_their_bound_and_metrics_log_query_and_dry_run_tell_of_it_live_and_at_rest() {
    let (place, postgres) = (Place::new(), Postgres::start());
    let never = |daemon: Daemon<'_>| daemon.with("retention.every", "1day").command(None);
    let (before, address) = daemon(&place, &postgres).start();
    pour(address, 0, 10);
    before.terminated().succeeded();
    // As an earlier headworks left it.
    postgres
        .ask("DROP TABLE headworks.pruned, headworks.erased; DROP INDEX headworks.fences; UPDATE headworks.headworks SET version = 1");
    assert_eq!(told(&audited(&place), "acme"), (10, 0));
    assert_eq!(place.run(&["query", "acme", "--data", "data"]).succeeded().out, lines("acme", 0..10));
    let mut process = Process::spawn(&mut never(
        daemon(&place, &postgres).with("store.columns", "['n:integer', 'tenant_is_no=tenant:number']"),
    ));
    let address = process.listens();
    pour(address, 10, 990);
    settled(&place);
    let would = place.json(&["prune", "--dry-run", "--json", "--data", "data"]);
    let events = would["events"][0]["events"].as_u64().unwrap();
    assert!(events >= 100 && would["events"][0]["tenant"] == "acme", "{would}");
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.pruned"), "0");
    let did = place.run(&["prune", "--data", "data"]).succeeded().text();
    assert!(did.ends_with(&format!("\n{events} events and 0 dead letters were pruned.\n")), "{did}");
    assert!(sum_of_acme(&postgres) <= 20 << 10);
    assert_pruned_from_the_front(&place, &stored(&place));
    let (_, text) = scrape(&place, "");
    let samples = samples_of(&text);
    assert_eq!(samples["headworks_events_pruned_total"], events as f64);
    assert_eq!(samples["headworks_column_misfits_total{store=\"store\",column=\"tenant_is_no\"}"], 1_980.0);
    assert_eq!(samples["headworks_column_misfits_total{store=\"store\",column=\"n\"}"], 0.0);
    let log = place.run(&["log", "--data", "data", "--what", "pruned"]).succeeded().text();
    assert!(log.contains(&format!("{events} events: {events} of acme")), "{log}");
    // A rule that is set while it runs is obeyed, and all of a tenant may go.
    place.run(&["tenants", "set", "acme", "retention.max_bytes=1B", "--data", "data"]).succeeded();
    place.run(&["prune", "--data", "data"]).succeeded();
    assert_eq!(told(&audited(&place), "acme"), (1_000, 1_000));
    let nothing = place.run(&["query", "acme", "--data", "data"]).succeeded();
    assert_eq!(nothing.text(), "", "it is known, and has nothing");
    pour(address, 1_000, 1_000);
    process.terminated().succeeded();
    let prune = |more: &[&str]| {
        let mut command = place.command(&[&["prune", "--data", "data"], more].concat());
        command.env("HEADWORKS__TENANTS__BY_ID__ACME__RETENTION__MAX_BYTES", "10KiB");
        Process::spawn(&mut command).ended().succeeded().text()
    };
    let would = prune(&["--dry-run"]);
    assert!(would.contains("store  acme"), "{would}");
    let did = prune(&[]);
    assert_eq!(did, would.replace("would be", "were"));
    assert!(sum_of_acme(&postgres) <= 10 << 10);
    assert_pruned_from_the_front(&place, &stored(&place));
    // Counted on, over a restart.
    let all = told(&audited(&place), "acme").1;
    let mut process = Process::spawn(&mut never(daemon(&place, &postgres)));
    process.listens();
    assert_eq!(samples_of(&scrape(&place, "").1)["headworks_events_pruned_total"], all as f64);
    process.terminated().succeeded();
}
