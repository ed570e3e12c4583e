//! Chunks with events that are not cut yet.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{Chunk, Part};

/// In the order of their seq.
///
/// Each is kept as the part of a batch that it is going to be, and when it was accepted lies beside: a window that takes all of them
/// has its parts at once, however many there are. Chunks that came a while ago are far from the processor, and where the windows of
/// many tenants are due in the same moment, a look at each would make them late.
#[derive(Debug, Default)]
pub(super) struct Uncut {
    parts: VecDeque<Part>,
    accepted: VecDeque<Instant>,
}

impl Uncut {
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// One that was accepted at `at`.
    pub(super) fn push(&mut self, chunk: Arc<Chunk>, at: Instant) {
        let range = 0..chunk.len();
        self.parts.push_back(Part { chunk, range });
        self.accepted.push_back(at);
    }

    pub(super) fn get(&self, index: usize) -> Option<(&Part, Instant)> {
        self.parts.get(index).zip(self.accepted.get(index).copied())
    }

    pub(super) fn first(&self) -> Option<(&Part, Instant)> {
        self.get(0)
    }

    pub(super) fn last(&self) -> Option<(&Part, Instant)> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The parts from the one at `index` on.
    pub(super) fn from(&self, index: usize) -> impl Iterator<Item = &Part> {
        self.parts.range(index.min(self.len())..)
    }

    /// Leaves none; they are not looked at.
    pub(super) fn take(&mut self) -> Vec<Part> {
        self.accepted.clear();
        // As many are likely to come again.
        let room = VecDeque::with_capacity(self.parts.len());
        Vec::from(std::mem::replace(&mut self.parts, room))
    }

    /// The first goes.
    pub(super) fn pop(&mut self) -> Option<Part> {
        self.accepted.pop_front();
        self.parts.pop_front()
    }

    /// The first `count` go.
    pub(super) fn drain(&mut self, count: usize) -> Drain<'_, Part> {
        self.accepted.drain(..count);
        self.parts.drain(..count)
    }
}
