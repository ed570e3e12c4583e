//! Erasing a tenant from stores that are no database: all of it goes, nothing of others does, and whatever dies in the midst, it is done in
//! the end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use super::retention::{audited, told};
use crate::rig::crash::Daemon;
use crate::rig::nats::Nats;
use crate::rig::postgres::Postgres;
use crate::rig::s3::{BUCKET, Fault, S3};
use crate::rig::webhook::Receiver;
use crate::rig::{DEADLINE, Place, Process, lines, send, settled};

const STREAM: &str = "BATCHES";

/// Small batches, and what failed is tried again soon.
fn daemon(place: &Place) -> Daemon<'_> {
    Daemon::new(place)
        .with("retention.every", "100ms")
        .with("tenants.defaults.window.max_events", "100")
        .with("tenants.defaults.window.max_age", "20ms")
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.retry.cap", "100ms")
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const ERASE: [&str; 6] = ["tenants", "erase", "acme", "--yes", "--data", "data"];

/// What somebody else finds of a tenant, who is not us: how many of whatever there is.
type There<'t> = &'t dyn Fn(&str) -> usize;

/// `says` is what the command begins with after the name of the tenant.
#[track_caller]
fn goes_alone_and_comes_back(place: &Place, daemon: &Daemon<'_>, there: There<'_>, says: [&str; 2], is_read: bool) {
    let (process, address) = daemon.start();
    send(address, &[lines("acme", 0..1000), lines("zen", 0..300), lines("acme-2", 0..7)].concat());
    settled(place);
    let (zen, other) = (there("zen"), there("acme-2"));
    assert!(there("acme") > 0 && zen > 0 && other > 0);
    let erased = place.run(&ERASE).succeeded().text();
    assert!(erased.starts_with(&format!("acme: {} erased\n", says[0])), "{erased}");
    assert!(!erased.contains("not yet erased") && !erased.contains("NOT ERASED"), "{erased}");
    assert_eq!((there("acme"), there("zen"), there("acme-2")), (0, zen, other));
    let audit = place.run(&["audit", "--data", "data"]).succeeded().text();
    assert_eq!(audit.contains("1000 events of acme that were erased on an operator's word"), is_read, "{audit}");
    // It is as any other from now on.
    send(address, &lines("acme", 1000..1010));
    settled(place);
    assert!(there("acme") > 0);
    audited(place);
    let again = place.run(&ERASE).succeeded().text();
    assert!(again.starts_with(&format!("acme: {} erased\n", says[1])), "{again}");
    let none = place.run(&ERASE).succeeded().text();
    assert!(none.starts_with("acme: 0 events and 0 dead letters erased\n"), "{none}");
    send(address, &lines("acme", 1010..1020));
    settled(place);
    process.terminated().succeeded();
    audited(place);
    assert_eq!((there("zen"), there("acme-2")), (zen, other));
    if is_read {
        assert_eq!(place.run(&["query", "acme", "--data", "data"]).succeeded().out, lines("acme", 1010..1020));
        assert_eq!(place.run(&["query", "zen", "--data", "data"]).succeeded().out, lines("zen", 0..300));
    }
}

/// The process dies in the midst, and what came in between is not taken with the rest.
#[track_caller]
fn goes_on_when_the_process_died(place: &Place, daemon: &Daemon<'_>, there: There<'_>, point: &str, is_read: bool) {
    let (process, address) = daemon.start_doomed(point);
    send(address, &[lines("acme", 0..30_000), lines("zen", 0..300)].concat());
    settled(place);
    let zen = there("zen");
    place.run(&ERASE);
    process.died();
    let (process, address) = daemon.start();
    send(address, &lines("acme", 30_000..30_010));
    place.until("SELECT count(*) = 0 FROM erasing", 1);
    settled(place);
    let log = in_one_line(&place.run(&["log", "--data", "data", "--what", "erased"]).succeeded().text());
    assert!(log.contains("What was kept of the tenant was erased"), "{log}");
    if is_read {
        let audit = audited(place);
        assert_eq!(told(&audit, "acme").0, 30_010, "{audit}");
        assert_eq!(place.run(&["query", "acme", "--data", "data"]).succeeded().out, lines("acme", 30_000..30_010));
        assert_eq!(place.run(&["query", "zen", "--data", "data"]).succeeded().out, lines("zen", 0..300));
    }
    assert!(there("acme") > 0 && there("zen") == zen);
    place.run(&ERASE).succeeded();
    assert_eq!((there("acme"), there("zen")), (0, zen));
    process.terminated().succeeded();
    audited(place);
}

