//! The index of a tenant: what was done to its events, a JSON object a line, each with a sum over itself.

use std::io::{self, BufRead};

use headworks_actors::{Attempt, BatchId, TenantId};
use serde::{Deserialize, Serialize};

use crate::retention::Pruned;
use crate::store::hash;

/// The version of the format, in the first line of every index. The first one had one events file a tenant.
pub(super) const VERSION: u32 = 2;

/// One line of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Record {
    /// The first line: what this is, and whose.
    Head { version: u32, tenant: TenantId },
    /// The second line, where older records are gone with their files: what is still to be known of them.
    Begins {
        /// The number of the first file, and the byte, counted over all files that ever were, that it begins with.
        file: u32,
        at: u64,
        /// How many bytes of records would stand before the next line if none of them were gone.
        index_from: u64,
        pruned: Vec<PrunedOf>,
        fences: Vec<Fence>,
    },
    /// What follows is in this file, which begins with byte `at`.
    Rotated { file: u32, at: u64, rotated_at: i64 },
    /// A batch is in the events file, from byte `from` up to byte `to`, counted over all files that ever were.
    Stored {
        #[serde(deserialize_with = "batch_id")]
        batch: BatchId,
        attempt: Attempt,
        from: u64,
        to: u64,
        events: u64,
        /// Of the bodies, in hex.
        #[serde(with = "hex")]
        hash: u64,
        first_arrived: i64,
        last_arrived: i64,
        stored_at: i64,
    },
    /// A later attempt was told that the batch is there.
    Again {
        #[serde(deserialize_with = "batch_id")]
        batch: BatchId,
        attempt: Attempt,
    },
    /// Attempts up to this one must not land any more, and what they had left was removed.
    RolledBack {
        #[serde(deserialize_with = "batch_id")]
        batch: BatchId,
        attempt: Attempt,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        removed: Option<Removed>,
    },
}

/// What was pruned of the batches of one opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PrunedOf {
    /// In hex.
    #[serde(with = "hex")]
    pub(super) opening: u64,
    #[serde(flatten)]
    pub(super) pruned: Pruned,
    /// Events among them that went on an operator's word.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(super) erased: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_none(events: &u64) -> bool {
    *events == 0
}

/// Attempts at a batch up to this one must not land.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fence {
    #[serde(deserialize_with = "batch_id")]
    pub(super) batch: BatchId,
    pub(super) attempt: Attempt,
}

/// The place that a batch had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) events: u64,
}

/// What stands behind the object's other fields: `,"sum":"0123456789abcdef"}` and the newline.
const SUM_BEGINS: &[u8] = b",\"sum\":\"";
const SUM_LEN: usize = SUM_BEGINS.len() + 16 + 2;

impl Record {
    /// Adds the line of this record.
    pub(super) fn push_line(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let from = out.len();
        serde_json::to_writer(&mut *out, self)?;
        // The brace that closes the object moves behind the sum.
        out.pop();
        let sum = hash::content_hash([&out[from..]]);
        out.extend_from_slice(SUM_BEGINS);
        out.extend_from_slice(format!("{sum:016x}\"}}\n").as_bytes());
        Ok(())
    }

    /// The record of a line, which comes with its newline. `None` where the line is not as it was written.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n")?;
        let (object, end) = line.split_at_checked(line.len().checked_sub(SUM_LEN)?)?;
        let sum = std::str::from_utf8(end.strip_prefix(SUM_BEGINS)?.strip_suffix(b"\"}")?).ok()?;
        if u64::from_str_radix(sum, 16).ok()? != hash::content_hash([object]) {
            return None;
        }
        serde_json::from_slice(&[object, b"}"].concat()).ok()
    }

    /// The batch it is about.
    pub(super) fn batch(&self) -> Option<&BatchId> {
        match self {
            Self::Head { .. } | Self::Begins { .. } | Self::Rotated { .. } => None,
            Self::Stored { batch, .. } | Self::Again { batch, .. } | Self::RolledBack { batch, .. } => Some(batch),
        }
    }
}

/// What stands at the end of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The last record is whole. The index is that long.
    Whole(u64),
    /// The last append did not come to its end; what is whole ends here.
    Torn(u64),
    /// This line, counted from 1, was changed by something else than a crash.
    Damaged(u64),
}

/// Tells `visit` of each record of an index, in order.
///
/// A torn append has no newline at its end, or zeros in it where blocks were never written. A line without either is
/// damaged, and whatever else follows a bad line shows that it was no torn end.
pub(super) fn read(index: impl BufRead, mut visit: impl FnMut(Record)) -> io::Result<End> {
    read_while(index, |record, _| {
        visit(record);
        true
    })
}

