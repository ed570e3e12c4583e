//! The audit: the two sums of the accounting, checked across the journal, the store and the dead letters.
//!
//! Frames: `received = accepted + duplicate + muted + throttled + rejected + malformed`, and those that wait at the door. Events, per tenant:
//! `accepted = stored + dead_lettered + shed + discarded + in_flight`. Each number comes from where it is on record: what
//! was counted from the [journal](Account), what is there from the [store and the dead letters](Holdings). The comparison
//! is [`audit`], over plain data.
//!
//! ```
//! use headworks::audit::{Account, Books, Events, Held, Holdings, Scope, audit};
//! use headworks::TenantId;
//!
//! let acme = TenantId::new("acme")?;
//! let events = Events { accepted: 10, stored: 9, dead_lettered: 1, ..Events::default() };
//! let account = Account::at_rest(acme.clone(), Books { frames: None, events });
//! let held = Held { events: 9, rows: 7, dead_letters: 1, purged: 0, damaged: 0 };
//! let holdings = Holdings { tenants: [(acme, held)].into(), ..Holdings::default() };
//!
//! let audit = audit(Scope::Journal, Some(vec![account]), None, &holdings);
//! assert!(!audit.holds);
//! assert!(audit.differences[0].meaning.starts_with("the store holds 2 events fewer than the journal says were stored"));
//! # Ok::<(), headworks::InvalidTenantId>(())
//! ```

mod compare;
mod reason;

use std::collections::BTreeMap;

use headworks_actors::{Counters, RecoveredTenant, SourceCounters, StoreName, TenantId, TenantSnapshot};
use serde::{Deserialize, Serialize};

pub use compare::audit;

/// The answers that frames got. All of them count frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the accounting; see `Counters`")]
pub struct Frames {
    pub received: u64,
    pub accepted: u64,
    pub duplicate: u64,
    pub muted: u64,
    pub throttled: u64,
    pub rejected: u64,
    pub malformed: u64,
}

impl Frames {
    /// How many have an answer.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.accepted + self.duplicate + self.muted + self.throttled + self.rejected + self.malformed
    }
}

impl From<&SourceCounters> for Frames {
    fn from(source: &SourceCounters) -> Self {
        let SourceCounters { received, accepted, duplicate, muted, throttled, rejected, malformed, .. } = *source;
        Self { received, accepted, duplicate, muted, throttled, rejected, malformed }
    }
}

impl From<&Counters> for Frames {
    fn from(tenant: &Counters) -> Self {
        let Counters { received, accepted, duplicate, muted, throttled, rejected, malformed, .. } = *tenant;
        Self { received, accepted, duplicate, muted, throttled, rejected, malformed }
    }
}

/// What became of accepted events. All of them count events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the accounting; see `Counters`")]
pub struct Events {
    pub accepted: u64,
    pub stored: u64,
    pub dead_lettered: u64,
    pub shed: u64,
    pub discarded: u64,
    pub in_flight: u64,
}

impl Events {
    /// How many have their one outcome, or are in flight.
    #[must_use]
    pub fn accounted_for(&self) -> u64 {
        self.stored + self.dead_lettered + self.shed + self.discarded + self.in_flight
    }
}

/// What the journal says of a tenant at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Books {
    /// Its frames, where they are on record: a journal at rest does not say how many were received.
    pub frames: Option<Frames>,
    /// Its events.
    pub events: Events,
}

impl From<&TenantSnapshot> for Books {
    fn from(snapshot: &TenantSnapshot) -> Self {
        let Counters { accepted, stored, dead_lettered, shed, discarded, .. } = snapshot.counters;
        let events = Events { accepted, stored, dead_lettered, shed, discarded, in_flight: snapshot.in_flight };
        Self { frames: Some(Frames::from(&snapshot.counters)), events }
    }
}

impl From<&RecoveredTenant> for Books {
    /// From the totals, and the chunks that hold unsettled events.
    fn from(RecoveredTenant { door, totals, settled, chunks, .. }: &RecoveredTenant) -> Self {
        let lie_before = match chunks.first() {
            Some(first) if first.seq == settled.seq => u64::from(settled.index),
            _ => 0,
        };
        let events = Events {
            accepted: totals.accepted + door.discarded + door.dead_lettered,
            stored: totals.stored,
            dead_lettered: totals.dead_lettered + door.dead_lettered,
            shed: totals.shed,
            discarded: totals.discarded + door.discarded,
            in_flight: chunks.iter().map(|chunk| u64::from(chunk.events)).sum::<u64>().saturating_sub(lie_before),
        };
        Self { frames: None, events }
    }
}

/// What the journal says of a tenant, before and after the store was looked at. Of a running system the store is read at
/// some moment in between, so that what it may hold is a range; at rest it is one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose.
    pub tenant: TenantId,
    /// Before.
    pub before: Books,
    /// After.
    pub after: Books,
}

impl Account {
    /// What does not move.
    #[must_use]
    pub fn at_rest(tenant: TenantId, books: Books) -> Self {
        Self { tenant, before: books, after: books }
    }
}

/// The frames of all sources, before and after the store was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources {
    /// Before.
    pub before: Frames,
    /// After.
    pub after: Frames,
    /// Dead letters that were still to be kept, before.
    pub letters_pending: u64,
    /// Frames that waited at the door, without an answer yet.
    pub waiting: u64,
}

