//! The driver on a task, in virtual time, on a disk that fails.

use std::io::ErrorKind;
use std::time::Duration;

use headworks_actors::{Entry, Journal, JournalError, Opening, Position, UnixMillis, conformance};
use tokio::task::LocalSet;

use super::super::durable::DurableJournal;
use super::super::memory_disk::MemoryDisk;
use super::super::step::{Step, leave_out};
use super::{chunk, small, tenant};

/// A journal on the disk, with its driver beside it.
fn inline(disk: &MemoryDisk) -> Result<DurableJournal, JournalError> {
    let (journal, driver) = DurableJournal::inline(disk.clone(), small())?;
    tokio::task::spawn_local(driver);
    Ok(journal)
}

fn begun(disk: &MemoryDisk) -> DurableJournal {
    let journal = inline(disk).unwrap();
    journal.begin(Opening(1), UnixMillis(1)).unwrap();
    journal
}

fn accept(journal: &DurableJournal, seq: u64) -> Position {
    journal.append(&mut vec![Entry::Chunk { seq, chunk: chunk("acme", seq * 10, 10, 50) }])
}

async fn is_committed_within(journal: &DurableJournal, position: Position, time: Duration) -> bool {
    tokio::time::timeout(time, journal.committed(position)).await.is_ok()
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn without_a_thread_it_keeps_the_same_contract() {
    let disks = std::cell::RefCell::new(std::collections::HashMap::<String, MemoryDisk>::new());
    let open = async |name: &str| {
        let disk = disks.borrow_mut().entry(name.to_owned()).or_default().clone();
        inline(&disk).unwrap()
    };
    LocalSet::new().run_until(conformance::journal(open)).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_disk_fails_nothing_is_committed_and_afterwards_all_is() {
    for (kind, word) in [(ErrorKind::StorageFull, "space"), (ErrorKind::Other, "injected")] {
        let disk = MemoryDisk::new();
        LocalSet::new()
            .run_until(async {
                let journal = begun(&disk);
                journal.committed(accept(&journal, 1)).await;
                assert!(journal.has_room(100));

                disk.fail(disk.steps()..u64::MAX, kind);
                let position = accept(&journal, 2);
                assert!(!is_committed_within(&journal, position, LONG).await, "never on hope");
                assert!(!journal.is_committed(position));
                let why = journal.health().failing.unwrap();
                assert!(why.contains(word) || why.contains("injected"), "{why}");
                assert!(!journal.has_room(1), "what cannot be written is not accepted");
                let later = accept(&journal, 3);

                disk.heal();
                assert!(is_committed_within(&journal, later, Duration::from_secs(6)).await, "it goes on by itself");
                assert!(journal.is_committed(position));
                assert_eq!(journal.health().failing, None);
                assert!(journal.has_room(100));
            })
            .await;
        // The power goes: what was committed is there, whatever the failed file holds.
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let after = disk.crash(&mut || random.u64(..));
            let told = LocalSet::new()
                .run_until(async { inline(&after).unwrap().begin(Opening(2), UnixMillis(2)).unwrap() })
                .await;
            assert_eq!(told.damage, Vec::<String>::new());
            assert_eq!(told.tenants[0].chunks.len(), 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_acknowledges_first_is_noticed() {
    let disk = MemoryDisk::new();
    let acknowledged = async |left_out| {
        let disk = disk.copy();
        leave_out(left_out);
        let journal = begun(&disk);
        disk.fail(disk.steps()..u64::MAX, ErrorKind::Other);
        let position = accept(&journal, 1);
        // What the test above looks at.
        tokio::time::sleep(LONG).await;
        leave_out(None);
        journal.is_committed(position)
    };
    let both = async { (acknowledged(Some(Step::CommitFirst)).await, acknowledged(None).await) };
    assert_eq!(LocalSet::new().run_until(both).await, (true, false));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_at_any_one_step_costs_nothing() {
    for step in 0..40 {
        let disk = MemoryDisk::new();
        disk.write_at_most(700);
        let told = LocalSet::new()
            .run_until(async {
                let journal = begun(&disk);
                disk.fail(disk.steps() + step..disk.steps() + step + 1, ErrorKind::Other);
                for seq in 1..=10 {
                    journal.committed(accept(&journal, seq)).await;
                }
                drop(journal);
                let mut random = fastrand::Rng::with_seed(step);
                inline(&disk.crash(&mut || random.u64(..))).unwrap().begin(Opening(2), UnixMillis(2)).unwrap()
            })
            .await;
        assert_eq!(told.damage, Vec::<String>::new(), "step {step}");
        assert_eq!(told.tenants[0].chunks.len(), 10, "step {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_group_is_written_is_the_next_group() {
    let disk = MemoryDisk::new();
    LocalSet::new()
        .run_until(async {
            let journal = begun(&disk);
            let positions: Vec<_> = (1..=20).map(|seq| accept(&journal, seq)).collect();
            journal.committed(positions[19]).await;
            let health = journal.health();
            assert_eq!(health.commits, 1, "one write and one sync for all that waited");
            assert!(health.written_bytes > 20 * 500);
            assert!(positions.iter().all(|position| journal.is_committed(*position)));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn too_much_that_waits_leaves_no_room_and_an_idle_journal_takes_a_chunk_of_any_size() {
    let disk = MemoryDisk::new();
    LocalSet::new()
        .run_until(async {
            let (journal, driver) =
                DurableJournal::inline(disk.clone(), super::JournalOptions { max_uncommitted_bytes: 1000, ..small() })
                    .unwrap();
            journal.begin(Opening(1), UnixMillis(1)).unwrap();
            assert!(journal.has_room(5000));
            let position = accept(&journal, 1);
            assert!(journal.has_room(100) && !journal.has_room(900));
            tokio::task::spawn_local(driver);
            journal.committed(position).await;
            assert!(journal.has_room(900));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn closing_on_a_failing_disk_says_so_and_frees_the_directory() {
    let disk = MemoryDisk::new();
    LocalSet::new()
        .run_until(async {
            let journal = begun(&disk);
            let busy = inline(&disk).unwrap_err().to_string();
            assert!(busy.contains("in use by another journal"), "{busy}");
            disk.fail(disk.steps()..u64::MAX, ErrorKind::Other);
            accept(&journal, 1);
            let why = journal.close().await.unwrap_err().to_string();
            assert!(why.contains("cannot be written"), "{why}");
            disk.heal();
            assert!(inline(&disk).is_ok());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_is_read_again_may_have_moved_or_be_settled() {
    let disk = MemoryDisk::new();
    LocalSet::new()
        .run_until(async {
            let journal = begun(&disk);
            journal.committed(accept(&journal, 1)).await;
            journal.close().await.unwrap();
            let journal = inline(&disk).unwrap();
            let told = journal.begin(Opening(2), UnixMillis(2)).unwrap();
            let acme = tenant("acme");
            let first = &told.tenants[0].chunks[0];
            assert_eq!(journal.read(&acme, first).await.unwrap(), *chunk("acme", 10, 10, 50));
            let why = journal.read(&tenant("zen"), first).await.unwrap_err().to_string();
            assert!(why.contains("zen"), "{why}");
        })
        .await;
}
