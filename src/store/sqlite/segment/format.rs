//! The bytes of a segment; see the [module](super). No I/O.

use std::ops::Range;

use headworks_actors::{Batch, EventRef, UnixMillis};

use super::Place;

const MAGIC: &[u8; 8] = b"hwsegm\0\x01";
/// The head of a segment.
pub(super) const HEADER: usize = 28;

const RECORD: &[u8; 4] = b"HwB\n";
/// The head of a record.
pub(super) const HEAD: usize = 16;

/// Stands for no time.
const NO_TIME: i64 = i64::MIN;

/// Which segment it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// The database it belongs to.
    pub(super) database: u64,
    pub(super) number: u64,
}

impl Segment {
    pub(super) fn header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.database.to_le_bytes());
        header[16..24].copy_from_slice(&self.number.to_le_bytes());
        let sum = crc32c::crc32c(&header[..24]);
        header[24..].copy_from_slice(&sum.to_le_bytes());
        header
    }

    /// `None` where it is no head of a segment of this version.
    pub(super) fn of_header(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.get(..HEADER)?;
        let sum = crc32c::crc32c(&rest[..24]);
        let is_ours = take::<8>(&mut rest)? == *MAGIC;
        let (database, number) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        (is_ours && u32::from_le_bytes(take(&mut rest)?) == sum).then_some(Self { database, number })
    }

    fn spot(self, offset: u64, head: &[u8]) -> u32 {
        let mut spot = [0; 24];
        spot[..8].copy_from_slice(&self.database.to_le_bytes());
        spot[8..16].copy_from_slice(&self.number.to_le_bytes());
        spot[16..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&spot), head)
    }

    /// Adds the record of a batch, which will stand at `offset`; how long it is. `None`, and nothing is added, where it is
    /// larger than a record can be.
    pub(super) fn encode(self, to: &mut Vec<u8>, offset: u64, batch: &Batch, hash: u64) -> Option<u64> {
        let from = to.len();
        to.extend_from_slice(RECORD);
        to.extend_from_slice(&[0; HEAD - 4]);
        let length = payload(to, batch, hash).and_then(|()| u32::try_from(to.len() - from - HEAD).ok());
        let Some(length) = length else {
            to.truncate(from);
            return None;
        };
        let sum = crc32c::crc32c(&to[from + HEAD..]);
        to[from + 4..from + 8].copy_from_slice(&length.to_le_bytes());
        to[from + 8..from + 12].copy_from_slice(&sum.to_le_bytes());
        let spot = self.spot(offset, &to[from..from + 12]);
        to[from + 12..from + 16].copy_from_slice(&spot.to_le_bytes());
        Some((to.len() - from) as u64)
    }

    /// The length and the sum of the payload behind a head at `offset`. `None` where it is no head of this place.
    fn head(self, offset: u64, bytes: &[u8]) -> Option<(u32, u32)> {
        let mut head = bytes.get(..HEAD)?;
        let spot = self.spot(offset, &head[..12]);
        let is_ours = take::<4>(&mut head)? == *RECORD;
        let (length, sum) = (u32::from_le_bytes(take(&mut head)?), u32::from_le_bytes(take(&mut head)?));
        (is_ours && u32::from_le_bytes(take(&mut head)?) == spot).then_some((length, sum))
    }

    /// The record at `offset`, which `bytes` begin with. `None` where it is not whole.
    pub(super) fn decode(self, offset: u64, bytes: &[u8]) -> Option<Record<'_>> {
        let (length, sum) = self.head(offset, bytes)?;
        let payload = bytes.get(HEAD..)?.get(..length as usize)?;
        if crc32c::crc32c(payload) == sum { Record::of(payload) } else { None }
    }
}

fn payload(to: &mut Vec<u8>, batch: &Batch, hash: u64) -> Option<()> {
    let id = batch.id().to_string();
    let events = u32::try_from(batch.len()).ok()?;
    // The tables and the bodies are gone through once each: the bodies are by far the most.
    let mut runs: Vec<(i64, u32)> = vec![];
    let mut has_times = false;
    for event in batch.events() {
        match runs.last_mut() {
            Some((arrived, run)) if *arrived == event.arrived.0 => *run += 1,
            _ => runs.push((event.arrived.0, 1)),
        }
        has_times |= event.time.is_some();
    }
    to.reserve(64 + id.len() + runs.len() * 12 + batch.len() * 12 + batch.body_bytes());
    to.extend_from_slice(&u16::try_from(id.len()).ok()?.to_le_bytes());
    to.extend_from_slice(id.as_bytes());
    to.extend_from_slice(&hash.to_le_bytes());
    to.extend_from_slice(&events.to_le_bytes());
    to.extend_from_slice(&u32::try_from(runs.len()).ok()?.to_le_bytes());
    to.push(u8::from(has_times));
    for (arrived, run) in runs {
        to.extend_from_slice(&arrived.to_le_bytes());
        to.extend_from_slice(&run.to_le_bytes());
    }
    if has_times {
        batch.events().for_each(|event| to.extend(event.time.map_or(NO_TIME, |time| time.0).to_le_bytes()));
    }
    for event in batch.events() {
        to.extend_from_slice(&u32::try_from(event.body.len()).ok()?.to_le_bytes());
    }
    batch.events().for_each(|event| to.extend_from_slice(event.body));
    Some(())
}

