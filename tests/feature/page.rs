//! The page at `/` of the admin API, driven in a real browser: Chromium, by Playwright.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Place, Process};

const CHROMIUM: &str = "/usr/bin/chromium";
const PLAYWRIGHT: &str = "playwright==1.65.2";

/// The Python that has Playwright, in an environment of its own; made once.
fn python() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let python = home.join("bin/python");
    let has_it =
        || Command::new(&python).args(["-c", "import playwright"]).output().is_ok_and(|out| out.status.success());
    if !has_it() {
        let run = |program: &Path, words: &[&str]| {
            let out = Command::new(program).args(words).output();
            let out =
                out.unwrap_or_else(|why| panic!("{}: {why}; .ci/run installs what this test needs", program.display()));
            assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        run(Path::new("python3"), &["-m", "venv", home.to_str().unwrap()]);
        run(&python, &["-m", "pip", "install", "--quiet", PLAYWRIGHT]);
    }
    python
}

/// A way for a browser to the control socket of a data directory, until the test ends.
fn bridge(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let copy = |mut from: Box<dyn io::Read + Send>, mut to: Box<dyn io::Write + Send>, end: Box<dyn Fn() + Send>| {
        std::thread::spawn(move || {
            // Either side may go at any time.
            let _ = io::copy(&mut from, &mut to);
            end();
        });
    };
    std::thread::spawn(move || {
        for browser in listener.incoming().map_while(Result::ok) {
            let Ok(daemon) = UnixStream::connect(&socket) else { continue };
            let end = |browser: &TcpStream, daemon: &UnixStream| {
                let (browser, daemon) = (browser.try_clone().unwrap(), daemon.try_clone().unwrap());
                Box::new(move || {
                    let _ = (browser.shutdown(Shutdown::Both), daemon.shutdown(Shutdown::Both));
                })
            };
            let (in_end, out_end) = (end(&browser, &daemon), end(&browser, &daemon));
            copy(Box::new(browser.try_clone().unwrap()), Box::new(daemon.try_clone().unwrap()), in_end);
            copy(Box::new(daemon), Box::new(browser), out_end);
        }
    });
    address
}

#[test]
fn an_operator_sees_tenants_fail_and_recover_mutes_one_replays_a_letter_and_ten_thousand_stay_responsive() {
    assert!(Path::new(CHROMIUM).exists(), "{CHROMIUM} is missing: apt-get install chromium, as .ci/run does");
    let python = python();
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__LIMITS__MAX_TENANTS", "20000")
        .env("HEADWORKS__STORE__BUSY_TIMEOUT", "20ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "200ms")
        // Long enough to be seen counting down.
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "2s")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "4s");
    let mut daemon = Process::spawn(&mut command);
    let events = daemon.listens();
    let page = bridge(place.data().join("control.sock"));
    // Kept for whoever wants to look at them.
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/page.py");
    let mut browser = Command::new(python);
    browser.arg(script).args(["--url", &format!("http://{page}"), "--events", &events.to_string()]);
    browser.arg("--data").arg(place.data()).arg("--shots").arg(&shots).args(["--chromium", CHROMIUM]);
    // A daemon that says much more than is read would wait for its reader.
    let ended = Process::spawn(&mut browser).ended().succeeded();
    println!("{}screenshots: {}", ended.text(), shots.display());
    daemon.terminated().succeeded();
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    assert_eq!(audit["holds"], true, "{audit}");
}
