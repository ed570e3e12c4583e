//! What of a tenant's files is to be pruned.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use headworks_actors::{RetentionPolicy, TenantId, UnixMillis};

use super::reader::FilesReader;
use super::record::{self, Record};
use super::shelf::{self, Step};
use super::{ReadError, tenants};
use crate::retention::{Kept, Pruned, Rest, due};

/// How far a tenant's files had come when somebody looked.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) tenant: TenantId,
    index_len: u64,
}

/// The files that were looked at, oldest first.
#[derive(Default)]
struct Walk {
    /// Their batches, and how many of them are in closed files.
    kept: Vec<Kept>,
    going: usize,
    /// The closed ones, all of which go; and the one that is looked at.
    closed: Vec<Holding>,
    here: Holding,
    /// A file before that one stays.
    is_over: bool,
}

/// What is in a file.
#[derive(Default, Clone, Copy)]
struct Holding {
    file: u32,
    /// The byte that it begins with.
    from: u64,
    holds: Pruned,
}

impl FilesReader {
    /// How far each tenant's files have come.
    pub(crate) fn marks(&self) -> Result<Vec<Mark>, ReadError> {
        let found = tenants(self.root()).map_err(|why| ReadError::new(self.root(), why))?;
        let mark = |tenant: TenantId| {
            let path = self.root().join(tenant.as_str()).join(shelf::INDEX);
            let index_len = std::fs::metadata(&path).map_err(|why| ReadError::new(&path, why))?.len();
            Ok(Mark { tenant, index_len })
        };
        found.into_iter().map(mark).collect()
    }

    /// What is due, of what was there at the mark and whose tenant is as far settled; nothing where that is not at all.
    ///
    /// The files that were closed then go as far as all in them is due. The one that was written to goes with them where all in it is due, its
    /// tenant is settled and nothing came since, and is closed where its oldest batch is due. Of a tenant with something in flight the
    /// newest batch stays, and what is in a file with it.
    pub(crate) fn due(
        &self,
        mark: &Mark,
        rules: &RetentionPolicy,
        now: UnixMillis,
        rest: Rest,
    ) -> Result<Option<Step>, ReadError> {
        let dir = self.root().join(mark.tenant.as_str());
        let path = dir.join(shelf::INDEX);
        let cannot = |why: std::io::Error| ReadError::new(&path, why);
        let index = match File::open(&path) {
            Ok(index) => index,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(cannot(why)),
        };
        let bytes = bytes_of(&dir).map_err(|why| ReadError::new(&dir, why))?;
        let mut walk = Walk::default();
        record::read_while(BufReader::new(index), |record, ends| {
            let is_closed = matches!(record, Record::Rotated { .. });
            walk.is_over |= is_closed && (ends > mark.index_len || !walk.goes(bytes, rules, now));
            // What was taken back from a file that goes may stand behind those that stay.
            if !walk.is_over || matches!(record, Record::RolledBack { .. }) {
                walk.take(&record);
            }
            ends < mark.index_len
        })
        .map_err(cannot)?;
        if rest == Rest::Owed {
            return Ok(None);
        }
        Ok(walk.step(mark.index_len, bytes, rules, now, rest == Rest::Settled))
    }
}

fn bytes_of(dir: &Path) -> std::io::Result<u64> {
    Ok(shelf::event_files(dir)?.iter().map(|(_, bytes)| bytes).sum())
}

impl Walk {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Begins { file, at, .. } => (self.here.file, self.here.from) = (*file, *at),
            Record::Rotated { file, at, .. } => {
                self.going = self.kept.len();
                self.closed.push(self.here);
                self.here = Holding { file: *file, from: *at, holds: Pruned::default() };
            }
            Record::Stored { from, to, events, last_arrived, .. } => {
                self.kept.push(Kept { arrived: UnixMillis(*last_arrived), bytes: to - from });
                self.here.holds += Pruned { batches: 1, events: *events, bytes: to - from };
            }
            // Its place stays, and is empty.
            Record::RolledBack { removed: Some(gone), .. } => {
                let files = self.closed.iter_mut().chain([&mut self.here]);
                if let Some(Holding { holds, .. }) = files.rev().find(|of| of.from <= gone.from) {
                    holds.batches = holds.batches.saturating_sub(1);
                    holds.events = holds.events.saturating_sub(gone.events);
                    holds.bytes = holds.bytes.saturating_sub(gone.to - gone.from);
                }
            }
            Record::Head { .. } | Record::Again { .. } | Record::RolledBack { .. } => {}
        }
    }

    /// Whether all in the file is due.
    fn goes(&self, bytes: u64, rules: &RetentionPolicy, now: UnixMillis) -> bool {
        due(&self.kept, bytes, rules, now) == self.kept.len()
    }

    fn step(
        mut self,
        index_len: u64,
        bytes: u64,
        rules: &RetentionPolicy,
        now: UnixMillis,
        is_settled: bool,
    ) -> Option<Step> {
        let is_empty = self.kept.len() == self.going;
        let mut close = false;
        if self.is_over {
            // Neither does what follows.
        } else if is_empty && !is_settled {
            // The newest batch is in the last closed file.
            self.closed.pop();
        } else if !is_empty {
            let n = due(&self.kept, bytes, rules, now);
            close = n > self.going;
            if n == self.kept.len() && is_settled {
                self.closed.push(self.here);
            }
        }
        let through = self.closed.last().map(|last| last.file);
        let mut holds = Pruned::default();
        self.closed.iter().for_each(|of| holds += of.holds);
        (close || through.is_some()).then_some(Step { through, close, index_len, fences: is_settled, holds })
    }
}
