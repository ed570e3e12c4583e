//! The daemon under a service manager: what it tells it, and the unit that ships with it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::rig::{DEADLINE, Place, Process, lines, send};

/// A service manager's ear.
struct Manager(UnixDatagram);

impl Manager {
    fn new(place: &Place) -> Self {
        let socket = UnixDatagram::bind(place.path("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    fn daemon(place: &Place) -> Command {
        let mut daemon = place.daemon();
        daemon.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "300000").env_remove("WATCHDOG_PID");
        daemon
    }

    /// Waits for a message that begins so.
    fn hears(&self, word: &str) -> String {
        let mut heard = vec![];
        loop {
            let mut bytes = [0; 4096];
            let Ok(read) = self.0.recv(&mut bytes) else { panic!("not {word:?}, but {heard:?}") };
            let told = String::from_utf8(bytes[..read].to_vec()).unwrap();
            if told.starts_with(word) {
                return told;
            }
            heard.push(told);
        }
    }

    /// What was told and not heard yet.
    fn rest(&self) -> Vec<String> {
        self.0.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        std::iter::from_fn(|| {
            self.0.recv(&mut bytes).ok().map(|read| String::from_utf8_lossy(&bytes[..read]).into_owned())
        })
        .collect()
    }
}

#[test]
fn a_service_manager_is_told_that_the_daemon_listens_is_alive_and_ends() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let mut daemon = Process::spawn(&mut Manager::daemon(&place));
    let ready = manager.hears("READY=1");
    let address = daemon.listens();
    assert_eq!(ready, format!("READY=1\nSTATUS=listening: tcp on {address}"));
    send(address, &lines("acme", 0..3));
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    daemon.signal("TERM");
    let stopping = manager.hears("STOPPING=1");
    // The deadline of the drain, and 30 s for the rest.
    assert!(stopping.ends_with("\nEXTEND_TIMEOUT_USEC=60000000"), "{stopping}");
    daemon.ended().succeeded();
}

#[test]
fn a_daemon_that_cannot_listen_is_never_said_to_be_ready() {
    let place = Place::new();
    let manager = Manager::new(&place);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Process::spawn(Manager::daemon(&place).env("HEADWORKS__SOURCES__TCP__LISTEN", address)).ended().with(69);
    let told = manager.rest();
    assert!(!told.iter().any(|told| told.contains("READY")), "{told:?}");
}

#[test]
fn a_service_manager_that_is_gone_costs_the_daemon_nothing() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut Manager::daemon(&place));
    send(daemon.listens(), &lines("acme", 0..3));
    daemon.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 3);
}

/// `systemd-analyze` over the unit with the program that was built; the answer is what it says.
fn analyze(place: &Place, words: &[&str]) -> (bool, String) {
    let unit = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/headworks.service"));
    let unit = unit.unwrap().replace("/usr/bin/headworks", env!("CARGO_BIN_EXE_headworks"));
    let unit = place.write("headworks.service", unit);
    let ran = Command::new("systemd-analyze").args(words).arg(unit).output();
    let Ok(ran) = ran else { panic!("systemd-analyze is needed, of Debian's package systemd; .ci/run installs it") };
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (ran.status.success(), said)
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let place = Place::new();
    let (holds, said) = analyze(&place, &["verify", "--man=no", "--recursive-errors=no"]);
    assert!(holds && !said.contains("headworks.service:"), "{said}");
}

#[test]
fn the_unit_leaves_the_daemon_little_that_it_could_do_to_the_machine() {
    let place = Place::new();
    // In tenths; 10 is a unit without any hardening.
    let (holds, said) = analyze(&place, &["security", "--offline=yes", "--threshold=20", "--no-pager"]);
    assert!(holds, "{said}");
}
