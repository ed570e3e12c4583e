//! Gives back what is settled: dead segments go, once a checkpoint stands for them; what little lives in old ones is copied
//! forward, so that a stuck tenant does not pin the disk.

use std::io;

use headworks_actors::Entry;

use super::checkpoint::{Checkpoint, FRESH, NAMES, Segment};
use super::disk::{read_full, write_all};
use super::entry;
use super::format::{HEADER, segment_name};
use super::ledger::Place;
use super::log::{Group, Log};
use super::recover::Unsure;
use super::scan::{Found, Scan};
use super::step::{Step, does};

/// How much is copied in one commit, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// What recovery left to be done.
pub(super) struct Untidy {
    pub(super) damaged: Vec<Segment>,
    pub(super) unsure: Vec<Unsure>,
    pub(super) set_aside: Vec<String>,
    pub(super) obsolete: Vec<String>,
}

impl Log {
    /// Ends an opening: what recovery found is put in order, and on record.
    pub(super) fn tidy_up(&mut self, found: Untidy) -> io::Result<()> {
        for segment in found.damaged {
            let end = self.size_of(segment.number)?;
            self.copy_forward(segment.number, HEADER as u64, end)?;
            self.damaged.push(segment.number);
        }
        for Unsure { segment, end } in found.unsure {
            self.make_sure(segment, end)?;
        }
        let Untidy { set_aside, obsolete, .. } = found;
        for name in set_aside {
            self.disk.set_aside(&name)?;
        }
        self.checkpoint(false)?;
        for number in std::mem::take(&mut self.damaged) {
            self.disk.set_aside(&segment_name(number))?;
        }
        for name in obsolete {
            self.disk.remove(&name)?;
        }
        self.disk.sync_dir()
    }

    /// Writes the file once more, under its name: what reads well may not be on disk, and syncing the old one cannot tell. Until the
    /// new one has the name the old one counts, so that a crash in between changes nothing.
    fn make_sure(&self, segment: u64, end: u64) -> io::Result<()> {
        let name = segment_name(segment);
        let mut old = self.disk.open(&name)?;
        let mut new = self.disk.create(FRESH)?;
        let mut piece = vec![0; COPY_BYTES];
        let mut done = 0;
        while done < end {
            let most = usize::try_from(end - done).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let read = read_full(&mut *old, done, &mut piece[..most])?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter")));
            }
            write_all(&mut *new, &piece[..read])?;
            done += read as u64;
        }
        if does(Step::Sync) {
            new.sync_data()?;
        }
        drop(new);
        self.disk.rename(FRESH, &name)?;
        if does(Step::SyncDir) {
            self.disk.sync_dir()?;
        }
        Ok(())
    }

    fn size_of(&self, number: u64) -> io::Result<u64> {
        let name = segment_name(number);
        Ok(self.disk.list()?.into_iter().find(|(other, _)| *other == name).map_or(0, |(_, size)| size))
    }

    /// Gives back what it can, a little at a time: whether there may be more. Only while nothing is pending.
    pub(super) fn reclaim(&mut self) -> io::Result<bool> {
        let dead = self.dead();
        if !dead.is_empty() {
            if does(Step::CheckpointFirst) {
                self.checkpoint(false)?;
            }
            for number in &dead {
                match self.disk.remove(&segment_name(*number)) {
                    Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                    _ => self.sealed.remove(number),
                };
            }
            self.disk.sync_dir()?;
            if !does(Step::CheckpointFirst) {
                self.checkpoint(false)?;
            }
            return Ok(true);
        }
        let Some(sparse) = self.sparse() else { return Ok(false) };
        self.copy_forward(sparse.number, HEADER as u64, sparse.len)?;
        if self.ledger().shares.contains_key(&sparse.number) {
            // Rotten since it was written: to be found by the next start.
            self.unreadable.insert(sparse.number);
        }
        Ok(true)
    }

    /// The sealed segments in which nothing is needed.
    fn dead(&self) -> Vec<u64> {
        let ledger = self.ledger();
        self.sealed.keys().copied().filter(|number| !ledger.shares.contains_key(number)).collect()
    }

    /// The segment that is worth most to be copied forward, when space is short: the shorter, the less it must give.
    fn sparse(&self) -> Option<Segment> {
        let used = self.disk_bytes();
        let most = match self.options.max_bytes {
            max if used > max / 4 * 3 => 7,
            max if used > max / 2 => 4,
            _ => return None,
        };
        let ledger = self.ledger();
        let live = |segment: &Segment| ledger.shares.get(&segment.number).map_or(0, |share| share.bytes);
        let sparse = self
            .sealed
            .values()
            .copied()
            .filter(|segment| live(segment) < segment.len / 8 * most && !self.unreadable.contains(&segment.number));
        sparse.min_by_key(|segment| live(segment) * 1000 / segment.len.max(1))
    }

    /// Writes what is needed of the segment between the two bytes once more, at the end of the log.
    fn copy_forward(&mut self, segment: u64, from: u64, end: u64) -> io::Result<()> {
        let file = self.disk.open(&segment_name(segment))?;
        let mut scan = Scan::new(file, self.salt, segment, end).starting_at(from);
        let mut group = Group::default();
        let mut bytes = 0;
        while let Some(found) = scan.next()? {
            let Found::Block(block) = found else { continue };
            let mut needed: Vec<Entry> = Vec::new();
            for (index, raw) in (0..).zip(block.entries()) {
                let place = Place { segment, offset: block.offset, index, len: raw.len() as u32 };
                let Ok(entry) = entry::decode(raw) else { continue };
                if self.ledger().needs(&entry, place) {
                    bytes += raw.len();
                    needed.push(entry);
                }
            }
            if !needed.is_empty() {
                group.push(&mut needed);
            }
            if bytes >= COPY_BYTES {
                self.commit(&mut group)?;
                bytes = 0;
            }
        }
        if !group.is_empty() {
            self.commit(&mut group)?;
        }
        Ok(())
    }

    /// Puts on disk, twice, what the log comes to up to here.
    pub(super) fn checkpoint(&mut self, is_closed: bool) -> io::Result<()> {
        let (latest, lifetime) = (self.latest, self.options.stream_lifetime);
        let millis = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let before = headworks_actors::UnixMillis(latest.0.saturating_sub(millis));
        let mut ledger = self.ledger();
        ledger.forget_streams(before, self.options.max_streams);
        // What is not listed is covered: the next start removes it, if this process does not get to it.
        let needed = self.sealed.values().filter(|segment| ledger.shares.contains_key(&segment.number));
        let segments = needed.copied().chain(self.current()).collect();
        let generation = self.generation + 1;
        let checkpoint = Checkpoint {
            salt: self.salt,
            generation,
            next_block: self.next_block,
            next_segment: self.next_segment,
            is_closed,
            segments,
            damaged: self.damaged.clone(),
            ..Checkpoint::default()
        };
        let bytes = checkpoint.put(&ledger);
        drop(ledger);
        for name in NAMES {
            let mut file = self.disk.create(FRESH)?;
            write_all(&mut *file, &bytes)?;
            if does(Step::Sync) {
                file.sync_data()?;
            }
            drop(file);
            self.disk.rename(FRESH, name)?;
            if does(Step::SyncDir) {
                self.disk.sync_dir()?;
            }
        }
        self.generation = generation;
        self.checkpoint_bytes = 2 * bytes.len() as u64;
        self.written_bytes += self.checkpoint_bytes;
        Ok(())
    }
}