fn on_postgres<'p>(place: &'p Place, postgres: &Postgres) -> Daemon<'p> {
    daemon(place)
        .with("store.type", "postgres")
        .with("store.url", &postgres.url())
        .with("store.columns", "['n:integer']")
        .with("store.partition", "day")
        .with("store.statement_timeout", "1s")
}

/// Rows of events and of batches.
fn rows(postgres: &Postgres, tenant: &str) -> usize {
    let count = |table: &str| format!("(SELECT count(*) FROM headworks.{table} WHERE tenant = '{tenant}')");
    postgres.ask(&format!("SELECT {} + {}", count("events"), count("batches"))).parse().unwrap()
}

const AS_EVENTS: [&str; 2] = ["1000 events and 0 dead letters", "10 events and 0 dead letters"];

#[test]
fn on_postgresql_a_tenant_goes_alone_and_is_counted() {
    let (place, postgres) = (Place::new(), Postgres::start());
    let there = |tenant: &str| rows(&postgres, tenant);
    goes_alone_and_comes_back(&place, &on_postgres(&place, &postgres), &there, AS_EVENTS, true);
}

#[test]
fn on_postgresql_it_goes_on_when_the_process_died_in_the_midst() {
    let (place, postgres) = (Place::new(), Postgres::start());
    let there = |tenant: &str| rows(&postgres, tenant);
    goes_on_when_the_process_died(&place, &on_postgres(&place, &postgres), &there, "in-erase:2", true);
}

#[test]
fn on_postgresql_what_cannot_go_now_is_told_and_goes_by_itself_and_a_server_that_is_away_from_the_start_changes_nothing()
 {
    let (place, mut postgres) = (Place::new(), Postgres::start());
    let (process, address) = on_postgres(&place, &postgres).start();
    send(address, &[lines("acme", 0..1000), lines("zen", 0..300)].concat());
    settled(&place);
    let mut other = postgres.session();
    other.run("BEGIN; LOCK TABLE headworks.events IN SHARE MODE");
    let told = place.run(&ERASE).with(1).text();
    assert!(told.contains("\nnot yet erased in store: cannot erase a tenant's events in PostgreSQL"), "{told}");
    assert!(told.ends_with("\nacme is erased everywhere but in store\n"), "{told}");
    send(address, &lines("zen", 300..310));
    other.run("COMMIT");
    place.until("SELECT count(*) = 0 FROM erasing", 1);
    assert_eq!(rows(&postgres, "acme"), 0);
    let log = || in_one_line(&place.run(&["log", "--data", "data", "--what", "erased"]).succeeded().text());
    let began = Instant::now();
    while !log().contains("1000 events and 0 dead letters, the rest of what could not be ended before") {
        assert!(began.elapsed() < DEADLINE, "{}", log());
    }
    settled(&place);
    audited(&place);
    postgres.kill();
    let refused = place.run(&["tenants", "erase", "zen", "--yes", "--data", "data"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("zen is not erased, and nothing was changed"), "{}", refused.err);
    assert_eq!(place.number("SELECT count(*) FROM erasing"), 0);
    postgres.restart();
    settled(&place);
    process.terminated().succeeded();
    assert_eq!(place.run(&["query", "zen", "--data", "data"]).succeeded().out, lines("zen", 0..310));
}

fn in_objects<'p>(place: &'p Place, s3: &S3, compact_after: &str) -> Daemon<'p> {
    daemon(place)
        .with("store.type", "object")
        .with("store.url", &format!("s3://{BUCKET}/events"))
        .with("store.endpoint", &s3.endpoint())
        .with("store.credentials_file", s3.keys().to_str().unwrap())
        .with("store.compact_after", compact_after)
}

/// Objects and marks of the tenant, but for the one that counts what is gone.
fn objects_of(s3: &S3, tenant: &str) -> usize {
    let is_its = |key: &&String| key.split('/').any(|part| part == tenant);
    s3.objects("events").keys().filter(is_its).count() + s3.own("events").keys().filter(is_its).count()
}

#[test]
fn of_objects_a_tenant_goes_alone_with_its_marks_and_is_counted() {
    for compact_after in ["never", "1h"] {
        let (place, s3) = (Place::new(), S3::start());
        let there = |tenant: &str| usize::from(objects_of(&s3, tenant) > 0);
        goes_alone_and_comes_back(&place, &in_objects(&place, &s3, compact_after), &there, AS_EVENTS, true);
    }
}

