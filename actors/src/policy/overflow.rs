use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{lasting, sized, units};

/// What happens while a tenant has as much in flight as it may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverflowPolicy {
    /// What the tenant may have in flight, in bytes of memory: its open window and all that waits for the store.
    /// A single chunk may be larger. Default 8 MiB.
    ///
    /// A tenant counts as full before that where the memory of all is scarce: one that holds more than its share, four times
    /// what is free above a reserve of an eighth, waits, is refused or sheds as its own policy says, and the others go on.
    #[serde(with = "units::bytes")]
    pub max_in_flight: usize,
    /// What then. Default `block`.
    pub when_full: WhenFull,
    /// How long `block` may hold connections that have brought events of other tenants, too, and `spill` where its quota is reached:
    /// all of its waits together, until it was not full for as long. The time counts only while any store is there, by its last
    /// answer; afterwards `block` spills, where the journal is durable and the quota is not reached, and else the events are
    /// rejected. Default 5 s.
    #[serde(with = "units::duration")]
    pub block_for: Duration,
    /// What the tenant may have in the journal alone, in bytes on disk. 0 spills nothing. Default 256 MiB.
    #[serde(with = "units::bytes")]
    pub max_spilled: usize,
}

/// The choices for a full tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenFull {
    /// The connection is not read until there is room: the sender feels it, nothing is lost. Others on the same
    /// connection wait too, for `block_for` at the most; then the events are spilled, or rejected where they cannot be.
    Block,
    /// The events are refused at once, and counted as rejected.
    Reject,
    /// The oldest events that are in no batch yet are shed to make room, chunk by chunk, and counted as shed; the sender is never
    /// held. While two batches wait for the store no further ones are cut, so that what waits can be shed. A batch that was
    /// cut is never touched: where these fill the tenant, new events are refused as with `reject`, so give it room for
    /// several windows.
    DropOldest,
    /// The events are accepted into the durable journal alone, also where the memory of the whole system is full, and read back
    /// in order once half of the tenant's memory is free: no connection waits, and nothing is lost, for the price of the disk. Once
    /// `max_spilled` is reached, or the journal is full, as `Block` for `block_for`, and then rejected. Needs a durable journal.
    Spill,
}

impl Default for OverflowPolicy {
    fn default() -> Self {
        Self {
            max_in_flight: 8 << 20,
            when_full: WhenFull::Block,
            block_for: Duration::from_secs(5),
            max_spilled: 256 << 20,
        }
    }
}

impl OverflowPolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        sized("overflow.max_in_flight", self.max_in_flight, 1 << 10, 1 << 40)?;
        sized("overflow.max_spilled", self.max_spilled, 0, 1 << 44)?;
        lasting("overflow.block_for", self.block_for, Duration::ZERO, Duration::from_secs(24 * 3600))
    }

    /// Whether it can work with that kind of journal.
    ///
    /// # Errors
    /// A sentence that names the key: to spill needs a journal that is durable.
    pub fn check_journal(&self, is_durable: bool) -> Result<(), String> {
        if is_durable || self.when_full != WhenFull::Spill {
            return Ok(());
        }
        Err("overflow.when_full is \"spill\", but the journal is in memory, and holds nothing that memory does not: use a \
             durable journal, or \"block\""
            .to_owned())
    }
}
