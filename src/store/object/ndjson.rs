//! Lines, compressed: a frame of zstd with the events, then one that all readers skip, with what is known of them.
//!
//! ```text
//! frame       the lines: a body as it came and a newline; see `files::line` for the few that cannot be a line
//! skippable   compressed JSON: the head, and the times of the events
//!             u64 length of the frame   u32 length of the JSON   "HWB1"       all numbers little-endian
//! ```

use headworks_actors::UnixMillis;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::content::{Event, Rows};
use crate::store::files::line;

const LEVEL: i32 = 3;
const SKIPPABLE: u32 = 0x184d_2a50;
const MAGIC: &[u8; 4] = b"HWB1";
/// Its numbers and its magic, at the end.
const END: usize = 8 + 4 + 4;
/// What stands before a skippable frame.
const BEGIN: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
struct Trailer<H> {
    head: H,
    /// The length of the lines.
    lines: u64,
    /// Runs of events that arrived at once: how many, and when.
    arrived: Vec<(u64, i64)>,
    /// Each event's own time; empty where none has one.
    times: Vec<Option<i64>>,
}

pub(super) fn encode(head: &impl Serialize, batches: &[Rows<'_>]) -> Result<Vec<u8>, String> {
    let events = || batches.iter().flat_map(|batch| &batch.events);
    let mut lines = Vec::with_capacity(events().map(|event| event.body.len() + 1).sum());
    let (mut arrived, mut times) = (Vec::<(u64, i64)>::new(), vec![]);
    for event in events() {
        line::push_line(event.body, &mut lines);
        match arrived.last_mut().filter(|(_, at)| *at == event.arrived.0) {
            Some((times, _)) => *times += 1,
            None => arrived.push((1, event.arrived.0)),
        }
        times.push(event.time.map(|at| at.0));
    }
    if times.iter().all(Option::is_none) {
        times.clear();
    }
    let failed = |why: std::io::Error| format!("cannot compress: {why}");
    let mut out = zstd::bulk::compress(&lines, LEVEL).map_err(failed)?;
    let frame = out.len() as u64;
    let trailer = Trailer { head, lines: lines.len() as u64, arrived, times };
    let json = serde_json::to_vec(&trailer).map_err(|why| why.to_string())?;
    let json = zstd::stream::encode_all(&*json, LEVEL).map_err(failed)?;
    let length = |length: usize| u32::try_from(length).map_err(|_| "the batch is too large".to_owned());
    out.extend_from_slice(&SKIPPABLE.to_le_bytes());
    out.extend_from_slice(&length(json.len() + END)?.to_le_bytes());
    out.extend_from_slice(&json);
    out.extend_from_slice(&frame.to_le_bytes());
    out.extend_from_slice(&length(json.len())?.to_le_bytes());
    out.extend_from_slice(MAGIC);
    Ok(out)
}

/// The trailer, and the frame with the lines.
fn parts<H: DeserializeOwned>(bytes: &[u8]) -> Option<(Trailer<H>, &[u8])> {
    let (rest, magic) = bytes.split_last_chunk::<4>()?;
    let (rest, length) = rest.split_last_chunk::<4>()?;
    let (rest, frame) = rest.split_last_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (rest, json) = rest.split_at_checked(rest.len().checked_sub(length)?)?;
    let lines = rest.get(..rest.len().checked_sub(BEGIN)?)?;
    if magic != MAGIC || lines.len() as u64 != u64::from_le_bytes(*frame) {
        return None;
    }
    let trailer = serde_json::from_slice(&zstd::stream::decode_all(json).ok()?).ok()?;
    Some((trailer, lines))
}

const DAMAGED: &str = "it is damaged, or none of this store's";

pub(super) fn head<H: DeserializeOwned>(bytes: &[u8]) -> Result<H, String> {
    Ok(parts(bytes).ok_or(DAMAGED)?.0.head)
}

pub(super) fn events(bytes: &[u8]) -> Result<Vec<Event>, String> {
    let (Trailer { lines: length, arrived, times, .. }, frame) = parts::<IgnoredAny>(bytes).ok_or(DAMAGED)?;
    let length = usize::try_from(length).map_err(|_| DAMAGED)?;
    let lines = zstd::bulk::decompress(frame, length).map_err(|why| format!("{DAMAGED}: {why}"))?;
    let mut arrived = arrived.into_iter().flat_map(|(times, at)| (0..times).map(move |_| UnixMillis(at)));
    let lines = lines.split_inclusive(|byte| *byte == b'\n').enumerate();
    let events = lines.map(|(place, line)| {
        Some(Event {
            arrived: arrived.next()?,
            time: times.get(place).copied().flatten().map(UnixMillis),
            body: line::body_of(line.strip_suffix(b"\n")?)?.into_owned(),
        })
    });
    Ok(events.collect::<Option<_>>().ok_or(DAMAGED)?)
}
