//! What happened, told outward: counters, the supervisor log, the failure report and the observer's callbacks.

mod counters;
mod detail;
mod folding;
mod histogram;
mod log;
mod meters;
mod observer;
mod redaction;
mod report;
mod sliding;
mod tap;

pub use counters::{Counters, SilenceDetail, SourceCounters, TenantSnapshot};
pub(crate) use counters::{SourceLedger, Standing, WayIn};
pub use detail::{ActorDetail, Backlog, BatchDetail, BreakerDetail, OpenWindow, TenantDetail, ThrottleDetail};
pub(crate) use folding::{Folded, Folding};
pub use histogram::{Distribution, Histogram};
pub use log::{LogItem, Subscription, SupervisorLog};
pub use meters::{FailureTotal, StoreBreakers, StoreCalls};
pub(crate) use meters::{Meters, StoreMeter};
pub use observer::{Attempted, Flushed, Observer, Outcome, Settled};
pub use redaction::{Payload, REDACTED, Redaction};
pub(crate) use report::Collector;
pub use report::{Report, ReportEntry};
pub(crate) use tap::Taps;
pub use tap::{Tap, TapEvent, TapItem, TapOptions};
