use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use headworks_actors::{BatchId, EventRef, UnixMillis};

use super::format::{self, Found, Record, Segment};
use super::{Place, file};
use crate::store::sqlite::ReadError;

/// Reads batches out of the segments of a database, also while they are written.
#[derive(Debug)]
pub(in crate::store::sqlite) struct SegmentFiles {
    directory: PathBuf,
    /// The last one that was read.
    open: Option<(Segment, File)>,
    bytes: Vec<u8>,
}

/// A batch that was read and is as it was stored.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Read<'b>(Record<'b>);

impl<'b> Read<'b> {
    pub(in crate::store::sqlite) fn events(&self) -> impl Iterator<Item = EventRef<'b>> + use<'b> {
        self.0.events()
    }
}

impl SegmentFiles {
    pub(in crate::store::sqlite) fn of(database: &Path) -> Self {
        Self { directory: super::directory(database), open: None, bytes: vec![] }
    }

    /// The batch at a place, if it is as its row says.
    pub(in crate::store::sqlite) fn read(
        &mut self,
        place: Place,
        batch: &str,
        hash: u64,
    ) -> Result<Read<'_>, ReadError> {
        let path = file(&self.directory, place.segment);
        let Place { segment: number, offset, length } = place;
        let wrong = |why: &dyn std::fmt::Display| {
            let how =
                format!("batch {batch}, segment {number}, bytes {offset} to {}: {why}", offset.saturating_add(length));
            ReadError::of_segment(&path, how)
        };
        let cannot = |why: std::io::Error| wrong(&why);
        let open = match self.open.take().filter(|(open, _)| open.number == number) {
            Some(open) => open,
            None => {
                let file = File::open(&path).map_err(cannot)?;
                let mut header = vec![];
                (&file).take(format::HEADER as u64).read_to_end(&mut header).map_err(cannot)?;
                let segment = Segment::of_header(&header).filter(|segment| segment.number == number);
                (segment.ok_or_else(|| wrong(&"the head of the file is not that of this segment"))?, file)
            }
        };
        let (segment, file) = self.open.insert(open);
        self.bytes.clear();
        file.seek(SeekFrom::Start(offset)).map_err(cannot)?;
        file.take(length).read_to_end(&mut self.bytes).map_err(cannot)?;
        match segment.decode(offset, &self.bytes) {
            Some(record) if record.id == batch && record.hash == hash => Ok(Read(record)),
            Some(record) => Err(wrong(&format!("batch {} is there, or its content is another", record.id))),
            None => Err(wrong(&"it is not as it was stored; `stored_batches` in the database has what else is there")),
        }
    }
}

/// All that is whole in one segment, read without its database: to check it, and to save what a damaged one still has.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = headworks::store::sqlite::SegmentFile::read("headworks.segments/0000000001.seg")?;
/// for batch in file.batches() {
///     println!("{} at {}: {} events", batch.id, batch.offset, batch.events.len());
/// }
/// println!("damaged: {:?}", file.damage());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SegmentFile {
    segment: Segment,
    bytes: Vec<u8>,
}

/// A batch in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvagedBatch {
    /// Which one. A batch that was rolled back is in its segment too: the index knows.
    pub id: BatchId,
    /// Where its record begins.
    pub offset: u64,
    /// How long that is.
    pub length: u64,
    /// Its events in order: when each happened, when it arrived, its body.
    pub events: Vec<(Option<UnixMillis>, UnixMillis, Vec<u8>)>,
}

impl SegmentFile {
    /// Reads all of a file into memory.
    ///
    /// # Errors
    /// It cannot be read, or its head is not that of a segment. The bytes behind a head that was damaged are as they were:
    /// the head of another segment of the same database, with the number changed, makes no head of this one.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|why| ReadError::of_segment(path, why.to_string()))?;
        let segment = Segment::of_header(&bytes)
            .ok_or_else(|| ReadError::of_segment(path, "it does not begin as a segment does".to_owned()))?;
        Ok(Self { segment, bytes })
    }

    /// The number of the segment, as in its name.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.segment.number
    }

    /// Every batch that is whole, in order, those behind damage too.
    pub fn batches(&self) -> impl Iterator<Item = SalvagedBatch> {
        format::scan(self.segment, &self.bytes).filter_map(|found| match found {
            Found::Record(place, record) => Some(SalvagedBatch {
                id: record.id.parse().ok()?,
                offset: place.offset,
                length: place.length,
                events: record.events().map(|event| (event.time, event.arrived, event.body.to_vec())).collect(),
            }),
            Found::Damage(_) => None,
        })
    }

    /// The bytes that are no batch. At the end of the last segment that may be a write under way.
    #[must_use]
    pub fn damage(&self) -> Vec<Range<u64>> {
        let damage = |found| match found {
            Found::Damage(bytes) => Some(bytes),
            Found::Record(..) => None,
        };
        format::scan(self.segment, &self.bytes).filter_map(damage).collect()
    }
}
