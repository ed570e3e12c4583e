use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{lasting, sized, units};

/// How much of a tenant's stored events is kept, and for how long: the oldest go first, batch by batch.
///
/// A rule for stores that prune, which of those of this project are the embedded ones, plain files, PostgreSQL and objects; a store of
/// somebody else's has rules of its own. By default nothing is pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionPolicy {
    /// A batch goes once its last event arrived so long ago. `None`, written `"never"`, for never. Default never.
    #[serde(with = "units::duration_or_never")]
    pub max_age: Option<Duration>,
    /// The oldest batches go once the bodies of all of them take more, in bytes, in any one store. 0 sets no bound. Default 0.
    #[serde(with = "units::bytes")]
    pub max_bytes: usize,
    /// One of its dead letters goes once it was given up so long ago. Where the daemon has a bound for all, the shorter one counts.
    /// `None`, written `"never"`, for never. Default never.
    #[serde(with = "units::duration_or_never")]
    pub dead_letters_max_age: Option<Duration>,
}

impl RetentionPolicy {
    /// Whether all stored events are kept for ever.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.max_age.is_none() && self.max_bytes == 0
    }

    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        const YEARS: Duration = Duration::from_secs(3650 * 24 * 3600);
        if let Some(age) = self.max_age {
            lasting("retention.max_age", age, Duration::from_secs(1), YEARS)?;
        }
        if let Some(age) = self.dead_letters_max_age {
            lasting("retention.dead_letters_max_age", age, Duration::from_secs(1), YEARS)?;
        }
        sized("retention.max_bytes", self.max_bytes, 0, 1 << 44)
    }
}
