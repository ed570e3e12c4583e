use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{DeadLetter, DeadLetterPage, DeadLetterQuery, DeadLetters, Edit, EditAnswer, ReplayAnswer, StorageError};
use crate::model::{StreamId, UnixMillis};

/// Dead letters in memory: the newest up to a bound of bytes; older ones are forgotten and counted.
///
/// Clones share their content.
#[derive(Debug, Clone)]
pub struct MemoryDeadLetters {
    inner: Arc<Mutex<Letters>>,
}

#[derive(Debug, Default)]
struct Letters {
    /// By the order in which they were kept, from 1.
    letters: BTreeMap<u64, Kept>,
    places: HashMap<Arc<str>, u64>,
    last: u64,
    bytes: usize,
    max_bytes: usize,
    forgotten: u64,
    purged: u64,
}

#[derive(Debug)]
struct Kept {
    letter: DeadLetter,
    /// The replay that holds it, and its position there.
    replay: Option<(StreamId, u64)>,
}

/// What one letter costs beside its bytes.
const LETTER_HEAD: usize = 512;

/// How many letters of a replay are handed out at once.
const REPLAYING: usize = 512;

fn cost(letter: &DeadLetter) -> usize {
    LETTER_HEAD + letter.body.len() + letter.edit.as_ref().map_or(0, |edit| edit.original.len())
}

impl Default for MemoryDeadLetters {
    /// Keeps 16 MiB.
    fn default() -> Self {
        Self::with_max_bytes(16 << 20)
    }
}

impl MemoryDeadLetters {
    /// Keeps the newest `max_bytes` of letters.
    #[must_use]
    pub fn with_max_bytes(max_bytes: usize) -> Self {
        Self { inner: Arc::new(Mutex::new(Letters { max_bytes, ..Letters::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is kept, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<DeadLetter> {
        self.lock().letters.values().map(|kept| kept.letter.clone()).collect()
    }

    /// How many letters had to go to make room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    /// How many letters were purged.
    #[must_use]
    pub fn purged(&self) -> u64 {
        self.lock().purged
    }
}

impl Letters {
    fn remove(&mut self, place: u64) {
        if let Some(kept) = self.letters.remove(&place) {
            self.bytes -= cost(&kept.letter);
            self.places.remove(&kept.letter.id);
        }
    }

    /// Forgets the oldest until the rest has room.
    fn fit(&mut self) {
        while self.bytes > self.max_bytes
            && let Some((oldest, _)) = self.letters.first_key_value()
        {
            self.remove(*oldest);
            self.forgotten += 1;
        }
    }

    fn at(&mut self, id: &str) -> Option<&mut Kept> {
        self.letters.get_mut(self.places.get(id)?)
    }
}

impl DeadLetters for MemoryDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), StorageError> {
        let mut kept = self.lock();
        for letter in letters {
            if !kept.places.contains_key(&letter.id) {
                kept.last += 1;
                let place = kept.last;
                kept.bytes += cost(letter);
                kept.places.insert(letter.id.clone(), place);
                kept.letters.insert(place, Kept { letter: letter.clone(), replay: None });
            }
        }
        kept.fit();
        Ok(())
    }

    async fn list(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, StorageError> {
        let kept = self.lock();
        let newest = kept.letters.values().rev().map(|kept| &kept.letter);
        let mut found: Vec<_> = newest.filter(|letter| query.matches(letter)).take(query.limit).cloned().collect();
        found.reverse();
        Ok(found)
    }

    async fn get(&self, id: &str) -> Result<Option<DeadLetter>, StorageError> {
        Ok(self.lock().at(id).map(|kept| kept.letter.clone()))
    }

    async fn page(&self, query: &DeadLetterQuery, after: u64) -> Result<DeadLetterPage, StorageError> {
        let kept = self.lock();
        let mut page = DeadLetterPage::default();
        for (place, kept) in kept.letters.range(after.saturating_add(1)..) {
            if page.letters.len() >= query.limit {
                return Ok(page);
            }
            if query.matches(&kept.letter) {
                page.letters.push(kept.letter.clone());
                page.next = Some(*place);
            }
        }
        page.next = None;
        Ok(page)
    }

    async fn edit(&self, id: &str, body: Bytes, at: UnixMillis) -> Result<EditAnswer, StorageError> {
        let mut letters = self.lock();
        let Some(kept) = letters.at(id) else { return Ok(EditAnswer::Missing) };
        if kept.replay.is_some() {
            return Ok(EditAnswer::InReplay);
        }
        let letter = &mut kept.letter;
        if letter.replayed_at.is_some() {
            return Ok(EditAnswer::Replayed);
        }
        let before = cost(letter);
        let came = std::mem::replace(&mut letter.body, body);
        let original = letter.edit.take().map_or(came, |edit| edit.original);
        letter.edit = Some(Edit { at, original });
        let now = cost(letter);
        letters.bytes = letters.bytes - before + now;
        letters.fit();
        Ok(EditAnswer::Edited)
    }

    async fn purge(&self, query: &DeadLetterQuery) -> Result<u64, StorageError> {
        let mut kept = self.lock();
        let gone: Vec<_> =
            kept.letters.iter().filter(|(_, kept)| query.matches(&kept.letter)).map(|(place, _)| *place).collect();
        gone.iter().for_each(|place| kept.remove(*place));
        kept.purged += gone.len() as u64;
        Ok(gone.len() as u64)
    }

    async fn begin_replay(&self, run: &StreamId, ids: &[Arc<str>]) -> Result<u64, StorageError> {
        let mut kept = self.lock();
        let places: BTreeSet<_> = ids.iter().filter_map(|id| kept.places.get(id).copied()).collect();
        let mut count = 0;
        for place in places {
            if let Some(kept) = kept.letters.get_mut(&place).filter(|kept| kept.replay.is_none()) {
                count += 1;
                kept.replay = Some((run.clone(), count));
            }
        }
        Ok(count)
    }

    async fn replays(&self) -> Result<Vec<StreamId>, StorageError> {
        let kept = self.lock();
        let runs: BTreeSet<_> =
            kept.letters.values().filter_map(|kept| Some(kept.replay.as_ref()?.0.clone())).collect();
        Ok(runs.into_iter().collect())
    }

    async fn replaying(&self, run: &StreamId, after: u64) -> Result<Vec<(u64, DeadLetter)>, StorageError> {
        let kept = self.lock();
        let of_run = kept.letters.values().filter_map(|kept| match &kept.replay {
            Some((of, position)) if of == run && *position > after => Some((*position, kept.letter.clone())),
            _ => None,
        });
        // Positions grow with places.
        Ok(of_run.take(REPLAYING).collect())
    }

    async fn replayed(&self, run: &StreamId, answers: &[ReplayAnswer]) -> Result<(), StorageError> {
        let mut kept = self.lock();
        for kept in kept.letters.values_mut() {
            let Some((_, position)) = kept.replay.as_ref().filter(|(of, _)| of == run) else { continue };
            if let Some(answer) = answers.iter().find(|answer| answer.positions.contains(position)) {
                kept.replay = None;
                kept.letter.replayed_at = answer.replayed_at.or(kept.letter.replayed_at);
            }
        }
        Ok(())
    }
}
