//! A running daemon reads its configuration again: when the file is changed, and on SIGHUP.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::sender::{Send, Sender};
use crate::rig::{DEADLINE, Place, Process, lines, send};

const DONE: &str = "the configuration was read again";
const REFUSED: &str = "the configuration was read again, is not valid, and changes nothing";

/// A daemon with a file of its own.
fn started(place: &Place, config: &str) -> Process {
    place.write("my.toml", config);
    let mut command = place.command(&["run", "--config", "my.toml", "--data", "data"]);
    command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:0");
    command.env("HEADWORKS__ADMIN__LISTEN", "");
    Process::spawn(&mut command)
}

/// What the control socket answers.
fn asked(place: &Place, target: &str) -> Value {
    let mut stream = UnixStream::connect(place.data().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nhost: headworks\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Waits for what nobody announces.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a number of a tenant is this one.
#[track_caller]
fn until_tenant(place: &Place, tenant: &str, number: &str, is: u64) {
    let target = format!("/v1/tenants/{tenant}");
    until(number, || (asked(place, &target).pointer(number) == Some(&is.into())).then_some(()));
}

fn report(entry: &Value) -> &str {
    entry["report"].as_str().unwrap()
}

/// The supervisor log, whatever the width it is wrapped to.
fn logged(place: &Place) -> String {
    let text = place.run(&["log", "--data", "data"]).succeeded().text();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Another file in the place of the one that is there, as editors and orchestrators do it.
fn replace(place: &Place, config: &str) {
    place.write("next.toml", config);
    std::fs::rename(place.path("next.toml"), place.path("my.toml")).unwrap();
}

#[test]
fn a_change_of_the_file_holds_within_a_second_without_a_word_and_is_reported() {
    let place = Place::new();
    let window = |age: &str| format!("[tenants.defaults]\nwindow.max_age = '{age}'\n");
    let mut daemon = started(&place, &window("1h"));
    let address = daemon.listens();
    send(address, &lines("acme", 0..3));
    until_tenant(&place, "acme", "/live/in_flight", 3);
    let begun = Instant::now();
    replace(&place, &window("10ms"));
    let done = daemon.says(DONE);
    let took = begun.elapsed();
    let expected = "changed: tenants.defaults.window.max_age = \"10ms\", was \"1h\"; 1 tenant lives by other rules now";
    assert_eq!(report(&done), expected);
    // The machine may be busy: what is asserted is that it is no matter of the next window.
    assert!(took < Duration::from_secs(60), "{took:?}");
    println!("taken over after {took:?}");
    place.until("SELECT count(*) FROM events", 3);
    let log = logged(&place);
    assert!(log.contains("The configuration was read again. changed: tenants.defaults.window.max_age"), "{log}");
    assert!(log.contains("The tenant's rules were changed"), "{log}");
    // Written in place, slowly, and with no whole line at first.
    let mut file = std::fs::File::create(place.path("my.toml")).unwrap();
    file.write_all(b"[tenants]\nmute = ['ac").unwrap();
    file.write_all(b"me']\n[log]\nlevel = 'warn,headworks=info'\n[limits]\nmax_in_flight = '32MiB'\n").unwrap();
    drop(file);
    let done = daemon.says(DONE);
    assert!(report(&done).ends_with("; needs a restart: limits.max_in_flight = \"32MiB\", was \"16MiB\""), "{done}");
    send(address, &lines("acme", 3..5));
    until_tenant(&place, "acme", "/live/muted", 2);
    daemon.terminated().succeeded();
    assert_eq!(place.number("SELECT count(*) FROM events"), 3);
}

#[test]
fn a_file_that_is_not_valid_changes_nothing_and_says_why_until_it_is_mended() {
    let place = Place::new();
    let mut daemon = started(&place, "[tenants]\nmute = ['spam']\n");
    daemon.listens();
    replace(&place, "[tenants]\nmute = []\n[tenants.defaults]\nretry.attempts = 0\n");
    let refused = daemon.says(REFUSED);
    let why = refused["why"].as_str().unwrap();
    assert_eq!(why, "my.toml:4:18: tenants.defaults.retry.attempts is 0, but must be from 1 to 1000");
    let running = asked(&place, "/v1/config");
    assert_eq!((&running["muted"][0], running["refused"].as_str()), (&"spam".into(), Some(why)));
    let log = logged(&place);
    assert!(log.contains("is not valid, and changed nothing: my.toml:4:18:"), "{log}");
    // Half a file, as SIGHUP finds it.
    place.write("my.toml", "[tenants.defaults");
    daemon.signal("HUP");
    assert!(daemon.says(REFUSED)["why"].as_str().unwrap().starts_with("my.toml:1:"));
    std::fs::remove_file(place.path("my.toml")).unwrap();
    daemon.signal("HUP");
    let mut why = daemon.says(REFUSED)["why"].as_str().unwrap().to_owned();
    if !why.contains("cannot be read") {
        // The change of the file was seen on its own before.
        why = daemon.says(REFUSED)["why"].as_str().unwrap().to_owned();
    }
    assert!(why.starts_with("my.toml: the configuration cannot be read"), "{why}");
    replace(&place, "[tenants]\nmute = []\n");
    assert!(report(&daemon.says(DONE)).starts_with("changed: tenants.mute = [], was [\"spam\"]"));
    let running = asked(&place, "/v1/config");
    assert_eq!((&running["muted"], &running["refused"]), (&Value::Array(vec![]), &Value::Null));
    daemon.terminated().succeeded();
}

#[test]
fn what_was_given_by_hand_stays_over_the_file_and_the_report_says_so() {
    let place = Place::new();
    let mut daemon = started(&place, "");
    daemon.listens();
    place.run(&["tenants", "set", "acme", "window.max_events=7", "--data", "data"]).succeeded();
    place.run(&["tenants", "mute", "noisy", "--data", "data"]).succeeded();
    replace(&place, "[[tenants.rules]]\nmatch = '*'\nwindow.max_events = 9\n");
    let done = daemon.says(DONE);
    let expected = "changed: tenants.rules[1] is new; rules given by hand are kept until a restart, of: acme";
    assert_eq!(report(&done), expected);
    let running = asked(&place, "/v1/config");
    let change = &running["set_at_run_time"]["acme"][0];
    assert_eq!(
        (&change["key"], &change["from"], &change["to"]),
        (&"window.max_events".into(), &"9".into(), &"7".into())
    );
    assert_eq!((&running["muted"][0], &running["file"]), (&"noisy".into(), &"my.toml".into()));
    let policy = |tenant: &str| place.json(&["tenants", "policy", tenant, "--data", "data", "--json"]);
    assert_eq!(policy("acme")["window"]["max_events"], 7);
    assert_eq!(policy("new")["window"]["max_events"], 9);
    daemon.terminated().succeeded();
}

#[test]
fn the_report_and_the_log_level_change_too() {
    let place = Place::new();
    let mut daemon = started(&place, "[report]\nto = 'none'\n");
    let address = daemon.listens();
    replace(&place, "[log]\nlevel = 'debug'\n[report]\nto = 'file'\nevery = '1s'\npath = 'failures.jsonl'\n");
    daemon.says(DONE);
    send(address, b"no JSON\n");
    let written =
        || std::fs::read_to_string(place.path("data/failures.jsonl")).ok().filter(|text| text.ends_with('\n'));
    let report = until("the report", written);
    assert!(report.contains("\"code\":\"bad_json\""), "{report}");
    let ended = daemon.terminated().succeeded();
    assert!(ended.err.contains("\"level\":\"DEBUG\""), "{}", ended.err);
}

#[test]
fn how_much_of_the_supervisor_log_is_kept_changes_too() {
    let place = Place::new();
    let mut daemon = started(&place, "");
    daemon.listens();
    let older = |number: u32| place.path(&format!("data/supervisor-log/log.jsonl.{number}"));
    for number in 1..4 {
        std::fs::write(older(number), "{}\n").unwrap();
    }
    let hours_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 3600);
    std::fs::File::options().append(true).open(older(3)).unwrap().set_modified(hours_ago).unwrap();
    let gone = |number: u32| until("the end of an old file", || (!older(number).exists()).then_some(()));

    replace(&place, "[log]\nsupervisor_max_age = '1h'\n");
    let told = daemon.says(DONE);
    assert_eq!(report(&told), "changed: log.supervisor_max_age = \"1h\", was \"never\"");
    gone(3);
    assert!(older(1).exists() && older(2).exists());

    replace(&place, "[log]\nsupervisor_files = 2\nsupervisor_max_bytes = '4KiB'\n");
    assert!(!report(&daemon.says(DONE)).contains("restart"));
    gone(2);
    assert!(older(1).exists());
    daemon.terminated().succeeded();
}

/// `TEST_RELOADS` sets how many; a thousand take some minutes.
#[test]
fn reloads_under_load_lose_and_delay_no_event_and_memory_stays_flat() {
    let reloads: usize = std::env::var("TEST_RELOADS").map_or(60, |count| count.parse().unwrap());
    let place = Place::new();
    let config = |nth: usize| {
        let (events, bytes, gold) = (5 + nth % 11, 1 + nth % 3, 1 + nth % 7);
        format!(
            "[log]\nlevel = 'info'\n[tenants.defaults]\nwindow.max_events = {events}\nwindow.max_age = '200ms'\n\
             [tenants.classes.gold]\nwindow.max_bytes = '{bytes}MiB'\n[[tenants.rules]]\nmatch = '*-zen'\nclass = 'gold'\n\
             priority.weight = {gold}\n[tenants.by_id.b-acme]\nretry.attempts = {gold}\n"
        )
    };
    let mut daemon = started(&place, &config(0));
    let address = daemon.listens();
    let stop = AtomicBool::new(false);
    let mut senders = ["a", "b"].map(|name| Sender::new(name, "stored", 7));
    let (mut memory, mut slowest) = (vec![], Duration::ZERO);
    std::thread::scope(|scope| {
        for sender in &mut senders {
            let stop = &stop;
            scope.spawn(move || {
                // An answer at this level comes once the event is stored: a window's age, and the store's time.
                while !stop.load(Ordering::Relaxed) {
                    sender.make_some(1_000);
                    assert!(sender.session(address, Send::TheRest), "the connection broke");
                }
            });
        }
        for nth in 1..=reloads {
            replace(&place, &config(nth));
            let begun = Instant::now();
            daemon.signal("HUP");
            daemon.says(DONE);
            slowest = slowest.max(begun.elapsed());
            memory.push(daemon.memory());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let sent: u64 = senders.iter().map(|sender| sender.sent).sum();
    let acknowledged: u64 = senders.iter().map(|sender| sender.acknowledged).sum();
    let (early, late) = (memory[reloads / 3], memory[reloads - 1]);
    println!(
        "{reloads} reloads, {sent} frames sent, {acknowledged} events stored and told so; the slowest reload took {slowest:?}; \
         memory {} KiB after a third, {} KiB at the end",
        early >> 10,
        late >> 10
    );
    assert!(senders.iter().all(Sender::is_done));
    let grown = late.saturating_sub(early);
    assert!(grown < 24 << 20, "memory grew by {grown} bytes from {early}");
    let audit = asked(&place, "/v1/audit");
    assert_eq!(audit["holds"], true, "{audit}");
    daemon.terminated().succeeded();
    assert_eq!(place.number("SELECT count(*) FROM events"), i64::try_from(acknowledged).unwrap());
}
