//! The contestant: the actor system behind its own TCP source, as the daemon runs it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use headworks::journal::{DurableJournal, JournalOptions};
use headworks::source::{TcpOptions, TcpSource};
use headworks::store::{Layout, SqliteOptions, SqliteReader, SqliteStore};
use headworks::{Attempt, Batch, BatchId, Framing, IngressSpec, Json, Storage, StorageError, System, Undo};

use crate::contest::{Contest, Journal, Result, Store};
use crate::measure::Start;
use crate::report::{Outcome, Tally, ready};

/// Whether there is anything to run.
pub(crate) const TAKES_PART: bool = true;

/// The memory of events in flight. With the null store it must not be what is measured, as the baseline's windows have no
/// bound; before SQLite, where the baseline waits for its writer too, it is what the daemon has by default.
const NULL_MAX_IN_FLIGHT_BYTES: usize = 1 << 30;
const SQLITE_MAX_IN_FLIGHT_BYTES: usize = 16 << 20;

/// How often to look whether everything has come.
const GLANCE: Duration = Duration::from_millis(2);

/// The null store, as the system sees it.
impl Storage for Tally {
    async fn store(&self, batch: &Batch, _undo: &Undo) -> std::result::Result<(), StorageError> {
        self.add(batch.tenant(), batch.len() as u64);
        Ok(())
    }

    async fn rollback(&self, _id: &BatchId, _attempt: Attempt) -> std::result::Result<(), StorageError> {
        Err(StorageError::permanent("what is counted cannot be taken back"))
    }
}

/// Takes part in the contest.
pub(crate) fn run(contest: &Contest) -> Result<Outcome> {
    let builder = System::builder().max_tenants(usize::MAX);
    let journal_dir = tempfile::tempdir()?;
    let builder = match contest.journal {
        Journal::Memory => builder,
        Journal::Durable => {
            builder.journal(DurableJournal::open(journal_dir.path(), JournalOptions::default(), |_, _| {})?)
        }
    };
    match contest.store {
        Store::Null => {
            let tally = Arc::new(Tally::default());
            let builder = builder.max_in_flight_bytes(NULL_MAX_IN_FLIGHT_BYTES).store(tally.clone());
            let start = flow(builder.start()?, contest)?;
            Ok(Outcome { finish: start.finish()?, stored: tally.counts() })
        }
        Store::Sqlite | Store::Index => {
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("events.db");
            let mut options = SqliteOptions::default();
            if contest.store == Store::Index {
                options.layout = Layout::Index;
            }
            let store = SqliteStore::open(&file, options)?;
            let builder = builder.max_in_flight_bytes(SQLITE_MAX_IN_FLIGHT_BYTES);
            let start = flow(builder.store(store.clone()).dead_letters(store.clone()).start()?, contest)?;
            let finish = start.finish()?;
            futures::executor::block_on(store.close())?;
            let totals = SqliteReader::open(&file)?.tenants()?;
            let stored = totals.into_iter().map(|totals| (totals.tenant.to_string(), totals.events)).collect();
            Ok(Outcome { finish, stored })
        }
    }
}

/// Brings in what is sent, until all of it is settled.
fn flow(system: System, contest: &Contest) -> Result<Start> {
    let spec = IngressSpec::new("tcp", Framing::lines(), Json::new());
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let source = TcpSource::bind("tcp", anywhere, spec, TcpOptions::default())?;
    let address = source.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        system.add_source(source).await?;
        let start = ready(address)?;
        while system.sources().iter().map(|(_, source)| source.received).sum::<u64>() < contest.load.events {
            tokio::time::sleep(GLANCE).await;
        }
        let report = system.drain(Duration::from_secs(60)).await;
        if report.complete { Ok(start) } else { Err(report.to_string().into()) }
    })
}
