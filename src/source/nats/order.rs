//! Which deliveries are to be taken in, so that messages come in the order of their stream and none is left out. Pure.

/// A delivery of a message, as the server describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The message's number in its stream.
    pub(super) message: u64,
    /// The number of the delivery among all of the consumer.
    pub(super) delivery: u64,
    /// The message was never delivered before.
    pub(super) is_first: bool,
    /// When the server got it, in nanoseconds.
    pub(super) published: i128,
}

/// What to do with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The message was taken in before.
    Known,
    /// It is the next.
    Next,
    /// It is the next but for those from this number on, if there are any: a delivery of them may have been lost.
    Behind(u64),
    /// It has the number of one that was taken in, and is another: the server lost messages, and numbers begin again.
    Replaced,
}

/// What was taken in so far.
///
/// A server delivers messages for the first time in their order. So where a first delivery was seen, and no delivery was missed
/// since, every message before the next one was seen too. Deliveries are numbered: a hole in their numbers is one that was missed.
#[derive(Debug)]
pub(super) struct Order {
    /// All messages up to this one.
    taken: u64,
    last_delivery: Option<u64>,
    is_certain: bool,
    /// The time of the newest message that was taken in, by this process.
    pub(super) newest: Option<i128>,
}

impl Order {
    pub(super) fn new(taken: u64, newest: Option<i128>) -> Self {
        Self { taken, last_delivery: None, is_certain: false, newest }
    }

    /// Where it goes on.
    pub(super) fn next(&self) -> u64 {
        self.taken + 1
    }

    /// This one, the next there is, was read from the stream and not delivered.
    pub(super) fn read(&mut self, message: u64, published: i128) {
        (self.taken, self.newest) = (message, self.newest.max(Some(published)));
    }

    pub(super) fn see(&mut self, of: Delivery) -> Verdict {
        let follows = self.last_delivery.is_some_and(|last| of.delivery == last + 1);
        self.last_delivery = Some(of.delivery);
        self.is_certain &= follows;
        if of.message <= self.taken {
            let is_newer = self.newest.is_some_and(|newest| of.published > newest);
            return if of.is_first && is_newer { Verdict::Replaced } else { Verdict::Known };
        }
        let from = self.taken + 1;
        let verdict = match (self.is_certain && of.is_first) || from == of.message {
            true => Verdict::Next,
            false => Verdict::Behind(from),
        };
        self.is_certain |= of.is_first;
        self.taken = of.message;
        self.newest = self.newest.max(Some(of.published));
        verdict
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delivery(message: u64, delivery: u64, is_first: bool) -> Delivery {
        Delivery { message, delivery, is_first, published: i128::from(message) }
    }

    #[test]
    fn a_message_that_took_the_number_of_another_one_is_told_from_one_that_comes_again() {
        let mut order = Order::new(0, None);
        assert_eq!(order.see(delivery(5, 1, true)), Verdict::Behind(1));
        assert_eq!(order.see(delivery(9, 2, true)), Verdict::Next);
        // A server that forgot what it delivered.
        assert_eq!(order.see(delivery(5, 1, true)), Verdict::Known);
        let another = Delivery { published: 77, ..delivery(6, 2, true) };
        assert_eq!(order.see(another), Verdict::Replaced);
        assert_eq!(order.see(Delivery { is_first: false, ..another }), Verdict::Known);
    }

    /// What happens between a server and its client.
    #[derive(Debug, Clone)]
    enum Deed {
        /// So many messages are published, and so many numbers left out.
        Publish(u64, u64),
        Deliver,
        /// One that is pending comes again.
        Again(prop::sample::Index),
        /// A delivery is lost on its way.
        Lose,
        LoseAgain,
        /// The session begins anew, knowing what was taken in.
        Reconnect,
        Acknowledge(prop::sample::Index),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            4 => (1..5u64, 0..3u64).prop_map(|(messages, holes)| Deed::Publish(messages, holes)),
            8 => Just(Deed::Deliver),
            3 => any::<prop::sample::Index>().prop_map(Deed::Again),
            2 => Just(Deed::Lose),
            1 => Just(Deed::LoseAgain),
            1 => Just(Deed::Reconnect),
            2 => any::<prop::sample::Index>().prop_map(Deed::Acknowledge),
        ]
    }

    proptest! {
        #[test]
        fn every_message_is_taken_in_once_and_in_order_whatever_deliveries_are_lost(deeds in prop::collection::vec(deed(), 0..120)) {
            let (mut stream, mut last, mut next) = (vec![], 0u64, 0usize);
            let (mut pending, mut deliveries) = (vec![], 0u64);
            let (mut order, mut taken) = (Order::new(0, None), Vec::<u64>::new());
            for deed in deeds {
                let mut come = None;
                match deed {
                    Deed::Publish(messages, holes) => {
                        last += holes;
                        stream.extend(last + 1..=last + messages);
                        last += messages;
                    }
                    Deed::Deliver | Deed::Lose if next < stream.len() => {
                        deliveries += 1;
                        pending.push(stream[next]);
                        if matches!(deed, Deed::Deliver) {
                            come = Some(delivery(stream[next], deliveries, true));
                        }
                        next += 1;
                    }
                    Deed::Again(of) if !pending.is_empty() => {
                        deliveries += 1;
                        come = Some(delivery(*of.get(&pending), deliveries, false));
                    }
                    Deed::LoseAgain if !pending.is_empty() => deliveries += 1,
                    Deed::Acknowledge(of) if !pending.is_empty() => {
                        // None but what was taken in is acknowledged.
                        let at = of.index(pending.len());
                        if taken.contains(&pending[at]) {
                            pending.remove(at);
                        }
                    }
                    Deed::Reconnect => {
                        order = Order::new(taken.last().copied().unwrap_or(0), order.newest);
                        // What was delivered before is read.
                        for message in stream[..next].iter().filter(|message| **message >= order.next()).copied().collect::<Vec<_>>() {
                            order.read(message, i128::from(message));
                            taken.push(message);
                        }
                    }
                    _ => {}
                }
                let Some(come) = come else { continue };
                match order.see(come) {
                    Verdict::Known => prop_assert!(taken.contains(&come.message)),
                    Verdict::Next => taken.push(come.message),
                    Verdict::Behind(from) => {
                        taken.extend(stream.iter().filter(|message| (from..=come.message).contains(message)));
                    }
                    Verdict::Replaced => prop_assert!(false, "none is another"),
                }
                prop_assert_eq!(&taken[..], &stream[..taken.len()]);
            }
        }
    }
}
