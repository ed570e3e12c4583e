//! The durable journal through its public API, on a real disk.

use headworks::conformance;
use headworks::journal::{DurableJournal, JournalOptions};

#[tokio::test]
async fn the_durable_journal_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        async |name: &str| DurableJournal::open(&dir.path().join(name), JournalOptions::default(), |_, _| {}).unwrap();
    conformance::journal(open).await;
}
