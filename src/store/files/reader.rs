use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use headworks_actors::{BatchId, Opening, TenantId, UnixMillis};

use super::record::{self, End, Record};
use super::{OpenError, ReadError, line, rotation, shelf};
use crate::retention::Pruned;
#[cfg(feature = "sqlite")]
use crate::store::events::{Span, StoredEvent};
use crate::store::hash;

/// Reads the files of a store, also while it writes to them; never changes them.
///
/// For commands and tools: calls block. What has no record in the index yet is not seen.
#[derive(Debug)]
pub struct FilesReader {
    root: PathBuf,
}

/// What the files hold of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantFiles {
    /// Whose.
    pub tenant: TenantId,
    /// Events stored and not rolled back.
    pub events: u64,
    /// Batches they came in.
    pub batches: u64,
    /// When the first of the stored events arrived.
    pub first_arrived: Option<UnixMillis>,
    /// When the last of the stored events arrived.
    pub last_arrived: Option<UnixMillis>,
}

/// Where somebody is who goes through a tenant's batches.
#[cfg(feature = "sqlite")]
#[derive(Debug, Default)]
pub(in crate::store) struct Cursor {
    places: std::collections::VecDeque<Place>,
    progress: Progress,
}

/// How far an index was read, and the events file of what follows.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// In bytes, those counted that are gone.
    at: u64,
    file: u32,
    from: u64,
}

/// What an index says.
#[derive(Debug, Default)]
struct Known {
    places: Vec<Place>,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "an audit asks for it"))]
    gone: Vec<(Opening, Pruned, u64)>,
}

/// What the files hold of one tenant, for an audit. All of them count events.
#[cfg(feature = "sqlite")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldInFiles {
    pub(crate) tenant: TenantId,
    /// On record.
    pub(crate) events: u64,
    /// Those that are there as they were stored.
    pub(crate) whole: u64,
    /// Those that were pruned.
    pub(crate) pruned: u64,
    /// Those that went on an operator's word.
    pub(crate) erased: u64,
}

/// A batch that is there.
#[derive(Debug)]
struct Place {
    batch: BatchId,
    /// Its file, and the byte that this begins with.
    file: (u32, u64),
    from: u64,
    to: u64,
    events: u64,
    hash: u64,
    arrived: (i64, i64),
}

impl FilesReader {
    /// A reader of an existing directory.
    ///
    /// # Errors
    /// [`OpenError::Missing`]. Nothing is made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let root = path.as_ref().to_owned();
        if root.is_dir() { Ok(Self { root }) } else { Err(OpenError::Missing { path: root }) }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The totals of every tenant that has files, by name.
    ///
    /// # Errors
    /// An index cannot be read, or is damaged.
    pub fn tenants(&self) -> Result<Vec<TenantFiles>, ReadError> {
        let tenants = super::tenants(&self.root).map_err(|why| ReadError::new(&self.root, why))?;
        tenants.into_iter().map(|tenant| self.totals(tenant)).collect()
    }

    /// Of each tenant, by name: how many events are on record, of one opening or of all, how many of them are there as they were
    /// stored, and how many were pruned.
    #[cfg(feature = "sqlite")]
    pub(crate) fn held(&self, opening: Option<Opening>) -> Result<Vec<HeldInFiles>, ReadError> {
        const LOOKS: u32 = 5;
        let tenants = super::tenants(&self.root).map_err(|why| ReadError::new(&self.root, why))?;
        let is_of_it = |of: Opening| opening.is_none_or(|opening| opening == of);
        let held = |tenant: TenantId| {
            let mut look = 0;
            loop {
                look += 1;
                let known = self.known(&tenant, &mut Progress::default())?;
                let of_it = || known.gone.iter().filter(|(of, ..)| is_of_it(*of));
                let (mut events, mut whole, mut is_all) = (0, 0, true);
                let before: u64 = known.gone.iter().map(|(_, gone, _)| gone.batches).sum();
                let erased: u64 = of_it().map(|(.., erased)| erased).sum();
                let pruned = of_it().map(|(_, gone, _)| gone.events).sum::<u64>().saturating_sub(erased);
                for place in known.places.into_iter().filter(|place| is_of_it(place.batch.opening)) {
                    let count = place.events;
                    events += count;
                    match self.read(&tenant, vec![place]) {
                        Ok(_) => whole += count,
                        Err(_) => is_all = false,
                    }
                }
                // What could not be read may have gone meanwhile.
                let now = |known: Known| known.gone.iter().map(|(_, gone, _)| gone.batches).sum::<u64>();
                if is_all || look == LOOKS || now(self.known(&tenant, &mut Progress::default())?) == before {
                    return Ok(HeldInFiles { tenant, events, whole, pruned, erased });
                }
            }
        };
        tenants.into_iter().map(held).collect()
    }

