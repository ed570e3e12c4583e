//! What is marked about a run of a tenant's batches, beside their objects.

use std::collections::{BTreeMap, BTreeSet};

use headworks_actors::{Attempt, BatchId};

use super::key::{Day, PackName, Place, parse_place, place_text};

/// The marks about some batches of a tenant, by the names of empty objects.
///
/// ```text
/// day-2026-11-22            objects of these batches may be filed under this day; `day-all` where there are no days
/// fence-000000000007-2      attempts up to the second of batch 7 were rolled back
/// kept-000000000007-3       the third attempt of batch 7 was told that it is there
/// pack-000000000001-000000000060-0-2026-11-22
///                           some of the batches from 1 to 60 of this day may be in the first pack of that name
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Page {
    pub(super) days: BTreeSet<Option<Day>>,
    pub(super) packs: BTreeSet<PackName>,
    fences: BTreeMap<Place, BTreeSet<Attempt>>,
    kept: BTreeMap<Place, Attempt>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    Day(Option<Day>),
    Fence(Place, Attempt),
    Kept(Place, Attempt),
    Pack(PackName),
}

const ALL: &str = "all";

impl Mark {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Day(day) => format!("day-{}", day_text(day.as_ref())),
            Self::Fence(place, attempt) => format!("fence-{}-{attempt}", place_text(*place)),
            Self::Kept(place, attempt) => format!("kept-{}-{attempt}", place_text(*place)),
            Self::Pack(PackName { first, last, nth, day }) => {
                format!("pack-{}-{}-{nth}-{}", place_text(*first), place_text(*last), day_text(day.as_ref()))
            }
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (kind, rest) = name.split_once('-')?;
        if kind == "day" {
            return Some(Self::Day(parse_day(rest)?));
        }
        if kind == "pack" {
            let mut parts = rest.splitn(4, '-');
            let [first, last] = [parse_place(parts.next()?)?, parse_place(parts.next()?)?];
            let (nth, day) = (parts.next()?.parse().ok()?, parse_day(parts.next()?)?);
            return Some(Self::Pack(PackName { first, last, nth, day }));
        }
        let (place, attempt) = rest.split_once('-')?;
        let place = parse_place(place)?;
        let attempt = Attempt(attempt.parse().ok()?);
        match kind {
            "fence" => Some(Self::Fence(place, attempt)),
            "kept" => Some(Self::Kept(place, attempt)),
            _ => None,
        }
    }
}

fn day_text(day: Option<&Day>) -> &str {
    day.map_or(ALL, Day::as_str)
}

fn parse_day(text: &str) -> Option<Option<Day>> {
    Some(if text == ALL { None } else { Some(Day::parse(text)?) })
}

impl Page {
    pub(super) fn take(&mut self, mark: Mark) {
        match mark {
            Mark::Day(day) => drop(self.days.insert(day)),
            Mark::Fence(place, attempt) => drop(self.fences.entry(place).or_default().insert(attempt)),
            Mark::Kept(place, attempt) => {
                let kept = self.kept.entry(place).or_insert(attempt);
                *kept = attempt.max(*kept);
            }
            Mark::Pack(name) => drop(self.packs.insert(name)),
        }
    }

    /// The life that the batch is in: the attempt that was rolled back last; 0 where none was.
    pub(super) fn life(&self, id: &BatchId) -> u32 {
        self.fences.get(&id.place()).and_then(BTreeSet::last).map_or(0, |attempt| attempt.0)
    }

    /// The lives that the batch is in no more, each with the attempt that ended it.
    pub(super) fn ended(&self, id: &BatchId) -> Vec<(u32, Attempt)> {
        let fences = || self.fences.get(&id.place()).into_iter().flatten().copied();
        let lives = [0].into_iter().chain(fences().map(|attempt| attempt.0));
        lives.zip(fences()).collect()
    }

    /// The last attempt that was told that the batch is there, where it was not the one that stored it.
    pub(super) fn kept(&self, id: &BatchId) -> Option<Attempt> {
        self.kept.get(&id.place()).copied()
    }
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Opening, Piece, Seq, TenantId, UnixMillis};
    use proptest::prelude::*;

    use super::*;

    fn piece_of(attempt: Attempt) -> Piece {
        Piece::of_number(u64::from(attempt.0 % 60 + 1)).unwrap()
    }

    proptest! {
        #[test]
        fn every_mark_is_read_back_from_its_name(which in 0..5, seq: u64, piece in 1..64u64, attempt: u32, at: i64) {
            let (place, attempt) = ((Seq(seq), Piece::of_number(piece).unwrap()), Attempt(attempt));
            let mark = match which {
                0 => Mark::Day(Some(Day::of(UnixMillis(at)))),
                1 => Mark::Day(None),
                2 => Mark::Fence(place, attempt),
                3 => {
                    let day = (attempt.0 % 2 == 0).then(|| Day::of(UnixMillis(at)));
                    Mark::Pack(PackName { first: place, last: (Seq(7), piece_of(attempt)), nth: attempt.0, day })
                }
                _ => Mark::Kept(place, attempt),
            };
            prop_assert_eq!(Mark::parse(&mark.name()), Some(mark));
        }
    }

    #[test]
    fn each_fence_ends_a_life_and_begins_the_next() {
        let id = BatchId::new(Opening(1), TenantId::new("acme").unwrap(), Seq(7));
        let mut page = Page::default();
        assert_eq!((page.life(&id), page.ended(&id)), (0, vec![]));
        for attempt in [5, 2, 5] {
            page.take(Mark::Fence(id.place(), Attempt(attempt)));
        }
        assert_eq!((page.life(&id), page.ended(&id)), (5, vec![(0, Attempt(2)), (2, Attempt(5))]));
        let halved = id.halves().unwrap()[0].clone();
        assert_eq!((page.life(&halved), page.kept(&halved)), (0, None));
    }
}
