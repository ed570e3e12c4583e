use std::path::PathBuf;

use super::{Change, Config};
use crate::UnixMillis;

/// The configuration that a daemon runs by now, and what came of those that it read since its start.
#[derive(Debug, Clone)]
pub struct Running {
    /// What holds.
    pub config: Config,
    /// The file that it came from, where one is read again.
    pub file: Option<PathBuf>,
    /// Since when it holds.
    pub since: UnixMillis,
    /// What the last one that was valid says beyond that: it needs a restart.
    pub waiting: Vec<Change>,
    /// Why the last one that was read is not valid, where it is not.
    pub refused: Option<String>,
}
