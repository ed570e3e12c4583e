//! The rules a tenant lives by, one a file: a serde struct, its check, and the pure state machine it builds.
//!
//! No rule knows an actor, does I/O or reads a clock: `now` is an argument. So each can be tested alone, against a
//! simple model.

mod ack;
mod breaker;
mod change;
mod climb;
mod concurrency;
mod heartbeat;
mod on_failure;
mod overflow;
mod patience;
mod placement;
mod priority;
mod restart;
mod retention;
mod retry;
mod share;
mod silence;
mod stall;
mod tenant_rules;
mod throttle;
mod turns;
pub mod units;
mod unknown;
mod window;

use serde::{Deserialize, Serialize};

pub use ack::{AckLevel, InvalidAckLevel};
pub use breaker::BreakerPolicy;
pub(crate) use breaker::{Breaker, Tripped};
pub use change::PolicyChange;
pub use concurrency::StoreLimits;
pub(crate) use concurrency::{Concurrency, Period};
pub use heartbeat::{Heartbeat, HeartbeatPolicy, Liveliness};
pub use on_failure::OnFailure;
pub use overflow::{OverflowPolicy, WhenFull};
pub(crate) use patience::Patience;
pub(crate) use placement::{Move, moves, uneven};
pub use priority::{PriorityClass, PriorityPolicy};
pub use restart::{Decision, RestartPolicy, Restarts};
pub use retention::RetentionPolicy;
pub use retry::{Retry, RetryPolicy};
pub(crate) use share::{Memory, is_heavy, share};
pub use silence::SilencePolicy;
pub(crate) use silence::{Expected, Silence, Sound};
pub(crate) use stall::{Holdup, Moves, Stall};
pub use tenant_rules::{InvalidTenantPattern, RulesSet, TenantPattern, TenantRules};
pub use throttle::{Throttle, ThrottlePolicy, WhenOver};
pub(crate) use turns::{Place, Tag, Turns, Want};
pub(crate) use unknown::SpawnGate;
pub use unknown::{SpawnRate, Unknown};
pub(crate) use window::Room;
pub use window::{Window, WindowPolicy};

/// All the rules of one tenant. The default suits a log or telemetry stream.
///
/// ```
/// use std::time::Duration;
/// use headworks_actors::{Policy, WindowPolicy};
///
/// let policy = Policy {
///     window: WindowPolicy { max_events: 100, max_age: Duration::from_millis(250), ..WindowPolicy::default() },
///     ..Policy::default()
/// };
/// assert!(policy.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How safe an event must be at least before a sender that asks is told so. Default `received`.
    pub ack: AckLevel,
    /// When the window closes.
    pub window: WindowPolicy,
    /// What the tenant may send over time.
    pub throttle: ThrottlePolicy,
    /// What happens while the tenant's budget is full.
    pub overflow: OverflowPolicy,
    /// How storing is tried again.
    pub retry: RetryPolicy,
    /// When a store is left alone by this tenant, whose calls of it keep failing.
    pub breaker: BreakerPolicy,
    /// How the tenant stands among those that share its stores.
    pub priority: PriorityPolicy,
    /// What becomes of a batch that cannot be stored. Default `dead_letter`.
    pub on_failure: OnFailure,
    /// How actors are restarted.
    pub restart: RestartPolicy,
    /// How the tenant shows that it is alive, and when it counts as idle.
    pub heartbeat: HeartbeatPolicy,
    /// When its sender counts as silent. Default never.
    pub silence: SilencePolicy,
    /// For how long, and how much of it, what is stored is kept, by stores that prune.
    pub retention: RetentionPolicy,
}

impl Policy {
    /// Whether the rules can work as written.
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        self.window.check()?;
        self.throttle.check()?;
        self.overflow.check()?;
        self.retry.check()?;
        self.breaker.check()?;
        self.priority.check()?;
        self.restart.check()?;
        self.heartbeat.check()?;
        self.silence.check()?;
        self.retention.check()?;
        // An attempt may take so long and be sound.
        let (stall, attempt) = (self.heartbeat.stall_after, self.retry.attempt_timeout);
        if stall > attempt {
            return Ok(());
        }
        let show = humantime::format_duration;
        Err(format!(
            "heartbeat.stall_after is {}, but must be more than retry.attempt_timeout, {}: an attempt may take that long",
            show(stall),
            show(attempt)
        ))
    }
}

/// The bounds of a number, as an error says them.
fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<(), String> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(format!("{key} is {value}, but must be from {least} to {most}"))
}

/// The bounds of a size, as an error says them.
fn sized(key: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    if value >= least && value <= most {
        return Ok(());
    }
    let show = units::bytes::display;
    Err(format!("{key} is {}, but must be from {} to {}", show(value), show(least), show(most)))
}

/// The bounds of a duration, as an error says them.
fn lasting(
    key: &str,
    value: std::time::Duration,
    least: std::time::Duration,
    most: std::time::Duration,
) -> Result<(), String> {
    if value >= least && value <= most {
        return Ok(());
    }
    let show = humantime::format_duration;
    Err(format!("{key} is {}, but must be from {} to {}", show(value), show(least), show(most)))
}
