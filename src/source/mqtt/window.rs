//! Which messages are on their way: from when they came until they are acknowledged. Pure.
//!
//! Messages are acknowledged in the order in which they came, as MQTT has it, and each once all of its frames are answered for.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use rangemap::RangeInclusiveSet;

/// So many of the last messages are known again, where each differs from every other.
const REMEMBERED: usize = 65_536;

/// What tells messages apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Print(u64, u64);

impl Print {
    pub(super) fn of(topic: &[u8], payload: &[u8]) -> Self {
        let half = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(seed);
            hasher.write_usize(topic.len());
            hasher.write(topic);
            hasher.write(payload);
            hasher.finish()
        };
        Self(half(0), half(1))
    }
}

/// A message that was taken in, and the positions of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    print: Print,
    first: u64,
    last: u64,
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It is to be taken in.
    New,
    /// It was, as so many frames, and is acknowledged when they are answered for.
    Known(u64),
}

#[derive(Debug, Default)]
pub(super) struct Window {
    /// The last position that was given to a frame.
    last: u64,
    /// Positions that are answered for.
    answered: RangeInclusiveSet<u64>,
    /// Those of this connection that are not acknowledged, in the order in which they came.
    open: VecDeque<(u16, Taken)>,
    /// Those of earlier connections of this session, by what they are to be acknowledged by: the broker sends them again.
    earlier: HashMap<u16, Taken>,
    /// The last messages, where each differs from every other.
    remembered: Option<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    by_print: HashMap<Print, Taken>,
    in_order: VecDeque<Print>,
}

impl Remembered {
    fn add(&mut self, taken: Taken) {
        if self.by_print.insert(taken.print, taken).is_none() {
            self.in_order.push_back(taken.print);
        }
        if self.in_order.len() > REMEMBERED
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_print.remove(&oldest);
        }
    }
}

impl Window {
    /// `unique` says that each message differs from every other.
    pub(super) fn new(unique: bool) -> Self {
        Self { remembered: unique.then(Remembered::default), ..Self::default() }
    }

    /// Frames up to `last` were dealt with, and none beyond: those are to come again.
    pub(super) fn goes_on_after(&mut self, last: u64) {
        self.last = last;
        self.answered.remove(last + 1..=u64::MAX);
        let is_taken = |taken: &Taken| taken.last <= last;
        self.open.retain(|(_, taken)| is_taken(taken));
        self.earlier.retain(|_, taken| is_taken(taken));
        if let Some(Remembered { by_print, in_order }) = &mut self.remembered {
            by_print.retain(|_, taken| is_taken(taken));
            in_order.retain(|print| by_print.contains_key(print));
        }
    }

    /// There is another connection; with the session of the last one, or a new one.
    pub(super) fn connected(&mut self, has_session: bool) {
        let open = std::mem::take(&mut self.open);
        if has_session {
            self.earlier.extend(open);
        } else {
            self.earlier.clear();
        }
    }

    /// A message came, of so many frames. `again` is what the broker says, `id` what it is acknowledged by.
    pub(super) fn came(&mut self, again: bool, id: Option<u16>, print: Print, frames: u64) -> Came {
        // Not acknowledged, it keeps its number.
        let earlier = id.and_then(|id| self.earlier.remove(&id)).filter(|earlier| again && earlier.print == print);
        let remembered = || self.remembered.as_ref()?.by_print.get(&print).copied();
        let known = earlier.or_else(remembered);
        let taken = known.unwrap_or_else(|| {
            let first = self.last + 1;
            self.last += frames;
            Taken { print, first, last: self.last }
        });
        if let Some(id) = id {
            self.open.push_back((id, taken));
        }
        match known {
            Some(Taken { first, last, .. }) => Came::Known(last - first + 1),
            None => {
                if let Some(remembered) = &mut self.remembered {
                    remembered.add(taken);
                }
                Came::New
            }
        }
    }

    /// These positions are answered for.
    pub(super) fn answered(&mut self, positions: std::ops::RangeInclusive<u64>) {
        self.answered.insert(positions);
    }

