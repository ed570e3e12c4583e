//! Dead letters that misbehave.

use std::future::Future;
use std::sync::{Arc, Mutex};

use headworks_actors::{DeadLetter, DeadLetterQuery, DeadLetters, MemoryDeadLetters, StorageError};

/// What happens to a call of `put`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Works,
    Fails,
    Hangs,
    Panics,
    /// Panics before there is a future to wait for.
    PanicsAtOnce,
}

#[derive(Clone)]
pub(crate) struct FaultyLetters {
    pub(crate) kept: MemoryDeadLetters,
    mood: Arc<Mutex<Mood>>,
}

impl FaultyLetters {
    pub(crate) fn new(mood: Mood) -> Self {
        Self { kept: MemoryDeadLetters::default(), mood: Arc::new(Mutex::new(mood)) }
    }

    pub(crate) fn turn(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

impl DeadLetters for FaultyLetters {
    fn put(&self, letters: &[DeadLetter]) -> impl Future<Output = Result<(), StorageError>> + Send {
        let mood = *self.mood.lock().unwrap();
        assert!(mood != Mood::PanicsAtOnce, "the dead letters panic at once");
        async move {
            match mood {
                Mood::Works | Mood::PanicsAtOnce => self.kept.put(letters).await,
                Mood::Fails => Err(StorageError::permanent("the dead letters fail")),
                Mood::Hangs => std::future::pending().await,
                Mood::Panics => panic!("the dead letters panic"),
            }
        }
    }

    fn list(&self, query: &DeadLetterQuery) -> impl Future<Output = Result<Vec<DeadLetter>, StorageError>> + Send {
        self.kept.list(query)
    }
}