#[test]
fn in_a_directory_of_objects_a_tenant_goes_alone_while_packs_are_made_also_where_the_day_comes_before_the_tenant() {
    let place = Place::new();
    let url = format!("file://{}", place.path("objects").display());
    let daemon = daemon(&place)
        .with("store.type", "object")
        .with("store.url", &url)
        .with("store.path", "day={date}/tenant={tenant}/{batch}")
        .with("store.format", "parquet")
        .with("store.compact_after", "1s")
        .with("store.compact_bytes", "4KiB");
    let there = |tenant: &str| {
        let is_its = |key: &String| key.contains(&format!("tenant={tenant}/")) || key.contains(&format!("/{tenant}/"));
        let found = crate::rig::s3::objects(&place.path("objects"));
        let own = crate::rig::s3::objects(&place.path("objects").join("_headworks"));
        usize::from(found.keys().chain(own.keys()).any(is_its))
    };
    goes_alone_and_comes_back(&place, &daemon, &there, AS_EVENTS, true);
}

#[test]
fn of_objects_it_goes_on_when_the_process_died_in_the_midst() {
    for (compact_after, point) in [("never", "in-erase:1"), ("1h", "in-erase:1"), ("never", "in-erase:2")] {
        let (place, s3) = (Place::new(), S3::start());
        let there = |tenant: &str| usize::from(objects_of(&s3, tenant) > 0);
        let daemon = in_objects(&place, &s3, compact_after);
        goes_on_when_the_process_died(&place, &daemon, &there, point, true);
    }
}

#[test]
fn of_objects_what_cannot_be_deleted_now_is_gone_for_our_readers_and_goes_by_itself() {
    let (place, s3) = (Place::new(), S3::start());
    // With a request for each object.
    let mut command = in_objects(&place, &s3, "never").command(None);
    let mut process = Process::spawn(command.env("AWS_DISABLE_BULK_DELETE", "true"));
    let address = process.listens();
    send(address, &[lines("acme", 0..1000), lines("zen", 0..300)].concat());
    settled(&place);
    s3.plan(|method, path| match (method, path.contains("/acme/")) {
        ("DELETE", true) => Fault::Status(403, "AccessDenied"),
        ("POST", _) => Fault::Status(501, "NotImplemented"),
        _ => Fault::None,
    });
    let told = place.run(&ERASE).with(1).text();
    assert!(told.contains("\nnot yet erased in store: cannot erase a tenant's events in s3://"), "{told}");
    assert!(told.contains("delete"), "{told}");
    assert!(objects_of(&s3, "acme") > 0);
    assert_eq!(place.run(&["query", "acme", "--data", "data"]).succeeded().text(), "");
    audited(&place);
    s3.plan(|method, _| if method == "POST" { Fault::Status(501, "NotImplemented") } else { Fault::None });
    place.until("SELECT count(*) = 0 FROM erasing", 1);
    assert_eq!(objects_of(&s3, "acme"), 0);
    audited(&place);
    process.terminated().succeeded();
    assert_eq!(place.run(&["query", "zen", "--data", "data"]).succeeded().out, lines("zen", 0..300));
}

fn in_files(place: &Place) -> Daemon<'_> {
    daemon(place).with("store.type", "files").with("store.rotate_bytes", "64KiB")
}

/// Lines of the tenant's files.
fn lines_of(place: &Place, tenant: &str) -> usize {
    let folder = std::fs::read_dir(place.data().join("events").join(tenant)).into_iter().flatten();
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("batches.ndjson"));
    files.map(|path| std::fs::read(path).unwrap().iter().filter(|byte| **byte == b'\n').count()).sum()
}

#[test]
fn of_plain_files_a_tenant_goes_alone_and_is_counted() {
    let place = Place::new();
    goes_alone_and_comes_back(&place, &in_files(&place), &|tenant| lines_of(&place, tenant), AS_EVENTS, true);
}

#[test]
fn of_plain_files_it_goes_on_when_the_process_died_in_the_midst() {
    let place = Place::new();
    let there = |tenant: &str| lines_of(&place, tenant);
    goes_on_when_the_process_died(&place, &in_files(&place), &there, "in-erase:1", true);
}

fn published<'p>(place: &'p Place, nats: &Nats) -> Daemon<'p> {
    daemon(place).with("store.type", "nats").with("store.url", &nats.url()).with("store.stream", STREAM)
}

fn messages(nats: &Nats, tenant: &str) -> usize {
    nats.published(STREAM).iter().filter(|found| found.header("Headworks-Tenant") == tenant).count()
}

