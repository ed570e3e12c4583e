//! Points at which a test makes the handler of a message panic: whatever of our own code fails, it fails in one of them.
//!
//! Each handler passes the point that bears its name before it does anything else. Without the feature `testing` a point
//! is nothing at all.

use crate::model::TenantId;

/// The point of each message, `actor/Message`, in the order of the flow.
pub const PANIC_POINTS: [&str; 12] = [
    "ingress/Read",
    "ingress/Finish",
    "ingress/Offer",
    "tenant/ChunksWait",
    "tenant/Beat",
    "writer/BatchesWait",
    "writer/Attempted",
    "writer/AttemptDue",
    "aggregator/GaveUp",
    "supervisor/Spawn",
    "supervisor/OpenIngress",
    "supervisor/Run",
];

/// The point that is armed in one system, if any is.
#[derive(Debug, Default)]
pub(crate) struct PanicPoints {
    #[cfg(feature = "testing")]
    armed: Option<Armed>,
}

impl PanicPoints {
    /// Here a test may panic. `tenant` is the one that the message is about.
    #[inline(always)]
    pub(crate) fn pass(&self, point: &'static str, tenant: Option<&TenantId>) {
        #[cfg(feature = "testing")]
        self.armed.iter().for_each(|armed| armed.pass(point, tenant));
        #[cfg(not(feature = "testing"))]
        let _ = (point, tenant);
    }
}

#[cfg(feature = "testing")]
use armed::Armed;
#[cfg(feature = "testing")]
pub use armed::PanicAt;

#[cfg(feature = "testing")]
mod armed {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{PANIC_POINTS, PanicPoints};
    use crate::model::TenantId;

    /// Where and when a handler is to panic, once.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct PanicAt {
        point: &'static str,
        nth: u64,
        tenant: Option<TenantId>,
    }

    impl PanicAt {
        /// The first time that `point` is passed.
        ///
        /// # Panics
        /// Where it is none of [`PANIC_POINTS`]: a slip must not look like a test that passed.
        #[must_use]
        pub fn new(point: &str) -> Self {
            match PANIC_POINTS.into_iter().find(|known| *known == point) {
                Some(point) => Self { point, nth: 1, tenant: None },
                None => panic!("there is no panic point {point:?}; valid: {}", PANIC_POINTS.join(", ")),
            }
        }

        /// The `nth` time, from 1.
        #[must_use]
        pub fn nth(self, nth: u64) -> Self {
            Self { nth, ..self }
        }

        /// Only messages about this tenant count. Those to an ingress and to the supervisor are about none.
        #[must_use]
        pub fn of(self, tenant: TenantId) -> Self {
            Self { tenant: Some(tenant), ..self }
        }
    }

    #[derive(Debug)]
    pub(super) struct Armed {
        at: PanicAt,
        passed: AtomicU64,
    }

    impl PanicPoints {
        pub(crate) fn armed(at: Option<PanicAt>) -> Self {
            Self { armed: at.map(|at| Armed { at, passed: AtomicU64::new(0) }) }
        }
    }

    impl Armed {
        pub(super) fn pass(&self, point: &'static str, tenant: Option<&TenantId>) {
            debug_assert!(PANIC_POINTS.contains(&point), "{point} is not in the list of panic points");
            let counts = point == self.at.point && (self.at.tenant.is_none() || self.at.tenant.as_ref() == tenant);
            if counts && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.at.nth {
                panic!("a panic was asked for at {point}");
            }
        }
    }
}
