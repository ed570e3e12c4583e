use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::StorageError;
use crate::model::{BatchId, Cause, Code, TenantId, UnixMillis};

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
    /// The bytes as they came.
    pub body: Bytes,
}

/// Which dead letters to list. The default lists the newest hundred.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetterQuery {
    /// Only of this tenant.
    pub tenant: Option<TenantId>,
    /// Only with this code.
    pub code: Option<Code>,
    /// At most so many, the newest ones.
    pub limit: usize,
}

impl Default for DeadLetterQuery {
    fn default() -> Self {
        Self { tenant: None, code: None, limit: 100 }
    }
}

/// Where dead letters are kept.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps the letters, all of them or none. Idempotent on [`DeadLetter::id`].
    ///
    /// # Errors
    /// Any error is met with another try: what cannot be kept stays in flight.
    ///
    /// # Cancel safety
    /// The future may be dropped at any await, after which the outcome is unknown; the same letters will come again.
    fn put(&self, letters: &[DeadLetter]) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// The letters that match, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    fn list(&self, query: &DeadLetterQuery) -> impl Future<Output = Result<Vec<DeadLetter>, StorageError>> + Send;
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
