//! What every journal must do.

use std::sync::Arc;

use super::{
    Begun, ChunkPlace, Compensation, DoorTotals, Entry, Journal, Position, Progress, Recovered, RecoveredChunk,
    RecoveredStream, RecoveredTenant, StepState, UndoStep,
};
use crate::model::{
    Attempt, BatchId, Cause, Chunk, ChunkBuilder, Code, Opening, Origin, Seq, StoreName, StreamId, TenantId, UnixMillis,
};
use crate::observe::Outcome;

/// Checks a [`Journal`]: positions, commitment, and where it is durable that what was committed is found again, and no more.
///
/// `open` opens the journal of a name: an empty one the first time, and later what was left under that name.
///
/// # Panics
/// Where the contract is broken; the message says how.
pub async fn journal<J: Journal>(open: impl AsyncFn(&str) -> J) {
    positions_grow_and_are_committed(&open("positions").await).await;
    begins_once(&open("begins").await);
    has_room_and_says_when(&open("room").await).await;
    chunks_are_read_back(&open("chunks").await).await;
    let first = open("life").await;
    let is_durable = first.is_durable();
    let told = begin(&first, 1);
    assert!(told.tenants.is_empty() && told.streams.is_empty(), "a fresh journal must have nothing to recover");
    assert_eq!(told.damage, Vec::<String>::new(), "a fresh journal must not be damaged");
    a_life(&first).await;
    close(first).await;
    if is_durable {
        // Twice: what is recovered must not wear out.
        for opening in 2..4 {
            let journal = open("life").await;
            is_found_again(&journal, begin(&journal, opening)).await;
            close(journal).await;
        }
        let journal = open("life").await;
        begin(&journal, 4);
        in_pieces(&journal).await;
        close(journal).await;
        let journal = open("life").await;
        pieces_are_found_again(&journal, begin(&journal, 5)).await;
        the_rest_of_it(&journal).await;
        close(journal).await;
        is_settled(begin(&open("life").await, 6));
    }
}

fn begin(journal: &impl Journal, opening: u64) -> Recovered {
    journal.begin(Opening(opening), AT).unwrap_or_else(|why| panic!("a journal must begin: {why}"))
}

/// What is on record can be read back while it is unsettled, in the opening that put it there too.
async fn chunks_are_read_back(journal: &impl Journal) {
    begin(journal, 1);
    let acme = tenant("acme");
    assert_eq!(journal.chunks(&acme, 1, usize::MAX), [], "nothing must be told of a tenant that is not on record");
    put(journal, (1..=9).map(|seq| Entry::Chunk { seq, chunk: chunk("acme", seq) })).await;
    put(journal, [Entry::Chunk { seq: 1, chunk: chunk("zen", 1) }]).await;
    if !journal.is_durable() {
        return;
    }
    let told = journal.chunks(&acme, 3, usize::MAX);
    let seqs = |told: &[RecoveredChunk]| told.iter().map(|chunk| chunk.seq).collect::<Vec<_>>();
    assert_eq!(seqs(&told), [3, 4, 5, 6, 7, 8, 9], "all from there on must be told, in order");
    for told in &told {
        let read = journal.read(&acme, told).await.unwrap_or_else(|why| panic!("it must be read: {why}"));
        assert_eq!(read, *chunk("acme", told.seq), "a chunk must come back byte for byte");
        assert_eq!(told.events, 3);
        assert!(told.bytes >= read.body_bytes(), "its memory must not be told too small");
    }
    let two = told[0].bytes + told[1].bytes;
    assert_eq!(seqs(&journal.chunks(&acme, 3, two)), [3, 4], "no more than was asked for must be told");
    assert_eq!(seqs(&journal.chunks(&acme, 3, 0)), [3], "one at least must be told");
    assert_eq!(journal.chunks(&acme, 10, usize::MAX), [], "what is not on record must not be told");
    put(
        journal,
        [
            Entry::Cut { batch: batch("acme", 1), from: place(1, 0), until: place(4, 1) },
            Entry::Settled { batch: batch("acme", 1), outcome: Outcome::Stored, events: 10 },
        ],
    )
    .await;
    assert_eq!(journal.chunks(&acme, 3, usize::MAX), [], "what is settled must not be told");
    assert_eq!(seqs(&journal.chunks(&acme, 4, 0)), [4], "what is not wholly settled must be");
}

async fn close(journal: impl Journal) {
    journal.close().await.unwrap_or_else(|why| panic!("a journal must close: {why}"));
}

async fn put(journal: &impl Journal, entries: impl IntoIterator<Item = Entry>) -> Position {
    let mut entries: Vec<_> = entries.into_iter().collect();
    let position = journal.append(&mut entries);
    assert!(entries.is_empty(), "append must leave the vector empty");
    journal.committed(position).await;
    assert!(journal.is_committed(position), "what `committed` resolved for must be committed");
    position
}

