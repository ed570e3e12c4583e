//! Through the oldest batches of a tenant, in a store that has them in a ledger: what is due of them, step by step.

use headworks_actors::{BatchId, RetentionPolicy, TenantId, UnixMillis};

use super::{Kept, Pruned, due};

/// A step takes no more than so many events and bytes of bodies, and at least one batch: no more than a group of batches, which is
/// what a batch may have to wait for anyway.
const STEP_EVENTS: u64 = 10_000;
const STEP_BYTES: u64 = 2 << 20;

/// So many of the oldest batches are looked at together. One whose time is due takes those with it that were stored before it, so
/// that a clock that was wrong for a while does not keep a batch for ever.
pub(crate) const LOOK: i64 = 256;

/// So many fences are looked at together.
pub(crate) const FENCES: i64 = 1_000;

/// What there is at one moment.
#[derive(Debug)]
pub(crate) struct Stock {
    /// The number of the newest batch of all, or one above it that no batch has. What came later is not to be pruned by what is known of
    /// this moment.
    pub(crate) newest: i64,
    /// Who has batches.
    pub(crate) tenants: Vec<TenantId>,
    /// Batches that were rolled back, and whose earlier attempts must not land.
    pub(crate) fences: Vec<BatchId>,
}

/// What is asked to be pruned.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Whose.
    pub(crate) tenant: TenantId,
    /// By which rules, and when.
    pub(crate) rules: RetentionPolicy,
    pub(crate) now: UnixMillis,
    /// Something of the tenant is in flight: its newest batch may be one that comes again, and stays.
    pub(crate) in_flight: bool,
}

/// A way through the oldest batches of one tenant, as far as they are due.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) asked: Asked,
    /// Everything up to this one was taken.
    pub(crate) after: i64,
    /// Nothing behind this one is taken.
    pub(crate) upto: i64,
    /// The bytes of all batches but those that were taken.
    pub(crate) bytes: u64,
}

/// Batches that are to go in one step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) batches: Vec<i64>,
    /// What they hold.
    pub(crate) holds: Pruned,
}

/// A batch as its ledger has it: its number, what counts of it here, and how many events it has.
pub(crate) type Listed = (i64, Kept, u64);

impl Walk {
    /// What is to go together, of the oldest that follow; none where nothing more is due.
    pub(crate) fn step(&mut self, oldest: Vec<Listed>) -> Option<Step> {
        let kept: Vec<_> = oldest.iter().map(|(_, kept, _)| *kept).collect();
        let due = due(&kept, self.bytes, &self.asked.rules, self.asked.now);
        let mut step = Step { batches: vec![], holds: Pruned::default() };
        for (batch, Kept { bytes, .. }, events) in oldest.into_iter().take(due) {
            let holds = &mut step.holds;
            if holds.batches > 0 && (holds.events + events > STEP_EVENTS || holds.bytes + bytes > STEP_BYTES) {
                break;
            }
            *holds += Pruned { batches: 1, events, bytes };
            step.batches.push(batch);
            (self.after, self.bytes) = (batch, self.bytes.saturating_sub(bytes));
        }
        Some(step).filter(|step| !step.batches.is_empty())
    }
}
