use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name that a sender gives its stream of frames, so that it can go on where it was after a break.
///
/// From 1 to 128 visible ASCII characters, without a space: `[!-~]{1,128}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(Arc<str>);

/// The longest stream id, in bytes.
const MAX_LEN: usize = 128;

impl StreamId {
    /// The id, if `name` follows the grammar.
    ///
    /// # Errors
    /// [`InvalidStreamId`].
    pub fn new(name: &str) -> Result<Self, InvalidStreamId> {
        let is_valid = (1..=MAX_LEN).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if is_valid { Ok(Self(name.into())) } else { Err(InvalidStreamId) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A stream id that breaks the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stream id has from 1 to {MAX_LEN} visible ASCII characters and no space")]
pub struct InvalidStreamId;

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(name: &str) -> Result<Self, InvalidStreamId> {
        Self::new(name)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Where the events of a chunk stood in their sender's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whose.
    pub stream: StreamId,
    /// One position an event, growing.
    pub positions: Box<[u64]>,
}

impl StreamId {
    /// The name of a stream that lives as long as the call that made it, and is never on record.
    pub(crate) fn passing(number: u64) -> Self {
        // The space keeps it apart from every name that a sender may choose.
        Self(format!("call {number}").into())
    }

    /// Whether a sender chose the name, to find its stream again.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        !self.0.contains(' ')
    }
}
