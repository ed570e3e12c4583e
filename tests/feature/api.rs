//! The admin API over TCP: who is let in, and what the health checks say.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::rig::{Place, Process, connect, lines, send};

const TOKEN: &str = "correct-horse-battery-staple";

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The detail of an error, which is told as one.
    #[track_caller]
    pub(super) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!((&problem["type"], &problem["status"]), (&"about:blank".into(), &status.into()), "{problem}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// Asks with these header lines and this body.
pub(super) fn asked_with(to: SocketAddr, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = connect(to);
    let host =
        if headers.iter().any(|line| line.starts_with("host:")) { String::new() } else { format!("host: {to}\r\n") };
    let headers = headers.iter().map(|line| format!("{line}\r\n")).collect::<String>();
    let head = format!(
        "{method} {target} HTTP/1.1\r\n{host}{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A request that is refused may not be read to its end.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = vec![];
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(super) fn asked(to: SocketAddr, method: &str, target: &str) -> Answer {
    asked_with(to, method, target, &[], "")
}

/// The command of a daemon with an API on any free port.
pub(super) fn command(place: &Place) -> Command {
    let mut command = place.daemon();
    command.env("HEADWORKS__ADMIN__LISTEN", "127.0.0.1:0");
    command
}

/// The daemon, and where it answers and listens.
pub(super) fn started(command: &mut Command) -> (Process, SocketAddr, SocketAddr) {
    let mut daemon = Process::spawn(command);
    let api = daemon.says("the admin API is served")["address"].as_str().unwrap().parse().unwrap();
    let source = daemon.listens();
    (daemon, api, source)
}

fn with_token(place: &Place) -> Command {
    let path = place.write("token", format!("{TOKEN}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = command(place);
    command.env("HEADWORKS__ADMIN__TOKEN_FILE", path);
    command
}

fn check<'a>(ready: &'a Value, name: &str) -> &'a Value {
    ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap()
}

#[test]
fn over_tcp_the_same_is_answered_as_on_the_control_socket() {
    let place = Place::new();
    let (daemon, api, source) = started(&mut command(&place));
    send(source, &lines("acme", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    assert_eq!(asked(api, "GET", "/v1").json()["process"], daemon.id());
    assert_eq!(asked(api, "GET", "/v1/tenants/acme").json()["events"], 3);
    assert_eq!(asked(api, "GET", "/healthz").json()["status"], "alive");
    daemon.terminated().succeeded();
}

#[test]
fn a_daemon_that_does_its_work_is_ready_and_says_what_was_checked() {
    let place = Place::new();
    let (daemon, api, _) = started(&mut command(&place));
    let answer = asked(api, "GET", "/readyz");
    assert_eq!(answer.status, 200, "{answer:?}");
    let ready = answer.json();
    let names: Vec<_> = ready["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
    assert_eq!(names, ["running", "sources", "journal", "stores", "actors", "progress"]);
    assert_eq!(ready["ready"], true);
    daemon.terminated().succeeded();
}

#[test]
fn a_daemon_whose_store_is_away_is_alive_and_not_ready_until_it_is_back() {
    let place = Place::new();
    let (daemon, api, source) = started(command(&place).env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "5ms"));
    send(source, &lines("acme", 0..1));
    place.until("SELECT count(*) FROM events", 1);
    let database = place.database();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(source, &lines("acme", 1..2));
    let ready = until_ready_is(api, false);
    assert!(check(&ready, "stores")["why"].as_str().unwrap().contains("tenant acme waits for it"), "{ready}");
    assert_eq!(asked(api, "GET", "/healthz").status, 200);
    let told = place.run(&["ready", "--data", "data"]).with(1).text();
    assert!(told.starts_with("not ready: stores: a store is away: tenant acme waits for it"), "{told}");
    database.execute_batch("ROLLBACK").unwrap();
    until_ready_is(api, true);
    assert_eq!(place.run(&["ready", "--data", "data"]).succeeded().text(), "ready\n");
    daemon.terminated().succeeded();
    place.run(&["ready", "--data", "data"]).with(69);
}

#[test]
fn a_daemon_that_drains_is_alive_and_not_ready() {
    let place = Place::new();
    let (mut daemon, api, source) =
        started(command(&place).env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "5ms"));
    send(source, &lines("acme", 0..1));
    place.until("SELECT count(*) FROM events", 1);
    let database = place.database();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    send(source, &lines("acme", 1..2));
    daemon.signal("TERM");
    daemon.says("draining: no new events, what was accepted is stored");
    let ready = until_check_fails(api, "running");
    assert!(check(&ready, "running")["why"].as_str().unwrap().contains("it drains"), "{ready}");
    assert_eq!(asked(api, "GET", "/healthz").status, 200);
    database.execute_batch("ROLLBACK").unwrap();
    daemon.ended().succeeded();
}

/// Asks until it does.
#[track_caller]
fn until_check_fails(api: SocketAddr, name: &str) -> Value {
    let began = std::time::Instant::now();
    loop {
        let answer = asked(api, "GET", "/readyz");
        if check(&answer.json(), name)["ok"] == false {
            assert_eq!(answer.status, 503);
            return answer.json();
        }
        assert!(began.elapsed() < crate::rig::DEADLINE, "{answer:?}");
        std::thread::yield_now();
    }
}

/// Asks until it is so.
#[track_caller]
fn until_ready_is(api: SocketAddr, wanted: bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let answer = asked(api, "GET", "/readyz");
        let ready = answer.json();
        assert_eq!(answer.status, if ready["ready"] == true { 200 } else { 503 });
        if ready["ready"] == wanted {
            return ready;
        }
        assert!(began.elapsed() < crate::rig::DEADLINE, "{ready}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn without_the_token_every_route_answers_401_and_says_nothing_else() {
    let place = Place::new();
    let (daemon, api, _) = started(&mut with_token(&place));
    let bodies: Vec<_> =
        ["/page/none", "/healthz", "/readyz", "/v1", "/v1/tenants", "/v1/tenants/acme", "/openapi.json", "/no/such"]
            .into_iter()
            .flat_map(|target| ["GET", "POST", "BREW"].map(|method| (method, target)))
            .map(|(method, target)| {
                let answer = asked(api, method, target);
                answer.problem(401);
                assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
                answer.body
            })
            .collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let bearing = |token: &str| asked_with(api, "GET", "/v1", &[&format!("authorization: Bearer {token}")], "").status;
    assert_eq!((bearing(TOKEN), bearing("correct-horse-battery-stapler")), (200, 401));
    // Its owner needs none on the control socket.
    place.run(&["tenants", "--data", "data"]).succeeded();
    let ended = daemon.terminated().succeeded();
    assert!(!ended.err.contains(TOKEN));
}

#[test]
fn the_pages_own_files_alone_are_had_without_the_token() {
    let place = Place::new();
    let (daemon, api, _) = started(&mut with_token(&place));
    let index = asked(api, "GET", "/");
    assert_eq!(index.status, 200, "{index:?}");
    assert!(
        index.head.contains("content-type: text/html")
            && index.head.contains("content-security-policy: default-src 'none'")
    );
    let files: Vec<_> = index.body.split(['"', '\'']).filter(|part| part.contains("page/")).collect();
    assert!(files.len() >= 2, "{}", index.body);
    for file in files {
        let answer = asked(api, "GET", &format!("/{}", file.trim_start_matches(['.', '/'])));
        assert_eq!(answer.status, 200, "{file}: {answer:?}");
    }
    // They are the same in every copy of the program; nothing of this one is in them.
    assert!(!index.body.contains(TOKEN) && !index.body.contains(&place.data().display().to_string()));
    for (method, target) in [
        ("POST", "/"),
        ("PUT", "/page/main.js"),
        ("GET", "/page/"),
        ("GET", "/page/../v1/tenants"),
        ("GET", "/page/%2e%2e/v1"),
        ("GET", "//"),
        ("GET", "/index.html"),
        ("GET", "/metrics"),
        ("GET", "/v1/overview"),
    ] {
        asked(api, method, target).problem(401);
    }
    daemon.terminated().succeeded();
}

#[test]
fn beyond_loopback_it_is_not_served_without_a_token() {
    let place = Place::new();
    let open = Process::spawn(place.daemon().env("HEADWORKS__ADMIN__LISTEN", "0.0.0.0:0")).ended().with(78);
    assert!(open.err.contains("admin.listen is 0.0.0.0:0, which other machines can reach"), "{}", open.err);
    assert!(open.err.contains("admin.token_file"), "{}", open.err);
    let (daemon, api, _) = started(with_token(&place).env("HEADWORKS__ADMIN__LISTEN", "0.0.0.0:0"));
    asked((std::net::Ipv4Addr::LOCALHOST, api.port()).into(), "GET", "/v1").problem(401);
    daemon.terminated().succeeded();
}

#[test]
fn a_token_that_others_may_read_or_that_is_none_ends_the_daemon_with_78() {
    let place = Place::new();
    let mut command = with_token(&place);
    std::fs::set_permissions(place.path("token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let ended = Process::spawn(&mut command).ended().with(78);
    assert!(ended.err.contains("cannot use the token in ") && ended.err.contains("chmod 600"), "{}", ended.err);
    assert!(!ended.err.contains(TOKEN));
}

#[test]
fn a_port_in_use_ends_the_daemon_with_69_and_a_run_over_an_input_needs_none() {
    let place = Place::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let ended = Process::spawn(place.daemon().env("HEADWORKS__ADMIN__LISTEN", &address)).ended().with(69);
    let says = format!("the admin API cannot listen on {address} (admin.listen): ");
    assert!(ended.err.contains(&says), "{}", ended.err);
    place.write("input", lines("acme", 0..3));
    let mut run = place.command(&["run", "--data", "data", "--input", "input"]);
    Process::spawn(run.env("HEADWORKS__ADMIN__LISTEN", &address)).ended().succeeded();
}

#[test]
fn a_page_of_another_site_reads_nothing_by_a_name_of_its_own_and_changes_nothing() {
    let place = Place::new();
    let (daemon, api, _) = started(&mut command(&place));
    let why = asked_with(api, "GET", "/v1/tenants", &["host: rebound.example:7401"], "").problem(403);
    assert!(why.contains("the Host of the request"), "{why}");
    let stop = |origin: &str| asked_with(api, "POST", "/v1/tenants/acme/mute", &[&format!("origin: {origin}")], "");
    assert!(stop("https://evil.example").problem(403).contains("another origin"));
    assert_eq!(stop(&format!("http://{api}")).status, 200);
    daemon.terminated().succeeded();
}

#[test]
fn tenants_come_a_page_at_a_time_with_how_many_there_are() {
    let place = Place::new();
    let (daemon, api, source) = started(&mut command(&place));
    send(source, &[lines("acme", 0..3), lines("b", 0..1), lines("c", 0..2)].concat());
    place.until("SELECT count(*) FROM events", 6);
    let page = |query: &str| {
        let answer = asked(api, "GET", &format!("/v1/tenants?{query}"));
        let header = |name: &str| {
            let line = answer.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
            line.unwrap_or_default()
        };
        let names: Vec<_> = answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|tenant| tenant["tenant"].as_str().unwrap().to_owned())
            .collect();
        (names, header("x-total-count"), header("x-next-cursor"))
    };
    let (names, total, next) = page("sort=events&order=desc&limit=2");
    assert_eq!((names, &*total, &*next), (vec!["acme".to_owned(), "c".to_owned()], "3", "2:c"));
    let (names, total, next) = page(&format!("sort=events&order=desc&limit=2&cursor={next}"));
    assert_eq!((names, &*total, &*next), (vec!["b".to_owned()], "3", ""));
    asked(api, "POST", "/v1/tenants/acme/mute");
    assert_eq!(page("muted=true").0, ["acme"]);
    assert_eq!(page("name=C&muted=false").0, ["c"]);
    asked(api, "GET", "/v1/tenants?status=asleep").problem(400);
    daemon.terminated().succeeded();
}

#[test]
fn orders_are_carried_out_and_are_in_the_supervisor_log() {
    let place = Place::new();
    let (daemon, api, source) = started(command(&place).env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h"));
    let json = |body: &str, path: &str| asked_with(api, "POST", path, &["content-type: application/json"], body);
    let spawned = json(r#"{"tenant":"acme"}"#, "/v1/tenants");
    assert_eq!(spawned.status, 201, "{spawned:?}");
    assert!(spawned.head.contains("location: /v1/tenants/acme"));
    json(r#"{"tenant":"acme"}"#, "/v1/tenants").problem(409);
    json(r#"{"tenant":"../etc"}"#, "/v1/tenants").problem(422);
    send(source, &lines("acme", 0..3));
    assert_eq!(asked(api, "POST", "/v1/tenants/acme/drain?within=60s").status, 200);
    assert_eq!(place.number("SELECT count(*) FROM events"), 3, "its window was stored");
    assert_eq!(asked(api, "POST", "/v1/tenants/acme/pause").status, 200);
    send(source, &lines("acme", 3..4));
    let why = asked(api, "POST", "/v1/tenants/acme/drain?within=10ms").problem(409);
    assert!(why.contains("tenant acme is not drained: after 10ms it is stopped with 1 events in flight"), "{why}");
    asked(api, "POST", "/v1/tenants/acme/drain?within=soon").problem(400);
    for order in ["resume", "mute", "unmute"] {
        assert_eq!(asked(api, "POST", &format!("/v1/tenants/acme/{order}")).status, 200, "{order}");
    }
    let log = asked(api, "GET", "/v1/log?tenant=acme&what=ordered,muted,unmuted").body;
    let told: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|entry| entry["cause"]["detail"].as_str().or(entry["what"].as_str()).unwrap().to_owned())
        .collect();
    assert_eq!(told, ["spawn", "drain", "pause", "drain", "resume", "muted", "unmuted"]);
    daemon.terminated().succeeded();
}

/// The next event of a stream of them: its id, if it has one, and its data.
fn next_event(stream: &mut impl std::io::BufRead) -> (Option<String>, Value) {
    let mut id = None;
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it ended");
        if let Some(found) = line.strip_prefix("id: ") {
            id = Some(found.trim().to_owned());
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return (id, serde_json::from_str(data).unwrap());
        }
    }
}

#[test]
fn the_log_is_followed_by_events_and_goes_on_where_a_reader_was() {
    let place = Place::new();
    let (daemon, api, _) = started(&mut command(&place));
    let follow = |more: &str| {
        let mut stream = connect(api);
        let request = format!(
            "GET /v1/log?what=muted,unmuted HTTP/1.1\r\nhost: {api}\r\naccept: text/event-stream\r\n{more}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        std::io::BufReader::new(stream)
    };
    let mut stream = follow("");
    asked(api, "POST", "/v1/tenants/acme/mute");
    let (id, entry) = next_event(&mut stream);
    assert_eq!((&entry["what"], &entry["tenant"]), (&"muted".into(), &"acme".into()));
    drop(stream);
    asked(api, "POST", "/v1/tenants/acme/unmute");
    asked(api, "POST", "/v1/tenants/b/mute");
    let mut stream = follow(&format!("last-event-id: {}\r\n", id.unwrap()));
    assert_eq!(next_event(&mut stream).1["what"], "unmuted");
    assert_eq!(next_event(&mut stream).1["tenant"], "b");
    asked(api, "POST", "/v1/tenants/c/mute");
    assert_eq!(next_event(&mut stream).1["tenant"], "c");
    daemon.terminated().succeeded();
}

#[test]
fn a_tenant_is_erased_once_its_id_is_repeated_and_the_accounting_still_holds() {
    let place = Place::new();
    let (daemon, api, source) = started(command(&place).env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h"));
    send(source, &[lines("acme", 0..3), lines("b", 0..2)].concat());
    let erase = |confirm: &str| {
        let body = format!("{{\"confirm\":\"{confirm}\"}}");
        asked_with(api, "POST", "/v1/tenants/acme/erase", &["content-type: application/json"], &body)
    };
    assert!(erase("b").problem(409).contains("repeat the id of the tenant"));
    let erased = erase("acme").json();
    assert_eq!((&erased["events"], &erased["dead_letters"]), (&3.into(), &0.into()), "{erased}");
    assert_eq!((&erased["dropped"], &erased["let_in"]), (&0.into(), &true.into()), "{erased}");
    assert_eq!(place.number("SELECT count(*) FROM events WHERE tenant = 'acme'"), 0);
    let live = asked(api, "GET", "/v1/tenants/acme").json()["live"].clone();
    assert_eq!((&live["stored"], &live["is_muted"]), (&3.into(), &false.into()));
    let log = asked(api, "GET", "/v1/log?tenant=acme&what=erased").body;
    assert!(log.contains("3 events and 0 dead letters"), "{log}");
    asked(api, "POST", "/v1/tenants/b/flush");
    place.until("SELECT count(*) FROM events WHERE tenant = 'b'", 2);
    let audit = place.run(&["audit", "--data", "data"]).succeeded().text();
    assert!(audit.contains("3 events of acme that were erased"), "{audit}");
    // It is as any other from now on.
    send(source, &lines("acme", 3..5));
    asked(api, "POST", "/v1/tenants/acme/flush");
    place.until("SELECT count(*) FROM events WHERE tenant = 'acme'", 2);
    place.run(&["tenants", "erase", "acme", "--data", "data"]).with(2);
    let told = place.run(&["tenants", "erase", "acme", "--yes", "--data", "data"]).succeeded().text();
    let began = "acme: 2 events and 0 dead letters erased\nits events are let in again: ";
    assert!(told.starts_with(began) && told.contains("\nwhat remains: "), "{told}");
    daemon.terminated().succeeded();
    place.run(&["audit", "--data", "data"]).succeeded();
}

#[test]
fn names_that_are_none_and_bodies_that_are_too_large_are_refused_and_change_nothing() {
    let place = Place::new();
    let (daemon, api, _) = started(&mut command(&place));
    for name in ["..%2F..%2Fetc", "%3Cscript%3E", "a'%20OR%201=1--", "%00", "%1b%5B2J", "a%0d%0aset-cookie:x"] {
        for (method, rest) in
            [("GET", ""), ("POST", "/mute"), ("GET", "/policy"), ("GET", "/explain"), ("POST", "/erase")]
        {
            let answer = asked_with(
                api,
                method,
                &format!("/v1/tenants/{name}{rest}"),
                &["content-type: application/json"],
                "{}",
            );
            assert!([400, 422].contains(&answer.status), "{name}: {answer:?}");
            answer.problem(answer.status);
            assert!(!answer.head.contains("set-cookie"), "{answer:?}");
        }
    }
    let large = format!("{{\"tenant\":\"{}\"}}", "x".repeat(2 << 20));
    asked_with(api, "POST", "/v1/tenants", &["content-type: application/json"], &large).problem(413);
    let frame = "x".repeat((1 << 20) + 1);
    asked_with(api, "PUT", "/v1/dead-letters/0123456789abcdef/acme/1", &[], &frame).problem(413);
    asked_with(api, "PUT", "/v1/dead-letters/0123456789abcdef/acme/1", &[], &frame[1..]).problem(404);
    asked_with(api, "POST", "/v1/tenants", &["content-type: text/plain"], "{}").problem(415);
    asked_with(api, "POST", "/v1/tenants", &["content-type: application/json"], "{").problem(400);
    asked(api, "DELETE", "/v1/tenants").problem(405);
    asked(api, "GET", "/v2").problem(404);
    assert_eq!(asked(api, "GET", "/v1/tenants").json(), Value::Array(vec![]));
    daemon.terminated().succeeded();
}
