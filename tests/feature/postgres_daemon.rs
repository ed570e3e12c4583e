//! A daemon whose store is on PostgreSQL, from the socket to the row.

use serde_json::Value;

use crate::rig::crash::{Account, Daemon, assert_sound, found};
use crate::rig::postgres::Postgres;
use crate::rig::{DEADLINE, Place, Process, lines, send, sorted};

fn daemon<'p>(place: &'p Place, postgres: &Postgres) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.type", "postgres")
        .with("store.url", &postgres.url())
        .with("tenants.defaults.window.max_age", "50ms")
        .with("tenants.defaults.retry.base", "10ms")
        .with("tenants.defaults.retry.cap", "200ms")
}

/// Every event is there once, in the order in which it was sent, by PostgreSQL's own client.
#[track_caller]
fn assert_all_there(postgres: &Postgres, input: &[u8], namespace: &str) {
    for (tenant, bodies) in sorted(input).0 {
        let all = format!("SELECT body FROM {namespace}.events WHERE tenant = '{tenant}' ORDER BY batch, idx");
        let expected: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body)).collect();
        assert!(postgres.ask(&all) == expected.join("\n"), "{tenant}");
    }
}

#[test]
fn what_is_sent_is_in_its_rows_once_and_in_order_and_query_and_audit_find_it_there_live_and_at_rest() {
    let (place, postgres) = (Place::new(), Postgres::start());
    postgres.ask("CREATE ROLE guarded LOGIN PASSWORD 'hunter2'; GRANT ALL ON DATABASE postgres TO guarded");
    postgres.own("pg_hba.conf", "host all guarded all scram-sha-256\nhost all all all trust\n");
    postgres.ask("SELECT pg_reload_conf()");
    let password = place.secret("password", "hunter2\n");
    let daemon = daemon(&place, &postgres)
        .with("store.url", &postgres.url().replace("app@", "guarded@"))
        .with("store.password_file", password.to_str().unwrap());
    let input = place.generated(&["--events", "20000", "--tenants", "5", "--seed", "3"]);
    let acme = lines("acme", 0..1000);

    let (process, address) = daemon.start();
    send(address, &acme);
    let live = place.run(&["query", "acme", "--data", "data", "--limit", "10"]);
    let is_beginning = acme.starts_with(&live.succeeded().out);
    assert!(is_beginning);
    send(address, &input);
    let audit = |code| place.run(&["audit", "--data", "data"]).with(code).text();
    assert!(audit(0).ends_with("Both sums hold.\n"));
    let shown = place.run(&["config", "show", "--data", "data"]);
    assert!(!format!("{}{}", shown.text(), shown.err).contains("hunter2"));
    let ended = process.terminated().succeeded();
    assert!(!ended.err.contains("hunter2"), "{}", ended.err);

    assert_all_there(&postgres, &[acme.clone(), input.clone()].concat(), "headworks");
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "21000");
    assert_eq!(place.run(&["query", "acme", "--data", "data"]).succeeded().out, acme);
    let one = place.run(&["query", "acme", "--data", "data", "--limit", "1", "--json"]).succeeded().text();
    let one: Value = serde_json::from_str(&one).unwrap();
    assert!(one["batch"].as_str().unwrap().ends_with("/acme/1") && one["arrived"].is_string(), "{one}");
    let rows = place.json(&["tenants", "--data", "data", "--json"]);
    let row = |tenant: &str| rows.as_array().unwrap().iter().find(|row| row["tenant"] == tenant).cloned();
    assert!(row("acme").is_some(), "{rows}");
    assert!(audit(0).ends_with("The sum of events holds.\n"));
    postgres.ask("DELETE FROM headworks.events WHERE tenant = 'acme' AND idx < 2 AND batch = (SELECT min(batch) FROM headworks.events WHERE tenant = 'acme')");
    assert!(audit(1).contains("acme: the store holds 2 events fewer than the journal says were stored"));
}

#[test]
fn while_its_server_is_killed_and_away_the_daemon_takes_events_in_and_stores_each_once_and_in_order_when_it_is_back() {
    let (place, mut postgres) = (Place::new(), Postgres::start());
    let (process, address) = daemon(&place, &postgres).with("tenants.defaults.window.max_events", "50").start();
    let input = place.generated(&["--events", "30000", "--tenants", "4", "--seed", "5"]);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(address, &input));
        for _ in 0..3 {
            postgres.kill();
            postgres.restart();
        }
        sender.join().unwrap();
    });
    postgres.kill();
    send(address, &lines("late", 0..100));
    postgres.restart();
    process.terminated().succeeded();
    assert_all_there(&postgres, &[input, lines("late", 0..100)].concat(), "headworks");
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
    assert_eq!(place.run(&["audit", "--data", "data"]).code, Some(0));
}

#[test]
fn an_event_that_jsonb_cannot_hold_is_found_and_becomes_a_dead_letter_and_all_others_are_stored() {
    let (place, postgres) = (Place::new(), Postgres::start());
    let (process, address) = daemon(&place, &postgres).with("store.body", "jsonb").start();
    let mut input = lines("acme", 0..300);
    input.extend_from_slice(b"{\"tenant\":\"acme\",\"n\":\"\\u0000\"}\n");
    input.extend(lines("acme", 300..400));
    send(address, &input);
    process.terminated().succeeded();
    let stored = postgres.ask("SELECT string_agg(body ->> 'n', ',' ORDER BY batch, idx) FROM headworks.events");
    assert_eq!(stored, (0..400).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE kind = 'event'"), 1);
    assert_eq!(place.run(&["audit", "--data", "data"]).code, Some(0));
}

#[test]
fn a_daemon_whose_store_refuses_it_does_not_start_and_says_why() {
    let (place, postgres) = (Place::new(), Postgres::start());
    let url = postgres.url().replace("/postgres", "/elsewhere");
    let refused = Process::spawn(&mut daemon(&place, &postgres).with("store.url", &url).command(None)).ended();
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("check the database in url, or create it"), "{}", refused.err);
}

