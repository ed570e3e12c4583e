use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::actor::registry::Shared;
use crate::actor::streams::{self, Answer, Stream};
use crate::model::Code;
use crate::port::Position;

/// One connection of a stream of numbered frames, from both of its ends: where bytes go in, and where answers come out.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Arc<Stream>,
    pub(super) session: u64,
    pub(super) is_finished: AtomicBool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stream.disconnect(self.session, self.shared.seam.now());
        if !self.stream.id.is_lasting() {
            self.shared.streams.remove(&self.stream.id);
        }
    }
}

impl Connection {
    /// What there is to answer now; waits for it. `None` once nothing will come any more.
    async fn answers(&self) -> Option<Vec<Answer>> {
        loop {
            let mut changed = std::pin::pin!(self.stream.changed.notified());
            changed.as_mut().enable();
            let is_finished = self.is_finished.load(Ordering::Acquire);
            let journal = &self.shared.journal;
            let streams::Answers { ready, commits, is_owed } =
                self.stream.take_answers(self.session, |at| journal.is_committed(at))?;
            if !ready.is_empty() {
                return Some(ready);
            }
            match commits {
                Some(at) => {
                    futures::future::select(std::pin::pin!(journal.committed(at)), changed).await;
                }
                None if is_finished && !is_owed => return None,
                None => changed.await,
            }
        }
    }
}

/// What becomes of the frames of a stream, as far as its connection asked to be told.
pub struct Answers {
    pub(super) connection: Arc<Connection>,
    pub(super) last: u64,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers")
            .field("stream", &self.connection.stream.id)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Answers {
    /// The position of the last frame that need not be sent again: the connection goes on with the one behind it.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The next answers, coalesced, in no order. Waits for some. `None` once the ingress is finished and everything is answered, or
    /// once another connection took over.
    ///
    /// Positions may be acknowledged that an earlier connection fed: all from the `next` that this one began with. A frame
    /// that was refused, and of which an earlier process could not tell its sender, is acknowledged by a later one.
    ///
    /// # Cancel safety
    /// Safe: what was not returned comes with the next call.
    pub async fn next(&mut self) -> Option<Vec<Answer>> {
        self.connection.answers().await
    }
}

/// What becomes of the events of one call: accepted, then settled.
pub struct Receipt {
    connection: Arc<Connection>,
    events: u64,
    committed: Position,
    answered: u64,
    settlement: Settlement,
}

/// How the events of one call ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settlement {
    /// How many are in their store, or were dropped by a hook's rule.
    pub stored: u64,
    /// How many were refused, are kept as dead letters, or were dropped because no store took them, by the reason.
    pub refused: BTreeMap<Code, u64>,
    /// Where some were refused as above their tenant's rate: after how long the like of them may pass, at the latest that was told.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("events", &self.events)
            .field("settlement", &self.settlement)
            .finish_non_exhaustive()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.connection.shared.streams.remove(&self.connection.stream.id);
    }
}

impl Receipt {
    pub(super) fn new(connection: Arc<Connection>, events: u64) -> Self {
        let (committed, settlement) = (Position::default(), Settlement::default());
        Self { connection, events, committed, answered: 0, settlement }
    }

    /// Where the last of what was accepted is on record.
    pub(super) fn committed_at(mut self, at: Position) -> Self {
        self.committed = at;
        self
    }

    /// Resolves once what was accepted is on disk, where the journal is durable; at once where it is not.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn accepted(&self) {
        self.connection.shared.journal.committed(self.committed).await;
    }

    /// Resolves once every event is settled: stored, discarded or kept as a dead letter; or was refused at the door.
    ///
    /// # Cancel safety
    /// Safe: a later call goes on.
    pub async fn settled(&mut self) -> &Settlement {
        while self.answered < self.events {
            let Some(answers) = self.connection.answers().await else { break };
            for answer in answers {
                let (Answer::Ack(range) | Answer::Nack(range, ..)) = &answer;
                let events = range.end() - range.start() + 1;
                self.answered += events;
                match answer {
                    Answer::Ack(_) => self.settlement.stored += events,
                    Answer::Nack(_, code, retry_after) => {
                        *self.settlement.refused.entry(code).or_default() += events;
                        self.settlement.retry_after = self.settlement.retry_after.max(retry_after);
                    }
                }
            }
        }
        &self.settlement
    }
}
