//! The windows of the baseline: one growing buffer a tenant, closed by count or age.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use headworks::{TenantId, UnixMillis};

use crate::contest::Result;
use crate::decode::decode;
use crate::report::Tally;
use crate::writer::Writer;

const MAX_EVENTS: usize = 500;
const MAX_AGE: Duration = Duration::from_secs(1);

/// Where closed windows go.
pub(crate) enum Sink {
    Null(Tally),
    Sqlite(Writer),
}

/// Some events of one tenant: their bytes, and where each ends.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<u32>,
    /// When the first of them came.
    pub(crate) arrived: UnixMillis,
}

struct Window {
    tenant: TenantId,
    events: Events,
    /// How many windows of this tenant were closed, by which a deadline knows its own.
    closed: u64,
}

/// The windows of all tenants.
pub(crate) struct Windows {
    index: HashMap<TenantId, usize, FixedState>,
    windows: Vec<Window>,
    /// The deadline of every window, oldest first: they are all equally far off when a window opens.
    deadlines: VecDeque<(Instant, usize, u64)>,
    sink: Sink,
}

impl Windows {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { index: HashMap::default(), windows: Vec::new(), deadlines: VecDeque::new(), sink }
    }

    /// Takes one frame; what is no event is dropped, and will be missed in the counts.
    pub(crate) fn push(&mut self, frame: &[u8], now: Instant) -> Result<()> {
        let frame = frame.strip_suffix(b"\r").unwrap_or(frame);
        let Some(name) = decode(frame) else { return Ok(()) };
        let at = match self.index.get(name.as_ref()) {
            Some(&at) => at,
            None => match TenantId::new(&name) {
                Ok(tenant) => self.admit(tenant),
                Err(_) => return Ok(()),
            },
        };
        let window = &mut self.windows[at];
        let Events { bytes, ends, arrived } = &mut window.events;
        if ends.is_empty() {
            *arrived = UnixMillis::now();
            self.deadlines.push_back((now + MAX_AGE, at, window.closed));
        }
        bytes.extend_from_slice(frame);
        ends.push(u32::try_from(bytes.len())?);
        if ends.len() == MAX_EVENTS { self.close(at) } else { Ok(()) }
    }

    /// Closes the windows whose time has come.
    pub(crate) fn close_due(&mut self, now: Instant) -> Result<()> {
        while let Some(&(_, at, closed)) = self.deadlines.front().filter(|(deadline, ..)| *deadline <= now) {
            self.deadlines.pop_front();
            if self.windows[at].closed == closed {
                self.close(at)?;
            }
        }
        Ok(())
    }

    /// What is to be done from time to time, also when nothing comes in.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<()> {
        self.close_due(now)?;
        match &mut self.sink {
            Sink::Null(_) => Ok(()),
            Sink::Sqlite(writer) => writer.hurry(),
        }
    }

    /// Closes every window and gives back the sink, that knows what it was given.
    pub(crate) fn close_all(mut self) -> Result<Sink> {
        for at in 0..self.windows.len() {
            if !self.windows[at].events.ends.is_empty() {
                self.close(at)?;
            }
        }
        Ok(self.sink)
    }

    fn admit(&mut self, tenant: TenantId) -> usize {
        let at = self.windows.len();
        self.index.insert(tenant.clone(), at);
        self.windows.push(Window { tenant, events: Events::default(), closed: 0 });
        at
    }

    fn close(&mut self, at: usize) -> Result<()> {
        let Window { tenant, events, closed } = &mut self.windows[at];
        *closed += 1;
        match &mut self.sink {
            Sink::Null(tally) => {
                tally.add(tenant, events.ends.len() as u64);
                // The next window of a tenant is about as large as the last.
                events.bytes.clear();
                events.ends.clear();
                Ok(())
            }
            Sink::Sqlite(writer) => {
                let bytes = Vec::with_capacity(events.bytes.len());
                let ends = Vec::with_capacity(events.ends.len());
                let full = mem::replace(events, Events { bytes, ends, arrived: UnixMillis(0) });
                writer.store(tenant.clone(), *closed, full)
            }
        }
    }
}
