//! Files that grow, and are rotated, replaced and cut, under a daemon that is stopped and killed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::rig::prometheus::{samples, scrape};
use crate::rig::{Place, Process, lines, metric, until_metric};

const COUNT: &str = "SELECT count(*) FROM events";

fn daemon(place: &Place, pattern: &str) -> Command {
    let mut command = place.daemon();
    command.env("HEADWORKS__SOURCES__LOGS__TYPE", "tail");
    command.env("HEADWORKS__SOURCES__LOGS__PATH", format!("logs/{pattern}"));
    command
}

fn start(place: &Place, pattern: &str) -> Process {
    let mut process = Process::spawn(&mut daemon(place, pattern));
    process.listens();
    process
}

fn append(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// As logrotate does it.
fn rotate(log: &Path, times: usize) {
    let rotated = |n: usize| log.with_file_name(format!("{}.{n}", log.file_name().unwrap().to_str().unwrap()));
    for n in (1..=times).rev() {
        fs::rename(rotated(n), rotated(n + 1)).unwrap();
    }
    fs::rename(log, rotated(1)).unwrap();
}

#[track_caller]
fn assert_stored(place: &Place, tenant: &str, count: usize) {
    let stored = place.stored();
    let stored: Vec<_> = stored[tenant].iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
    let expected: Vec<_> = String::from_utf8(lines(tenant, 0..count)).unwrap().lines().map(str::to_owned).collect();
    let differ = stored.iter().zip(&expected).position(|(stored, expected)| stored != expected);
    assert!(
        stored == expected,
        "{} of {} lines are stored; the first that differs: {differ:?}",
        stored.len(),
        expected.len()
    );
}

#[test]
fn a_file_that_is_rotated_ten_times_under_a_daemon_that_is_killed_five_times_is_stored_once_and_in_order() {
    const PART: usize = 500;
    let place = Place::new();
    let log = place.path("logs/app.log");
    let mut written = 0;
    let mut write = |log: &Path| {
        // The cut of a write need not be that of a line.
        let bytes = lines("acme", written..written + PART);
        let (first, second) = bytes.split_at(bytes.len() / 2 + 3);
        append(log, first);
        append(log, second);
        written += PART;
        written as i64
    };
    write(&log);
    let mut process = start(&place, "app.log*");
    for rotation in 0..10 {
        let all = write(&log);
        if rotation % 2 == 0 {
            place.until(COUNT, all - 2 * PART as i64 + 1);
            write(&log);
            process.kill();
            write(&log);
            rotate(&log, rotation);
            write(&log);
            process = start(&place, "app.log*");
        } else {
            rotate(&log, rotation);
        }
    }
    let all = write(&log);
    place.until(COUNT, all);
    process.terminated().succeeded();
    assert_stored(&place, "acme", all as usize);
    // And nothing is taken in again.
    append(&log, &lines("acme", all as usize..all as usize + 1));
    let process = start(&place, "app.log*");
    place.until(COUNT, all + 1);
    process.terminated().succeeded();
    assert_stored(&place, "acme", all as usize + 1);
}

#[test]
fn what_was_rotated_out_of_the_pattern_while_nobody_looked_is_read_to_its_end_first() {
    let place = Place::new();
    let log = place.path("logs/app.log");
    append(&log, &lines("acme", 0..100));
    let process = start(&place, "app.log");
    place.until(COUNT, 100);
    process.terminated().succeeded();
    append(&log, &lines("acme", 100..200));
    rotate(&log, 0);
    append(&log, &lines("acme", 200..300));
    let process = start(&place, "app.log");
    place.until(COUNT, 300);
    process.terminated().succeeded();
    assert_stored(&place, "acme", 300);
}

#[test]
fn a_file_that_is_cut_is_read_from_its_beginning_and_that_is_said() {
    let place = Place::new();
    let log = place.path("logs/app.log");
    append(&log, &lines("acme", 0..100));
    let mut process = start(&place, "app.log*");
    place.until(COUNT, 100);
    append(&log, b"{\"tenant\":");
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, &lines("acme", 100..150));
    let said = process.says_in("what", "source_lost");
    let why = said["detail"].as_str().unwrap();
    let (bytes, of) = why.split_once(" bytes: ").unwrap();
    assert!(bytes.parse::<u64>().unwrap() <= 10, "{why}");
    let cut = "app.log was cut or written anew in its place: at least so many bytes of it were not read";
    assert!(of.ends_with(cut) && said["source"] == "logs", "{said}");
    let counted = samples(&scrape(&place, "*/*").1)["headworks_source_lost_bytes_total{source=\"logs\"}"];
    assert_eq!(counted.to_string(), bytes);
    place.until(COUNT, 150);
    process.kill();
    // The same once more, while nobody looks: shorter than what was read, and then as long.
    fs::write(&log, lines("acme", 150..180)).unwrap();
    let process = start(&place, "app.log*");
    place.until(COUNT, 180);
    process.kill();
    fs::write(&log, lines("acme", 180..300)).unwrap();
    let process = start(&place, "app.log*");
    place.until(COUNT, 300);
    process.terminated().succeeded();
    assert_stored(&place, "acme", 300);
}

