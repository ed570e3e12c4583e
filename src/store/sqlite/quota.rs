use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use headworks_actors::{DeadLetter, StorageError, TenantId};
use rusqlite::Connection;

use super::letters;
use super::write::Refusal;
use crate::store::LettersWhenFull;

/// The room that the dead letters of each tenant have.
pub(super) struct Quota {
    max_bytes: u64,
    when_full: LettersWhenFull,
    /// When it was last told that letters went, and how many went since.
    told: Mutex<(Option<Instant>, u64)>,
    /// Whom to tell that there is no room, and when there was none last, by owner.
    on_full: Arc<OnFull>,
    full: Mutex<BTreeMap<String, Instant>>,
}

/// Whom to tell that there is no room.
pub(super) type OnFull = OnceLock<Box<dyn Fn(Option<&TenantId>, &str) + Send + Sync>>;

/// So long nothing must have been without room for it to be told anew.
const EPISODE: Duration = Duration::from_secs(600);
/// So many owners are known to be without room; where there are more, one may be told twice.
const MOST_FULL: usize = 10_000;

/// How often it is told, at most, that letters go.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Quota {
    pub(super) fn new(max_bytes: u64, when_full: LettersWhenFull, on_full: Arc<OnFull>) -> Self {
        Self { max_bytes, when_full, told: Mutex::default(), on_full, full: Mutex::default() }
    }

    /// There is no room for a letter of `owner`, at `now`.
    fn is_full(&self, owner: &str, now: Instant) {
        let is_new = {
            let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
            let goes_on = |last: &Instant| now.saturating_duration_since(*last) < EPISODE;
            if full.len() >= MOST_FULL {
                full.retain(|_, last| goes_on(last));
            }
            if full.len() >= MOST_FULL {
                full.clear();
            }
            !full.insert(owner.to_owned(), now).is_some_and(|last| goes_on(&last))
        };
        if let Some(tell) = self.on_full.get().filter(|_| is_new) {
            let then = match self.when_full {
                LettersWhenFull::Wait => {
                    "further ones wait, and their senders with them, until some are purged: see `headworks dead-letters purge`"
                }
                _ => "the oldest of them are purged for those that come",
            };
            let why = format!("they take all of dead_letters.max_bytes_per_tenant, {} bytes; {then}", self.max_bytes);
            tell(TenantId::new(owner).ok().as_ref(), &why);
        }
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
                self.is_full(owner, Instant::now());
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
                self.is_full(owner, Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_is_no_room_is_told_once_an_episode_and_owner_and_not_once_a_letter() {
        let told = Arc::new(Mutex::new(vec![]));
        let on_full: Arc<OnFull> = Arc::default();
        let tells = told.clone();
        let tell = move |tenant: Option<&TenantId>, why: &str| {
            tells.lock().unwrap().push((tenant.map(ToString::to_string), why.to_owned()));
        };
        assert!(on_full.set(Box::new(tell)).is_ok());
        let quota = Quota::new(1_000, LettersWhenFull::PurgeOldest, on_full);
        let began = Instant::now();
        for second in 0..3_000 {
            quota.is_full("acme", began + Duration::from_secs(second));
        }
        quota.is_full("", began);
        quota.is_full("acme", began + Duration::from_secs(2_999) + EPISODE);
        let told = told.lock().unwrap();
        let whose: Vec<_> = told.iter().map(|(tenant, _)| tenant.as_deref()).collect();
        assert_eq!(whose, [Some("acme"), None, Some("acme")]);
        assert!(told[0].1.contains("1000 bytes; the oldest of them are purged"), "{told:?}");
    }
}
