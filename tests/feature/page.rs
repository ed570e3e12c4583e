//! The page at `/` of the admin API, driven in a real browser: Chromium, by Playwright.

use std::path::Path;
use std::process::Command;

use super::api::started;
use crate::rig::python::environment;
use crate::rig::{Place, Process};

const CHROMIUM: &str = "/usr/bin/chromium";
const PLAYWRIGHT: &str = "playwright==1.65.2";

#[test]
fn an_operator_sees_tenants_fail_and_recover_mutes_one_replays_a_letter_and_ten_thousand_stay_responsive() {
    assert!(Path::new(CHROMIUM).exists(), "{CHROMIUM} is missing: apt-get install chromium, as .ci/run does");
    let python = environment(&[PLAYWRIGHT]).join("python");
    let place = Place::new();
    let config = place.write("my.toml", "");
    let mut command = place.command(&["run", "--config", "my.toml", "--data", "data"]);
    command
        .env("HEADWORKS__LOG__FORMAT", "json")
        .env("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:0")
        .env("HEADWORKS__ADMIN__LISTEN", "127.0.0.1:0")
        .env("HEADWORKS__LIMITS__MAX_TENANTS", "20000")
        .env("HEADWORKS__STORE__BUSY_TIMEOUT", "20ms")
        .env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "200ms")
        // Long enough to be seen counting down.
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__BASE", "2s")
        .env("HEADWORKS__TENANTS__DEFAULTS__RETRY__CAP", "4s");
    let (daemon, page, events) = started(&mut command);
    // Kept for whoever wants to look at them.
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/page.py");
    let mut browser = Command::new(python);
    browser.arg(script).args(["--url", &format!("http://{page}"), "--events", &events.to_string()]);
    browser
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(place.data())
        .arg("--shots")
        .arg(&shots)
        .args(["--chromium", CHROMIUM]);
    // A daemon that says much more than is read would wait for its reader.
    let ended = Process::spawn(&mut browser).ended().succeeded();
    // What it says as it goes, step by step, and its figures.
    println!("{}\n{}screenshots: {}", ended.err, ended.text(), shots.display());
    daemon.terminated().succeeded();
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    assert_eq!(audit["holds"], true, "{audit}");
}