    /// What can be acknowledged now, in order.
    pub(super) fn acknowledged(&mut self) -> impl Iterator<Item = u16> + use<'_> {
        std::iter::from_fn(|| {
            let (id, Taken { first, last, .. }) = *self.open.front()?;
            if self.answered.gaps(&(first..=last)).next().is_some() {
                return None;
            }
            self.open.pop_front();
            Some(id)
        })
    }

    /// How many are not acknowledged.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(n: u64) -> Print {
        Print(n, n)
    }

    fn acknowledged(window: &mut Window) -> Vec<u16> {
        window.acknowledged().collect()
    }

    #[test]
    fn a_message_is_acknowledged_once_all_its_frames_are_answered_for_and_in_order() {
        let mut window = Window::new(false);
        window.goes_on_after(10);
        assert_eq!(window.came(false, Some(1), print(1), 2), Came::New);
        assert_eq!(window.came(false, None, print(2), 1), Came::New);
        assert_eq!(window.came(false, Some(2), print(3), 1), Came::New);
        window.answered(12..=14);
        assert!(acknowledged(&mut window).is_empty());
        window.answered(11..=11);
        assert_eq!((acknowledged(&mut window), window.open()), (vec![1, 2], 0));
    }

    #[test]
    fn a_message_that_comes_again_in_the_same_session_is_the_one_that_was_taken_in() {
        let mut window = Window::new(false);
        window.came(false, Some(1), print(1), 1);
        window.came(false, Some(2), print(2), 1);
        window.answered(1..=1);
        assert_eq!(acknowledged(&mut window), [1]);
        window.connected(true);
        // Its acknowledgement may have come too late: nobody knows.
        assert_eq!(window.came(true, Some(1), print(1), 1), Came::New);
        assert_eq!(window.came(true, Some(2), print(2), 1), Came::Known(1));
        window.answered(2..=3);
        assert_eq!(acknowledged(&mut window), [1, 2]);
    }

    #[test]
    fn a_number_of_a_lost_session_or_of_another_message_means_nothing() {
        for (has_session, again, print_then) in [(false, true, 1), (true, false, 1), (true, true, 9)] {
            let mut window = Window::new(false);
            window.came(false, Some(1), print(1), 1);
            window.connected(has_session);
            assert_eq!(window.came(again, Some(1), print(print_then), 1), Came::New);
        }
    }

    #[test]
    fn where_each_differs_from_every_other_one_that_came_is_known_however_it_comes_again() {
        let mut window = Window::new(true);
        window.came(false, Some(1), print(1), 1);
        window.answered(1..=1);
        assert_eq!(acknowledged(&mut window), [1]);
        window.connected(false);
        assert_eq!(window.came(false, Some(7), print(1), 1), Came::Known(1));
        assert_eq!(acknowledged(&mut window), [7]);
        // But not one that the journal has not.
        window.came(false, Some(8), print(2), 1);
        window.goes_on_after(1);
        assert_eq!(window.came(false, Some(9), print(2), 1), Came::New);
    }

    proptest! {
        #[test]
        fn each_message_is_acknowledged_once_and_never_before_its_frames(
            frames in prop::collection::vec(1_u64..4, 1..50),
            steps in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut window = Window::new(false);
            for (nth, frames) in (0_u64..).zip(&frames) {
                window.came(false, Some(u16::try_from(nth).unwrap()), print(nth), *frames);
            }
            let total: u64 = frames.iter().sum();
            let mut done = vec![false; usize::try_from(total).unwrap()];
            let mut told = vec![];
            let positions: Vec<_> = steps.iter().map(|step| step.index(done.len())).chain(0..done.len()).collect();
            for position in positions {
                done[position] = true;
                let position = position as u64 + 1;
                window.answered(position..=position);
                told.extend(window.acknowledged());
                let mut from = 0;
                let expected = frames.iter().take_while(|frames| {
                    let all = done[from..from + usize::try_from(**frames).unwrap()].iter().all(|done| *done);
                    from += usize::try_from(**frames).unwrap();
                    all
                });
                let expected: Vec<_> = (0_u16..).zip(expected).map(|(nth, _)| nth).collect();
                prop_assert_eq!(&told, &expected);
            }
        }
    }
}
