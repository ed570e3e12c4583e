//! What can be done with dead letters, by command: on a live directory and on one at rest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

use crate::rig::{Ended, Place, Process, lines, send};

const LETTERS: &str = "SELECT count(*) FROM dead_letters";
const EVENTS: &str = "SELECT count(*) FROM events";

fn run(place: &Place, words: &[&str]) -> Ended {
    place.run(&[&["dead-letters"], words, &["--data", "data"]].concat())
}

fn done(place: &Place, words: &[&str]) -> String {
    run(place, words).succeeded().text()
}

fn listed(place: &Place, words: &[&str]) -> Vec<Value> {
    let words = [&["list", "--json"], words].concat();
    serde_json::from_str(&done(place, &words)).unwrap()
}

fn ids(letters: &[Value]) -> Vec<String> {
    letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

/// Two broken frames of acme and one of nobody, at rest; the daemon has run.
fn given_up() -> Place {
    let place = Place::new();
    place
        .take_in(b"{\"tenant\":\"acme\",\"n\":0}\n{\"tenant\":\"acme\",\"n\":1\n\xff\n{\"tenant\":\"acme\" \"n\":2}\n");
    place
}

fn started(place: &Place) -> Process {
    let mut daemon = Process::spawn(&mut place.daemon());
    daemon.listens();
    daemon
}

fn assert_audit_holds(place: &Place) {
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    assert_eq!(audit["holds"], true, "{audit}");
}

#[test]
fn each_command_does_the_same_on_a_live_directory_and_at_rest() {
    let mut told = vec![];
    for live in [true, false] {
        let place = given_up();
        let daemon = live.then(|| started(&place));
        let letters = listed(&place, &[]);
        let ids = ids(&letters);
        let mut said = vec![];
        let mut note = |ended: Ended| {
            let opening = ids[0].split('/').next().unwrap();
            let plain = |text: String| text.replace(opening, "OPENING");
            said.push((ended.code, plain(ended.text()), plain(ended.err)));
        };
        note(
            run(&place, &["list", "--since", "1h", "--reason", "bad_utf8", "--limit", "1", "--replayed", "false"])
                .no_times(),
        );
        note(run(&place, &["list", "--until", "2001-01-01T00:00:00Z"]));
        place.write("body", "{\"tenant\":\"acme\",\"n\":1}\n");
        note(run(&place, &["edit", &ids[0], "--body", "body"]));
        note(run(&place, &["edit", &ids[0], "--body", "body"]));
        note(run(&place, &["edit", "no/such", "--body", "body"]));
        note(run(&place, &["export", "--as", "raw"]));
        note(run(&place, &["export", "--reason", "bad_utf8"]).no_times());
        note(run(&place, &["show", &ids[0]]).no_times());
        note(run(&place, &["purge"]));
        note(run(&place, &["purge", &ids[1]]));
        note(run(&place, &["purge", &ids[1], "--dry-run"]));
        note(run(&place, &["purge", &ids[1], "--yes"]));
        note(run(&place, &["purge", "--tenant", "zen", "--yes"]));
        assert_eq!(self::ids(&listed(&place, &[])), [ids[0].clone(), ids[2].clone()]);
        assert_audit_holds(&place);
        note(run(&place, &["purge", "--all", "--yes"]));
        assert_audit_holds(&place);
        told.push(said);
        if let Some(daemon) = daemon {
            daemon.terminated().succeeded();
        }
        assert_audit_holds(&place);
    }
    assert_eq!(told[0], told[1]);
    let of = |n: usize| (told[0][n].0.unwrap(), told[0][n].1.as_str(), told[0][n].2.as_str());
    assert!(of(0).1.contains("bad_utf8") && of(0).1.lines().count() == 2, "{}", of(0).1);
    assert_eq!(of(1).1.lines().count(), 1);
    assert!(of(2).1.starts_with("edited: 23 bytes, 22 before; the bytes as they came are kept\n"), "{}", of(2).1);
    assert_eq!(of(3).1, "nothing changed\n");
    assert_eq!((of(4).0, of(4).2.contains("there is no dead letter \"no/such\"")), (1, true));
    assert_eq!(of(5).1.lines().next(), Some("{\"tenant\":\"acme\",\"n\":1}"));
    assert!(of(6).1.contains("\"body_hex\":\"ff\""), "{}", of(6).1);
    assert!(of(7).1.contains("as it came\n  {\"tenant\":\"acme\",\"n\":1\n"), "{}", of(7).1);
    assert!(of(8).0 == 2 && of(8).2.contains("--all"), "{}", of(8).2);
    assert!(of(9).0 == 2 && of(9).2.contains("say --yes to purge 1 dead letters for good"), "{}", of(9).2);
    assert_eq!(of(10).1, "1 would be purged\n");
    assert_eq!(of(11).1, "1 purged; the audit goes on counting them\n");
    assert_eq!(of(12).1, "0 purged; the audit goes on counting them\n");
    assert_eq!(of(13).1, "2 purged; the audit goes on counting them\n");
}

impl Ended {
    /// Without what is another time each time.
    fn no_times(mut self) -> Self {
        let text = self.text();
        let is_time = |word: &str| word.contains("T") && word.contains("Z") && word.contains("20");
        let words: Vec<_> = text.split_inclusive([' ', '\n', ',']).filter(|word| !is_time(word)).collect();
        self.out = words.concat().into_bytes();
        self
    }
}

#[test]
fn an_edited_frame_that_is_replayed_becomes_a_stored_event_and_the_rest_stays_where_it_is() {
    let place = given_up();
    let id = ids(&listed(&place, &[]))[0].clone();
    let refused = run(&place, &["replay", "--all"]).with(69);
    assert!(refused.err.contains("no daemon runs on data: start `headworks run --data data`"), "{}", refused.err);

    let daemon = started(&place);
    let edit = ["dead-letters", "edit", &id, "--stdin", "--data", "data"];
    let edit = Process::spawn(&mut place.command(&edit)).feed(b"{\"tenant\":\"acme\",\"n\":1}");
    edit.ended().succeeded();
    assert_eq!(
        run(&place, &["replay", "--all", "--dry-run"]).with(1).text().lines().next(),
        Some("1 would be replayed")
    );
    assert_eq!(place.number(EVENTS), 1, "a dry run brings nothing");
    let told = run(&place, &["replay", "--all"]).with(1).text();
    let expected = "\
1 replayed
1 bad_utf8: still malformed; `headworks dead-letters edit` can mend them
1 bad_json: still malformed; `headworks dead-letters edit` can mend them
";
    assert_eq!(told, expected);
    place.until(EVENTS, 2);
    assert_eq!(place.stored()["acme"], [&b"{\"tenant\":\"acme\",\"n\":0}"[..], b"{\"tenant\":\"acme\",\"n\":1}"]);
    assert_eq!(ids(&listed(&place, &["--replayed", "true"])), std::slice::from_ref(&id));
    assert_eq!(done(&place, &["replay", &id]), "0 replayed\n", "what came back does not come twice");
    let slip = run(&place, &["replay", "nope"]).with(1).text();
    assert!(slip.starts_with("0 replayed\n1 of these ids: there is no such dead letter"), "{slip}");
    let again = run(&place, &["edit", &id, "--body", "input"]).with(1);
    assert!(again.err.contains("was replayed: what it says is an event already"), "{}", again.err);
    place.until(LETTERS, 3);
    assert_eq!(place.number(LETTERS), 3, "a replayed letter stays, and no new one came");
    assert_audit_holds(&place);
    daemon.terminated().succeeded();
    assert_eq!(place.number(EVENTS), 2);
    assert_audit_holds(&place);
}

#[test]
fn a_letter_of_a_muted_tenant_stays_as_it_was_and_comes_back_later() {
    let place = given_up();
    let id = ids(&listed(&place, &[]))[0].clone();
    place.write("body", "{\"tenant\":\"acme\",\"n\":1}");
    done(&place, &["edit", &id, "--body", "body"]);
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__TENANTS__MUTE", "[\"acme\"]"));
    daemon.listens();
    let told = run(&place, &["replay", &id]).with(1).text();
    assert_eq!(told, "0 replayed\n1 muted: refused at the door; they stay as they were\n");
    daemon.terminated().succeeded();
    let daemon = started(&place);
    assert_eq!(done(&place, &["replay", &id]), "1 replayed\n");
    daemon.terminated().succeeded();
    assert_eq!(place.number(EVENTS), 2);
}