/// One saga, SQLite first and PostgreSQL behind it, and the other way round.
#[test]
fn a_batch_is_in_sqlite_and_in_postgresql_or_in_neither_while_the_server_is_killed_and_refuses_some() {
    for saga in ["['store', 'pg']", "['pg', 'store']"] {
        let (place, mut postgres) = (Place::new(), Postgres::start());
        let daemon = Daemon::new(&place)
            .with("stores.pg.type", "postgres")
            .with("stores.pg.url", &postgres.url())
            .with("stores.pg.namespace", "saga")
            .with("tenants.stores", saga)
            .with("tenants.defaults.window.max_events", "20")
            .with("tenants.defaults.retry.base", "10ms")
            .with("tenants.defaults.retry.cap", "200ms");
        let (first, _) = daemon.start();
        first.terminated().succeeded();
        postgres.ask("ALTER TABLE saga.events ADD CHECK ((body::jsonb ->> 'n')::int % 211 <> 7)");
        let mut account = Account::default();
        let (process, address) = daemon.start();
        for round in 0..4 {
            let from = round * 500;
            let input: Vec<u8> = ["acme", "zen"].iter().flat_map(|tenant| lines(tenant, from..from + 500)).collect();
            std::thread::scope(|scope| {
                scope.spawn(|| send(address, &input));
                postgres.kill();
                postgres.restart();
            });
            for tenant in ["acme", "zen"] {
                for n in from..from + 500 {
                    account.send(tenant, format!("{{\"tenant\":\"{tenant}\",\"n\":{n}}}"));
                }
                account.acknowledge_up_to(tenant, from + 499);
            }
        }
        process.terminated().succeeded();
        assert_sound(&account, &found(&place));
        let of_postgres = |tenant: &str| {
            postgres.ask(&format!("SELECT body FROM saga.events WHERE tenant = '{tenant}' ORDER BY batch, idx"))
        };
        for (tenant, bodies) in place.stored() {
            let text: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body)).collect();
            assert!(of_postgres(&tenant) == text.join("\n"), "{saga}: of {tenant} the two hold the same");
        }
        // 7, 218, 429, ...: ten of 2,000, of each tenant.
        assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE kind = 'event'"), 20);
        assert_eq!(place.number("SELECT count(*) FROM events"), 3980);
        let audit = place.run(&["audit", "--data", "data"]);
        assert_eq!(audit.code, Some(0), "{saga}: {}", audit.text());
    }
}

#[test]
fn what_the_configuration_says_wrong_of_a_server_ends_with_78_and_servers_that_are_away_are_waited_for() {
    let (place, postgres) = (Place::new(), Postgres::start());
    let nowhere = postgres.url().replace("/postgres", "/nowhere");
    assert_ne!(nowhere, postgres.url());
    let refused = Process::spawn(&mut daemon(&place, &postgres).with("store.url", &nowhere).command(None)).ended();
    assert!(refused.with(78).err.contains("check the database in url, or create it"));

    let place = Place::new();
    let store = |name: &str| format!("[stores.{name}]\ntype = 'postgres'\nurl = 'postgres://app@127.0.0.1:1/x'\n");
    let more = "[tenants]\nstores = ['a', 'b']\n[sources.tcp]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = ''\n[log]\nformat = 'json'";
    place.write("my.toml", [&*store("a"), &*store("b"), more].concat());
    for _ in 0..2 {
        let mut process = Process::spawn(&mut place.command(&["run", "-c", "my.toml", "--data", "data"]));
        process.listens();
        process.terminated().succeeded();
    }
}

#[test]
fn a_server_that_is_away_at_the_start_and_whenever_it_is_asked_is_not_ready_until_it_is_there() {
    let (place, mut postgres) = (Place::new(), Postgres::start());
    postgres.kill();
    let (process, address) = daemon(&place, &postgres).start();
    // Nothing was sent: no batch waits that would show it.
    let not_ready = |why: &str| {
        let told = place.run(&["ready", "--data", "data"]).with(1).text();
        assert!(told.contains(why), "{told}");
    };
    not_ready("the store cannot be reached: ");
    send(address, &lines("acme", 0..3));
    postgres.restart();
    let began = std::time::Instant::now();
    while place.run(&["ready", "--data", "data"]).code != Some(0) {
        assert!(began.elapsed() < DEADLINE);
    }
    while postgres.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'headworks' AND tablename = 'events'") != "1"
        || postgres.ask("SELECT count(*) FROM headworks.events") != "3"
    {
        assert!(began.elapsed() < DEADLINE);
    }
    postgres.freeze(true);
    // What was heard of it a moment ago is forgotten by then.
    let began = std::time::Instant::now();
    while place.run(&["ready", "--data", "data"]).code == Some(0) {
        assert!(began.elapsed() < DEADLINE);
    }
    not_ready("the store cannot be reached: it does not answer within 2s");
    postgres.freeze(false);
    process.terminated().succeeded();
}