async fn positions_grow_and_are_committed(journal: &impl Journal) {
    begin(journal, 1);
    let mut last = Position(0);
    for seq in 1..20 {
        let position = put(journal, [Entry::Chunk { seq, chunk: chunk("acme", seq) }]).await;
        assert!(position > last, "a position must be greater than the one before it");
        assert!(journal.is_committed(last), "what lies before a committed position must be committed");
        last = position;
    }
    let nothing = put(journal, []).await;
    assert!(nothing > last, "a position must grow with every append");
    let health = journal.health();
    assert!(health.failing.is_none() && !health.is_full, "a sound journal must not complain: {health:?}");
}

fn begins_once(journal: &impl Journal) {
    begin(journal, 1);
    assert!(
        !journal.is_durable() || journal.begin(Opening(2), AT).is_err(),
        "what earlier openings left must be given once"
    );
}

async fn has_room_and_says_when(journal: &impl Journal) {
    begin(journal, 1);
    assert!(journal.has_room(1), "an empty journal must have room");
    journal.room().await;
}

const AT: UnixMillis = UnixMillis(1_700_000_000_000);

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap_or_else(|why| panic!("{why}"))
}

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap_or_else(|why| panic!("{why}"))
}

fn batch(name: &str, seq: u64) -> BatchId {
    BatchId::new(Opening(1), tenant(name), Seq(seq))
}

fn place(seq: u64, index: u32) -> ChunkPlace {
    ChunkPlace { seq, index }
}

/// Three events: one with a time, an empty one, and one of odd bytes, from a stream.
fn chunk(name: &str, seq: u64) -> Arc<Chunk> {
    let mut builder = ChunkBuilder::default();
    builder.push(format!("{name} {seq}").as_bytes(), Some(UnixMillis(-5)));
    builder.push(b"", None);
    builder.push(&[0, 255, b'\n', seq as u8], None);
    let chunk = builder.build(tenant(name), AT).unwrap_or_else(|| panic!("it has events"));
    let positions = (seq * 10..).take(3).collect();
    Arc::new(chunk.with_origin(Origin { stream: stream("s/1"), positions }))
}

fn step(name: &str) -> UndoStep {
    UndoStep { name: name.to_owned(), data: vec![0, 1, 255] }
}

fn store(name: &str) -> StoreName {
    StoreName::new(name).unwrap_or_else(|why| panic!("{why}"))
}

fn cause() -> Cause {
    Cause::new(Code::StorePermanent, "no")
}

fn door() -> DoorTotals {
    DoorTotals { duplicate: 1, muted: 2, throttled: 3, rejected: 4, malformed: 5, discarded: 6, dead_lettered: 7 }
}

/// Two tenants in all stages: of acme, batch 1 is stored, 2 is open in its second attempt, 3 is cut, two events are uncut;
/// zen is settled.
async fn a_life(journal: &impl Journal) {
    let chunks = (1..=5).map(|seq| Entry::Chunk { seq, chunk: chunk("acme", seq) });
    put(journal, chunks.chain([Entry::Mark { stream: stream("s/1"), position: 52, at: AT }])).await;
    let refused = |positions, code| Entry::Refused { stream: stream("s/1"), positions, code };
    put(journal, [refused(vec![(1, 3), (5, 6)], Code::BadJson), refused(vec![(50, 52)], Code::Shed)]).await;
    put(journal, [Entry::Heard { stream: stream("s/1"), position: 2 }]).await;
    put(
        journal,
        [Entry::Chunk { seq: 1, chunk: chunk("zen", 1) }, Entry::Door { tenant: tenant("zen"), totals: door() }],
    )
    .await;
    put(
        journal,
        [
            Entry::Cut { batch: batch("acme", 1), from: place(1, 0), until: place(2, 1) },
            Entry::Intent { batch: batch("acme", 1), store: store("db"), attempt: Attempt(1) },
            Entry::Cut { batch: batch("acme", 2), from: place(2, 1), until: place(3, 3) },
            Entry::Cut { batch: batch("zen", 1), from: place(1, 0), until: place(1, 3) },
        ],
    )
    .await;
    put(journal, [Entry::Settled { batch: batch("acme", 1), outcome: Outcome::Stored, events: 4 }]).await;
    put(
        journal,
        [
            Entry::Made { batch: batch("acme", 2), chunk: chunk("acme", 77) },
            Entry::Intent { batch: batch("acme", 2), store: store("archive"), attempt: Attempt(1) },
            Entry::Done { batch: batch("acme", 2), store: store("archive") },
            Entry::Intent { batch: batch("acme", 2), store: store("db"), attempt: Attempt(1) },
            Entry::Undo { batch: batch("acme", 2), store: store("db"), step: step("first") },
            Entry::Failed { batch: batch("acme", 2), store: store("db"), attempt: Attempt(1) },
            Entry::Intent { batch: batch("acme", 2), store: store("db"), attempt: Attempt(2) },
        ],
    )
    .await;
    put(journal, [Entry::Undo { batch: batch("acme", 2), store: store("db"), step: step("second") }]).await;
    put(
        journal,
        [
            Entry::Cut { batch: batch("acme", 3), from: place(3, 3), until: place(5, 1) },
            Entry::Intent { batch: batch("zen", 1), store: store("db"), attempt: Attempt(1) },
            Entry::GivenUp { batch: batch("zen", 1), cause: cause() },
            Entry::Compensated { batch: batch("zen", 1), nth: 0, failed: Some((cause(), AT)) },
            Entry::Settled { batch: batch("zen", 1), outcome: Outcome::DeadLettered, events: 3 },
        ],
    )
    .await;
}

