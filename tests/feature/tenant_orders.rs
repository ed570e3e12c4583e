//! What an operator can tell a tenant of a running daemon, and what a daemon does whose actors are held.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;

use serde_json::Value;

use crate::rig::{Place, Process, connect, lines, send};

fn order(place: &Place, words: &[&str]) -> String {
    place.run(&[&["tenants"], words, &["--data", "data"]].concat()).succeeded().text()
}

/// How a tenant is now, by the running daemon.
fn live(place: &Place, tenant: &str) -> Value {
    let all: Value = {
        use std::io::Read;
        let mut stream = std::os::unix::net::UnixStream::connect(place.data().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(crate::rig::DEADLINE)).unwrap();
        write!(stream, "GET /v1/tenants/{tenant} HTTP/1.1\r\nhost: headworks\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    all["live"].clone()
}

#[test]
fn a_tenant_that_is_stopped_by_hand_keeps_its_events_and_stores_them_once_it_is_resumed() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let address = daemon.listens();
    send(address, &lines("acme", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    assert_eq!(order(&place, &["stop", "acme"]), "acme: stopped\n");
    send(address, &[lines("acme", 3..5), lines("b", 0..2)].concat());
    place.until("SELECT count(*) FROM events WHERE tenant = 'b'", 2);
    let acme = live(&place, "acme");
    assert_eq!((&acme["status"], &acme["in_flight"]), (&"stopped".into(), &2.into()));
    assert_eq!(place.number("SELECT count(*) FROM events WHERE tenant = 'acme'"), 3);
    assert_eq!(order(&place, &["resume", "acme"]), "acme: resumed\n");
    place.until("SELECT count(*) FROM events WHERE tenant = 'acme'", 5);
    daemon.terminated().succeeded();
}

#[test]
fn each_order_is_carried_out_and_said() {
    let place = Place::new();
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h"));
    let address = daemon.listens();
    send(address, &lines("acme", 0..3));
    assert_eq!(order(&place, &["flush", "acme"]), "acme: flushed\n");
    place.until("SELECT count(*) FROM events", 3);
    send(address, &lines("acme", 3..5));
    assert_eq!(order(&place, &["passivate", "acme"]), "acme: passivated\n");
    assert_eq!(place.number("SELECT count(*) FROM events"), 5, "its window was stored first");
    assert_eq!(live(&place, "acme")["status"], "dormant");
    assert_eq!(order(&place, &["restart", "acme"]), "acme: restarted\n");
    assert_eq!(order(&place, &["mute", "acme"]), "acme: muted\n");
    send(address, &lines("acme", 5..6));
    let acme = live(&place, "acme");
    assert_eq!((&acme["is_muted"], &acme["muted"]), (&true.into(), &1.into()));
    assert_eq!(order(&place, &["unmute", "acme"]), "acme: unmuted\n");
    assert_eq!(live(&place, "acme")["is_muted"], false);
    assert_eq!(order(&place, &["mute", "newcomer"]), "newcomer: muted\n");
    assert_eq!(order(&place, &["list"]), order(&place, &[]));
    daemon.terminated().succeeded();
}

#[test]
fn an_order_to_nobody_or_without_a_daemon_is_refused_with_what_helps() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    daemon.listens();
    let refused = place.run(&["tenants", "stop", "nobody", "--data", "data"]).with(1).err;
    assert!(refused.contains("there is no tenant nobody in the running daemon: none of its events came"), "{refused}");
    place.run(&["tenants", "stop", "a/b", "--data", "data"]).with(2);
    place.run(&["tenants", "stop", "--data", "data"]).with(2);
    daemon.terminated().succeeded();
    let refused = place.run(&["tenants", "resume", "acme", "--data", "data"]).with(69).err;
    assert!(
        refused.contains("no daemon runs on data, and only a running one can resume a tenant: start it"),
        "{refused}"
    );
}

#[test]
fn a_daemon_whose_actors_are_held_ends_with_70_names_who_holds_them_and_loses_nothing() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS_FAULT", "hang-after-intent").env("HEADWORKS__DAEMON__EXIT_WHEN_HUNG", "1s");
    let mut daemon = Process::spawn(&mut command);
    let mut connection = connect(daemon.listens());
    connection.write_all(&lines("acme", 0..3)).unwrap();
    let ended = daemon.ended().with(70);
    let line = ended.err.lines().last().unwrap();
    assert!(line.starts_with("headworks: the writer of tenant acme has held the system's thread for 1"), "{line}");
    assert!(line.contains("daemon.exit_when_hung"), "{line}");
    let told = ended.err.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told: Vec<_> = told.filter(|entry| entry["what"] == "hung").collect();
    assert_eq!(told.len(), 1, "{}", ended.err);
    assert_eq!((&told[0]["tenant"], &told[0]["actor"]), (&"acme".into(), &"writer".into()));
    let on_disk = place.run(&["log", "--data", "data", "--what", "hung"]).succeeded().text();
    assert!(on_disk.contains("writer") && on_disk.contains("acme"), "{on_disk}");
    let mut next = Process::spawn(&mut place.daemon());
    next.listens();
    place.until("SELECT count(*) FROM events", 3);
    next.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 3);
}

