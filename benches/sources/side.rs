//! The two sides of a pair: a source with a system behind it, and what is plain. Both are watched in the same way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use headworks::journal::{DurableJournal, JournalOptions};
use headworks::{NullStore, Source, System};

use crate::load::Load;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Has the events come, to the last one. It runs on a thread of its own.
pub(crate) type Feed = Box<dyn FnOnce() -> Result<()> + Send>;

/// How many frames something plain has read.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(crate) fn add(&self, frames: u64) {
        self.0.fetch_add(frames, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is plain: what it needs, which goes once all is counted, and what has the events come.
pub(crate) struct Plain {
    pub(crate) _server: Option<Box<dyn std::any::Any>>,
    pub(crate) feed: Feed,
}

/// One way for events to come in.
pub(crate) trait Way {
    /// Before each pair.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// The source, and what has the events come to it once it is added.
    fn source(&mut self) -> Result<(Box<dyn Source>, Feed)>;

    /// What counts the same events without one.
    fn plain(&mut self, came: &Counter) -> Result<Plain>;
}

/// How often to look whether everything has come, and how long nothing may come before that is all.
const GLANCE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn source(way: &mut dyn Way, load: &Load) -> Result<Duration> {
    let folder = tempfile::tempdir()?;
    let builder = System::builder().store(NullStore::default());
    let builder = match load.journal {
        true => builder.journal(DurableJournal::open(folder.path(), JournalOptions::default(), |_, _| {})?),
        false => builder,
    };
    let system = builder.start()?;
    let (source, feed) = way.source()?;
    let to = system.clone();
    let feed = move || {
        block_on(to.add_source(source))?;
        feed()
    };
    let accepted = || system.sources().iter().map(|(_, counters)| counters.accepted).sum();
    let took = timed(load.events, accepted, Box::new(feed))?;
    let report = block_on(system.drain(PATIENCE));
    let stored: u64 = report.tenants.iter().map(|tenant| tenant.end.counters.stored).sum();
    for (_, counters) in system.sources() {
        if !counters.adds_up() || counters.received != load.events {
            return Err(format!("{} events were sent, and this came: {counters:?}", load.events).into());
        }
    }
    if !report.complete || stored != load.events {
        return Err(format!("{stored} of {} events were stored; {report}", load.events).into());
    }
    Ok(took)
}

pub(crate) fn plain(way: &mut dyn Way, load: &Load) -> Result<Duration> {
    let came = Counter::default();
    let Plain { _server, feed } = way.plain(&came)?;
    timed(load.events, || came.now(), feed)
}

/// How long it takes until all have come.
fn timed(events: u64, came: impl Fn() -> u64, feed: Feed) -> Result<Duration> {
    let began = Instant::now();
    let feeding = thread::spawn(feed);
    let (mut last, mut since) = (0, began);
    while last < events && (since.elapsed() < PATIENCE || !feeding.is_finished()) {
        thread::sleep(GLANCE);
        let now = came();
        if now > last {
            (last, since) = (now, Instant::now());
        }
    }
    let took = began.elapsed();
    feeding.join().map_err(|_| "what sends panicked")??;
    match came() {
        all if all == events => Ok(took),
        some => Err(format!("{events} events were sent, and {some} came").into()),
    }
}
