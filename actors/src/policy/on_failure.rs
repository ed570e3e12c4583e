use serde::{Deserialize, Serialize};

/// What becomes of a batch that its stores refused for good, or whose attempts are spent, once it is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Its events are kept as dead letters.
    #[default]
    DeadLetter,
    /// It goes through its saga again after a backoff, under the same id, for as long as it takes. The tenant's later
    /// batches wait behind it, and in the end its sender. One that a store could not be rid of is kept as dead letters instead.
    Retry,
    /// Its events are dropped, and counted as discarded.
    Discard,
}
