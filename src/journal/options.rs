//! What can be set.

use std::time::Duration;

use headworks_actors::JournalError;

/// The settings of a [`DurableJournal`](super::DurableJournal).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// The size at which a new segment is begun, in bytes; by default 64 MiB. A segment may grow beyond it by what is
    /// committed at once.
    pub segment_bytes: u64,
    /// How much disk the journal may take, in bytes; by default 1 GiB. When it is reached no chunks are accepted; what becomes
    /// of those on record still is, from a reserve of two segments.
    pub max_bytes: u64,
    /// The longest that an entry waits for others before it is written; by default 5 ms. An idle journal does not wait.
    pub commit_every: Duration,
    /// How many bytes may wait to be committed, by default 8 MiB; above, no chunks are accepted.
    pub max_uncommitted_bytes: usize,
    /// How long the position of a stream is kept after its last frame; by default 7 days.
    pub stream_lifetime: Duration,
    /// How many streams are kept, by default 100,000; beyond, those that were not heard of for longest are forgotten.
    pub max_streams: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            max_bytes: 1 << 30,
            commit_every: Duration::from_millis(5),
            max_uncommitted_bytes: 8 << 20,
            stream_lifetime: Duration::from_secs(7 * 24 * 3600),
            max_streams: 100_000,
        }
    }
}

impl JournalOptions {
    /// The longest wait that makes sense, and the largest segment.
    const MAX_WAIT: Duration = Duration::from_secs(1);
    const MAX_SEGMENT: u64 = 1 << 30;

    /// Whether the journal can work with them.
    ///
    /// # Errors
    /// The first one that it cannot work with, and why.
    pub fn check(&self) -> Result<(), JournalError> {
        let bad = |what: String| Err(JournalError::new(what));
        if !(4096..=Self::MAX_SEGMENT).contains(&self.segment_bytes) {
            return bad(format!(
                "segment_bytes must be from 4096 to {}, not {}",
                Self::MAX_SEGMENT,
                self.segment_bytes
            ));
        }
        if self.max_bytes / 8 < self.segment_bytes {
            return bad(format!(
                "max_bytes must be at least 8 times segment_bytes ({}), not {}: space is given back by the segment",
                self.segment_bytes, self.max_bytes
            ));
        }
        if self.commit_every > Self::MAX_WAIT {
            return bad(format!("commit_every must be at most {:?}, not {:?}", Self::MAX_WAIT, self.commit_every));
        }
        if self.max_uncommitted_bytes == 0 || self.max_uncommitted_bytes as u64 > Self::MAX_SEGMENT {
            return bad(format!("max_uncommitted_bytes must be from 1 to {}", Self::MAX_SEGMENT));
        }
        if self.max_streams == 0 {
            return bad("max_streams must be at least 1".to_owned());
        }
        Ok(())
    }

    /// What chunks may take.
    pub(super) fn quota(&self) -> u64 {
        self.max_bytes - 2 * self.segment_bytes
    }
}
