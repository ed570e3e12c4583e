//! Where the events of one read are sorted by tenant, before any of them is accepted.
//!
//! One stage serves every ingress of a thread: a read is staged and taken off again without an await in between, and the
//! table of tenants is not kept once a connection.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::registry::Shared;
use super::slot::Slot;
use super::tenants::Unmet;
use crate::model::{Cause, Chunk, ChunkBuilder, Code, Event, Origin, StreamId, TenantId, UnixMillis};
use crate::wire::Decoded;

/// A chunk takes no more bytes than this, but for one event that is larger: it is accepted, rejected or shed as a whole. And blocks
/// of one size are used again for each other, where those of many would lie about half empty.
const FULL: usize = 128 << 10;

/// So many events take a few milliseconds.
const LONG: usize = 16 << 10;

/// So many that each begin a chunk do, too.
const SCATTERED: usize = 512;

/// How many tenants are brought near together, before their events are staged, and before their shares are taken off.
pub(crate) const TOGETHER: usize = 16;

/// The tenants met so far, and the chunks in the making.
pub(crate) struct Stage {
    shared: Arc<Shared>,
    /// Each tenant's place in `rows`, by the name in its slot.
    places: HashTable<u32>,
    hasher: RandomState,
    /// A few bytes each: with very many tenants, most are touched seldom, and it is their memory that costs.
    rows: Vec<Row>,
    /// Of the tenants that the current read has touched, in the order it did.
    making: Vec<Making>,
    /// The bytes and the events they hold.
    bytes: usize,
    events: usize,
    /// Whether hardly a tenant had a second event when all was taken off last.
    is_scattered: bool,
}

struct Row {
    /// A copy of the slot's, so that a frame is staged without a look at the slot, which is far away.
    name: TenantId,
    /// Whether its events pass through hooks.
    has_hooks: bool,
    slot: Arc<Slot>,
    /// The size of the last chunk, in bytes and events: the likely size of the next.
    last: (u32, u32),
    /// The place in `making` of the chunk that its next event goes into, or [`NOWHERE`].
    making: u32,
}

/// The place of a row that the read has not touched.
const NOWHERE: u32 = u32::MAX;

struct Making {
    row: usize,
    /// Whether the row has an earlier one, which is full.
    is_more: bool,
    builder: ChunkBuilder,
    /// Events of this read that a filter dropped.
    discarded: u64,
    /// The positions of the events in the builder, where the read is numbered.
    positions: Vec<u64>,
}

/// One tenant's share of a read, or a part of it.
pub(crate) struct Share<'s> {
    pub(crate) slot: &'s Arc<Slot>,
    /// Whether a part of it went before.
    pub(crate) is_more: bool,
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
    /// It is one, but its tenant is not known and may not come up.
    Unknown(Code),
    /// A hook failed on it: it is accepted, and given up.
    Hook(Arc<Slot>, Cause),
}