fn find<'r>(told: &'r Recovered, name: &str) -> &'r RecoveredTenant {
    let found = told.tenants.iter().find(|told| told.tenant.as_str() == name);
    found.unwrap_or_else(|| panic!("tenant {name} must be recovered"))
}

async fn is_found_again(journal: &impl Journal, told: Recovered) {
    assert_eq!(told.damage, Vec::<String>::new(), "a closed journal must not be damaged");
    let refused = vec![(3, 3, Code::BadJson), (5, 6, Code::BadJson), (50, 52, Code::Shed)];
    let left = RecoveredStream { stream: stream("s/1"), position: 52, at: AT, ahead: vec![], refused };
    assert_eq!(
        told.streams,
        [left],
        "streams must be recovered with their last mark, and what they may not have heard of"
    );
    let zen = find(&told, "zen");
    assert!(zen.is_settled() && zen.cuts.is_empty(), "what is settled must not come back");
    assert_eq!(
        (zen.totals.accepted, zen.totals.dead_lettered, zen.totals.batches),
        (3, 3, 0),
        "totals must be recovered"
    );
    let [owed] = zen.uncompensated.as_slice() else { panic!("what is not undone must be recovered") };
    assert_eq!((&owed.batch, owed.nth, &owed.store, owed.since), (&batch("zen", 1), 0, &store("db"), AT));
    assert_eq!((&owed.compensation, &owed.cause), (&Compensation::Rollback(Attempt(1)), &cause()));
    assert_eq!(zen.door, door(), "the totals at the door must be recovered");

    let acme = find(&told, "acme");
    assert_eq!((acme.next_chunk, acme.next_batch), (6, Seq(4)), "seqs must go on where they were");
    assert_eq!(acme.settled, place(2, 1), "what lies before the first unsettled event is settled");
    assert_eq!(
        acme.chunks.iter().map(|chunk| chunk.seq).collect::<Vec<_>>(),
        [2, 3, 4, 5],
        "unsettled chunks must be recovered"
    );
    assert_eq!((acme.totals.accepted, acme.totals.stored, acme.totals.batches), (15, 4, 1), "totals must be recovered");
    for told in &acme.chunks {
        let found = journal.read(&acme.tenant, told).await.unwrap_or_else(|why| panic!("a chunk must be read: {why}"));
        assert_eq!(found, *chunk("acme", told.seq), "a chunk must come back byte for byte");
        assert_eq!(told.events, 3, "a chunk must be told with its number of events");
    }
    let [second, third] = acme.cuts.as_slice() else { panic!("two cuts must be recovered, not {:?}", acme.cuts) };
    assert_eq!((&second.batch, second.from, second.until), (&batch("acme", 2), place(2, 1), place(3, 3)));
    let begun = |name, attempt, state| Begun { store: store(name), attempt: Attempt(attempt), state };
    assert_eq!(
        second.progress.steps.as_slice(),
        [begun("archive", 1, StepState::Done), begun("db", 2, StepState::Open)],
        "steps must be recovered in their order, and an open attempt as open"
    );
    let undo = [(store("db"), step("first")), (store("db"), step("second"))];
    assert_eq!(second.progress.undo, undo, "undo steps must be recovered, oldest first");
    assert_eq!(second.progress.given_up, None);
    let made = second.made.unwrap_or_else(|| panic!("what the hooks made must be recovered"));
    let made = journal.read(&acme.tenant, &made).await.unwrap_or_else(|why| panic!("it must be read: {why}"));
    assert_eq!(made, *chunk("acme", 77), "what the hooks made must come back byte for byte");
    assert_eq!((&third.batch, third.from, third.until), (&batch("acme", 3), place(3, 3), place(5, 1)));
    assert_eq!((&third.progress, third.made), (&Progress::default(), None));
}

