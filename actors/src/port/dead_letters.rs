use std::future::{Future, ready};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::StorageError;
use crate::model::{BatchId, Cause, Code, StreamId, TenantId, UnixMillis};

/// What was given up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadLetterKind {
    /// A frame that is no event.
    Frame,
    /// An accepted event.
    Event,
}

impl DeadLetterKind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Event => "event",
        }
    }
}

/// A frame or an event given up on, kept whole with reason, attempts and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name, unique for ever: the same letter put twice is kept once.
    pub id: Arc<str>,
    /// What it was.
    pub kind: DeadLetterKind,
    /// Whose, where that is known.
    pub tenant: Option<TenantId>,
    /// The source it came from, where that is known.
    pub source: Option<Arc<str>>,
    /// Why it was given up.
    pub cause: Cause,
    /// How often storing it was tried.
    pub attempts: u32,
    /// When it arrived.
    pub first_at: UnixMillis,
    /// When it was given up.
    pub last_at: UnixMillis,
    /// The batch it was in, and its place there.
    pub batch: Option<(BatchId, u32)>,
    /// The size of the frame as it came, in bytes. `body` is shorter where only its beginning could be kept.
    pub original_bytes: u64,
    /// When it happened, of an event that says so.
    pub time: Option<UnixMillis>,
    /// The bytes as they came, or as they were edited.
    pub body: Bytes,
    /// How the bytes were before, if they were edited.
    pub edit: Option<Edit>,
    /// When a replay brought it back: what it says was accepted then as a new event. Its own outcome stays.
    pub replayed_at: Option<UnixMillis>,
}

/// What an edit replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// When that was: of several edits, the last.
    pub at: UnixMillis,
    /// The bytes as they came, before the first edit.
    pub original: Bytes,
}

impl DeadLetter {
    /// Whether the body is all of the frame: as it came, or as an editor wants it. Another cannot be replayed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.edit.is_some() || self.body.len() as u64 >= self.original_bytes
    }
}

/// Which dead letters. The default is the newest hundred of all.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetterQuery {
    /// Only these; all where none is named.
    pub ids: Vec<Arc<str>>,
    /// Only of this tenant.
    pub tenant: Option<TenantId>,
    /// Only with this code.
    pub code: Option<Code>,
    /// Only those given up at this time or later.
    pub since: Option<UnixMillis>,
    /// Only those given up before this time.
    pub until: Option<UnixMillis>,
    /// Only those that a replay brought back, or only those that none did.
    pub replayed: Option<bool>,
    /// At most so many.
    pub limit: usize,
}

impl Default for DeadLetterQuery {
    fn default() -> Self {
        Self { ids: vec![], tenant: None, code: None, since: None, until: None, replayed: None, limit: 100 }
    }
}

impl DeadLetterQuery {
    /// Whether it asks for this letter, its limit aside.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.tenant.as_ref().is_none_or(|tenant| letter.tenant.as_ref() == Some(tenant))
            && self.code.is_none_or(|code| letter.cause.code == code)
            && self.since.is_none_or(|since| letter.last_at >= since)
            && self.until.is_none_or(|until| letter.last_at < until)
            && self.replayed.is_none_or(|replayed| letter.replayed_at.is_some() == replayed)
    }
}

/// Some letters of many, in the order in which they were kept.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// What to ask for the next page with; `None` where this is the last one.
    pub next: Option<u64>,
}

/// What became of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditAnswer {
    /// It is done.
    Edited,
    /// There is no such letter.
    Missing,
    /// It was replayed: what it says is an event already.
    Replayed,
    /// A replay that has not ended holds it.
    InReplay,
}

/// What became of letters of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayAnswer {
    /// Their positions.
    pub positions: RangeInclusive<u64>,
    /// When they came back; `None` where they were refused, and stay as they were.
    pub replayed_at: Option<UnixMillis>,
}

