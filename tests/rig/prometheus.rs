//! What a scraper does: asks for `/metrics`, checks it, watches its alerts. `promtool` and Prometheus itself are those of Debian's
//! package `prometheus`, which `.ci/run` installs.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::{DEADLINE, Place, Process};

/// A file of the repository.
pub(crate) fn shipped(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What `/metrics` answers with, on the control socket: head and body.
pub(crate) fn scrape(place: &Place, accept: &str) -> (String, String) {
    let mut stream = UnixStream::connect(place.data().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("GET /metrics HTTP/1.0\r\nhost: headworks\r\naccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

/// The samples of a text, by name and labels as they are written.
pub(crate) fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Every name that a query may ask for: of families and, of histograms, of their parts.
pub(crate) fn names(text: &str) -> BTreeSet<String> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    kinds
        .flat_map(|(name, kind)| match kind {
            "histogram" => ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec(),
            _ => vec![name.to_owned()],
        })
        .collect()
}

/// What `promtool` says of its input, which must please it.
#[track_caller]
pub(crate) fn promtool(words: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("promtool is in Debian's package prometheus, which .ci/run installs");
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "promtool {words:?}: {said}");
}

/// Brings what comes to a port of loopback to the control socket, for one who can only speak TCP.
pub(crate) fn bridge(place: &Place) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, socket) = (listener.local_addr().unwrap(), place.data().join("control.sock"));
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Where there is no daemon, whoever asks is hung up on.
            let Ok(daemon) = UnixStream::connect(&socket) else { continue };
            std::thread::spawn(move || carry(stream, daemon));
        }
    });
    address
}

/// Both ways, until one of them ends.
fn carry(mut stream: TcpStream, mut daemon: UnixStream) {
    let (mut back, mut from) = (stream.try_clone().unwrap(), daemon.try_clone().unwrap());
    let answers = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut stream, &mut daemon);
    let _ = daemon.shutdown(Shutdown::Both);
    let _ = answers.join();
}

/// A Prometheus that scrapes a daemon twice a second, under the rules that are shipped, but for how long a fault has to last.
pub(crate) struct Prometheus {
    address: SocketAddr,
    _process: Process,
}

impl Prometheus {
    pub(crate) fn start(place: &Place, target: SocketAddr) -> Self {
        let rules = shipped("deploy/prometheus/headworks.rules.yml");
        let soon = |line: &str| {
            if line.trim_start().starts_with("for: ") { "        for: 1s" } else { line }.to_owned() + "\n"
        };
        let rules: String = rules.lines().map(soon).collect();
        place.write("rules.yml", rules);
        let config = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
             rule_files: [ rules.yml ]\n\
             scrape_configs:\n- job_name: headworks\n  static_configs: [ {{ targets: [ '{target}' ] }} ]\n"
        );
        let config = place.write("prometheus.yml", config);
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", place.path("prometheus").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
        let mut process = Process::spawn(&mut command);
        let said = process.says_in("msg", "Listening on");
        Self { address: said["address"].as_str().unwrap().parse().unwrap(), _process: process }
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = super::connect(self.address);
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default()
    }

    /// The alerts that fire now.
    pub(crate) fn firing(&self) -> BTreeSet<String> {
        let told = self.get("/api/v1/alerts");
        let alerts = told["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the alerts that fire are as wanted: nobody announces that.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&BTreeSet<String>) -> bool) {
        let began = Instant::now();
        loop {
            let firing = self.firing();
            if wanted(&firing) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "{what}: but these fire: {firing:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// What a query of one sample answers with now.
    pub(crate) fn value(&self, query: &str) -> Option<f64> {
        let told = self.get(&format!("/api/v1/query?query={query}"));
        told["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}
