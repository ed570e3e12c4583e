use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;

use rangemap::RangeInclusiveSet;

const WORDS: usize = 4;

/// How many positions a block has.
const BLOCK: u64 = WORDS as u64 * 64;

/// Which positions of a block: a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bits([u64; WORDS]);

/// A set of positions in a sender's stream.
///
/// The positions of one tenant's events lie between those of the others, so that a set by ranges would have a range an event, and
/// work on it for each. This one has a bit for each position where there are gaps, in blocks, and a range where there are none:
/// what is done for a chunk costs a few steps a block, and a set without gaps takes no room however long it is.
///
/// ```
/// use headworks_actors::PositionSet;
///
/// let mut set = PositionSet::default();
/// set.insert(1..=3);
/// set.insert(5..=1_000_000);
/// assert_eq!((set.run_from(2), set.run_from(4)), (Some(3), None));
/// set.insert(4..=4);
/// assert_eq!(set.run_from(2), Some(1_000_000));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PositionSet {
    /// Blocks of which some positions are in the set, and not all.
    some: BTreeMap<u64, Bits>,
    /// Blocks of which all are.
    whole: RangeInclusiveSet<u64>,
}

impl Bits {
    const ALL: Self = Self([u64::MAX; WORDS]);

    fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn or(self, other: Self) -> Self {
        self.with(other, |a, b| a | b)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        self.with(other, |a, b| a & b)
    }

    fn without(self, other: Self) -> Self {
        self.with(other, |a, b| a & !b)
    }

    fn with(self, other: Self, rule: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|word| rule(self.0[word], other.0[word])))
    }

    /// Of these growing positions, which are of one block.
    #[inline]
    fn of(positions: &[u64]) -> Self {
        let mut bits = Self::default();
        for position in positions {
            bits.0[(position % BLOCK / 64) as usize] |= 1 << (position % 64);
        }
        bits
    }

    /// From one position of the block to another.
    fn between(from: u64, to: u64) -> Self {
        Self(std::array::from_fn(|word| {
            let base = word as u64 * 64;
            let upto = |end: u64| match end.saturating_sub(base) {
                bits @ 0..64 => (1 << bits) - 1,
                _ => u64::MAX,
            };
            upto(to + 1) & !upto(from)
        }))
    }

    /// The first of them.
    fn first(self) -> Option<u64> {
        let (nth, word) = self.0.into_iter().enumerate().find(|(_, word)| *word != 0)?;
        Some(nth as u64 * 64 + u64::from(word.trailing_zeros()))
    }

    /// How many runs they are.
    fn begins(self) -> usize {
        let mut before = 0;
        let begins =
            |word: u64| (word & !(word << 1 | std::mem::replace(&mut before, word >> 63))).count_ones() as usize;
        self.0.into_iter().map(begins).sum()
    }

    /// Their runs, where the block begins at `base`; one that goes on in the next word comes in parts.
    fn runs(self, base: u64, mut each: impl FnMut(RangeInclusive<u64>)) {
        for (nth, mut word) in self.0.into_iter().enumerate() {
            while word != 0 {
                let from = word.trailing_zeros();
                let length = (word >> from).trailing_ones();
                let start = base + nth as u64 * 64 + u64::from(from);
                each(start..=start + u64::from(length - 1));
                word &= u64::MAX.checked_shl(from + length).unwrap_or(0);
            }
        }
    }
}

/// The blocks of growing positions, and which positions of each.
pub(crate) fn blocks(positions: &[u64]) -> impl Iterator<Item = (u64, Bits)> {
    let together = positions.chunk_by(|a, b| a / BLOCK == b / BLOCK);
    together.filter_map(|block| Some((block.first()? / BLOCK, Bits::of(block))))
}

/// The block at either end of a range, with what of it is in the range, and those between.
fn split(range: &RangeInclusive<u64>) -> ([(u64, Bits); 2], Option<RangeInclusive<u64>>) {
    let (from, to) = (range.start() / BLOCK, range.end() / BLOCK);
    let (first, last) = (range.start() % BLOCK, range.end() % BLOCK);
    if range.is_empty() {
        return ([(from, Bits::default()); 2], None);
    }
    if from == to {
        return ([(from, Bits::between(first, last)), (to, Bits::default())], None);
    }
    let between = from + 1..=to - 1;
    let ends = [(from, Bits::between(first, BLOCK - 1)), (to, Bits::between(0, last))];
    (ends, (!between.is_empty()).then_some(between))
}