#[test]
fn an_oversized_frame_of_which_the_beginning_is_kept_is_not_replayed_until_it_is_edited() {
    let place = Place::new();
    let large = format!("{{\"tenant\":\"acme\",\"x\":\"{}\"}}\n", "x".repeat(2 << 20));
    place.take_in(large.as_bytes());
    let daemon = started(&place);
    let told = run(&place, &["replay", "--all"]).with(1).text();
    assert_eq!(told, "0 replayed\n1 of which only the beginning was kept; edit them first\n");
    place.write("body", "{\"tenant\":\"acme\",\"x\":\"short\"}");
    let id = ids(&listed(&place, &[]))[0].clone();
    done(&place, &["edit", &id, "--body", "body"]);
    assert_eq!(done(&place, &["replay", &id]), "1 replayed\n");
    daemon.terminated().succeeded();
    assert_eq!(place.number(EVENTS), 1);
}

#[test]
fn where_dead_letters_are_to_wait_bad_frames_wait_until_somebody_purges() {
    let place = Place::new();
    let mut command = place.daemon();
    command.env("HEADWORKS__DEAD_LETTERS__MAX_BYTES_PER_TENANT", "64KiB");
    let mut daemon = Process::spawn(command.env("HEADWORKS__DEAD_LETTERS__WHEN_FULL", "wait"));
    let address = daemon.listens();
    let bad = "x".repeat(1_023) + "\n";
    send(address, bad.repeat(100).as_bytes());
    place.until(LETTERS, 1);
    send(address, bad.repeat(100).as_bytes());
    daemon.says("dead letters cannot be kept; they wait, and are tried again");
    let good = lines("acme", 0..3);
    send(address, &good);
    place.until(EVENTS, 3);
    let mut purged = 0;
    while purged < 200 {
        place.until(LETTERS, 1);
        let told = done(&place, &["purge", "--all", "--yes"]);
        purged += told.split(' ').next().unwrap().parse::<u64>().unwrap();
    }
    assert_eq!(purged, 200);
    assert_audit_holds(&place);
    daemon.terminated().succeeded();
}