/// What the store and the dead letters hold of a tenant. All of them count events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Events in the batches that the store has on record.
    pub events: u64,
    /// Those of them that are really there.
    pub rows: u64,
    /// Events kept as dead letters, replayed ones included.
    pub dead_letters: u64,
    /// Events that were kept as dead letters, and purged since.
    #[serde(default)]
    pub purged: u64,
    /// Events of batches that the store has on record and cannot read: they lie there damaged.
    #[serde(default)]
    pub damaged: u64,
}

impl Held {
    /// The events that were given up, as far as the store knows: those that are there, and those that were purged.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.dead_letters + self.purged
    }
}

/// What one more store holds of a tenant, of those that its batches go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Events in the batches that it has on record.
    pub events: u64,
    /// Those of them that are really there.
    pub rows: u64,
    /// Those that are there damaged.
    pub damaged: u64,
}

/// What the store and the dead letters hold of all tenants, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Of each tenant.
    pub tenants: BTreeMap<TenantId, Held>,
    /// Of tenants whose batches go through several stores: the second one and those after it, by name.
    pub further: BTreeMap<TenantId, Vec<(StoreName, Kept)>>,
    /// Events that were stored and erased since, by an operator. They count as held: they are not to be there.
    pub erased: BTreeMap<TenantId, u64>,
    /// Events that were stored and pruned since, by the retention of their tenant. They count as held: they are not to be there. Of
    /// tenants whose batches go through several stores those of the first.
    pub pruned: BTreeMap<TenantId, u64>,
    /// Malformed frames kept as dead letters, of whatever tenant.
    pub malformed: u64,
    /// Malformed frames that were kept as dead letters, and purged since.
    pub malformed_purged: u64,
    /// Malformed frames kept as dead letters by other openings than the one that is asked for.
    pub malformed_before: u64,
    /// Dead letters that were made at the door, of malformed frames and of events that a hook failed on, by other openings than the one
    /// that is asked for; those that were purged are among them. They are numbered as they are kept: the number of the last one says how many
    /// there were.
    pub at_door_before: u64,
    /// Those of them that are neither there nor purged.
    pub at_door_missing: u64,
    /// What is damaged, with its place: the first [`DAMAGE`](Self::DAMAGE) of it.
    pub damage: Vec<String>,
    /// Which stores nobody here can read.
    pub unread: Unread,
}

/// The stores of tenants' batches that cannot be read back, as a webhook, and whether these are all that a tenant has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unread {
    /// Of all tenants that have none of their own.
    pub all: (Vec<StoreName>, bool),
    /// Of those that have.
    pub by_id: BTreeMap<TenantId, (Vec<StoreName>, bool)>,
}

impl Unread {
    /// Whether nothing can be read of what is stored of the tenant.
    #[must_use]
    pub fn has_all_of(&self, tenant: &TenantId) -> bool {
        self.by_id.get(tenant).unwrap_or(&self.all).1
    }
}

impl Holdings {
    /// So much of what is damaged is named.
    pub const DAMAGE: usize = 10;
}

/// What an audit goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything from the first opening of the durable journal on.
    Journal,
    /// What came since the daemon was started: its journal is in memory.
    Run,
    /// The store alone: the journal was in memory, and is gone with its process.
    Store,
}

/// What an audit came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// What it went over.
    pub scope: Scope,
    /// Whether everything holds that could be checked.
    pub holds: bool,
    /// The tenants, by name.
    pub tenants: Vec<Row>,
    /// Their sums.
    pub all: Row,
    /// Frames that were no event.
    pub malformed: Malformed,
    /// Frames that waited at the door, received and without an answer yet: they count as they are.
    #[serde(default)]
    pub waiting: u64,
    /// What does not hold.
    pub differences: Vec<Difference>,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    /// What is damaged in a store, with its place: the first of it.
    #[serde(default)]
    pub damage: Vec<String>,
}

/// One tenant, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose; none for the sums.
    pub tenant: Option<TenantId>,
    /// Whether everything of it holds that could be checked.
    pub holds: bool,
    /// Its frames, where they are on record.
    pub frames: Option<Frames>,
    /// What the journal says of its events, where there is one.
    pub events: Option<Events>,
    /// What is there.
    pub held: Held,
    /// Events of it that were pruned from the store since they were stored, by the rules of its retention. They count as held.
    #[serde(default)]
    pub pruned: u64,
}

/// Frames that were no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malformed {
    /// How many the sources counted, where that is on record.
    pub counted: Option<u64>,
    /// How many are kept as dead letters.
    pub kept: u64,
    /// How many were kept as dead letters, and purged since.
    #[serde(default)]
    pub purged: u64,
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The sum of frames.
    Frames,
    /// The sum of events.
    Events,
    /// The store against the journal.
    Stored,
    /// The store against itself: its rows, and what its batches say.
    Rows,
    /// The dead letters against the journal.
    DeadLettered,
    /// Store and dead letters together against the journal.
    Settled,
    /// Malformed frames against the dead letters.
    Malformed,
    /// The dead letters that earlier starts made at the door against their numbers.
    Numbered,
}

/// A number that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Of which tenant; none for the sources.
    pub tenant: Option<TenantId>,
    /// What was compared.
    pub check: Check,
    /// What it must be: the bound that is nearest, where it may be several.
    pub expected: u64,
    /// What it is.
    pub found: u64,
    /// By how much that is more, or less.
    pub difference: i64,
    /// What it means, in words.
    pub meaning: String,
}
