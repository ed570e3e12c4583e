use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use headworks_actors::{DeadLetter, StorageError};
use rusqlite::Connection;

use super::letters;
use super::write::Refusal;
use crate::store::LettersWhenFull;

/// The room that the dead letters of each tenant have.
#[derive(Debug)]
pub(super) struct Quota {
    max_bytes: u64,
    when_full: LettersWhenFull,
    /// When it was last told that letters went, and how many went since.
    told: Mutex<(Option<Instant>, u64)>,
}

/// How often it is told, at most, that letters go.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Quota {
    pub(super) fn new(max_bytes: u64, when_full: LettersWhenFull) -> Self {
        Self { max_bytes, when_full, told: Mutex::default() }
    }

    /// Keeps the letters, or refuses them before any is written.
    pub(super) fn put(&self, conn: &Connection, letters: &[DeadLetter]) -> Result<(), Refusal> {
        if self.when_full == LettersWhenFull::Wait {
            self.check(conn, letters)?;
        }
        let mut full = BTreeMap::new();
        for letter in letters {
            let bytes = letters::put(conn, letter)?;
            full.insert(letters::owner(letter), bytes);
        }
        if self.when_full == LettersWhenFull::PurgeOldest {
            full.retain(|_, bytes| *bytes > self.max_bytes);
            for (owner, bytes) in full {
                let gone = letters::purge_oldest(conn, owner, bytes - self.max_bytes)?;
                self.tell(owner, gone);
            }
        }
        Ok(())
    }

    /// A tenant that has nothing there may have one call's letters, however large: they would never fit.
    fn check(&self, conn: &Connection, letters: &[DeadLetter]) -> Result<(), Refusal> {
        let mut more = BTreeMap::<&str, u64>::new();
        for letter in letters {
            if !letters::is_there(conn, &letter.id)? {
                *more.entry(letters::owner(letter)).or_default() += letters::cost(letter);
            }
        }
        for (owner, more) in more {
            let there = letters::bytes(conn, owner)?;
            if there > 0 && there + more > self.max_bytes {
                let whose = if owner.is_empty() { "without a tenant".to_owned() } else { format!("of tenant {owner}") };
                return Err(Refusal::Rule(StorageError::unavailable(format!(
                    "the dead letters {whose} take {there} bytes, and {more} more are above their quota of {}: purge some, or \
                     raise dead_letters.max_bytes_per_tenant",
                    self.max_bytes
                ))));
            }
        }
        Ok(())
    }

    fn tell(&self, owner: &str, gone: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, letters) = &mut *told;
        *letters += gone;
        if *letters > 0 && last.is_none_or(|last| last.elapsed() >= TELL_EVERY) {
            let (letters, max_bytes) = (std::mem::take(letters), self.max_bytes);
            *last = Some(Instant::now());
            let tenant = if owner.is_empty() { "none" } else { owner };
            tracing::warn!(target: "headworks", tenant, letters, max_bytes, "the oldest dead letters were purged: their tenant has no room for more");
        }
    }
}
