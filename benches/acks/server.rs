//! The system, as the daemon has it but for its store: a durable journal, a TCP source, and a store that counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use headworks::journal::{DurableJournal, JournalOptions};
use headworks::source::{TcpOptions, TcpSource};
use headworks::{Framing, Health, IngressSpec, Journal, Json, NullStore, System};

use crate::client::{self, Seen};
use crate::{Load, Result};

/// What a run came to.
pub(crate) struct Outcome {
    /// Of each event that counts, in microseconds, sorted.
    pub(crate) latencies: Vec<u32>,
    pub(crate) reached: f64,
    /// Of the whole run, with its warm-up.
    pub(crate) journal: Health,
}

pub(crate) fn run(base: &Path, load: Load) -> Result<Outcome> {
    let dir = tempfile::tempdir_in(base)?;
    let journal = Arc::new(DurableJournal::open(dir.path(), JournalOptions::default(), |_, _| {})?);
    let store = NullStore::default();
    let system = System::builder().journal(journal.clone()).store(store.clone()).start()?;
    let spec = IngressSpec::new("tcp", Framing::lines(), Json::new());
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let source = TcpSource::bind("tcp", anywhere, spec, TcpOptions::default())?;
    let address = source.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(system.add_source(source))?;
    let sending = thread::Builder::new().name("sender".to_owned()).spawn(move || client::send(address, load))?;
    let Seen { latencies, reached } = sending.join().map_err(|_| "the sender panicked")??;
    let report = runtime.block_on(system.drain(Duration::from_secs(60)));
    if !report.complete {
        return Err(report.to_string().into());
    }
    if store.events() != load.events() {
        return Err(format!("{} events were sent, and {} stored", load.events(), store.events()).into());
    }
    Ok(Outcome { latencies, reached, journal: journal.health() })
}
