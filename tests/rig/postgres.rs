//! A PostgreSQL server of a test's own, of Debian's package `postgresql-15`, which `.ci/run` installs: killed, stopped and reached
//! as the test likes. And what lies between a client and a server, to be cut.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headworks::store::postgres::OpenError;
use headworks::store::{PostgresOptions, PostgresReader, PostgresStore};
use headworks::{TenantId, conformance};
use tempfile::TempDir;

use super::{Bodies, DEADLINE, Place};

const BIN: &str = "/usr/lib/postgresql/15/bin";
const PACKAGE: &str = "PostgreSQL is in Debian's package postgresql-15, which .ci/run installs";

/// A program of the server, which refuses to be run as root.
fn program(name: &str) -> Command {
    let path = format!("{BIN}/{name}");
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL", &path]);
        command
    } else {
        Command::new(path)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A fresh cluster to be copied: to make one takes seconds. It is kept for the next run of the tests.
fn template() -> PathBuf {
    let user = std::fs::metadata("/proc/self").unwrap().uid();
    let kept = std::env::temp_dir().join(format!("headworks-tests-postgres-15-{user}"));
    if !kept.exists() {
        let fresh = tempfile::Builder::new().permissions(Permissions::from_mode(0o777)).tempdir().unwrap();
        std::fs::set_permissions(fresh.path(), Permissions::from_mode(0o777)).unwrap();
        let mut initdb = program("initdb");
        initdb.arg("-D").arg(fresh.path().join("data"));
        initdb.args(["-U", "app", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]);
        let made = initdb.output().expect(PACKAGE);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Another test may have been quicker.
        let _ = std::fs::rename(fresh.path().join("data"), &kept);
    }
    kept
}

/// A server. It does not outlive its test.
pub(crate) struct Postgres {
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
    /// Whether somebody may know its port by now.
    is_known: bool,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With settings: `ssl=on`.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let mut postgres = Self::prepared(settings);
        postgres.is_known = false;
        postgres.restart();
        postgres
    }

    /// A server that is not started yet.
    pub(crate) fn prepared(settings: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let copied = Command::new("cp").arg("-a").arg(template()).arg(dir.path().join("data")).status().unwrap();
        assert!(copied.success());
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { dir, port: free_port(), settings, server: None, is_known: true }
    }

    /// A file of the server's, for it alone.
    pub(crate) fn own(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join("data").join(name);
        std::fs::write(&path, bytes).unwrap();
        self.give(&path);
        path
    }

    /// Makes the path the server's.
    pub(crate) fn give(&self, path: &Path) {
        let data = std::fs::metadata(self.dir.path().join("data")).unwrap();
        std::os::unix::fs::chown(path, Some(data.uid()), Some(data.gid())).unwrap();
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Starts it where it does not run, and waits until it takes connections. One that was killed has left processes that are
    /// on their way out, and is started until they are.
    pub(crate) fn restart(&mut self) {
        let began = std::time::Instant::now();
        loop {
            let mut command = program("postgres");
            command.arg("-D").arg(self.dir.path().join("data")).args(["-p", &self.port.to_string()]);
            for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
                command.args(["-c", setting]);
            }
            for setting in &self.settings {
                command.args(["-c", setting]);
            }
            let mut server = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect(PACKAGE);
            let log = lines(server.stderr.take().unwrap());
            let mut said = vec![];
            loop {
                match log.recv_timeout(DEADLINE) {
                    Ok(line) if line.contains("ready to accept connections") => {
                        (self.server, self.is_known) = (Some(server), true);
                        return;
                    }
                    Ok(line) => said.push(line),
                    Err(RecvTimeoutError::Timeout) => panic!("it does not start:\n{}", said.join("\n")),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            let _ = server.wait();
            if !self.is_known {
                // Another may have taken it meanwhile.
                self.port = free_port();
            }
            assert!(began.elapsed() < DEADLINE, "it does not start:\n{}", said.join("\n"));
        }
    }

    /// Ends it without a warning, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Stops all of its processes where they are, or lets them go on.
    pub(crate) fn freeze(&self, freeze: bool) {
        let postmaster = self.server.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        let signal = if freeze { "STOP" } else { "CONT" };
        // One of them may have ended meanwhile.
        let _ = Command::new("sh").args(["-c", &format!("kill -s {signal} {postmaster} {children}")]).status().unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn url(&self) -> String {
        url(self.address())
    }

    /// A store there, in a namespace of this name.
    pub(crate) fn options(&self, namespace: &str) -> PostgresOptions {
        let mut options = PostgresOptions::at(self.url());
        options.namespace = namespace.into();
        options
    }

    pub(crate) fn open(&self, namespace: &str) -> PostgresStore {
        PostgresStore::open(self.options(namespace)).unwrap()
    }

    pub(crate) fn reader(&self, namespace: &str) -> PostgresReader {
        PostgresReader::new(self.options(namespace)).unwrap()
    }

    /// What a query answers with, by PostgreSQL's own client.
    #[track_caller]
    pub(crate) fn ask(&self, sql: &str) -> String {
        ask(&self.url(), sql)
    }

    /// Somebody else who is connected.
    pub(crate) fn session(&self) -> Session {
        let mut psql = psql(&self.url()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(PACKAGE);
        let (stdin, stdout) = (psql.stdin.take().unwrap(), psql.stdout.take().unwrap());
        Session { psql, stdin, stdout: BufReader::new(stdout) }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The suite of every store passes, with a store of its own in a namespace of its own for each case; `kind` names them.
pub(crate) async fn keeps_the_contract(kind: &str, options: impl Fn(&str) -> PostgresOptions) {
    let opened = Cell::new(0);
    let options = || options(&format!("{kind}_{}", opened.get()));
    let make = async || {
        opened.set(opened.get() + 1);
        PostgresStore::open(options()).unwrap()
    };
    let bodies =
        async |_: &PostgresStore, tenant: &TenantId| PostgresReader::new(options()).unwrap().bodies(tenant).unwrap();
    conformance::storage(make, bodies).await;
}

/// The store was not opened, since what is there is not fit or does not let it in; all that it says.
#[track_caller]
pub(crate) fn assert_refused(opened: Result<PostgresStore, OpenError>, says: &str) -> String {
    let why = opened.unwrap_err();
    assert!(matches!(why, OpenError::Refused { .. }) && why.to_string().contains(says), "{why}");
    why.to_string()
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("postgres://app@{address}/postgres")
}

fn psql(url: &str) -> Command {
    let mut psql = Command::new(format!("{BIN}/psql"));
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
    psql
}

#[track_caller]
fn ask(url: &str, sql: &str) -> String {
    let answer = psql(url).args(["-c", sql]).output().expect(PACKAGE);
    assert!(answer.status.success(), "{sql}: {}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap().trim_end_matches('\n').to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    // Ends with the pipe; goes on reading when nobody listens, so that nobody is held up.
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    told
}

/// A session of `psql`, which holds what it locked until this is dropped.
pub(crate) struct Session {
    psql: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    /// Does it, and waits until it is done.
    #[track_caller]
    pub(crate) fn run(&mut self, sql: &str) {
        writeln!(self.stdin, "{sql};\n\\echo done").unwrap();
        let mut line = String::new();
        while line.trim() != "done" {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "psql has ended over {sql}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// What the store `store` of a data directory holds, if it is on a server; by PostgreSQL's own client.
pub(crate) fn stored(place: &Place) -> Bodies {
    let mut bodies = Bodies::new();
    let Ok(text) = std::fs::read(place.data().join("stores.json")) else { return bodies };
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let Some(options) = manifest["postgres"].get("store") else { return bodies };
    let sql = format!(
        "SELECT tenant, encode(coalesce(raw, convert_to(body::text, 'UTF8')), 'hex') FROM {}.events ORDER BY batch, idx",
        options["namespace"].as_str().unwrap()
    );
    for row in ask(options["url"].as_str().unwrap(), &sql).lines() {
        let (tenant, hex) = row.split_once('|').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        bodies.entry(tenant.to_owned()).or_default().push((0..hex.len()).step_by(2).map(byte).collect());
    }
    bodies
}

/// A way to a server that can be cut: by bytes in one direction, or altogether.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) up: Arc<Budget>,
    pub(crate) down: Arc<Budget>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

/// How many bytes may still pass.
#[derive(Default)]
pub(crate) struct Budget {
    left: AtomicI64,
}

impl Budget {
    pub(crate) fn set(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn left(&self) -> i64 {
        self.left.load(Ordering::SeqCst)
    }
}

/// More than any test sends.
pub(crate) const PLENTY: i64 = 1 << 40;

impl Way {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (up, down, connections): (Arc<Budget>, Arc<Budget>, Arc<Mutex<Vec<TcpStream>>>) = Default::default();
        up.set(PLENTY);
        down.set(PLENTY);
        let (budgets, open) = ((up.clone(), down.clone()), connections.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                for (from, to, budget) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap(), budgets.0.clone()),
                    (server, client, budgets.1.clone()),
                ] {
                    std::thread::spawn(move || carry(from, to, &budget));
                }
            }
        });
        Self { address, up, down, connections }
    }

    /// Cuts every connection there is.
    pub(crate) fn cut(&self) {
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Until one side ends, or no more may pass: then both are cut.
fn carry(mut from: TcpStream, mut to: TcpStream, budget: &Budget) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let length = i64::try_from(read).unwrap();
        let left = budget.left.fetch_sub(length, Ordering::SeqCst);
        let passing = usize::try_from(left.clamp(0, length)).unwrap();
        if to.write_all(&bytes[..passing]).is_err() || passing < read {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// What paces somebody who asks again.
pub(crate) const AGAIN: Duration = Duration::from_millis(20);
