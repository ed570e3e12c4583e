//! Backup and restore: of a daemon that goes on meanwhile, and what becomes of the copy.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::rig::{Bodies, Place, Process, assert_no_gap, connect, lines, send, sorted};

/// A daemon on a data directory in small batches, with these settings.
fn daemon(place: &Place, data: &str, settings: &[(&str, &str)]) -> Command {
    let mut daemon = place.command(&["run", "--data", data]);
    daemon.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:0");
    daemon.env("HEADWORKS__ADMIN__LISTEN", "");
    daemon.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "50").envs(settings.iter().copied());
    daemon
}

/// What `query` finds in a data directory.
fn stored(place: &Place, data: &str, tenants: &[&str]) -> Bodies {
    let of = |tenant: &&str| {
        let queried = place.run(&["query", tenant, "--data", data]);
        // A backup may be older than the first event.
        let is_unknown = queried.code == Some(1) && queried.err.contains("there is no tenant");
        let out = if is_unknown { vec![] } else { queried.succeeded().out };
        ((*tenant).to_owned(), sorted(&out).0.remove(*tenant).unwrap_or_default())
    };
    tenants.iter().map(of).collect()
}

/// A backup in mid-stream is restored; its audit holds, a daemon goes on from it, and it has a beginning of each tenant's
/// events, each once.
fn survives(settings: &[(&str, &str)]) {
    let place = Place::new();
    let mut running = Process::spawn(&mut daemon(&place, "data", settings));
    let to = running.listens();
    let tenants = ["acme", "umbrella"];
    // Numbered, so that an event that is there twice shows.
    let input: Vec<u8> =
        (0..20_000).flat_map(|n| [lines(tenants[0], n..n + 1), lines(tenants[1], n..n + 1)].concat()).collect();
    let sent = sorted(&input).0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = connect(to);
            connection.write_all(&input).unwrap();
            crate::rig::finish(connection);
        });
        for n in 0..3 {
            let name = format!("backup-{n}");
            let told = place.json(&["backup", &name, "--data", "data", "--json"]);
            assert!(told["files"].as_u64() > Some(1), "{told}");
        }
    });
    place.run(&["backup", "backup-last", "--data", "data"]).succeeded();
    running.terminated().succeeded();
    for name in ["backup-0", "backup-1", "backup-2", "backup-last"] {
        let data = format!("restored-{name}");
        place.run(&["restore", name, "--data", &data]).succeeded();
        let audit = place.run(&["audit", "--data", &data]);
        assert_eq!(audit.code, Some(0), "{name}: {}{}", audit.text(), audit.err);
        let mut next = Process::spawn(&mut daemon(&place, &data, settings));
        send(next.listens(), &lines("late", 0..3));
        next.terminated().succeeded();
        place.run(&["audit", "--data", &data]).succeeded();
        let mut found = stored(&place, &data, &["acme", "umbrella", "late"]);
        assert_eq!(found.remove("late").unwrap().len(), 3);
        for (tenant, bodies) in &found {
            assert!(bodies.len() <= sent[tenant].len(), "{name}: {tenant} has events twice");
        }
        assert_no_gap(&sent, &found);
        if name == "backup-last" {
            assert_eq!(found, sent);
        }
    }
}

#[test]
fn a_backup_of_a_running_daemon_goes_on_where_it_was_without_a_gap_or_a_double() {
    survives(&[]);
}

#[test]
fn so_it_does_with_the_index_over_segments() {
    survives(&[("HEADWORKS__STORE__LAYOUT", "index")]);
}

#[test]
fn what_is_unsettled_is_in_the_backup_and_the_daemon_is_not_held_up_for_its_copy() {
    let place = Place::new();
    let patient = ("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h");
    let mut running = Process::spawn(&mut daemon(&place, "data", &[patient]));
    let to = running.listens();
    send(to, &lines("acme", 0..10));
    // Committed to the journal: what is accepted is, before a reader sees it.
    let unsettled = || place.json(&["journal", "inspect", "--data", "data", "--json"]).to_string();
    assert!(unsettled().contains("acme"));
    place.run(&["backup", "backup", "--data", "data"]).succeeded();
    send(to, &lines("acme", 10..20));
    running.terminated().succeeded();
    place.run(&["restore", "backup", "--data", "restored"]).succeeded();
    let mut next = Process::spawn(&mut daemon(&place, "restored", &[]));
    next.listens();
    next.terminated().succeeded();
    assert_eq!(stored(&place, "restored", &["acme"]), sorted(&lines("acme", 0..10)).0);
}

#[test]
fn a_directory_at_rest_is_backed_up_too_and_the_copy_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.take_in(&lines("acme", 0..100));
    place.run(&["backup", "backup", "--data", "data"]).succeeded();
    place.run(&["restore", "backup", "--data", "restored"]).succeeded();
    assert_eq!(stored(&place, "restored", &["acme"]), sorted(&lines("acme", 0..100)).0);
    let mode = |name: &str| std::fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("backup"), mode("backup/headworks.db"), mode("backup/backup.json")), (0o700, 0o600, 0o600));
    assert_eq!((mode("restored"), mode("restored/headworks.db")), (0o700, 0o600));
    assert!(!place.path("restored/backup.json").exists());
}

#[test]
fn nothing_is_overwritten_by_a_backup_or_a_restore() {
    let place = Place::new();
    place.take_in(&lines("acme", 0..10));
    place.run(&["backup", "backup", "--data", "data"]).succeeded();
    let again = place.run(&["backup", "backup", "--data", "data"]).with(73);
    assert!(again.err.contains("is there already and is not empty; nothing was changed"), "{}", again.err);
    place.run(&["restore", "backup", "--data", "data"]).with(73);
    assert_eq!(place.stored()["acme"].len(), 10);
}

#[test]
fn a_restore_below_a_running_daemon_is_refused() {
    let place = Place::new();
    let mut running = Process::spawn(&mut place.daemon());
    running.listens();
    place.run(&["backup", "backup", "--data", "data"]).succeeded();
    let refused = place.run(&["restore", "backup", "--data", "data"]).with(69);
    assert!(refused.err.contains(&format!("process {} writes to data", running.id())), "{}", refused.err);
    running.terminated().succeeded();
}

#[test]
fn a_backup_that_was_changed_is_not_restored_and_nothing_is_left_of_the_attempt() {
    let place = Place::new();
    place.take_in(&lines("acme", 0..10));
    place.run(&["backup", "backup", "--data", "data"]).succeeded();
    let file = place.path("backup/headworks.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let refused = place.run(&["restore", "backup", "--data", "restored"]).with(1);
    assert!(refused.err.contains("the backup is damaged: backup/headworks.db is not as it was"), "{}", refused.err);
    bytes[middle] ^= 1;
    bytes.push(0);
    std::fs::write(&file, &bytes).unwrap();
    place.run(&["restore", "backup", "--data", "restored"]).with(1);
    let left = |name: &str| Path::exists(&place.path(name));
    assert!(!left("restored") && !left("restored.part"));
    // A list that names a file outside is none.
    let list = std::fs::read_to_string(place.path("backup/backup.json")).unwrap();
    place.write("backup/backup.json", list.replace("headworks.db", "../headworks.db"));
    let refused = place.run(&["restore", "backup", "--data", "restored"]).with(1);
    assert!(refused.err.contains("../headworks.db is not inside of it"), "{}", refused.err);
    place.run(&["restore", "data", "--data", "restored"]).with(1);
}