/// The same, with where each record ends, until `visit` has seen enough.
pub(super) fn read_while(mut index: impl BufRead, mut visit: impl FnMut(Record, u64) -> bool) -> io::Result<End> {
    let mut line = vec![];
    let (mut whole, mut torn, mut number) = (0, false, 0);
    loop {
        line.clear();
        number += 1;
        let bytes = index.read_until(b'\n', &mut line)?;
        if bytes == 0 {
            return Ok(if torn { End::Torn(whole) } else { End::Whole(whole) });
        }
        match Record::parse(&line) {
            Some(record) if !torn => {
                whole += bytes as u64;
                if !visit(record, whole) {
                    return Ok(End::Whole(whole));
                }
            }
            None if line.last() != Some(&b'\n') || memchr::memchr(0, &line).is_some() => torn = true,
            _ => return Ok(End::Damaged(number)),
        }
    }
}

/// Where the records behind [`Record::Begins`] stand, and how many bytes of older ones are gone; of an index from which nothing is
/// gone, 0 and 0.
pub(super) fn beginning(mut index: impl BufRead) -> io::Result<(u64, u64)> {
    let (mut line, mut len) = (vec![], 0);
    for _ in 0..2 {
        line.clear();
        len += index.read_until(b'\n', &mut line)? as u64;
        if let Some(Record::Begins { index_from, .. }) = Record::parse(&line) {
            return Ok((len, index_from));
        }
    }
    Ok((0, 0))
}

fn batch_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BatchId, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().ok().ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no batch id")))
}

/// A number beyond what JSON readers agree on.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Opening, Seq};

    use super::*;

    fn records() -> Vec<Record> {
        let tenant = TenantId::new("acme").unwrap();
        let batch = BatchId::new(Opening(u64::MAX), tenant.clone(), Seq(42));
        let (attempt, hash) = (Attempt(2), u64::MAX - 1);
        let (first_arrived, last_arrived, stored_at) = (-1, 5, i64::MAX);
        let removed = Some(Removed { from: 0, to: 10, events: 3 });
        vec![
            Record::Head { version: VERSION, tenant },
            Record::Begins {
                file: 3,
                at: 0,
                index_from: 7,
                pruned: vec![PrunedOf { opening: 9, pruned: Pruned { batches: 1, events: 2, bytes: 3 }, erased: 1 }],
                fences: vec![Fence { batch: batch.clone(), attempt }],
            },
            Record::Stored {
                batch: batch.clone(),
                attempt,
                from: 0,
                to: 10,
                events: 3,
                hash,
                first_arrived,
                last_arrived,
                stored_at,
            },
            Record::Again { batch: batch.clone(), attempt },
            Record::RolledBack { batch: batch.clone(), attempt, removed: None },
            Record::RolledBack { batch, attempt, removed },
            Record::Rotated { file: 4, at: 10, rotated_at: -1 },
        ]
    }

    fn written(records: &[Record]) -> Vec<u8> {
        let mut out = vec![];
        records.iter().for_each(|record| record.push_line(&mut out).unwrap());
        out
    }

    fn read_back(bytes: &[u8]) -> (Vec<Record>, End) {
        let mut found = vec![];
        let end = read(bytes, |record| found.push(record)).unwrap();
        (found, end)
    }

    #[test]
    fn a_record_is_a_line_of_json_that_people_can_read() {
        let text = String::from_utf8(written(&records()[2..3])).unwrap();
        let begin = r#"{"op":"stored","batch":"ffffffffffffffff/acme/42","attempt":2,"from":0,"to":10,"events":3,"hash":"fffffffffffffffe","first_arrived":-1,"last_arrived":5,"stored_at":9223372036854775807,"sum":""#;
        assert!(text.starts_with(begin) && text.ends_with("\"}\n"), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn an_index_that_ends_anywhere_gives_the_records_before_and_is_torn_unless_a_record_ends_there() {
        let all = records();
        let bytes = written(&all);
        for cut in 0..=bytes.len() {
            let lines = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            let whole = bytes[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) as u64;
            let end = if whole == cut as u64 { End::Whole(whole) } else { End::Torn(whole) };
            assert_eq!(read_back(&bytes[..cut]), (all[..lines].to_vec(), end), "{cut}");
            // The size of the file was written, but not what is in it.
            let zeros = [&bytes[..cut], &[0; 100]].concat();
            assert_eq!(read_back(&zeros), (all[..lines].to_vec(), End::Torn(whole)), "{cut}");
        }
    }

    #[test]
    fn a_byte_that_changed_is_damage_and_no_torn_end() {
        let bytes = written(&records());
        for at in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let (_, end) = read_back(&changed);
            assert!(matches!(end, End::Damaged(_)), "byte {at}: {end:?}");
        }
    }

    #[test]
    fn a_record_behind_a_bad_line_shows_that_it_was_no_torn_end() {
        let bytes = written(&records());
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let mut changed = bytes.clone();
        changed[first + 5..first + 9].fill(0);
        assert_eq!(read_back(&changed), (records()[..1].to_vec(), End::Damaged(3)));
    }
}
