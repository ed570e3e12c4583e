//! What is in an object, whatever its format.

use headworks_actors::{Attempt, Batch, BatchId, EventRef, UnixMillis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ObjectFormat, ndjson};
use crate::store::hash;

/// The version of what is written.
pub(super) const VERSION: u32 = 1;

/// What an object says of its batch. It stands behind the events, where no reader of the format looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) version: u32,
    pub(super) batch: BatchId,
    /// It has no events and never will: attempts up to this one were rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fence: Option<Attempt>,
    /// The attempt that stored it.
    pub(super) attempt: Attempt,
    pub(super) events: u64,
    pub(super) hash: u64,
    /// When the first and the last of its events arrived.
    pub(super) arrived: (UnixMillis, UnixMillis),
}

impl Head {
    pub(super) fn of(batch: &Batch, attempt: Attempt) -> Self {
        let arrived = || batch.events().map(|event| event.arrived);
        Self {
            version: VERSION,
            batch: batch.id().clone(),
            fence: None,
            attempt,
            events: batch.len() as u64,
            hash: hash::content_hash(batch.events().map(|event| event.body)),
            arrived: (arrived().min().unwrap_or_default(), arrived().max().unwrap_or_default()),
        }
    }

    /// Of the object that is left where attempts up to this one were rolled back.
    pub(super) fn fence(batch: &BatchId, attempt: Attempt) -> Self {
        let (hash, arrived) = (hash::content_hash([]), (UnixMillis(0), UnixMillis(0)));
        Self { version: VERSION, batch: batch.clone(), fence: Some(attempt), attempt, events: 0, hash, arrived }
    }
}

/// What a pack says of its batches. It stands where a [`Head`] stands in an object of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    version: u32,
    /// In the order of their events.
    pub(super) batches: Vec<Entry>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) head: Head,
    /// In which of its lives.
    pub(super) life: u32,
}

impl Index {
    pub(super) fn has(&self, batch: &BatchId, life: u32) -> Option<&Head> {
        self.batches.iter().find(|entry| entry.life == life && entry.head.batch == *batch).map(|entry| &entry.head)
    }
}

/// The events of a batch, to be written.
#[derive(Debug)]
pub(super) struct Rows<'r> {
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "rows say it, and lines do not"))]
    pub(super) batch: &'r BatchId,
    pub(super) events: Vec<EventRef<'r>>,
}

impl<'r> Rows<'r> {
    pub(super) fn of(batch: &'r Batch) -> Self {
        Self { batch: batch.id(), events: batch.events().collect() }
    }
}

/// An event, away from its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) arrived: UnixMillis,
    pub(super) time: Option<UnixMillis>,
    pub(super) body: Vec<u8>,
}

impl Event {
    fn as_ref(&self) -> EventRef<'_> {
        EventRef { time: self.time, arrived: self.arrived, body: &self.body }
    }
}

/// An object, read.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) head: Head,
    pub(super) events: Vec<Event>,
}

/// A batch of a pack, read.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) life: u32,
    pub(super) content: Content,
    /// Whether it is as it was stored.
    pub(super) is_whole: bool,
}

