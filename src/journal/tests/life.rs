//! Random lives against the model: whatever was committed is found again, in any crash and after any fault.

use std::io::ErrorKind;

use headworks_actors::{Opening, UnixMillis};
use proptest::prelude::*;

use super::super::log::{Group, Opened};
use super::super::memory_disk::MemoryDisk;
use super::model::{Deed, Model};
use super::{open, try_open};

/// What happens to a journal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// A block is appended.
    Deed(u8, Deed),
    /// What was appended is committed.
    Commit,
    /// What can be given back is.
    Reclaim,
    /// The disk fails for some steps, from the next but so many on.
    Fault { after: u8, steps: u8, full: bool },
    /// The power goes, and comes back.
    Crash,
    /// The process ends and the next begins; cleanly or not.
    Restart { is_closed: bool },
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let deed = prop_oneof![
        6 => (0..12_u8, 0..400_u16).prop_map(|(events, padding)| Deed::Accept { events, padding }),
        1 => Just(Deed::Mark),
        1 => (0..4_u8, any::<bool>()).prop_map(|(frames, is_throttled)| Deed::Refuse { frames, is_throttled }),
        1 => (0..6_u8).prop_map(|of| Deed::Hear { of }),
        4 => (0..20_u8).prop_map(|events| Deed::Cut { events }),
        2 => (0..3_u8).prop_map(|chunks| Deed::Shed { chunks }),
        1 => Just(Deed::Make),
        2 => Just(Deed::Try),
        1 => Just(Deed::Undo),
        1 => Just(Deed::Fail),
        1 => Just(Deed::Done),
        1 => Just(Deed::GiveUp),
        1 => any::<bool>().prop_map(|fails| Deed::Compensate { fails }),
        1 => Just(Deed::Undone),
        1 => Just(Deed::Again),
        1 => any::<u8>().prop_map(|events| Deed::Split { events }),
        4 => (0..3_u8).prop_map(|outcome| Deed::Settle { outcome }),
        1 => Just(Deed::Door),
    ];
    let event = prop_oneof![
        24 => (0..3_u8, deed).prop_map(|(tenant, deed)| Event::Deed(tenant, deed)),
        8 => Just(Event::Commit),
        3 => Just(Event::Reclaim),
        1 => (0..6_u8, 1..4_u8, any::<bool>()).prop_map(|(after, steps, full)| Event::Fault { after, steps, full }),
        2 => Just(Event::Crash),
        1 => any::<bool>().prop_map(|is_closed| Event::Restart { is_closed }),
    ];
    proptest::collection::vec(event, 1..160)
}

const NAMES: [&str; 3] = ["acme", "umbrella", "zen"];

/// A journal, and what it must come to: after the last committed block, and after each block since.
struct Life {
    disk: MemoryDisk,
    opened: Opened,
    group: Group,
    states: Vec<Model>,
    random: fastrand::Rng,
}

/// Lives through the events; the first broken promise is the error.
pub(super) fn live(events: &[Event], seed: u64) -> Result<(), String> {
    let disk = MemoryDisk::new();
    let opened = open(&disk);
    let random = fastrand::Rng::with_seed(seed);
    let mut life = Life { disk, opened, group: Group::default(), states: vec![Model::default()], random };
    for event in events {
        life.event(*event)?;
    }
    life.event(Event::Crash)
}

impl Life {
    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deed(who, deed) => {
                let mut next = self.states.last().cloned().unwrap_or_default();
                let mut entries = next.act(NAMES[usize::from(who)], deed);
                self.group.push(&mut entries);
                self.states.push(next);
            }
            Event::Commit => self.commit(),
            Event::Reclaim => {
                if !self.opened.log.has_pending() {
                    // A fault is met again by the next commit, or in the next reclaim.
                    let _ = self.opened.log.reclaim();
                }
            }
            Event::Fault { after, steps, full } => {
                let from = self.disk.steps() + u64::from(after);
                let kind = if full { ErrorKind::StorageFull } else { ErrorKind::Other };
                self.disk.fail(from..from + u64::from(steps), kind);
                self.disk.write_at_most(1000);
            }
            Event::Crash => {
                let random = &mut self.random;
                self.disk = self.disk.crash(&mut || random.u64(..));
                self.reopen()?;
            }
            Event::Restart { is_closed } => {
                self.disk.heal();
                self.commit();
                if is_closed {
                    self.opened.log.checkpoint(true).map_err(|why| why.to_string())?;
                }
                self.disk = self.disk.copy();
                self.reopen()?;
            }
        }
        Ok(())
    }

    fn commit(&mut self) {
        if self.opened.log.commit(&mut self.group).is_ok() && !self.opened.log.has_pending() {
            self.states.drain(..self.states.len() - 1);
        } else if self.group.is_empty() {
            // It is the log's now, and tried again before the next.
        }
    }

    /// What is found must be what was committed, and maybe some blocks more, whole and in order.
    fn reopen(&mut self) -> Result<(), String> {
        self.opened = try_open(&self.disk).map_err(|why| format!("it does not open: {why}"))?;
        self.group = Group::default();
        let Opened { log, recovered, .. } = &self.opened;
        let mut complaint = String::new();
        let found = self.states.iter().rev().find(|state| match state.differs(recovered, log) {
            Ok(()) => true,
            Err(why) => {
                complaint = why;
                false
            }
        });
        let Some(found) = found.cloned() else {
            return Err(format!("with {} uncommitted blocks: {complaint}", self.states.len() - 1));
        };
        self.states = vec![found];
        self.opened.log.begin(Opening(self.random.u64(..)), UnixMillis(6));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_committed_is_found_again_whatever_happens(events in events(), seed in any::<u64>()) {
        live(&events, seed).map_err(TestCaseError::fail)?;
    }
}
