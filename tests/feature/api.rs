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
        ["/", "/healthz", "/readyz", "/v1", "/v1/tenants", "/v1/tenants/acme", "/openapi.json", "/no/such"]
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