#[test]
fn the_path_names_the_tenant_and_more_files_than_may_be_open_take_turns() {
    let place = Place::new();
    let names: Vec<_> = (0..5).map(|n| format!("t{n}")).collect();
    for name in &names {
        append(&place.path(&format!("logs/{name}/out.log")), b"one\ntwo\nthr");
    }
    append(&place.path("logs/no tenant/out.log"), b"nobody's\n");
    let mut command = daemon(&place, "{tenant}/out.log");
    command.env("HEADWORKS__SOURCES__LOGS__MAX_FILES", "10");
    let mut process = Process::spawn(&mut command);
    process.listens();
    place.until(COUNT, 10);
    process.terminated().succeeded();
    // Only what is read to its end gives its place to another: an unfinished line is not.
    names.iter().for_each(|name| append(&place.path(&format!("logs/{name}/out.log")), b"ee\n"));
    command.env("HEADWORKS__SOURCES__LOGS__MAX_FILES", "1");
    let mut process = Process::spawn(&mut command);
    process.listens();
    place.until(COUNT, 15);
    let ended = process.terminated().succeeded();
    assert!(ended.err.contains("no tenant/out.log is not read"), "{}", ended.err);
    let stored = place.stored();
    assert_eq!(stored.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    let expected = [&b"one"[..], b"two", b"three"].map(<[u8]>::to_vec);
    assert!(stored.values().all(|bodies| bodies[..] == expected), "{stored:?}");
    let positions: Value = serde_json::from_slice(&fs::read(place.data().join("tail/logs.json")).unwrap()).unwrap();
    assert_eq!(positions.as_array().unwrap().len(), 5);
}

#[test]
fn a_file_that_cannot_be_begun_with_is_told_everywhere_while_the_others_are_read_on() {
    let place = Place::new();
    let log = place.path("logs/app.log");
    append(&log, &lines("acme", 0..10));
    let mut process = start(&place, "*.log");
    place.until(COUNT, 10);
    // Where no positions can be kept, a file that is new is not begun with: a crash would take it in twice.
    let positions = place.data().join("tail");
    fs::rename(&positions, place.path("away")).unwrap();
    fs::write(&positions, "").unwrap();
    append(&place.path("logs/new.log"), &lines("acme", 20..30));
    let told = process.says_in("what", "source_fails");
    assert!(told["detail"].as_str().unwrap().contains("cannot keep the positions of files"), "{told}");
    assert_eq!(metric(&place, "headworks_source_up{source=\"logs\"}"), 0);
    assert_eq!(metric(&place, "headworks_source_connections{source=\"logs\"}"), 1, "the other one is read");
    append(&log, &lines("acme", 10..20));
    place.until(COUNT, 20);
    let ready = place.run(&["ready", "--data", "data"]).succeeded().text();
    assert!(ready.contains("source logs does not bring in all: cannot keep the positions"), "{ready}");
    fs::remove_file(&positions).unwrap();
    fs::rename(place.path("away"), &positions).unwrap();
    place.until(COUNT, 30);
    process.says_in("what", "source_works");
    until_metric(&place, "headworks_source_up{source=\"logs\"}", 1);
    process.terminated().succeeded();
    assert_stored(&place, "acme", 30);
}

#[test]
fn the_last_line_of_a_file_that_was_deleted_is_taken_in_when_the_daemon_stops_and_of_one_that_is_there_it_waits() {
    let place = Place::new();
    let (gone, kept) = (place.path("logs/gone.log"), place.path("logs/kept.log"));
    let of = |tenant: &str, numbers| lines(tenant, numbers);
    append(&gone, &of("acme", 0..2));
    append(&kept, &of("zen", 0..2));
    let process = start(&place, "*.log");
    place.until(COUNT, 4);
    for (log, tenant) in [(&gone, "acme"), (&kept, "zen")] {
        append(log, of(tenant, 2..3).trim_ascii_end());
    }
    let size = |log: &Path| fs::metadata(log).unwrap().len();
    until_metric(&place, "headworks_source_read_bytes_total{source=\"logs\"}", size(&gone) + size(&kept));
    fs::remove_file(&gone).unwrap();
    process.terminated().succeeded();
    assert_stored(&place, "acme", 3);
    assert_stored(&place, "zen", 2);
    append(&kept, b"\n");
    let process = start(&place, "*.log");
    place.until(COUNT, 6);
    process.terminated().succeeded();
    assert_stored(&place, "zen", 3);
    assert_stored(&place, "acme", 3);
}