    /// Of each tenant, by name: how many events were pruned, and how many were erased.
    #[cfg(feature = "sqlite")]
    pub(crate) fn gone(&self) -> Result<Vec<(TenantId, u64, u64)>, ReadError> {
        let tenants = super::tenants(&self.root).map_err(|why| ReadError::new(&self.root, why))?;
        let pruned = |tenant: TenantId| {
            let path = self.root.join(tenant.as_str()).join(shelf::INDEX);
            let (mut gone, mut erased) = (0, 0);
            let read = File::open(&path).and_then(|index| {
                record::read_while(BufReader::new(index), |record, _| {
                    if let Record::Begins { pruned: of, .. } = &record {
                        gone = of.iter().map(|of| of.pruned.events).sum();
                        erased = of.iter().map(|of| of.erased).sum();
                    }
                    // It is the second line, if there is one.
                    matches!(record, Record::Head { .. })
                })
            });
            read.map_err(|why| ReadError::new(&path, why))?;
            Ok((tenant, gone.saturating_sub(erased), erased))
        };
        tenants.into_iter().map(pruned).collect()
    }

    /// The bodies of the tenant's events, in the order they were stored; all of them at once, in memory. Each batch is
    /// compared with the hash in its record.
    ///
    /// # Errors
    /// The files cannot be read, or are damaged; or a batch was rolled back or pruned meanwhile.
    pub fn bodies(&self, tenant: &TenantId) -> Result<Vec<Vec<u8>>, ReadError> {
        self.read(tenant, self.places(tenant)?)
    }

