//! Points at which a crash test ends the process as a power cut would: at once, with nothing unwound and nothing flushed.
//!
//! `HEADWORKS_FAULT="after-intent:3"` kills the process when it comes to the point `after-intent` for the third time; without a
//! number it is the first time. `hang-after-intent` does not end it there, but holds the thread for ever; `panic-after-intent` panics there, from that time on
//! each time. The points, in the order of the flow:
//!
//! | point | a chunk or batch |
//! |---|---|
//! | `after-accept` | was accepted into its lane and handed to the journal, which need not have committed it |
//! | `after-cut` | was cut from its tenant's window, which the journal need not have committed |
//! | `after-intent` | has an attempt on record, committed, and its store was not asked yet |
//! | `after-store` | was taken by its store, and the outcome is not on record yet |
//! | `after-step` | was taken by a store of its saga that is not the last, and that is on record, not committed |
//! | `after-given-up` | was given up, on record and committed, and nothing of it is undone yet |
//! | `after-rollback` | had one of its compensations, and that is on record, not committed |
//! | `after-compensation` | had all of them |
//! | `after-split` | was split, which the journal need not have committed |
//! | `after-letters` | is among the dead letters, and the outcome is not on record yet |
//! | `before-letters` | was refused at the door, as a frame, and its dead letter is not kept yet |
//! | `after-outcome` | has its outcome, which the journal need not have committed |
//! | `in-prune` | is deleted with others by its tenant's retention, and that is not committed; an object: it is counted, and still there |
//! | `after-prune` | is deleted so, and that is committed |
//! | `in-erase` | is erased with others, and that is committed, and more of its tenant is still there; in files and NATS: before it is |
//!
//! Without the feature `testing` a point is nothing at all, and the variable means nothing.

/// The variable that arms a point; none where the feature `testing` is off.
pub const FAULT_VARIABLE: Option<&str> = if cfg!(feature = "testing") { Some("HEADWORKS_FAULT") } else { None };

/// Here a crash test may end the process.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn fault_point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub use armed::fault_point;

#[cfg(feature = "testing")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::FAULT_VARIABLE;

    const POINTS: [&str; 15] = [
        "after-accept",
        "after-cut",
        "after-intent",
        "after-store",
        "after-step",
        "after-outcome",
        "after-given-up",
        "after-rollback",
        "after-compensation",
        "after-split",
        "after-letters",
        "before-letters",
        "in-prune",
        "after-prune",
        "in-erase",
    ];

    /// Read once: a process has one fault to die of.
    static FAULT: LazyLock<Option<Fault>> = LazyLock::new(|| {
        let text = std::env::var(FAULT_VARIABLE?).ok()?;
        match Fault::parse(&text) {
            Ok(fault) => Some(fault),
            Err(why) => {
                // A slip must not look like a test that passed, and a panic would only restart an actor.
                eprintln!("HEADWORKS_FAULT={text:?}: {why}");
                std::process::exit(2)
            }
        }
    });

    /// Here a crash test may end the process; see the [module](super).
    #[inline]
    pub fn fault_point(name: &'static str) {
        debug_assert!(POINTS.contains(&name), "{name} is not in the list of fault points");
        if let Some(fault) = FAULT.as_ref().filter(|fault| fault.is_due(name)) {
            fault.strike();
        }
    }

    /// What happens at the point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Dies,
        Hangs,
        Panics,
    }

    #[derive(Debug)]
    struct Fault {
        kind: Kind,
        point: &'static str,
        nth: u64,
        times: AtomicU64,
    }

    impl Fault {
        fn parse(text: &str) -> Result<Self, String> {
            let (kind, point) = match text.split_once('-') {
                Some(("hang", point)) => (Kind::Hangs, point),
                Some(("panic", point)) => (Kind::Panics, point),
                _ => (Kind::Dies, text),
            };
            let (name, nth) = point.split_once(':').unwrap_or((point, "1"));
            let Some(point) = POINTS.into_iter().find(|point| *point == name) else {
                return Err(format!("there is no fault point {name:?}; valid: {}", POINTS.join(", ")));
            };
            match nth.parse() {
                Ok(nth) if nth > 0 => Ok(Self { kind, point, nth, times: AtomicU64::new(0) }),
                _ => Err(format!("{nth:?} is no count of times from 1")),
            }
        }

        fn strike(&self) -> ! {
            match self.kind {
                Kind::Dies => die(),
                Kind::Hangs => loop {
                    std::thread::park();
                },
                Kind::Panics => panic!("the fault point {} panics", self.point),
            }
        }

        /// Whether this is the time.
        fn is_due(&self, name: &str) -> bool {
            if name != self.point {
                return false;
            }
            let time = self.times.fetch_add(1, Ordering::Relaxed) + 1;
            time == self.nth || (self.kind == Kind::Panics && time > self.nth)
        }
    }

    fn die() -> ! {
        #[cfg(unix)]
        {
            use rustix::process::{Signal, getpid, kill_process};
            // It cannot fail for a process of one's own; were it to, the abort is next best.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        std::process::abort()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_due_once_at_its_time_and_others_do_not_count() {
            let fault = Fault::parse("after-intent:3").unwrap();
            let due: Vec<_> = ["after-intent", "after-cut", "after-intent", "after-intent", "after-intent"]
                .into_iter()
                .map(|name| fault.is_due(name))
                .collect();
            assert_eq!(due, [false, false, false, true, false]);
            assert!(Fault::parse("after-store").unwrap().is_due("after-store"));
            let hang = Fault::parse("hang-after-store").unwrap();
            assert!((fault.kind, hang.kind) == (Kind::Dies, Kind::Hangs) && hang.is_due("after-store"));
            let panic = Fault::parse("panic-after-store:2").unwrap();
            let due: Vec<_> = (0..4).map(|_| panic.is_due("after-store")).collect();
            assert_eq!((panic.kind, due), (Kind::Panics, vec![false, true, true, true]));
        }

        #[test]
        fn a_point_that_does_not_exist_and_a_count_that_never_comes_are_refused() {
            for (text, says) in [
                ("after-intend:3", "valid: after-accept, after-cut"),
                ("", "no fault point"),
                ("after-cut:0", "from 1"),
                ("after-cut:", "from 1"),
                ("after-cut:-1", "from 1"),
                ("after-cut:1:2", "from 1"),
            ] {
                let why = Fault::parse(text).unwrap_err();
                assert!(why.contains(says), "{text}: {why}");
            }
        }
    }
}