#[test]
fn the_rules_of_a_tenant_are_printed_and_changed_while_the_daemon_runs() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    let address = daemon.listens();
    let rules: toml::Table = order(&place, &["policy", "acme"]).parse().unwrap();
    assert_eq!(rules["throttle"]["events_per_second"].as_integer(), Some(0));
    let told = order(
        &place,
        &["set", "acme", "throttle.events_per_second=1", "throttle.burst_events=4", "throttle.when_over=reject"],
    );
    let expected = "\
acme: throttle.burst_events = 4, was 0
acme: throttle.events_per_second = 1, was 0
acme: throttle.when_over = \"reject\", was \"delay\"
until the daemon ends; to keep it, write it into its configuration
";
    assert_eq!(told, expected);
    let rules: Value = serde_json::from_str(&order(&place, &["policy", "acme", "--json"])).unwrap();
    assert_eq!(rules["throttle"]["when_over"], "reject");
    send(address, &lines("acme", 0..50));
    send(address, &lines("b", 0..50));
    place.until("SELECT count(*) FROM events WHERE tenant = 'b'", 50);
    let acme = live(&place, "acme");
    let number = |key: &str| acme[key].as_u64().unwrap();
    assert_eq!(number("received"), 50);
    assert_eq!(number("accepted") + number("throttled"), 50);
    assert!(number("accepted") >= 4 && number("throttled") > 0, "{acme}");
    let report = place.run(&["report", "--data", "data"]).succeeded().text();
    assert!(report.contains("throttled"), "{report}");
    let log = place.run(&["log", "--data", "data", "--tenant", "acme"]).succeeded().text();
    assert!(
        log.contains("acme: The tenant's rules were changed:") && log.contains("throttle.burst_events = 4, was 0;"),
        "{log}"
    );
    assert_eq!(
        order(&place, &["set", "acme", "throttle.burst_events=4"]),
        "nothing is changed: the rules were so before\n"
    );
    let refused = place.run(&["tenants", "set", "acme", "throttle.rate=5", "--data", "data"]).with(1).err;
    assert!(refused.contains("there is no rule \"throttle.rate\"; valid: ack, "), "{refused}");
    for (slip, meant) in [
        ("throttle.event_per_second", "\"throttle.events_per_second\""),
        ("max_age", "\"retention.max_age\" or \"window.max_age\""),
    ] {
        let refused = place.run(&["tenants", "set", "acme", &format!("{slip}=5"), "--data", "data"]).with(1).err;
        assert!(refused.trim_end().ends_with(&format!("did you mean {meant}?")), "{refused}");
    }
    let refused = place.run(&["tenants", "set", "acme", "window.max_age=soon", "--data", "data"]).with(1).err;
    assert!(refused.contains("window.max_age: \"soon\" is no duration"), "{refused}");
    place.run(&["tenants", "set", "acme", "throttle", "--data", "data"]).with(2);
    order(&place, &["set", "acme", "throttle.events_per_second=0"]);
    send(address, &lines("acme", 50..250));
    place.until("SELECT count(*) FROM events WHERE tenant = 'acme'", number("accepted") as i64 + 200);
    daemon.terminated().succeeded();
}
