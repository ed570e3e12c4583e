//! Where the events of one read are sorted by tenant, before any of them is accepted.
//!
//! One stage serves every ingress of a thread: a read is staged and taken off again without an await in between, and the
//! table of tenants is not kept once a connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::registry::Shared;
use super::slot::Slot;
use crate::model::{Cause, Chunk, ChunkBuilder, Code, Error, Event, Origin, StreamId, TenantId, UnixMillis};
use crate::wire::Decoded;

/// The largest room that is made for a tenant's next chunk in advance, in bytes.
const MAX_ROOM: usize = 64 << 10;

/// The tenants met so far, each with the chunk in the making.
pub(crate) struct Stage {
    shared: Arc<Shared>,
    rows: HashMap<TenantId, usize, foldhash::fast::RandomState>,
    staged: Vec<Staged>,
    /// Which of them the current read has touched, in the order it did.
    touched: Vec<usize>,
    /// The bytes they hold.
    bytes: usize,
}

struct Staged {
    slot: Arc<Slot>,
    builder: ChunkBuilder,
    /// The size of the last chunk, in bytes and events: the likely size of the next.
    last: (usize, usize),
    /// Events of this read that a filter dropped.
    discarded: u64,
    /// The positions of the events in the builder, where the read is numbered.
    positions: Vec<u64>,
    /// Whether the read has touched it.
    touched: bool,
}

/// One tenant's share of a read.
pub(crate) struct Share<'s> {
    pub(crate) slot: &'s Arc<Slot>,
    /// `None` where every event was discarded.
    pub(crate) chunk: Option<Chunk>,
    pub(crate) discarded: u64,
}

/// Where a decoded frame went.
pub(crate) enum Place {
    /// Into its tenant's chunk.
    Staged,
    /// Nowhere, by a hook's rule.
    Discarded,
}

/// Why a decoded frame was not staged.
pub(crate) enum Refusal {
    /// It is no event.
    Malformed(Cause),
    /// It is one, but its tenant may not come up.
    Limit(Cause),
    /// A hook failed on it: it is accepted, and given up.
    Hook(Arc<Slot>, Cause),
}

impl Stage {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, rows: HashMap::default(), staged: vec![], touched: vec![], bytes: 0 }
    }

    /// The bytes staged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a decoded frame to its tenant's chunk.
    #[inline]
    pub(crate) fn push(&mut self, event: &Decoded<'_>, position: Option<u64>) -> Result<Place, Refusal> {
        let row = match self.rows.get(&*event.tenant) {
            Some(row) => *row,
            None => self.meet(&event.tenant)?,
        };
        let staged = &mut self.staged[row];
        if !staged.touched {
            staged.touched = true;
            let (bytes, events) = staged.last;
            staged.builder = ChunkBuilder::with_capacity(bytes.min(MAX_ROOM), events.min(MAX_ROOM / 16));
            self.touched.push(row);
        }
        if !staged.slot.hooks.sees_events() || staged.slot.muted.load(Ordering::Relaxed) {
            staged.builder.push(&event.body, event.time);
            staged.positions.extend(position);
            self.bytes += event.body.len();
            return Ok(Place::Staged);
        }
        let body = bytes::Bytes::copy_from_slice(&event.body);
        match staged.slot.hooks.event(Event::new(staged.slot.id.clone(), event.time, body)) {
            Ok(Some(event)) => {
                staged.builder.push(&event.body, event.time);
                staged.positions.extend(position);
                self.bytes += event.body.len();
                Ok(Place::Staged)
            }
            Ok(None) => {
                staged.discarded += 1;
                Ok(Place::Discarded)
            }
            Err(cause) => Err(Refusal::Hook(staged.slot.clone(), cause)),
        }
    }

    /// A tenant that this thread has not met.
    #[cold]
    fn meet(&mut self, tenant: &str) -> Result<usize, Refusal> {
        let id =
            TenantId::new(tenant).map_err(|why| Refusal::Malformed(Cause::new(Code::BadTenant, why.to_string())))?;
        let slot = self.shared.slot_on_demand(id.clone()).map_err(|why| {
            let why_text = why.to_string();
            match why {
                Error::TenantLimit { .. } => Refusal::Limit(Cause::new(Code::TenantLimit, why_text)),
                _ => Refusal::Malformed(Cause::new(Code::BadTenant, why_text)),
            }
        })?;
        let row = self.staged.len();
        self.staged.push(Staged {
            slot,
            builder: ChunkBuilder::default(),
            last: (0, 0),
            discarded: 0,
            positions: vec![],
            touched: false,
        });
        self.rows.insert(id, row);
        Ok(row)
    }

    /// Takes everything off, one share a tenant, in the order they were first met in the read.
    pub(crate) fn take(&mut self, arrived: UnixMillis, stream: Option<&StreamId>, mut each: impl FnMut(Share<'_>)) {
        self.bytes = 0;
        for row in self.touched.drain(..) {
            let staged = &mut self.staged[row];
            staged.touched = false;
            staged.last = (staged.builder.body_bytes(), staged.builder.len());
            let mut chunk = staged.builder.build(staged.slot.id.clone(), arrived);
            if let Some(stream) = stream {
                let positions = std::mem::take(&mut staged.positions).into();
                chunk = chunk.map(|chunk| chunk.with_origin(Origin { stream: stream.clone(), positions }));
            }
            let discarded = std::mem::take(&mut staged.discarded);
            each(Share { slot: &staged.slot, chunk, discarded });
        }
    }
}