    fn read(&self, tenant: &TenantId, places: Vec<Place>) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut opened: Option<(u32, PathBuf, File)> = None;
        let mut bodies = vec![];
        for Place { batch, file: (number, begin), from, to, hash, .. } in places {
            let (path, mut file) = match opened.take().filter(|(opened, ..)| *opened == number) {
                Some((_, path, file)) => (path, file),
                None => {
                    let path = self.root.join(tenant.as_str()).join(rotation::name(number));
                    let file = File::open(&path).map_err(|why| ReadError::new(&path, why))?;
                    (path, file)
                }
            };
            let cannot = |why: std::io::Error| ReadError::new(&path, why);
            let (from, to) = (from - begin, to - begin);
            let mut bytes = vec![];
            file.seek(SeekFrom::Start(from)).map_err(cannot)?;
            (&file).take(to - from).read_to_end(&mut bytes).map_err(cannot)?;
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n"));
            let read: Option<Vec<_>> = lines.map(|line| line::body_of(line?).map(Cow::into_owned)).collect();
            match read.filter(|read| hash::content_hash(read.iter().map(Vec::as_slice)) == hash) {
                Some(mut read) => bodies.append(&mut read),
                None => {
                    let how = format!("batch {batch}, bytes {from} to {to}, is not as it was stored");
                    return Err(ReadError::new(&path, how));
                }
            }
            opened = Some((number, path, file));
        }
        Ok(bodies)
    }

    #[cfg(feature = "sqlite")]
    pub(in crate::store) fn knows(&self, tenant: &TenantId) -> bool {
        self.root.join(tenant.as_str()).join(shelf::INDEX).exists()
    }

    /// Whether there are events of the tenant.
    #[cfg(feature = "sqlite")]
    pub(in crate::store) fn holds(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        Ok(!self.places(tenant)?.is_empty())
    }

    /// Makes sure that the next batch is at hand, if there is one; when its first event arrived.
    #[cfg(feature = "sqlite")]
    pub(in crate::store) fn peek(
        &self,
        cursor: &mut Cursor,
        tenant: &TenantId,
        span: Span,
    ) -> Result<Option<i64>, ReadError> {
        if cursor.places.is_empty() {
            cursor.places = self.known(tenant, &mut cursor.progress)?.places.into();
            cursor.places.retain(|place| span.meets(place.arrived));
        }
        Ok(cursor.places.front().map(|place| place.arrived.0))
    }

    /// Visits the events of the batch at hand, and goes on to the next.
    #[cfg(feature = "sqlite")]
    pub(in crate::store) fn read_next(
        &self,
        cursor: &mut Cursor,
        tenant: &TenantId,
        visit: &mut dyn FnMut(StoredEvent<'_>),
    ) -> Result<(), ReadError> {
        let Some(place) = cursor.places.pop_front() else { return Ok(()) };
        let (batch, (first, last)) = (place.batch.clone(), place.arrived);
        let bodies = match self.read(tenant, vec![place]) {
            Ok(bodies) => bodies,
            // Rolled back or pruned meanwhile.
            Err(_) if self.places(tenant)?.iter().all(|place| place.batch != batch) => return Ok(()),
            Err(why) => return Err(why),
        };
        let (id, arrived) = (batch.to_string(), (first == last).then_some(UnixMillis(first)));
        for (place, body) in (0..).zip(&bodies) {
            visit(StoredEvent { time: None, arrived, batch: &id, place, body });
        }
        Ok(())
    }

    fn totals(&self, tenant: TenantId) -> Result<TenantFiles, ReadError> {
        let places = self.places(&tenant)?;
        Ok(TenantFiles {
            events: places.iter().map(|place| place.events).sum(),
            batches: places.len() as u64,
            first_arrived: places.iter().map(|place| UnixMillis(place.arrived.0)).min(),
            last_arrived: places.iter().map(|place| UnixMillis(place.arrived.1)).max(),
            tenant,
        })
    }

    /// The batches that are there, in the order they were stored.
    fn places(&self, tenant: &TenantId) -> Result<Vec<Place>, ReadError> {
        Ok(self.known(tenant, &mut Progress::default())?.places)
    }

    /// What the records say that were not read yet.
    fn known(&self, tenant: &TenantId, read: &mut Progress) -> Result<Known, ReadError> {
        let path = self.root.join(tenant.as_str()).join(shelf::INDEX);
        let cannot = |why: std::io::Error| ReadError::new(&path, why);
        let mut index = match File::open(&path) {
            Ok(index) => index,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Known::default()),
            Err(why) => return Err(cannot(why)),
        };
        // Older records may be gone, also since the last time.
        let (head, gone) = record::beginning(BufReader::new(&index)).map_err(cannot)?;
        let start = if read.at < gone { 0 } else { head + read.at - gone };
        index.seek(SeekFrom::Start(start)).map_err(cannot)?;
        let (mut places, mut went) = (HashMap::new(), vec![]);
        let mut file = (read.file, read.from);
        let end = record::read(BufReader::new(index), |record| match record {
            Record::Begins { file: first, at, pruned: of, .. } => {
                file = (first, at);
                went = of.into_iter().map(|of| (Opening(of.opening), of.pruned, of.erased)).collect();
            }
            Record::Rotated { file: next, at, .. } => file = (next, at),
            Record::Stored { batch, from, to, events, hash, first_arrived, last_arrived, .. } => {
                let arrived = (first_arrived, last_arrived);
                places.insert(batch.clone(), Place { batch, file, from, to, events, hash, arrived });
            }
            Record::RolledBack { batch, removed: Some(_), .. } => drop(places.remove(&batch)),
            Record::Head { .. } | Record::Again { .. } | Record::RolledBack { .. } => {}
        });
        match end.map_err(cannot)? {
            // A torn end is a write under way, or what the next opening cuts off.
            End::Whole(behind) | End::Torn(behind) => {
                let at = (start + behind).saturating_sub(head) + gone;
                *read = Progress { at, file: file.0, from: file.1 };
                let mut places: Vec<_> = places.into_values().collect();
                places.sort_by_key(|place| (place.from, place.to));
                Ok(Known { places, gone: went })
            }
            End::Damaged(number) => Err(ReadError::new(&path, format!("line {number} was changed"))),
        }
    }
}