impl Stage {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (places, hasher) = (HashTable::new(), RandomState::default());
        Self { shared, places, hasher, rows: vec![], making: vec![], bytes: 0, events: 0, is_scattered: false }
    }

    /// The bytes staged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is time to take everything off and let others go first: windows are to close in time. Of very many tenants hardly
    /// one has a second event in a read, and what costs is the chunk.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        self.events >= LONG || (self.making.len() >= SCATTERED && self.is_of_many())
    }

    /// Whether hardly a tenant has a second event.
    fn is_of_many(&self) -> bool {
        let chunks = self.making.len();
        self.events <= chunks + chunks / 64
    }

    /// Whether events are likely to be of a different tenant each: then [`near`](Self::near) is worth its while.
    #[inline]
    pub(crate) fn is_scattered(&self) -> bool {
        self.is_scattered
    }

    /// Brings what is known of these tenants near the processor, side by side; else each would be waited for in turn.
    pub(crate) fn near<'n>(&self, tenants: impl Iterator<Item = &'n str>) {
        for tenant in tenants {
            let likely = self.places.iter_hash(self.hasher.hash_one(tenant));
            likely.for_each(|row| _ = black_box(self.rows[*row as usize].making));
        }
    }

    /// Adds a decoded frame to its tenant's chunk.
    #[inline]
    pub(crate) fn push(&mut self, event: &Decoded<'_>, position: Option<u64>) -> Result<Place, Refusal> {
        let tenant = &*event.tenant;
        let place =
            self.places.find(self.hasher.hash_one(tenant), |row| self.rows[*row as usize].name.as_str() == tenant);
        let row = match place {
            Some(row) => *row as usize,
            None => self.meet(tenant)?,
        };
        let Row { has_hooks, slot, .. } = &self.rows[row];
        if *has_hooks && !slot.muted.load(Ordering::Relaxed) {
            return self.hooked(row, event, position);
        }
        self.put(row, &event.body, event.time, position);
        Ok(Place::Staged)
    }

    #[inline]
    fn put(&mut self, row: usize, body: &[u8], time: Option<UnixMillis>, position: Option<u64>) {
        let making = self.making(row, body.len());
        making.builder.push(body, time);
        making.positions.extend(position);
        self.bytes += body.len();
        self.events += 1;
    }

    /// Where the next event of the row goes, which is of so many bytes.
    #[inline]
    fn making(&mut self, row: usize, bytes: usize) -> &mut Making {
        let at = self.rows[row].making as usize;
        let has_room = |Making { builder, .. }: &Making| builder.body_bytes() + bytes <= FULL || builder.is_empty();
        // A look at the row once more: whatever went wrong before, nothing gets into another tenant's chunk.
        let is_it = |making: &Making| making.row == row && has_room(making);
        let at = if self.making.get(at).is_some_and(is_it) { at } else { self.begin(row) };
        &mut self.making[at]
    }

    /// Begins a chunk of the row; gives its place.
    fn begin(&mut self, row: usize) -> usize {
        let at = self.making.len();
        let Row { last, making, .. } = &mut self.rows[row];
        let full = self.making.get(*making as usize).filter(|making| making.row == row);
        if let Some(full) = full {
            // It has much to say.
            *last = (index(FULL), index(full.builder.len()).max(last.1));
        }
        let is_more = full.is_some();
        *making = index(at);
        // Some more: one that turns out too small is copied, and then twice as large.
        let room = |last: u32, most: usize| (last.saturating_add(last / 4) as usize).min(most);
        let builder = ChunkBuilder::with_capacity(room(last.0, FULL), room(last.1, FULL / 16));
        self.making.push(Making { row, is_more, builder, discarded: 0, positions: vec![] });
        at
    }

    /// As [`push`](Self::push), for a tenant whose events pass through hooks.
    #[inline(never)]
    fn hooked(&mut self, row: usize, event: &Decoded<'_>, position: Option<u64>) -> Result<Place, Refusal> {
        let slot = &self.rows[row].slot;
        let body = bytes::Bytes::copy_from_slice(&event.body);
        match slot.hooks.event(Event::new(slot.id.clone(), event.time, body)) {
            Ok(Some(event)) => {
                self.put(row, &event.body, event.time, position);
                Ok(Place::Staged)
            }
            Ok(None) => {
                self.making(row, 0).discarded += 1;
                Ok(Place::Discarded)
            }
            Err(cause) => Err(Refusal::Hook(slot.clone(), cause)),
        }
    }

    /// A tenant that this stage has not met, or has forgotten.
    #[cold]
    fn meet(&mut self, tenant: &str) -> Result<usize, Refusal> {
        let slot = self.shared.meet(tenant).map_err(|unmet| match unmet {
            Unmet::BadId(why) => Refusal::Malformed(Cause::new(Code::BadTenant, why.to_string())),
            Unmet::Refused(code) => Refusal::Unknown(code),
        })?;
        // Under its own name: an unknown tenant's event may be for another.
        let name = slot.id.as_str();
        let hash = self.hasher.hash_one(name);
        if name != tenant
            && let Some(row) = self.places.find(hash, |row| self.rows[*row as usize].name.as_str() == name)
        {
            return Ok(*row as usize);
        }
        let row = self.rows.len();
        let (name, has_hooks) = (slot.id.clone(), slot.hooks.sees_events());
        self.rows.push(Row { name, has_hooks, slot, last: (0, 0), making: NOWHERE });
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.places.insert_unique(hash, index(row), |row| hasher.hash_one(rows[*row as usize].name.as_str()));
        Ok(row)
    }

    /// The slot is gone. Nothing of its tenant is on the stage, unless a read failed in the middle: then its row stays, and gets
    /// another slot.
    pub(crate) fn forget(&mut self, slot: &Arc<Slot>) {
        let Self { places, hasher, rows, .. } = self;
        let hash = |row: &Row| hasher.hash_one(row.name.as_str());
        let is_it = |row: &u32| Arc::ptr_eq(&rows[*row as usize].slot, slot);
        let Ok(place) = places.find_entry(hasher.hash_one(slot.id.as_str()), is_it) else { return };
        let (row, last) = (*place.get(), index(rows.len() - 1));
        let is_moving = |row: &Row| row.making != NOWHERE;
        if is_moving(&rows[row as usize]) || is_moving(&rows[last as usize]) {
            return;
        }
        place.remove();
        if row != last
            && let Some(place) = places.find_mut(hash(&rows[last as usize]), |at| *at == last)
        {
            *place = row;
        }
        rows.swap_remove(row as usize);
        if rows.len() < rows.capacity() / 4 {
            rows.shrink_to(rows.len() * 2);
            places.shrink_to(rows.len() * 2, |row| hash(&rows[*row as usize]));
        }
    }

    /// Takes everything off, in the order in which the tenants were first met in the read, and each one's events in theirs.
    pub(crate) fn take(&mut self, arrived: UnixMillis, stream: Option<&StreamId>, mut each: impl FnMut(Share<'_>)) {
        self.is_scattered = self.making.len() >= TOGETHER && self.is_of_many();
        (self.bytes, self.events) = (0, 0);
        let mut making = std::mem::take(&mut self.making);
        for together in making.chunks_mut(TOGETHER) {
            for making in &*together {
                self.rows[making.row].slot.near_lane();
            }
            for Making { row, is_more, builder, discarded, positions } in together {
                let Row { has_hooks, slot, last, making, .. } = &mut self.rows[*row];
                *making = NOWHERE;
                if slot.is_gone() {
                    *slot = self.shared.wake(&slot.id);
                    *has_hooks = slot.hooks.sees_events();
                }
                if !*is_more {
                    *last = (index(builder.body_bytes()), index(builder.len()));
                }
                let mut chunk = builder.build(slot.id.clone(), arrived);
                if let Some(stream) = stream {
                    let positions = std::mem::take(positions).into();
                    chunk = chunk.map(|chunk| chunk.with_origin(Origin { stream: stream.clone(), positions }));
                }
                each(Share { slot, is_more: *is_more, chunk, discarded: *discarded });
            }
        }
        making.clear();
        self.making = making;
    }
}

/// A place in a list of tenants, or a size that is but a hint.
fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(NOWHERE)
}
