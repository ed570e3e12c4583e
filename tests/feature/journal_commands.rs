//! `headworks journal` and the audit beside a durable journal: of files at rest, and through the process that writes them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use headworks::admin::{Address, Admin};
use headworks::journal::{DurableJournal, JournalOptions};
use headworks::{
    Attempt, BatchId, Chunk, ChunkBuilder, ChunkPlace, Entry, Journal, Opening, Outcome, Seq, StoreName, StreamId,
    System, TenantId, UnixMillis,
};
use serde_json::{Value, json};

use crate::rig::{Place, lines};

const NOW: UnixMillis = UnixMillis(1_732_233_600_007);

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn chunk(name: &str, bodies: &[&[u8]]) -> Arc<Chunk> {
    let mut builder = ChunkBuilder::default();
    bodies.iter().for_each(|body| builder.push(body, None));
    Arc::new(builder.build(tenant(name), NOW).unwrap())
}

fn directory(place: &Place) -> PathBuf {
    place.data().join("journal")
}

/// A journal by whose word three events of acme are stored and two are not, and one of b was being stored.
async fn journal(place: &Place) -> DurableJournal {
    let journal = DurableJournal::open(&directory(place), JournalOptions::default(), |_, _| {}).unwrap();
    journal.begin(Opening(7), NOW).unwrap();
    let batch = |name| BatchId::new(Opening(7), tenant(name), Seq(1));
    let until = |index| ChunkPlace { seq: 1, index };
    let from = ChunkPlace { seq: 1, index: 0 };
    let (acme, b) = (batch("acme"), batch("b"));
    let mut entries = vec![
        Entry::Chunk { seq: 1, chunk: chunk("acme", &[b"one", b"two", b"three", b"four"]) },
        Entry::Chunk { seq: 2, chunk: chunk("acme", &[b"five"]) },
        Entry::Chunk { seq: 1, chunk: chunk("b", &[b"\xff\n"]) },
        Entry::Cut { batch: acme.clone(), from, until: until(3) },
        Entry::Cut { batch: b.clone(), from, until: until(1) },
        Entry::Intent { batch: acme.clone(), store: StoreName::ONLY, attempt: Attempt(1) },
        Entry::Intent { batch: b, store: StoreName::ONLY, attempt: Attempt(1) },
        Entry::Settled { batch: acme, outcome: Outcome::Stored, events: 3 },
        Entry::Mark { stream: StreamId::new("truck-7").unwrap(), position: 41, at: NOW },
    ];
    let position = journal.append(&mut entries);
    journal.committed(position).await;
    journal
}