/// A batch as it lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'b> {
    pub(super) id: &'b str,
    pub(super) hash: u64,
    pub(super) events: u32,
    runs: &'b [u8],
    times: &'b [u8],
    lengths: &'b [u8],
    bodies: &'b [u8],
}

impl<'b> Record<'b> {
    /// `None` where the parts do not fit together.
    fn of(payload: &'b [u8]) -> Option<Self> {
        let mut rest = payload;
        let id = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let id = std::str::from_utf8(take_some(&mut rest, id)?).ok()?;
        let hash = u64::from_le_bytes(take(&mut rest)?);
        let events = u32::from_le_bytes(take(&mut rest)?);
        let runs = u32::from_le_bytes(take(&mut rest)?) as usize;
        let [has_times] = take::<1>(&mut rest)?;
        let runs = take_some(&mut rest, runs.checked_mul(12)?)?;
        let count = events as usize;
        let times = take_some(&mut rest, if has_times == 0 { 0 } else { count.checked_mul(8)? })?;
        let lengths = take_some(&mut rest, count.checked_mul(4)?)?;
        let record = Self { id, hash, events, runs, times, lengths, bodies: rest };
        let in_runs: u64 = record.runs().map(|(_, run)| u64::from(run)).sum();
        let in_bodies: u64 = record.lengths().map(u64::from).sum();
        (in_runs == u64::from(events) && in_bodies == rest.len() as u64).then_some(record)
    }

    fn runs(self) -> impl Iterator<Item = (i64, u32)> + 'b {
        let (runs, _) = self.runs.as_chunks::<12>();
        runs.iter().map(|[a, b, c, d, e, f, g, h, run @ ..]| {
            (i64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), u32::from_le_bytes(*run))
        })
    }

    fn lengths(self) -> impl Iterator<Item = u32> + 'b {
        self.lengths.as_chunks().0.iter().map(|length| u32::from_le_bytes(*length))
    }

    /// Its events, in order.
    pub(super) fn events(self) -> impl Iterator<Item = EventRef<'b>> {
        let arrived = self.runs().flat_map(|(arrived, run)| std::iter::repeat_n(UnixMillis(arrived), run as usize));
        let times = self.times.as_chunks().0.iter().map(|time| Some(i64::from_le_bytes(*time)));
        let times = times.chain(std::iter::repeat(None)).map(|time| time.filter(|time| *time != NO_TIME));
        let mut bodies = self.bodies;
        let bodies = self.lengths().map(move |length| take_some(&mut bodies, length as usize).unwrap_or_default());
        arrived.zip(times).zip(bodies).map(|((arrived, time), body)| EventRef {
            time: time.map(UnixMillis),
            arrived,
            body,
        })
    }
}

/// What is found in a segment by whoever goes through it from one end to the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'b> {
    Record(Place, Record<'b>),
    /// These bytes are no record.
    Damage(Range<u64>),
}

/// Goes through all of a segment's bytes. Behind what is damaged it goes on at the next head that is one.
pub(super) fn scan(segment: Segment, bytes: &[u8]) -> impl Iterator<Item = Found<'_>> {
    let mut at = HEADER.min(bytes.len());
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let offset = at as u64;
        if let Some(record) = segment.decode(offset, rest) {
            let length = HEAD + segment.head(offset, rest).map_or(0, |(length, _)| length as usize);
            at += length;
            return Some(Found::Record(Place { segment: segment.number, offset, length: length as u64 }, record));
        }
        let heads = memchr::memmem::find_iter(&rest[1..], RECORD).map(|behind| behind + 1);
        let next = heads.into_iter().find(|next| segment.head(offset + *next as u64, &rest[*next..]).is_some());
        at += next.unwrap_or(rest.len());
        Some(Found::Damage(offset..at as u64))
    })
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

fn take_some<'b>(from: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}
