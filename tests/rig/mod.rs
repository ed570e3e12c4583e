//! What the tests of the real program share: a place of their own, the program in it, and the way to its listener.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(any(feature = "nats", feature = "parquet", feature = "postgres", feature = "webhook"))]
pub(crate) mod batches;
#[cfg(feature = "tls")]
pub(crate) mod certificates;
#[cfg(feature = "otlp")]
pub(crate) mod collector;
pub(crate) mod crash;
pub(crate) mod disk;
#[cfg(feature = "mqtt")]
pub(crate) mod mosquitto;
#[cfg(feature = "nats")]
pub(crate) mod nats;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod process;
pub(crate) mod prometheus;
#[cfg(feature = "nats")]
mod published;
pub(crate) mod python;
#[cfg(feature = "parquet")]
pub(crate) mod s3;
pub(crate) mod sender;
#[cfg(feature = "webhook")]
pub(crate) mod webhook;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use headworks::store::SqliteReader;
use headworks::store::sqlite::TenantTotals;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use process::{Ended, Process};

/// How long anything may take before a test gives up on it: far longer than on the slowest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The events of each tenant, in order.
pub(crate) type Bodies = BTreeMap<String, Vec<Vec<u8>>>;

/// A directory of a test's own, gone with it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where the program keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// The same, for nobody else's eyes.
    pub(crate) fn secret(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, bytes);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The program, started in here, with no setting from the outside.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headworks"));
        command.args(words).current_dir(&self.0);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEADWORKS_")) {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        Process::spawn(&mut self.command(words)).ended()
    }

    /// Runs a command that must succeed, and reads what it prints as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        serde_json::from_slice(&self.run(words).succeeded().out).unwrap()
    }

    /// `run --json` over an input, which must succeed; the answer is the summary.
    pub(crate) fn take_in(&self, input: &[u8]) -> Value {
        self.write("input", input);
        self.json(&["run", "--data", "data", "--input", "input", "--json"])
    }

    /// Sample events.
    pub(crate) fn generated(&self, words: &[&str]) -> Vec<u8> {
        self.run(&[&["gen"], words].concat()).succeeded().out
    }

    /// The command of a daemon on any free port, for more settings.
    pub(crate) fn daemon(&self) -> Command {
        let mut command = self.command(&["run", "--data", "data"]);
        command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:0");
        // Several run at a time.
        command.env("HEADWORKS__ADMIN__LISTEN", "");
        command
    }

    fn open_database(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let database = Connection::open_with_flags(self.data().join("headworks.db"), flags)?;
        database.busy_timeout(DEADLINE)?;
        Ok(database)
    }

    /// The database, as anybody else may open it.
    #[track_caller]
    pub(crate) fn database(&self) -> Connection {
        self.open_database().unwrap()
    }

    /// Everything that is stored.
    pub(crate) fn stored(&self) -> Bodies {
        let database = self.database();
        let mut events = database.prepare("SELECT tenant, CAST(body AS BLOB) FROM events ORDER BY event_id").unwrap();
        let mut bodies = Bodies::new();
        let mut rows = events.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            bodies.entry(row.get(0).unwrap()).or_default().push(row.get(1).unwrap());
        }
        if self.number("SELECT count(*) FROM batches WHERE segment IS NOT NULL") > 0 {
            let reader = SqliteReader::open(self.data().join("headworks.db")).unwrap();
            for TenantTotals { tenant, events, .. } in reader.tenants().unwrap() {
                let read = reader.bodies(&tenant).unwrap();
                assert_eq!(read.len() as u64, events, "{tenant}: the index and the segments must agree");
                if events > 0 {
                    bodies.insert(tenant.to_string(), read);
                }
            }
        }
        bodies
    }

    fn ask(&self, sql: &str) -> rusqlite::Result<i64> {
        self.open_database()?.query_row(sql, [], |row| row.get(0))
    }

    /// The one number that a query answers with.
    #[track_caller]
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.ask(sql).unwrap()
    }

    /// Waits until there is a database and a query of it answers with `number` or more: for what nobody announces.
    #[track_caller]
    pub(crate) fn until(&self, sql: &str, number: i64) {
        let began = Instant::now();
        // Until it keeps a log it is in the making, and a second connection would be in the way.
        let is_made = || self.data().join("headworks.db-wal").exists();
        while !(is_made() && self.ask(sql).is_ok_and(|answer| answer >= number)) {
            assert!(began.elapsed() < DEADLINE, "{sql} did not come to {number}, but to {:?}", self.ask(sql));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Waits until the daemon has nothing in flight.
#[track_caller]
pub(crate) fn settled(place: &Place) {
    let began = Instant::now();
    loop {
        let audit = place.run(&["audit", "--data", "data", "--json"]);
        // The server of S3 in tests fails over what goes while it lists it: it is asked again.
        let told: Value = serde_json::from_slice(&audit.out).unwrap_or_default();
        if told["all"]["events"]["in_flight"] == 0 {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{}{}", audit.text(), audit.err);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number of `/metrics`, as the control socket tells it: 0 where there is no such sample.
pub(crate) fn metric(place: &Place, sample: &str) -> u64 {
    let mut stream = std::os::unix::net::UnixStream::connect(place.data().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: headworks\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let value = answer.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
    value.unwrap_or_default() as u64
}

/// Waits until a number of `/metrics` is this one: for what nobody announces.
#[track_caller]
pub(crate) fn until_metric(place: &Place, sample: &str, number: u64) {
    let began = Instant::now();
    loop {
        let is = metric(place, sample);
        if is == number {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{sample} did not come to {number}, but is {is}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The lines of an input that are events by everybody's rules, and those that are none, both without their newlines.
pub(crate) fn sorted(input: &[u8]) -> (Bodies, Vec<Vec<u8>>) {
    let (mut good, mut bad) = (Bodies::new(), vec![]);
    let ended = input.strip_suffix(b"\n").unwrap_or(input);
    for line in ended.split(|byte| *byte == b'\n').filter(|_| !input.is_empty()) {
        let tenant =
            serde_json::from_slice::<Value>(line).ok().and_then(|event| event["tenant"].as_str().map(str::to_owned));
        match tenant.filter(|tenant| !tenant.contains('/')) {
            Some(tenant) => good.entry(tenant).or_default().push(line.to_vec()),
            None => bad.push(line.to_vec()),
        }
    }
    (good, bad)
}

/// What is stored is the beginning of what was sent over and over, for each tenant.
#[track_caller]
pub(crate) fn assert_no_gap(sent: &Bodies, stored: &Bodies) {
    assert!(!stored.is_empty());
    for (tenant, bodies) in stored {
        assert!(sent[tenant].iter().cycle().zip(bodies).all(|(sent, stored)| sent == stored), "{tenant}");
    }
}

/// Events of one tenant, a line each.
pub(crate) fn lines(tenant: &str, numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.flat_map(|n| format!("{{\"tenant\":\"{tenant}\",\"n\":{n}}}\n").into_bytes()).collect()
}

/// Lines of `acme` and of `zen` in turn, in order, from `from` on, until nobody takes them.
pub(crate) fn pour(to: SocketAddr, from: u64, events: u64) {
    let mut connection = connect(to);
    for n in usize::try_from(from).unwrap()..usize::try_from(from + events).unwrap() {
        let both = [lines("acme", n..n + 1), lines("zen", n..n + 1)].concat();
        if connection.write_all(&both).is_err() {
            return;
        }
    }
}

/// A connection that panics rather than wait for ever.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(to).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    connection.set_write_timeout(Some(DEADLINE)).unwrap();
    connection
}

/// Sends everything, closes this half, and waits until the other side, having taken all in, closes its own.
pub(crate) fn send(to: SocketAddr, bytes: &[u8]) {
    let mut connection = connect(to);
    connection.write_all(bytes).unwrap();
    finish(connection);
}

/// Closes this half of the connection and waits for the other.
pub(crate) fn finish(mut connection: TcpStream) {
    connection.shutdown(Shutdown::Write).unwrap();
    let mut answer = vec![];
    connection.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty(), "a listener says nothing: {answer:?}");
}
