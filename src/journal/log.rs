//! The writer: groups of blocks to segments, one write and one sync a group. Synchronous; whoever drives it decides when.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headworks_actors::{Entry, JournalError, Opening, Recovered, UnixMillis};

use super::checkpoint::Segment;
use super::disk::{Disk, DiskFile, Lock, write_all};
use super::format::{HEADER, Header, Spot, put_block, segment_name};
use super::ledger::{Ledger, Place};
use super::options::JournalOptions;
use super::reclaim::Untidy;
use super::recover::{Progress, Recovery, recover};
use super::step::{Step, does};

/// How much is written at once, in bytes: what is encoded is still in the processor's cache.
const WRITE: usize = 256 << 10;

/// Blocks that are committed together.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) entries: Vec<Entry>,
    /// Where each block ends among the entries.
    pub(super) ends: Vec<usize>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a block and leaves the vector empty.
    pub(super) fn push(&mut self, entries: &mut Vec<Entry>) {
        self.entries.append(entries);
        self.ends.push(self.entries.len());
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.ends.clear();
    }
}

/// The segment that is written.
struct Current {
    file: Box<dyn DiskFile>,
    segment: Segment,
}

/// The log of one directory.
pub(super) struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: JournalOptions,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) salt: u64,
    pub(super) generation: u64,
    opening: (Opening, UnixMillis),
    /// Those that are not written any more, as far as they are needed.
    pub(super) sealed: BTreeMap<u64, Segment>,
    current: Option<Current>,
    /// The last sealed segment, and up to which byte it counts.
    previous: (u64, u64),
    pub(super) next_segment: u64,
    pub(super) next_block: u64,
    /// What is to be written, or failed to be.
    pending: Group,
    buffer: Vec<u8>,
    /// How much of the pending group is written, in bytes.
    unsynced: u64,
    lens: Vec<u32>,
    pub(super) checkpoint_bytes: u64,
    pub(super) commits: u64,
    pub(super) written_bytes: u64,
    pub(super) latest: UnixMillis,
    /// Damaged segments that wait to be set aside.
    pub(super) damaged: Vec<u64>,
    /// Segments of which something needed cannot be read any more.
    pub(super) unreadable: BTreeSet<u64>,
    /// Held until the log is dropped.
    _lock: Lock,
}

/// A log that was opened.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) recovered: Recovered,
    /// How much of a torn block was cut off, in bytes.
    pub(super) torn_bytes: u64,
}

/// The log could not do `what`.
pub(super) fn cannot(what: &str) -> impl Fn(io::Error) -> JournalError + '_ {
    move |why| JournalError::new(format!("cannot {what}: {why}"))
}

