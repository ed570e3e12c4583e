use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::TenantId;

/// A place in a tenant's order. Starts at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The random id of one opening of the journal.
///
/// It makes batch ids unique for ever: neither a wiped nor a restored journal can name a batch that a store already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opening(pub u64);

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which piece of a batch: all of it, or a half of a half of it, after the batch was split to find what a store refuses.
///
/// Ordered as the events are; a piece stands before its own halves.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece(u64);

impl Piece {
    /// The whole batch.
    pub const WHOLE: Self = Self(1);

    /// Whether it is all of the batch.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self == Self::WHOLE
    }

    /// Its first and its second half. `None` where it was halved more often than any batch has events for.
    #[must_use]
    pub fn halves(self) -> Option<[Self; 2]> {
        let first = self.0.checked_mul(2)?;
        Some([Self(first), Self(first + 1)])
    }

    /// The number of the piece, as [`of_number`](Self::of_number) takes it: 1 for the whole, `2n` and `2n + 1` for the halves
    /// of `n`.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The piece with this number; `None` for 0.
    #[must_use]
    pub fn of_number(number: u64) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// How often the batch was halved for it.
    fn depth(self) -> u32 {
        self.0.ilog2()
    }

    /// Which half it is at each depth, the first one on top: 0 or 1.
    fn path(self) -> u64 {
        self.0.checked_shl(64 - self.depth()).unwrap_or(0)
    }
}

impl Default for Piece {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl PartialOrd for Piece {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Piece {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.path().cmp(&other.path()).then(self.depth().cmp(&other.depth()))
    }
}

impl fmt::Display for Piece {
    /// Nothing for the whole, `.1` and `.2` for its halves, `.2.1` for the first half of the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.depth()).rev().try_for_each(|at| write!(f, ".{}", 1 + (self.0 >> at & 1)))
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({self})")
    }
}

/// The name of a batch and its idempotency key in every store, for ever: opening, tenant, seq, and which piece of it.
///
/// Reads as `5f0c9b1e2d3a4f60/acme/42`, and as `5f0c9b1e2d3a4f60/acme/42.2.1` where a store had refused the batch and it was
/// split.
///
/// ```
/// use headworks_actors::BatchId;
/// let id: BatchId = "5f0c9b1e2d3a4f60/acme/42.2.1".parse()?;
/// assert_eq!((id.seq.0, id.piece.to_string()), (42, ".2.1".to_owned()));
/// assert_eq!(id.to_string(), "5f0c9b1e2d3a4f60/acme/42.2.1");
/// # Ok::<(), headworks_actors::InvalidBatchId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    /// The opening of the journal in which the batch was cut.
    pub opening: Opening,
    /// Whose batch it is.
    pub tenant: TenantId,
    /// Its place in the tenant's order of batches.
    pub seq: Seq,
    /// Which piece of it.
    pub piece: Piece,
}

impl BatchId {
    /// The name of a whole batch.
    #[must_use]
    pub fn new(opening: Opening, tenant: TenantId, seq: Seq) -> Self {
        Self { opening, tenant, seq, piece: Piece::WHOLE }
    }

    /// Its place in the tenant's order.
    #[must_use]
    pub fn place(&self) -> (Seq, Piece) {
        (self.seq, self.piece)
    }

    /// The names of its halves. `None` as for [`Piece::halves`].
    #[must_use]
    pub fn halves(&self) -> Option<[Self; 2]> {
        let [first, second] = self.piece.halves()?;
        Some([Self { piece: first, ..self.clone() }, Self { piece: second, ..self.clone() }])
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}{}", self.opening, self.tenant, self.seq, self.piece)
    }
}

/// A text that is no batch id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no batch id: one reads like 5f0c9b1e2d3a4f60/acme/42")]
pub struct InvalidBatchId(String);

impl FromStr for BatchId {
    type Err = InvalidBatchId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| InvalidBatchId(text.chars().take(200).collect()))
    }
}

fn parse(text: &str) -> Option<BatchId> {
    // No part of it can hold a slash, and no number a dot.
    let mut parts = text.splitn(3, '/');
    let opening = Opening(u64::from_str_radix(parts.next()?, 16).ok()?);
    let tenant = TenantId::new(parts.next()?).ok()?;
    let mut numbers = parts.next()?.split('.');
    let seq = Seq(numbers.next()?.parse().ok()?);
    let piece = numbers.try_fold(Piece::WHOLE, |piece, half| match half {
        "1" => piece.halves().map(|[first, _]| first),
        "2" => piece.halves().map(|[_, second]| second),
        _ => None,
    })?;
    Some(BatchId { opening, tenant, seq, piece })
}

impl Serialize for BatchId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BatchId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The number of a try to store a batch, from 1. It is counted for each store and grows for as long as the
/// batch lives, also across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece() -> impl Strategy<Value = (Vec<bool>, Piece)> {
        prop::collection::vec(any::<bool>(), 0..20).prop_map(|path| {
            let piece = path.iter().fold(Piece::WHOLE, |piece, second| piece.halves().unwrap()[usize::from(*second)]);
            (path, piece)
        })
    }

    proptest! {
        #[test]
        fn pieces_are_ordered_as_their_paths_are((a, first) in piece(), (b, second) in piece()) {
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        }

        #[test]
        fn an_id_reads_as_it_was_written((_, piece) in piece(), opening: u64, seq: u64) {
            let id = BatchId { piece, ..BatchId::new(Opening(opening), TenantId::new("a.b-c").unwrap(), Seq(seq)) };
            prop_assert_eq!(id.to_string().parse::<BatchId>().unwrap(), id);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "1/a", "1/a/", "1/a/1.", "1/a/1.3", "1/a/1.1.0", "x/a/1", "1/.a/1", "1/a/1/2"] {
            assert!(text.parse::<BatchId>().is_err(), "{text:?}");
        }
        assert!(format!("1/a/1{}", ".2".repeat(63)).parse::<BatchId>().is_ok());
        assert!(format!("1/a/1{}", ".2".repeat(64)).parse::<BatchId>().is_err());
    }
}