/// The second batch is given up, and split twice at its front; a half of a half is stored, and the rest is compensated.
async fn in_pieces(journal: &impl Journal) {
    let [first, second] = halves(&batch("acme", 2));
    let [first_1, first_2] = halves(&first);
    let id = batch("acme", 2);
    put(
        journal,
        [
            Entry::GivenUp { batch: id.clone(), cause: cause() },
            Entry::Compensated { batch: id.clone(), nth: 0, failed: None },
            Entry::Again { batch: id.clone() },
            Entry::Intent { batch: id.clone(), store: store("archive"), attempt: Attempt(2) },
            Entry::GivenUp { batch: id.clone(), cause: cause() },
            Entry::Split { batch: id, first: 2 },
            Entry::Made { batch: first.clone(), chunk: chunk("acme", 78) },
            Entry::Made { batch: second.clone(), chunk: chunk("acme", 79) },
            Entry::GivenUp { batch: first.clone(), cause: cause() },
            Entry::Split { batch: first, first: 1 },
            Entry::Settled { batch: first_1, outcome: Outcome::Stored, events: 1 },
            Entry::Intent { batch: first_2.clone(), store: store("archive"), attempt: Attempt(1) },
            Entry::GivenUp { batch: first_2.clone(), cause: cause() },
            Entry::Compensated { batch: first_2.clone(), nth: 0, failed: None },
            // Behind its last compensation: it is to become dead letters, whatever comes.
            Entry::Compensated { batch: first_2, nth: 1, failed: None },
            Entry::Undone { batch: batch("zen", 1), nth: 0 },
        ],
    )
    .await;
}

fn halves(id: &BatchId) -> [BatchId; 2] {
    id.halves().unwrap_or_else(|| panic!("{id} has halves"))
}

async fn pieces_are_found_again(journal: &impl Journal, told: Recovered) {
    assert_eq!(find(&told, "zen").uncompensated, [], "what is undone must not come back");
    let acme = find(&told, "acme");
    let [first, second] = halves(&batch("acme", 2));
    let [_, first_2] = halves(&first);
    let cuts: Vec<_> = acme.cuts.iter().map(|cut| (cut.batch.clone(), cut.from, cut.until)).collect();
    let expected = [
        (first_2, place(2, 2), place(2, 3)),
        (second, place(3, 0), place(3, 3)),
        (batch("acme", 3), place(3, 3), place(5, 1)),
    ];
    assert_eq!(cuts, expected, "pieces must be recovered in their order, with their bounds");
    let (first, second) = (&acme.cuts[0], &acme.cuts[1]);
    assert_eq!((&first.progress.given_up, first.progress.compensated), (&Some(cause()), 2));
    assert!(first.progress.is_condemned(), "that there is no way back must be recovered");
    assert_eq!(second.progress, Progress::default());
    assert_eq!(first.made, None, "what the hooks made of a batch goes with the batch");
    let made = second.made.unwrap_or_else(|| panic!("what the hooks made must be recovered"));
    let made = journal.read(&acme.tenant, &made).await.unwrap_or_else(|why| panic!("it must be read: {why}"));
    assert_eq!(made, *chunk("acme", 79), "what the hooks made must come back byte for byte");
    assert_eq!((acme.totals.stored, acme.next_batch), (5, Seq(4)));
}

async fn the_rest_of_it(journal: &impl Journal) {
    let [first, second] = halves(&batch("acme", 2));
    let [_, first_2] = halves(&first);
    put(
        journal,
        [
            Entry::Settled { batch: first_2, outcome: Outcome::DeadLettered, events: 1 },
            Entry::Settled { batch: second, outcome: Outcome::Discarded, events: 3 },
            Entry::Settled { batch: batch("acme", 3), outcome: Outcome::Stored, events: 4 },
            Entry::Cut { batch: batch("acme", 4), from: place(5, 1), until: place(5, 3) },
            Entry::Settled { batch: batch("acme", 4), outcome: Outcome::Stored, events: 2 },
        ],
    )
    .await;
}

fn is_settled(told: Recovered) {
    let acme = find(&told, "acme");
    assert!(acme.is_settled() && acme.cuts.is_empty(), "what is settled must not come back");
    assert_eq!(
        (acme.totals.accepted, acme.totals.stored, acme.totals.dead_lettered, acme.totals.discarded),
        (15, 11, 1, 3),
        "totals must be recovered"
    );
    assert_eq!((acme.next_chunk, acme.next_batch), (6, Seq(5)), "seqs must not be used again");
}
