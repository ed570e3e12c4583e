//! The words of the system: plain values that every other folder speaks of.
//!
//! Nothing here does I/O, knows an actor or reads a clock.

mod batch;
mod batch_id;
mod breaker_state;
mod chunk;
mod event;
mod failure;
mod flush;
mod health;
pub(crate) mod panic_place;
pub(crate) mod position_set;
mod status;
mod store_name;
mod stream;
mod supervisor_event;
mod tenant;
mod time;

pub use batch::{Batch, Part};
pub use batch_id::{Attempt, BatchId, InvalidBatchId, Opening, Piece, Seq};
pub use breaker_state::BreakerState;
pub(crate) use chunk::Sums;
pub use chunk::{Chunk, ChunkBuilder};
pub use event::{Event, EventRef};
pub use failure::{Cause, Code, Failure};
pub use flush::FlushReason;
pub use health::{FailedActor, Hung, Outage, SystemHealth};
pub use position_set::PositionSet;
pub use status::Status;
pub use store_name::{InvalidStoreName, StoreName};
pub use stream::{InvalidStreamId, Origin, StreamId};
pub use supervisor_event::{Role, SupervisorEvent, What};
pub use tenant::{InvalidTenantId, TenantId};
pub use time::UnixMillis;

/// What a call into the system can be refused with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system is draining or has stopped: nothing of the call was accepted.
    #[error("the system is draining or stopped and takes no new events")]
    Closed,
    /// The tenant is not known and cannot be started.
    #[error("tenant {tenant} cannot be started: {limit} tenants are known and limits.max_tenants allows no more")]
    TenantLimit {
        /// The tenant that asked.
        tenant: TenantId,
        /// The limit it met.
        limit: usize,
    },
    /// A tenant with this id exists already, with a policy and a store of its own.
    #[error("tenant {0} is already known; a tenant is spawned once")]
    TenantExists(TenantId),
    /// The id does not follow the grammar.
    #[error(transparent)]
    InvalidTenantId(#[from] InvalidTenantId),
    /// A policy cannot work as written.
    #[error("{0}")]
    InvalidPolicy(String),
    /// A saga cannot work as written.
    #[error("{0}")]
    InvalidSaga(String),
    /// The system's thread could not be started.
    #[error("the system's thread could not be started: {0}")]
    Start(#[from] std::io::Error),
    /// Another connection has taken the stream over: nothing of the call was accepted.
    #[error("another connection has taken this stream over")]
    TakenOver,
    /// A stream of numbered frames has had the [last](crate::IngressSpec::last_position) that it may have: nothing behind that was accepted.
    #[error("the positions of this stream are used up: they end at {0}; begin another stream")]
    PositionsUsedUp(u64),
    /// The journal cannot be begun.
    #[error("{0}")]
    Journal(String),
    /// Code in the system failed under this call; what the call carried was not accepted.
    #[error("the {0} failed under this call; see the supervisor log")]
    Failed(Role),
    /// The process is built with `panic = "abort"`, under which nothing can be supervised.
    #[error("this program is built with panic = \"abort\"; supervision needs panic = \"unwind\"")]
    PanicAborts,
}
