//! What happened, told outward: counters, the supervisor log, the failure report and the observer's callbacks.

mod counters;
mod detail;
mod log;
mod observer;
mod report;
mod sliding;

pub(crate) use counters::SourceLedger;
pub use counters::{Counters, SilenceDetail, SourceCounters, TenantSnapshot};
pub use detail::{ActorDetail, Backlog, BatchDetail, BreakerDetail, OpenWindow, TenantDetail};
pub use log::{LogItem, Subscription, SupervisorLog};
pub use observer::{Flushed, Observer, Outcome, Settled};
pub(crate) use report::Collector;
pub use report::{Report, ReportEntry};
