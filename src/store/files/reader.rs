use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use headworks_actors::{BatchId, TenantId, UnixMillis};

use super::record::{self, End, Record};
use super::{OpenError, ReadError, line, shelf};
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
    /// How much of the index was read.
    index: u64,
}

/// A batch that is there.
#[derive(Debug)]
struct Place {
    batch: BatchId,
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

    /// The totals of every tenant that has files, by name.
    ///
    /// # Errors
    /// An index cannot be read, or is damaged.
    pub fn tenants(&self) -> Result<Vec<TenantFiles>, ReadError> {
        let tenants = super::tenants(&self.root).map_err(|why| ReadError::new(&self.root, why))?;
        tenants.into_iter().map(|tenant| self.totals(tenant)).collect()
    }

    /// Of each tenant, by name: how many events are on record, of one opening or of all, and how many of them are there as they
    /// were stored.
    #[cfg(feature = "sqlite")]
    pub(crate) fn held(
        &self,
        opening: Option<headworks_actors::Opening>,
    ) -> Result<Vec<(TenantId, u64, u64)>, ReadError> {
        let tenants = super::tenants(&self.root).map_err(|why| ReadError::new(&self.root, why))?;
        let held = |tenant: TenantId| {
            let mut held = (tenant, 0, 0);
            let of_it = |place: &Place| opening.is_none_or(|opening| place.batch.opening == opening);
            for place in self.places(&held.0)?.into_iter().filter(of_it) {
                let events = place.events;
                held.1 += events;
                held.2 += if self.read(&held.0, vec![place]).is_ok() { events } else { 0 };
            }
            Ok(held)
        };
        tenants.into_iter().map(held).collect()
    }

    /// The bodies of the tenant's events, in the order they were stored; all of them at once, in memory. Each batch is
    /// compared with the hash in its record.
    ///
    /// # Errors
    /// The files cannot be read, or are damaged; or the batch was rolled back meanwhile.
    pub fn bodies(&self, tenant: &TenantId) -> Result<Vec<Vec<u8>>, ReadError> {
        self.read(tenant, self.places(tenant)?)
    }

    fn read(&self, tenant: &TenantId, places: Vec<Place>) -> Result<Vec<Vec<u8>>, ReadError> {
        let path = self.root.join(tenant.as_str()).join(shelf::EVENTS);
        if places.is_empty() {
            return Ok(vec![]);
        }
        let cannot = |why: std::io::Error| ReadError::new(&path, why);
        let mut file = File::open(&path).map_err(cannot)?;
        let mut bodies = vec![];
        for Place { batch, from, to, hash, .. } in places {
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
        }
        Ok(bodies)
    }

    #[cfg(feature = "sqlite")]
    pub(in crate::store) fn knows(&self, tenant: &TenantId) -> bool {
        self.root.join(tenant.as_str()).join(shelf::INDEX).exists()
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
            cursor.places = self.places_behind(tenant, &mut cursor.index)?.into();
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
            // Rolled back meanwhile.
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
        self.places_behind(tenant, &mut 0)
    }

    /// Those whose records stand behind so many bytes of the index, which is set to where its whole records end.
    fn places_behind(&self, tenant: &TenantId, at: &mut u64) -> Result<Vec<Place>, ReadError> {
        let path = self.root.join(tenant.as_str()).join(shelf::INDEX);
        let cannot = |why: std::io::Error| ReadError::new(&path, why);
        let mut index = match File::open(&path) {
            Ok(index) => index,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(vec![]),
            Err(why) => return Err(cannot(why)),
        };
        index.seek(SeekFrom::Start(*at)).map_err(cannot)?;
        let mut places = HashMap::new();
        let end = record::read(BufReader::new(index), |record| match record {
            Record::Stored { batch, from, to, events, hash, first_arrived, last_arrived, .. } => {
                let arrived = (first_arrived, last_arrived);
                places.insert(batch.clone(), Place { batch, from, to, events, hash, arrived });
            }
            Record::RolledBack { batch, removed: Some(_), .. } => drop(places.remove(&batch)),
            Record::Head { .. } | Record::Again { .. } | Record::RolledBack { .. } => {}
        });
        match end.map_err(cannot)? {
            // A torn end is a write under way, or what the next opening cuts off.
            End::Whole(behind) | End::Torn(behind) => {
                *at += behind;
                let mut places: Vec<_> = places.into_values().collect();
                places.sort_by_key(|place| (place.from, place.to));
                Ok(places)
            }
            End::Damaged(number) => Err(ReadError::new(&path, format!("line {number} was changed"))),
        }
    }
}