impl PositionSet {
    /// A set of growing positions.
    pub(crate) fn of(positions: &[u64]) -> Self {
        let mut set = Self::default();
        blocks(positions).for_each(|(block, bits)| set.add(block, bits));
        set
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.some.is_empty() && self.whole.is_empty()
    }

    /// Whether it has this one.
    #[must_use]
    pub fn contains(&self, position: u64) -> bool {
        let bits = Bits::of(&[position]);
        self.of_block(position / BLOCK).and(bits) == bits
    }

    /// Adds all of the range.
    pub fn insert(&mut self, range: RangeInclusive<u64>) {
        let (ends, between) = split(&range);
        for (block, bits) in ends {
            self.add(block, bits);
        }
        if let Some(blocks) = between {
            self.some.extract_if(blocks.clone(), |_, _| true).for_each(drop);
            self.whole.insert(blocks);
        }
    }

    /// Takes all of the range out.
    pub fn remove(&mut self, range: RangeInclusive<u64>) {
        let (ends, between) = split(&range);
        for (block, bits) in ends {
            self.take(block, bits);
        }
        if let Some(blocks) = between {
            self.some.extract_if(blocks.clone(), |_, _| true).for_each(drop);
            self.whole.remove(blocks);
        }
    }

    /// The last position of the run without a gap that `position` is in, if it is in the set.
    #[must_use]
    pub fn run_from(&self, position: u64) -> Option<u64> {
        let mut at = position;
        loop {
            let block = at / BLOCK;
            let missing = Bits::between(at % BLOCK, BLOCK - 1).without(self.of_block(block));
            if let Some(gap) = missing.first() {
                return (block * BLOCK + gap).checked_sub(1).filter(|last| *last >= position);
            }
            let last = self.whole.get(&block).map_or(block, |blocks| *blocks.end()) * BLOCK + (BLOCK - 1);
            match last.checked_add(1) {
                Some(next) => at = next,
                None => return Some(last),
            }
        }
    }

    /// Its runs, each as long as it can be, in order.
    pub(crate) fn runs(&self) -> Vec<RangeInclusive<u64>> {
        self.within(&(0..=u64::MAX))
    }

    /// The runs of what of the range is in the set, in order.
    pub(crate) fn within(&self, range: &RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        let blocks = range.start() / BLOCK..=range.end() / BLOCK;
        let mut runs: Vec<RangeInclusive<u64>> = vec![];
        let mut add = |run: RangeInclusive<u64>| {
            let (from, to) = (*run.start().max(range.start()), *run.end().min(range.end()));
            match runs.last_mut() {
                _ if from > to => {}
                Some(last) if last.end().checked_add(1) == Some(from) => *last = *last.start()..=to,
                _ => runs.push(from..=to),
            }
        };
        let whole = self.whole.overlapping(&blocks);
        let mut whole = whole.map(|blocks| blocks.start() * BLOCK..=blocks.end() * BLOCK + (BLOCK - 1)).peekable();
        for (block, bits) in self.some.range(blocks.clone()) {
            while let Some(before) = whole.next_if(|whole| *whole.start() < block * BLOCK) {
                add(before);
            }
            bits.runs(block * BLOCK, &mut add);
        }
        whole.for_each(add);
        runs
    }

    /// How many runs it has: at least so many, and some more where one goes on in the next block.
    pub(crate) fn at_most_runs(&self) -> usize {
        let in_blocks: usize = self.some.values().map(|bits| bits.begins()).sum();
        in_blocks + self.whole.len()
    }

    /// Adds what another has.
    pub(crate) fn add_all(&mut self, mut other: Self) {
        if self.is_empty() {
            std::mem::swap(self, &mut other);
        }
        other.some.into_iter().for_each(|(block, bits)| self.add(block, bits));
        for blocks in other.whole {
            self.insert(blocks.start() * BLOCK..=blocks.end() * BLOCK + (BLOCK - 1));
        }
    }

    /// Which positions of the block it has.
    pub(crate) fn of_block(&self, block: u64) -> Bits {
        match self.some.get(&block) {
            Some(bits) => *bits,
            None if self.whole.contains(&block) => Bits::ALL,
            None => Bits::default(),
        }
    }

    /// Adds positions of a block.
    pub(crate) fn add(&mut self, block: u64, bits: Bits) {
        if bits.is_empty() || self.whole.contains(&block) {
            return;
        }
        match self.some.entry(block) {
            Entry::Vacant(place) if bits != Bits::ALL => drop(place.insert(bits)),
            Entry::Vacant(_) => self.whole.insert(block..=block),
            Entry::Occupied(mut place) => {
                let all = place.get().or(bits);
                if all == Bits::ALL {
                    place.remove();
                    self.whole.insert(block..=block);
                } else {
                    *place.get_mut() = all;
                }
            }
        }
    }

