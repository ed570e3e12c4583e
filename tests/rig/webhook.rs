//! A server behind a webhook that is not ours: Python's, with SQLite for what it keeps and PyPI's library for the signatures.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;

use super::python::environment;
use super::{Bodies, DEADLINE, Place, Process, connect};

/// Of the tests' own: what verifies signatures, what decompresses, and what makes certificates.
const PACKAGES: [&str; 3] = ["standardwebhooks==1.1.0", "trustme==1.2.1", "zstandard==0.25.0"];

/// The secret of tests.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A server that runs.
pub(crate) struct Receiver {
    process: Option<Process>,
    command: Box<dyn Fn(u16) -> Command>,
    pub(crate) address: SocketAddr,
}

impl Receiver {
    /// With this secret, none where it is empty.
    pub(crate) fn start(place: &Place, secret: &str) -> Self {
        Self::of(place, secret, &[])
    }

    /// The same with TLS; the certificate of its authority is `ca.pem`.
    pub(crate) fn with_tls(place: &Place, secret: &str) -> Self {
        Self::of(place, secret, &["--tls"])
    }

    fn of(place: &Place, secret: &str, words: &'static [&'static str]) -> Self {
        let (python, folder, secret) = (environment(&PACKAGES).join("python"), place.path(""), secret.to_owned());
        let command = move |port: u16| {
            let mut command = Command::new(&python);
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/webhook/receiver.py"));
            command.args([&port.to_string(), "receiver.db", &secret]).args(words).current_dir(&folder);
            command
        };
        let (process, address) = started(&mut command(0));
        Self { process: Some(process), command: Box::new(command), address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/batches", self.address)
    }

    pub(crate) fn rollback_url(&self) -> String {
        format!("http://{}/rollback", self.address)
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Starts it again, at the same address, with what it has.
    pub(crate) fn restart(&mut self) {
        let (process, address) = started(&mut (self.command)(self.address.port()));
        assert_eq!(address, self.address);
        self.process = Some(process);
    }

    /// From here on it behaves so; see `receiver.py`.
    pub(crate) fn mode(&self, mode: &str) {
        let mut connection = connect(self.address);
        let head =
            format!("POST /mode HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", mode.len());
        connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(mode.as_bytes())).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }

    /// Waits until it says this, and gives back all of it.
    #[track_caller]
    pub(crate) fn says(&mut self, message: &str) -> Value {
        self.process.as_mut().unwrap().says(message)
    }
}

fn started(command: &mut Command) -> (Process, SocketAddr) {
    let mut process = Process::spawn(command);
    let address = process.says("listening")["address"].as_str().unwrap().parse().unwrap();
    (process, address)
}

/// What such a server keeps, in the order of batches.
pub(crate) fn database(place: &Place) -> Option<Connection> {
    let path = place.path("receiver.db");
    let open = || {
        let database = Connection::open(&path).unwrap();
        database.busy_timeout(DEADLINE).unwrap();
        database
    };
    path.exists().then(open)
}

/// The events that it keeps, by tenant.
pub(crate) fn stored(place: &Place) -> Bodies {
    let mut bodies = Bodies::new();
    let Some(database) = database(place) else { return bodies };
    let mut events = database.prepare("SELECT tenant, body FROM events ORDER BY n").unwrap();
    let mut rows = events.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        bodies.entry(row.get(0).unwrap()).or_default().push(row.get(1).unwrap());
    }
    bodies
}
