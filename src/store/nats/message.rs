//! What is published, and what is found. Pure.

use async_nats::jetstream::message::StreamMessage;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use headworks_actors::{Attempt, Batch, BatchId};

use crate::store::files::line::push_line;
use crate::store::hash::content_hash;

const BATCH: &str = "Headworks-Batch";
const ATTEMPT: &str = "Headworks-Attempt";
const HASH: &str = "Headworks-Hash";
const ROLLED_BACK: &str = "Headworks-Rolled-Back";

/// A batch, ready to be published.
pub(super) struct Message {
    id: BatchId,
    headers: HeaderMap,
    pub(super) hash: u64,
    pub(super) body: Bytes,
}

impl Message {
    pub(super) fn new(batch: &Batch, attempt: Attempt) -> Self {
        let mut body = Vec::with_capacity(batch.body_bytes() + batch.len());
        batch.events().for_each(|event| push_line(event.body, &mut body));
        let hash = content_hash(batch.events().map(|event| event.body));
        let mut headers = of(batch.id());
        headers.insert("Content-Type", "application/x-ndjson");
        headers.insert(ATTEMPT, attempt.0.to_string());
        headers.insert("Headworks-Events", batch.len().to_string());
        headers.insert(HASH, format!("{hash:016x}"));
        headers.insert("Headworks-Arrived", batch.first_arrived().to_string());
        let times = || batch.events().filter_map(|event| event.time);
        if let (Some(first), Some(last)) = (times().min(), times().max()) {
            headers.insert("Headworks-First-Time", first.to_string());
            headers.insert("Headworks-Last-Time", last.to_string());
        }
        Self { id: batch.id().clone(), headers, hash, body: body.into() }
    }

    /// For a place behind the message of this number on its subject; 0 where none is there. With a name or without: the server takes none
    /// that has the name of one it had lately.
    pub(super) fn headers(&self, behind: u64, is_named: bool) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(behind));
        if is_named {
            // What is published after a rollback is not what was taken back.
            let name = if behind == 0 { self.id.to_string() } else { format!("{}/{behind}", self.id) };
            headers.insert(async_nats::header::NATS_MESSAGE_ID, name);
        }
        headers
    }
}

/// What stands where attempts up to this one were rolled back.
pub(super) fn fence(id: &BatchId, attempt: Attempt, behind: u64) -> HeaderMap {
    let mut headers = of(id);
    headers.insert(ROLLED_BACK, attempt.0.to_string());
    headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(behind));
    headers
}

fn of(id: &BatchId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Headworks-Tenant", id.tenant.as_str());
    headers.insert(BATCH, id.to_string());
    headers
}

/// The last message of a batch's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct There {
    pub(super) sequence: u64,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Batch {
        hash: u64,
        attempt: Attempt,
    },
    Fence(Attempt),
    /// None that this store published for this batch.
    Other,
}

impl There {
    pub(super) fn of(id: &BatchId, message: &StreamMessage) -> Self {
        Self { sequence: message.sequence, what: what(id, &message.headers).unwrap_or(What::Other) }
    }
}

fn what(id: &BatchId, headers: &HeaderMap) -> Option<What> {
    let header = |name: &str| headers.get(name).map(HeaderValue::as_str);
    if header(BATCH)? != id.to_string() {
        return None;
    }
    let attempt = |name| Some(Attempt(header(name)?.parse().ok()?));
    if let Some(fence) = attempt(ROLLED_BACK) {
        return Some(What::Fence(fence));
    }
    Some(What::Batch { hash: u64::from_str_radix(header(HASH)?, 16).ok()?, attempt: attempt(ATTEMPT)? })
}

#[cfg(test)]
mod tests {
    use headworks_actors::{ChunkBuilder, Opening, Seq, UnixMillis};

    use super::*;

    #[test]
    fn what_is_published_is_known_again_and_nothing_else_is() {
        let mut builder = ChunkBuilder::default();
        builder.push(b"{\"n\":1}", Some(UnixMillis(2000)));
        builder.push(b"a\nb", Some(UnixMillis(1000)));
        let chunk = builder.build("a.b".parse().unwrap(), UnixMillis(3000)).unwrap();
        let batch = Batch::of_chunk(Opening(7), Seq(3), chunk);
        let message = Message::new(&batch, Attempt(4));
        assert_eq!(&*message.body, b"{\"n\":1}\n\\a\\nb\n");
        let headers = message.headers(0, true);
        let header = |name: &str| headers.get(name).map(ToString::to_string).unwrap_or_default();
        for (name, value) in [
            ("Nats-Msg-Id", "0000000000000007/a.b/3"),
            ("Nats-Expected-Last-Subject-Sequence", "0"),
            ("Headworks-Tenant", "a.b"),
            ("Headworks-Events", "2"),
            ("Headworks-Arrived", "1970-01-01T00:00:03.000Z"),
            ("Headworks-First-Time", "1970-01-01T00:00:01.000Z"),
            ("Headworks-Last-Time", "1970-01-01T00:00:02.000Z"),
        ] {
            assert_eq!(header(name), value, "{name}");
        }
        assert_eq!(what(batch.id(), &headers), Some(What::Batch { hash: message.hash, attempt: Attempt(4) }));
        let named = |behind, is_named| message.headers(behind, is_named).get("Nats-Msg-Id").map(ToString::to_string);
        assert_eq!((named(9, true).unwrap(), named(9, false)), ("0000000000000007/a.b/3/9".to_owned(), None));
        assert_eq!(what(batch.id(), &fence(batch.id(), Attempt(5), 0)), Some(What::Fence(Attempt(5))));
        let other = BatchId::new(Opening(7), batch.tenant().clone(), Seq(4));
        assert_eq!((what(&other, &headers), what(&other, &HeaderMap::new())), (None, None));
    }
}
