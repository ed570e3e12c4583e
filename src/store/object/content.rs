//! What is in an object, whatever its format.

use headworks_actors::{Attempt, Batch, BatchId, UnixMillis};
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

/// An event, away from its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) arrived: UnixMillis,
    pub(super) time: Option<UnixMillis>,
    pub(super) body: Vec<u8>,
}

/// An object, read.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) head: Head,
    pub(super) events: Vec<Event>,
}

/// The object of a batch, or, without one, of a fence.
pub(super) fn encode(
    format: ObjectFormat,
    columns: &[String],
    head: &Head,
    batch: Option<&Batch>,
) -> Result<Vec<u8>, String> {
    match format {
        ObjectFormat::Ndjson => ndjson::encode(head, batch),
        #[cfg(feature = "parquet")]
        ObjectFormat::Parquet => super::rows::encode(head, batch, columns),
        #[cfg(not(feature = "parquet"))]
        ObjectFormat::Parquet => {
            let _ = columns;
            Err("this headworks was built without the feature parquet".into())
        }
    }
}

/// What an object says of itself; its events are not looked at.
pub(super) fn head(format: ObjectFormat, bytes: &[u8]) -> Result<Head, String> {
    let head = match format {
        ObjectFormat::Ndjson => ndjson::head(bytes)?,
        #[cfg(feature = "parquet")]
        ObjectFormat::Parquet => super::rows::head(bytes)?,
        #[cfg(not(feature = "parquet"))]
        ObjectFormat::Parquet => return Err("this headworks was built without the feature parquet".into()),
    };
    if head.version > VERSION {
        let version = head.version;
        return Err(format!("it has version {version}, and this headworks knows {VERSION} only; run the newer one"));
    }
    Ok(head)
}

/// All of it, compared with its hash.
pub(super) fn decode(format: ObjectFormat, bytes: &[u8]) -> Result<Content, String> {
    let head = head(format, bytes)?;
    let events = match format {
        ObjectFormat::Ndjson => ndjson::events(bytes)?,
        #[cfg(feature = "parquet")]
        ObjectFormat::Parquet => super::rows::events(bytes)?,
        #[cfg(not(feature = "parquet"))]
        ObjectFormat::Parquet => vec![],
    };
    if hash::content_hash(events.iter().map(|event| &*event.body)) != head.hash || events.len() as u64 != head.events {
        return Err(format!("batch {} is not as it was stored", head.batch));
    }
    Ok(Content { head, events })
}