impl Log {
    /// Takes the directory, recovers what is there and makes it fit to be written.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        progress: Progress<'_>,
    ) -> Result<Opened, JournalError> {
        options.check()?;
        let lock = match disk.lock().map_err(cannot("take the lock of the directory"))? {
            Ok(lock) => lock,
            Err(holder) => {
                return Err(JournalError::new(format!(
                    "in use by {holder}; one directory serves one process: stop that one, or use another directory"
                )));
            }
        };
        let recovery = recover(&*disk, progress)?;
        if let Some((name, len)) = &recovery.torn
            && does(Step::CutTornTail)
        {
            disk.truncate(name, *len).map_err(cannot(&format!("cut the torn end off {name}")))?;
        }
        let last = recovery.segments.last().filter(|_| does(Step::CutTornTail));
        let last = last.map_or((0, 0), |segment| (segment.number, segment.len));
        let Recovery { damaged, unsure, set_aside, obsolete, .. } = recovery;
        let untidy = Untidy { damaged, unsure, set_aside, obsolete };
        let mut log = Self {
            disk,
            options,
            ledger: Arc::new(Mutex::new(recovery.ledger)),
            salt: recovery.salt.unwrap_or_else(random),
            generation: recovery.generation,
            opening: (Opening(0), UnixMillis(0)),
            sealed: recovery.segments.into_iter().map(|segment| (segment.number, segment)).collect(),
            current: None,
            previous: last,
            // A number is skipped, so that those before it are known to be at their end.
            next_segment: recovery.next_segment + u64::from(last != (0, 0)),
            next_block: recovery.next_block,
            pending: Group::default(),
            buffer: Vec::new(),
            unsynced: 0,
            lens: Vec::new(),
            checkpoint_bytes: 0,
            commits: 0,
            written_bytes: 0,
            latest: UnixMillis(i64::MIN),
            damaged: Vec::new(),
            unreadable: BTreeSet::new(),
            _lock: lock,
        };
        log.tidy_up(untidy).map_err(cannot("write to the directory after it was recovered"))?;
        let ledger = lock_of(&log.ledger);
        let recovered =
            Recovered { tenants: ledger.recovered(), streams: ledger.recovered_streams(), damage: recovery.damage };
        drop(ledger);
        Ok(Opened { log, recovered, torn_bytes: recovery.torn_bytes })
    }

    /// What segments that are begun from now on are marked with.
    pub(super) fn begin(&mut self, opening: Opening, now: UnixMillis) {
        self.opening = (opening, now);
        self.latest = self.latest.max(now);
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock_of(&self.ledger)
    }

    /// Whether something failed to be written and must be tried again before anything else is.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Commits the group: all of it is on disk once this returns. Takes it, and gives an empty one for the next.
    pub(super) fn commit(&mut self, group: &mut Group) -> io::Result<()> {
        if self.has_pending() {
            self.retry()?;
        }
        std::mem::swap(&mut self.pending, group);
        self.retry()
    }

    /// Tries again to commit what failed.
    ///
    /// After an error nothing is known of what the file holds behind its last committed byte, and no later sync of it can tell:
    /// it is sealed there, and the next try is a new file.
    pub(super) fn retry(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.write();
        if written.is_err() {
            if does(Step::Seal) {
                self.seal();
            }
            return written;
        }
        self.note();
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.current.as_ref().is_some_and(|current| current.segment.len >= self.options.segment_bytes) {
            self.seal();
        }
        if self.current.is_none() {
            self.create()?;
        }
        let Some(current) = &mut self.current else { return Err(io::Error::other("no segment is open")) };
        let Segment { number: segment, len, .. } = current.segment;
        self.lens.clear();
        self.buffer.clear();
        self.unsynced = 0;
        let mut start = 0;
        for (index, end) in (0..).zip(&self.pending.ends) {
            let offset = len + self.unsynced + self.buffer.len() as u64;
            let spot = Spot { salt: self.salt, segment, offset };
            let entries = self.pending.entries.get(start..*end).unwrap_or_default();
            let number = self.next_block + u64::from(index);
            put_block(&mut self.buffer, spot, number, index, entries, |len| self.lens.push(len));
            start = *end;
            if self.buffer.len() >= WRITE {
                write_all(&mut *current.file, &self.buffer)?;
                self.unsynced += self.buffer.len() as u64;
                self.buffer.clear();
            }
        }
        write_all(&mut *current.file, &self.buffer)?;
        self.unsynced += self.buffer.len() as u64;
        if does(Step::Sync) {
            current.file.sync_data()?;
        }
        Ok(())
    }

    /// Begins a segment. Its header and its name are on disk before its first block is written, so that a crash never leaves a
    /// block behind a damaged header.
    fn create(&mut self) -> io::Result<()> {
        let number = self.next_segment;
        self.next_segment += 1;
        let (opening, at) = self.opening;
        let (first, salt, previous) = (self.next_block, self.salt, self.previous);
        self.buffer.clear();
        Header { number, first, salt, opening, at, previous }.put(&mut self.buffer);
        let file = self.disk.create(&segment_name(number))?;
        let segment = Segment { number, first, next: first, len: HEADER as u64 };
        let Current { file, .. } = self.current.insert(Current { file, segment });
        write_all(&mut **file, &self.buffer)?;
        if does(Step::Sync) {
            file.sync_data()?;
        }
        if does(Step::SyncDir) {
            self.disk.sync_dir()?;
        }
        Ok(())
    }

    /// Ends the current segment at its last committed byte.
    fn seal(&mut self) {
        let Some(Current { segment, .. }) = self.current.take() else { return };
        if segment.first == segment.next {
            // Nothing in it was ever committed. If it stays, the next start removes it.
            let _ = self.disk.remove(&segment_name(segment.number));
            return;
        }
        self.previous = (segment.number, segment.len);
        self.sealed.insert(segment.number, segment);
    }

    /// The pending group is on disk: takes note of it.
    fn note(&mut self) {
        let Some(current) = &mut self.current else { return };
        let segment = &mut current.segment;
        let mut ledger = lock_of(&self.ledger);
        let mut offset = segment.len;
        let mut start = 0;
        for end in &self.pending.ends {
            let entries = self.pending.entries.get(start..*end).unwrap_or_default();
            let lens = self.lens.get(start..*end).unwrap_or_default();
            for ((index, entry), len) in (0..).zip(entries).zip(lens) {
                if let Entry::Mark { at, .. } = entry {
                    self.latest = self.latest.max(*at);
                }
                ledger.apply(entry, Place { segment: segment.number, offset, index, len: *len });
            }
            offset += super::format::block_len(lens);
            start = *end;
        }
        drop(ledger);
        segment.len += self.unsynced;
        self.next_block += self.pending.ends.len() as u64;
        segment.next = self.next_block;
        self.commits += 1;
        self.written_bytes += self.unsynced;
        self.pending.clear();
        // A burst does not hold its memory for ever.
        self.buffer.shrink_to(2 * WRITE);
        self.lens.shrink_to(1 << 16);
    }

    /// The segment that is written, as far as it is committed.
    pub(super) fn current(&self) -> Option<Segment> {
        self.current.as_ref().map(|current| current.segment).filter(|segment| segment.first < segment.next)
    }

    /// The size of the journal on disk, in bytes.
    pub(super) fn disk_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.values().map(|segment| segment.len).sum();
        sealed + self.current().map_or(0, |segment| segment.len) + self.checkpoint_bytes
    }
}

pub(super) fn lock_of(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that nobody who sends events can know.
fn random() -> u64 {
    use std::hash::BuildHasher;
    // Always of the same length on disk.
    std::collections::hash_map::RandomState::new().hash_one(std::process::id()) | 1 << 63
}