/// The object of batches, or, without any, of a fence.
pub(super) fn encode(
    format: ObjectFormat,
    columns: &[String],
    head: &impl Serialize,
    batches: &[Rows<'_>],
) -> Result<Vec<u8>, String> {
    match format {
        ObjectFormat::Ndjson => ndjson::encode(head, batches),
        #[cfg(feature = "parquet")]
        ObjectFormat::Parquet => super::rows::encode(head, batches, columns),
        #[cfg(not(feature = "parquet"))]
        ObjectFormat::Parquet => {
            let _ = columns;
            Err("this headworks was built without the feature parquet".into())
        }
    }
}

/// The pack of these batches, each in one of its lives.
pub(super) fn pack(format: ObjectFormat, columns: &[String], batches: &[(u32, Content)]) -> Result<Vec<u8>, String> {
    let entry = |(life, content): &(u32, Content)| Entry { head: content.head.clone(), life: *life };
    let index = Index { version: VERSION, batches: batches.iter().map(entry).collect() };
    let rows: Vec<_> = batches.iter().map(|(_, content)| content.rows()).collect();
    encode(format, columns, &index, &rows)
}

/// What stands behind the events.
fn said<H: DeserializeOwned>(format: ObjectFormat, bytes: &[u8]) -> Result<H, String> {
    match format {
        ObjectFormat::Ndjson => ndjson::head(bytes),
        #[cfg(feature = "parquet")]
        ObjectFormat::Parquet => super::rows::head(bytes),
        #[cfg(not(feature = "parquet"))]
        ObjectFormat::Parquet => Err("this headworks was built without the feature parquet".into()),
    }
}

fn known(version: u32) -> Result<(), String> {
    if version > VERSION {
        return Err(format!("it has version {version}, and this headworks knows {VERSION} only; run the newer one"));
    }
    Ok(())
}

/// What an object says of itself; its events are not looked at.
pub(super) fn head(format: ObjectFormat, bytes: &[u8]) -> Result<Head, String> {
    let head: Head = said(format, bytes)?;
    known(head.version)?;
    Ok(head)
}

/// The same of a pack.
pub(super) fn index(format: ObjectFormat, bytes: &[u8]) -> Result<Index, String> {
    let index: Index = said(format, bytes)?;
    known(index.version)?;
    Ok(index)
}

fn events(format: ObjectFormat, bytes: &[u8]) -> Result<Vec<Event>, String> {
    match format {
        ObjectFormat::Ndjson => ndjson::events(bytes),
        #[cfg(feature = "parquet")]
        ObjectFormat::Parquet => super::rows::events(bytes),
        #[cfg(not(feature = "parquet"))]
        ObjectFormat::Parquet => Ok(vec![]),
    }
}

impl Content {
    fn rows(&self) -> Rows<'_> {
        Rows { batch: &self.head.batch, events: self.events.iter().map(Event::as_ref).collect() }
    }

    fn is_whole(&self) -> bool {
        let bodies = self.events.iter().map(|event| &*event.body);
        self.events.len() as u64 == self.head.events && hash::content_hash(bodies) == self.head.hash
    }
}

/// All of it, compared with its hash.
pub(super) fn decode(format: ObjectFormat, bytes: &[u8]) -> Result<Content, String> {
    let content = Content { head: head(format, bytes)?, events: events(format, bytes)? };
    if !content.is_whole() {
        return Err(format!("batch {} is not as it was stored", content.head.batch));
    }
    Ok(content)
}

/// All batches of a pack, each compared with its hash.
pub(super) fn unpack(format: ObjectFormat, bytes: &[u8]) -> Result<Vec<Packed>, String> {
    let index = index(format, bytes)?;
    let mut events = events(format, bytes)?.into_iter();
    let mut batches = vec![];
    for Entry { head, life } in index.batches {
        let wanted = usize::try_from(head.events).unwrap_or(usize::MAX);
        let content = Content { head, events: events.by_ref().take(wanted).collect() };
        batches.push(Packed { life, is_whole: content.is_whole(), content });
    }
    match events.next() {
        None => Ok(batches),
        Some(_) => Err("it has more events than it says".into()),
    }
}

/// The same, where each must be as it was stored.
pub(super) fn unpack_whole(format: ObjectFormat, bytes: &[u8]) -> Result<Vec<(u32, Content)>, String> {
    let batches = unpack(format, bytes)?.into_iter();
    let whole = |Packed { life, content, is_whole }: Packed| match is_whole {
        true => Ok((life, content)),
        false => Err(format!("batch {} is not as it was stored", content.head.batch)),
    };
    batches.map(whole).collect()
}