#[test]
fn of_a_nats_stream_the_messages_of_a_tenant_are_purged_alone() {
    let (place, nats) = (Place::new(), Nats::start());
    let (process, address) = published(&place, &nats).start();
    send(address, &[lines("acme", 0..1000), lines("zen", 0..300), lines("acme.2", 0..7)].concat());
    settled(&place);
    let (acme, zen, other) = (messages(&nats, "acme"), messages(&nats, "zen"), messages(&nats, "acme.2"));
    let erased = place.run(&ERASE).succeeded().text();
    let said = format!("acme: 0 events, {acme} messages of NATS and 0 dead letters erased\n");
    assert!(acme >= 10 && erased.starts_with(&said), "{erased}");
    assert_eq!([messages(&nats, "acme"), messages(&nats, "zen"), messages(&nats, "acme.2")], [0, zen, other]);
    send(address, &lines("acme", 1000..1010));
    settled(&place);
    process.terminated().succeeded();
    assert_eq!(nats.events(STREAM)["acme"].len(), 10);
    audited(&place);
}

#[test]
fn of_a_nats_stream_it_goes_on_when_the_process_died_in_the_midst_and_one_that_denies_purges_is_named() {
    let (place, nats) = (Place::new(), Nats::start());
    let there = |tenant: &str| messages(&nats, tenant);
    goes_on_when_the_process_died(&place, &published(&place, &nats), &there, "in-erase:1", false);
    let place = Place::new();
    nats.run("make", &["KEPT", "kept.>", "{\"deny_purge\":true}"]);
    let daemon = published(&place, &nats).with("store.stream", "KEPT").with("store.subject", "kept.{tenant}.{batch}");
    let (process, address) = daemon.start();
    send(address, &lines("acme", 0..10));
    settled(&place);
    let told = place.run(&ERASE).with(1).text();
    assert!(
        told.contains("\nNOT ERASED in store: ") && told.contains("the stream denies purges (deny_purge)"),
        "{told}"
    );
    assert_eq!(place.number("SELECT count(*) FROM erasing"), 0);
    process.terminated().succeeded();
}

#[test]
fn what_was_sent_to_a_webhook_is_named_and_all_else_is_erased() {
    let place = Place::new();
    let receiver = Receiver::start(&place, "");
    let daemon = daemon(&place)
        .with("stores.hook.type", "webhook")
        .with("stores.hook.url", &receiver.url())
        .with("tenants.stores", "['store', 'hook']")
        .with("tenants.stores_by_id.zen", "['store']");
    let (process, address) = daemon.start();
    send(address, &[lines("acme", 0..1000), lines("zen", 0..300)].concat());
    settled(&place);
    let told = place.run(&ERASE).with(1).text();
    assert!(told.starts_with("acme: 1000 events and 0 dead letters erased\n"), "{told}");
    let why =
        format!("\nNOT ERASED in hook: what was sent to the webhook {} cannot be taken back from here", receiver.url());
    assert!(told.contains(&why) && told.ends_with("\nacme is erased everywhere but in hook\n"), "{told}");
    assert_eq!(place.number("SELECT count(*) FROM events WHERE tenant = 'acme'"), 0);
    let log = in_one_line(&place.run(&["log", "--data", "data", "--what", "erased"]).succeeded().text());
    assert!(log.contains("what went to hook is out of reach"), "{log}");
    // Nothing of this one went there.
    let told = place.run(&["tenants", "erase", "zen", "--yes", "--data", "data"]).succeeded().text();
    assert!(told.starts_with("zen: 300 events") && !told.contains("NOT ERASED"), "{told}");
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn what_a_store_has_from_when_it_was_of_another_type_is_named_and_what_is_in_the_database_is_erased() {
    let place = Place::new();
    let (process, address) = in_files(&place).start();
    send(address, &lines("acme", 0..10));
    settled(&place);
    process.terminated().succeeded();
    let (process, address) = daemon(&place).start();
    send(address, &lines("acme", 10..30));
    settled(&place);
    let told = place.run(&ERASE).with(1).text();
    assert!(told.starts_with("acme: 20 events and 0 dead letters erased\n"), "{told}");
    let why =
        "\nNOT ERASED in store: what it stored when it was of type \"files\" is still there; remove the directory";
    assert!(told.contains(why), "{told}");
    process.terminated().succeeded();
    // Now it is one on files again.
    let (process, _) = in_files(&place).start();
    let told = place.run(&ERASE).succeeded().text();
    assert!(told.starts_with("acme: 10 events and 0 dead letters erased\n"), "{told}");
    assert_eq!(lines_of(&place, "acme"), 0);
    process.terminated().succeeded();
    audited(&place);
}