    /// Takes positions of a block out. Gives those that were there.
    pub(crate) fn take(&mut self, block: u64, bits: Bits) -> Bits {
        if bits.is_empty() {
            return bits;
        }
        match self.some.entry(block) {
            Entry::Occupied(mut place) => {
                let had = *place.get();
                let left = had.without(bits);
                if left.is_empty() {
                    place.remove();
                } else {
                    *place.get_mut() = left;
                }
                had.and(bits)
            }
            Entry::Vacant(place) => {
                if !self.whole.contains(&block) {
                    return Bits::default();
                }
                self.whole.remove(block..=block);
                let left = Bits::ALL.without(bits);
                if !left.is_empty() {
                    place.insert(left);
                }
                bits
            }
        }
    }
}

impl FromIterator<RangeInclusive<u64>> for PositionSet {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ends of blocks and of words, and what is beyond all.
    fn position() -> impl Strategy<Value = u64> {
        prop_oneof![0..1_200_u64, (0..20_u64).prop_map(|n| n * 64), 1 << 20..1_u64 << 21, u64::MAX - 600..=u64::MAX]
    }

    #[derive(Debug, Clone)]
    enum Act {
        Insert(u64, u64),
        Remove(u64, u64),
        Add(Vec<u64>),
        Take(Vec<u64>),
    }

    fn act() -> impl Strategy<Value = Act> {
        let some = || prop::collection::btree_set(0..1_500_u64, 1..200).prop_map(|some| some.into_iter().collect());
        let sorted = |(a, b): (u64, u64)| (a.min(b), a.max(b));
        prop_oneof![
            (position(), position()).prop_map(sorted).prop_map(|(from, to)| Act::Insert(from, to)),
            (position(), position()).prop_map(sorted).prop_map(|(from, to)| Act::Remove(from, to)),
            some().prop_map(Act::Add),
            some().prop_map(Act::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_holds_what_a_set_of_ranges_holds(acts in prop::collection::vec(act(), 1..30), asked in (position(), position())) {
            let (mut set, mut model) = (PositionSet::default(), RangeInclusiveSet::<u64>::new());
            for act in acts {
                match act {
                    Act::Insert(from, to) => {
                        set.insert(from..=to);
                        model.insert(from..=to);
                    }
                    Act::Remove(from, to) => {
                        set.remove(from..=to);
                        model.remove(from..=to);
                    }
                    Act::Add(positions) => {
                        blocks(&positions).for_each(|(block, bits)| set.add(block, bits));
                        positions.iter().for_each(|position| model.insert(*position..=*position));
                    }
                    Act::Take(positions) => {
                        let mut taken = PositionSet::default();
                        for (block, bits) in blocks(&positions) {
                            let bits = set.take(block, bits);
                            taken.add(block, bits);
                        }
                        let had: Vec<_> = positions.iter().filter(|position| model.contains(position)).copied().collect();
                        prop_assert_eq!(taken, PositionSet::of(&had));
                        positions.iter().for_each(|position| model.remove(*position..=*position));
                    }
                }
            }
            let runs: Vec<_> = model.iter().cloned().collect();
            prop_assert_eq!(set.runs(), runs.clone());
            prop_assert_eq!(set.is_empty(), runs.is_empty());
            prop_assert!(set.at_most_runs() >= runs.len());
            // However it came to be, the same is kept in the same way.
            prop_assert_eq!(&set, &runs.iter().cloned().collect());
            let mut both = set.clone();
            both.add_all(PositionSet::of(&[1, 2, 700]));
            model.extend([1..=2, 700..=700]);
            prop_assert_eq!(both.runs(), model.iter().cloned().collect::<Vec<_>>());
            let (from, to) = (asked.0.min(asked.1), asked.0.max(asked.1));
            let clipped = |run: &RangeInclusive<u64>| *run.start().max(&from)..=*run.end().min(&to);
            let within: Vec<_> = runs.iter().map(clipped).filter(|run| !run.is_empty()).collect();
            prop_assert_eq!(set.within(&(from..=to)), within);
            prop_assert_eq!(set.contains(from), runs.iter().any(|run| run.contains(&from)));
            prop_assert_eq!(set.run_from(from), runs.iter().find(|run| run.contains(&from)).map(|run| *run.end()));
        }
    }
}
