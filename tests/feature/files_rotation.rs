//! The store on files whose files are rotated and pruned, as the command uses it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::crash_acks::{self, POINTS, killed};
use crate::rig::crash::{Daemon, found, kill_at_random};
use crate::rig::{DEADLINE, Place, lines, pour, send};

/// The events files of a tenant, oldest first.
fn files(place: &Place, tenant: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.data().join("events").join(tenant)).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("events."));
    // The first one has no number.
    files.sort_by_key(|path| (!path.ends_with("events.ndjson"), path.clone()));
    files
}

fn size(place: &Place, tenant: &str) -> u64 {
    files(place, tenant).iter().map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len())).sum()
}

fn rotated<'p>(place: &'p Place) -> Daemon<'p> {
    Daemon::new(place)
        .with("store.type", "files")
        .with("store.rotate_bytes", "2KiB")
        .with("tenants.defaults.window.max_events", "20")
        .with("tenants.defaults.window.max_age", "20ms")
}

#[test]
fn files_are_rotated_and_read_as_one_by_cat_and_by_query_and_the_audit_goes_over_all_of_them() {
    let place = Place::new();
    let (process, address) = rotated(&place).start();
    let input = lines("acme", 0..1000);
    send(address, &input);
    process.terminated().succeeded();
    let files = files(&place, "acme");
    let cat: Vec<_> = files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    assert!(cat == input && files.len() > 10, "{files:?}");
    assert!(files.iter().all(|path| std::fs::metadata(path).unwrap().len() <= 2 << 10));
    assert_eq!(place.run(&["query", "acme", "--data", "data"]).succeeded().out, input);
    place.run(&["audit", "--data", "data"]).succeeded();
    let middle = &files[5];
    let good = std::fs::read(middle).unwrap();
    std::fs::write(middle, vec![b'x'; good.len()]).unwrap();
    let told = place.run(&["audit", "--data", "data"]).with(1).text();
    assert!(told.contains("acme: the store holds"), "{told}");
    std::fs::write(middle, good).unwrap();
    place.run(&["audit", "--data", "data"]).succeeded();
}

#[test]
fn killed_a_hundred_times_over_rotated_files_all_that_was_acknowledged_is_stored_once() {
    let place = Place::new();
    let daemon = crash_acks::daemon(&place, "files").with("store.rotate_bytes", "1KiB");
    let run = killed(&place, "rotated files", daemon, &POINTS);
    assert_eq!((run.acknowledged, run.stored), (run.events, run.events));
    assert!(files(&place, "stored-zen").len() > 3);
}

fn pruned<'p>(place: &'p Place) -> Daemon<'p> {
    rotated(place)
        .with("retention.every", "100ms")
        .with("tenants.by_id.acme.retention.max_bytes", "20KiB")
        .with("tenants.defaults.throttle.events_per_second", "2000")
        .with("tenants.defaults.throttle.delay_for", "1day")
}

/// How many events of each tenant were ever stored.
fn audited(place: &Place) -> Vec<u64> {
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    audit["tenants"].as_array().unwrap().iter().map(|row| row["events"]["stored"].as_u64().unwrap()).collect()
}

/// What is there of a tenant is the end of what was stored of it, without a gap; nothing of the other one is gone. How many were
/// pruned.
#[track_caller]
fn assert_pruned_from_the_front(place: &Place) -> u64 {
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    let stored = found(place).stored;
    let mut gone = 0;
    for (tenant, keeps_all) in [("acme", false), ("zen", true)] {
        let rows = audit["tenants"].as_array().unwrap();
        let Some(row) = rows.iter().find(|row| row["tenant"] == tenant) else { continue };
        let (all, pruned) = (row["events"]["stored"].as_u64().unwrap(), row["pruned"].as_u64().unwrap());
        let number = |body: &Vec<u8>| serde_json::from_slice::<Value>(body).unwrap()["n"].as_u64().unwrap();
        let there: Vec<_> = stored.get(tenant).into_iter().flatten().map(number).collect();
        // Of what is in flight, when the daemon was killed, some may be stored.
        let most = all + row["events"]["in_flight"].as_u64().unwrap();
        let found = pruned + there.len() as u64;
        assert!((all..=most).contains(&found), "{tenant}: {all}, {found}, {most}");
        assert!(!keeps_all || pruned == 0, "{tenant}");
        assert!(there.is_sorted_by(|one, next| one < next), "{tenant}: {there:?}");
        gone += pruned;
    }
    gone
}

#[test]
fn whole_files_go_while_events_come_and_all_is_accounted_for_live_at_rest_and_in_a_backup() {
    let place = Place::new();
    let (process, address) = pruned(&place).start();
    std::thread::scope(|scope| {
        let pouring = scope.spawn(|| pour(address, 0, 5_000));
        while !pouring.is_finished() {
            place.run(&["audit", "--data", "data"]).succeeded();
        }
    });
    let began = Instant::now();
    while audited(&place).iter().any(|stored| *stored < 5_000) {
        assert!(began.elapsed() < DEADLINE, "{:?} are stored", audited(&place));
    }
    // Until nothing more is due: what is looked at then stays as it is.
    let mut before = 0;
    while before != size(&place, "acme") {
        before = size(&place, "acme");
        place.run(&["prune", "--data", "data"]).succeeded();
    }
    // No more than it must, and no less.
    assert!((20 << 10..=24 << 10).contains(&before), "{before}");
    assert!(assert_pruned_from_the_front(&place) > 3_000);
    let copy = place.run(&["backup", "copy", "--data", "data"]);
    assert_eq!(copy.code, Some(0), "{}", copy.err);
    process.terminated().succeeded();
    place.run(&["restore", "copy", "--data", "restored"]).succeeded();
    place.run(&["audit", "--data", "restored"]).succeeded();

    place.write("headworks.toml", "[tenants.by_id.acme]\nretention.max_bytes = '1KiB'");
    let words = ["prune", "--data", "data", "--config", "headworks.toml"];
    let before = assert_pruned_from_the_front(&place);
    let would = place.run(&[&words[..], &["--dry-run"]].concat()).succeeded().text();
    assert_eq!(assert_pruned_from_the_front(&place), before);
    let done = place.run(&words).succeeded().text();
    assert_eq!(would.replace("would be pruned", "were pruned"), done);
    assert!(assert_pruned_from_the_front(&place) > before && size(&place, "acme") <= 4 << 10, "{done}");
}

#[test]
fn killed_while_files_are_pruned_nothing_is_lost_or_counted_wrongly() {
    let place = Place::new();
    let daemon = pruned(&place)
        .with("tenants.by_id.acme.retention.max_bytes", "1KiB")
        .with("store.rotate_bytes", "100B")
        .with("daemon.drain_deadline", "100s");
    let mut gone = 0;
    for life in 0..15u64 {
        let (process, address) = daemon.start();
        std::thread::scope(|scope| {
            scope.spawn(|| pour(address, life * 10_000, 500));
            kill_at_random(process, life, Duration::from_millis(900));
        });
        gone = assert_pruned_from_the_front(&place).max(gone);
    }
    assert!(gone > 0);
    let (process, _) = daemon.start();
    process.terminated().succeeded();
    assert_pruned_from_the_front(&place);
}