/// What `journal inspect` and `export` say of it.
#[track_caller]
fn assert_told(place: &Place) {
    let summary = place.json(&["journal", "inspect", "--data", "data", "--json"]);
    assert_eq!(
        summary["tenants"],
        json!([
            { "tenant": "acme", "accepted": 5, "stored": 3, "dead_lettered": 0, "shed": 0, "discarded": 0, "in_flight": 2,
              "chunks": 2, "batches": 0, "batches_open": 0, "uncompensated": [] },
            { "tenant": "b", "accepted": 1, "stored": 0, "dead_lettered": 0, "shed": 0, "discarded": 0, "in_flight": 1,
              "chunks": 1, "batches": 1, "batches_open": 1, "uncompensated": [] },
        ])
    );
    assert_eq!(summary["streams"], json!([{ "stream": "truck-7", "position": 41, "at": "2024-11-22T00:00:00.007Z" }]));
    assert_eq!((&summary["segments"][0]["blocks"], &summary["damage"]), (&json!(1), &json!([])));
    let text = place.run(&["journal", "inspect", "--data", "data"]).succeeded().text();
    assert!(
        text.contains("\nacme           5       3 ") && text.contains("\ntruck-7        41  2024-11-22T"),
        "{text}"
    );

    let export =
        |words: &[&str]| place.run(&[&["journal", "export", "--data", "data"], words].concat()).succeeded().out;
    assert_eq!(export(&[]), b"four\nfive\n\xff\n\n");
    assert_eq!(export(&["--tenant", "acme"]), b"four\nfive\n");
    assert_eq!(export(&["--tenant", "nobody"]), b"");
    let objects = export(&["--json"]);
    let objects: Vec<Value> =
        objects.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let at = "2024-11-22T00:00:00.007Z";
    assert_eq!(objects[0], json!({ "tenant": "acme", "arrived": at, "time": null, "body": "four" }));
    assert_eq!(objects[2], json!({ "tenant": "b", "arrived": at, "time": null, "body_hex": "ff0a" }));

    let verdict = place.json(&["journal", "verify", "--data", "data", "--json"]);
    assert_eq!(verdict, json!({ "is_whole": true, "blocks": 1, "torn_bytes": 0, "damage": [] }));
    let text = place.run(&["journal", "verify", "--data", "data"]).succeeded().text();
    assert!(text.ends_with("data/journal: 1 whole block; nothing is damaged\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_at_rest_is_told_from_its_files() {
    let place = Place::new();
    let journal = journal(&place).await;
    journal.close().await.unwrap();
    drop(journal);
    assert_told(&place);
    let text = place.run(&["journal", "inspect", "--data", "data"]).succeeded().text();
    assert!(text.ends_with(" of them of unsettled events; closed\n"), "{text}");
}

/// Stands in for a daemon: holds the directory and answers on its socket.
async fn serve(place: &Place, admin: Admin) -> File {
    let lock = File::create(place.data().join("headworks.lock")).unwrap();
    lock.lock().unwrap();
    let listener = tokio::net::UnixListener::bind(Address::of(&place.data()).unwrap().bound()).unwrap();
    tokio::spawn(async move { axum::serve(listener, admin.router()).await });
    lock
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_written_is_told_by_its_process() {
    let place = Place::new();
    let journal = Arc::new(journal(&place).await);
    let admin = Admin::new(System::builder().start().unwrap(), place.data().join("headworks.db")).journal(journal);
    let _lock = serve(&place, admin).await;
    tokio::task::block_in_place(|| assert_told(&place));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_journal_that_is_written_are_not_read_by_another_process() {
    let place = Place::new();
    let _journal = journal(&place).await;
    for words in [&["inspect"][..], &["verify"], &["export"]] {
        // Nobody holds the data directory, but somebody the journal.
        let ended = place.run(&[&["journal"], words, &["--data", "data"]].concat()).with(74);
        assert!(ended.err.contains(&format!("in use by process {}", std::process::id())), "{}", ended.err);
        assert!(ended.out.is_empty());
    }
    let _lock = serve(&place, Admin::new(System::builder().start().unwrap(), "none".into())).await;
    let ended = tokio::task::block_in_place(|| place.run(&["journal", "inspect", "--data", "data"]).with(1));
    assert!(ended.err.contains("this daemon keeps its journal in memory"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_ends_verify_with_1_and_is_told_with_its_place() {
    let place = Place::new();
    let journal = journal(&place).await;
    journal.close().await.unwrap();
    drop(journal);
    let mut segment =
        File::options().read(true).write(true).open(directory(&place).join("0000000000000001.segment")).unwrap();
    let mut byte = [0];
    segment.seek(SeekFrom::Start(200)).unwrap();
    segment.read_exact(&mut byte).unwrap();
    segment.seek(SeekFrom::Start(200)).unwrap();
    segment.write_all(&[byte[0] ^ 1]).unwrap();
    let verdict: Value =
        serde_json::from_slice(&place.run(&["journal", "verify", "--data", "data", "--json"]).with(1).out).unwrap();
    assert_eq!((&verdict["is_whole"], &verdict["blocks"]), (&json!(false), &json!(0)));
    let text = place.run(&["journal", "verify", "--data", "data"]).with(1).text();
    assert!(text.contains("; DAMAGED\ndamage: ") && text.contains("0000000000000001.segment is damaged"), "{text}");
    place.run(&["journal", "inspect", "--data", "data"]).succeeded();
}

/// Stores the lines with a journal in memory.
fn stored_without_it(place: &Place, lines: &[u8]) {
    place.write("input", lines);
    place.run(&["run", "--journal", "memory", "--data", "data", "--input", "input"]).succeeded();
}

#[test]
fn a_directory_without_a_journal_is_named() {
    let place = Place::new();
    stored_without_it(&place, &lines("acme", 0..1));
    for words in ["inspect", "verify", "export"] {
        let ended = place.run(&["journal", words, "--data", "data"]).with(1);
        assert!(ended.err.contains("there is no journal data/journal: "), "{}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_the_audit_holds_the_store_against_the_durable_journal() {
    let place = Place::new();
    // Three are stored by the journal's word; of the two in flight the store may hold one already.
    for events in [3, 1] {
        stored_without_it(&place, &lines("acme", 0..events));
    }
    let journal = journal(&place).await;
    journal.close().await.unwrap();
    drop(journal);
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    assert_eq!((&audit["scope"], &audit["holds"]), (&json!("journal"), &json!(true)), "{audit}");
    assert_eq!(
        (&audit["tenants"][0]["events"]["stored"], &audit["tenants"][0]["held"]["rows"]),
        (&json!(3), &json!(4))
    );
    assert_eq!(audit["all"]["events"]["in_flight"], 3);

    place.database().execute("DELETE FROM events WHERE event_id <= 2", []).unwrap();
    let text = place.run(&["audit", "--data", "data"]).with(1).text();
    let says = "\nacme: the store holds 1 event fewer than the journal says were stored: 2 rows were deleted from its \
                batches (2, not 3)\n";
    assert!(text.contains(says), "{text}");

    stored_without_it(&place, &lines("acme", 0..4));
    let text = place.run(&["audit", "--data", "data"]).with(1).text();
    let says = "\nacme: the store holds 1 event more than the journal says were stored: they were stored without this \
                journal, before it was begun or after it was removed or replaced (6, not 5)\n";
    assert!(text.contains(says), "{text}");
}