/// Where dead letters are kept.
///
/// The system itself needs [`put`](Self::put) and [`list`](Self::list) alone. What is not implemented of the rest answers with an
/// error that says so: letters kept there can be listed, and neither edited, purged nor replayed.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps the letters, all of them or none. Idempotent on [`DeadLetter::id`].
    ///
    /// # Errors
    /// Any error is met with another try: what cannot be kept stays in flight.
    ///
    /// # Cancel safety
    /// The future may be dropped at any await, after which the outcome is unknown; the same letters will come again.
    fn put(&self, letters: &[DeadLetter]) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// The newest letters that match, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    fn list(&self, query: &DeadLetterQuery) -> impl Future<Output = Result<Vec<DeadLetter>, StorageError>> + Send;

    /// The letter with this id, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, id: &str) -> impl Future<Output = Result<Option<DeadLetter>, StorageError>> + Send {
        let _ = id;
        ready(unsupported("be looked up one by one"))
    }

    /// All letters that match, page by page, in the order in which they were kept: those behind `after`, which is 0 at first and
    /// then the `next` of the page before. A page has at most [`DeadLetterQuery::limit`] letters, and fewer where they are large.
    ///
    /// # Errors
    /// They cannot be read.
    fn page(
        &self,
        query: &DeadLetterQuery,
        after: u64,
    ) -> impl Future<Output = Result<DeadLetterPage, StorageError>> + Send {
        let _ = (query, after);
        ready(unsupported("be read page by page"))
    }

    /// Replaces the body of a letter; the bytes as they came are kept beside it. The answer says why that was not to be.
    ///
    /// # Errors
    /// It cannot be written.
    fn edit(
        &self,
        id: &str,
        body: Bytes,
        at: UnixMillis,
    ) -> impl Future<Output = Result<EditAnswer, StorageError>> + Send {
        let _ = (id, body, at);
        ready(unsupported("be edited"))
    }

    /// Forgets all letters that match, whatever the query's limit is, and says how many. What is forgotten stays counted.
    ///
    /// # Errors
    /// Nothing was forgotten.
    fn purge(&self, query: &DeadLetterQuery) -> impl Future<Output = Result<u64, StorageError>> + Send {
        let _ = query;
        ready(unsupported("be purged"))
    }

    /// Gives these letters the positions 1, 2, 3, ... of the replay `run`, which is new, in the order in which they were kept, and
    /// says how many there are: one that is gone or belongs to another replay is left out. All of them or none, for good: a
    /// replay that is cut short finds them again.
    ///
    /// # Errors
    /// None has a position.
    fn begin_replay(&self, run: &StreamId, ids: &[Arc<str>]) -> impl Future<Output = Result<u64, StorageError>> + Send {
        let _ = (run, ids);
        ready(unsupported("be replayed"))
    }

    /// The replays that have letters without an answer.
    ///
    /// # Errors
    /// They cannot be read.
    fn replays(&self) -> impl Future<Output = Result<Vec<StreamId>, StorageError>> + Send {
        ready(Ok(vec![]))
    }

    /// Letters of a replay without an answer, with their positions, in order: some of those behind position `after`, none where there
    /// is none left.
    ///
    /// # Errors
    /// They cannot be read.
    fn replaying(
        &self,
        run: &StreamId,
        after: u64,
    ) -> impl Future<Output = Result<Vec<(u64, DeadLetter)>, StorageError>> + Send {
        let _ = (run, after);
        ready(unsupported("be replayed"))
    }

    /// Letters of a replay have their answers, and no longer belong to it. Idempotent.
    ///
    /// # Errors
    /// None was written.
    fn replayed(
        &self,
        run: &StreamId,
        answers: &[ReplayAnswer],
    ) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = (run, answers);
        ready(unsupported("be replayed"))
    }
}

fn unsupported<T>(what: &str) -> Result<T, StorageError> {
    Err(StorageError::permanent(format!(
        "dead letters that are kept here cannot {what}: their store does not implement it"
    )))
}

/// [`DeadLetters`] behind a pointer, at one box a call.
pub trait DynDeadLetters: Send + Sync + 'static {
    /// See [`DeadLetters::put`].
    fn put<'a>(&'a self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), StorageError>>;
    /// See [`DeadLetters::list`].
    fn list<'a>(&'a self, query: &'a DeadLetterQuery) -> BoxFuture<'a, Result<Vec<DeadLetter>, StorageError>>;
}

impl<D: DeadLetters> DynDeadLetters for D {
    fn put<'a>(&'a self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), StorageError>> {
        DeadLetters::put(self, letters).boxed()
    }

    fn list<'a>(&'a self, query: &'a DeadLetterQuery) -> BoxFuture<'a, Result<Vec<DeadLetter>, StorageError>> {
        DeadLetters::list(self, query).boxed()
    }
}
