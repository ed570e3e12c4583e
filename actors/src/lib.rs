//! The actor system of headworks: many tenants in one stream, each supervised apart from the others.
//!
//! ```text
//! bytes -> frame -> event -> chunk -> window -> batch -> writer -> store
//! wire/    wire/    ingress  ingress  tenant    tenant   writer    port/
//! ```
//!
//! Names no SQL, no HTTP and no command line: those are in the crate `headworks`, which exports all of this.
//!
//! ```
//! use std::time::Duration;
//! use headworks_actors::{MemoryStore, System, TenantSpec};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let system = System::builder().store(store.clone()).start()?;
//! let acme = system.spawn(TenantSpec::new("acme")?).await?;
//! acme.offer(["one", "two"]).await?;
//!
//! let report = system.drain(Duration::from_secs(5)).await;
//! assert!(report.complete);
//! assert_eq!(store.bodies(acme.id()), [b"one", b"two"]);
//! # Ok(())
//! # }
//! ```
//!
//! # The actors
//!
//! - One **ingress** a connection: bytes to frames, frames to events, and one chunk for each tenant of a read.
//! - One **tenant** a tenant: its window and its heartbeat. It comes up with its first event or by [`System::spawn`].
//! - One **writer** a tenant, its storage child: takes batches in order, one at a time, through the stores of the tenant's
//!   [`Saga`], by its [`RetryPolicy`] and [`BreakerPolicy`]. Writers of tenants that share a store take turns at it, by their
//!   [`PriorityPolicy`] and the store's [`StoreLimits`].
//! - One **aggregator**: collects failures, keeps the [`Report`], runs the compensations of batches that were given up, newest
//!   first in every store that was begun. A batch that a store refuses for good is split then, until the events that it refuses
//!   are found: they alone become dead letters, or what [`OnFailure`] says. What cannot be undone is tried again, and stands in
//!   [`System::uncompensated`] until it is.
//! - One **supervisor**: starts the others. One that panics or stops is started afresh on the same mailbox, after a
//!   backoff, up to the intensity of its [`RestartPolicy`]; then its tenant is quarantined for a while. By hand a tenant is
//!   stopped, restarted, resumed and passivated, by its [`TenantHandle`]; one without events is passivated by itself
//!   ([`HeartbeatPolicy::passivate_after`]).
//!
//! What fails without a word is found from outside, by a watchdog: a tenant that answers no heartbeat and a writer that makes no
//! step are failures like any other ([`HeartbeatPolicy`]); code that never returns, and so holds the thread of all actors, cannot be
//! stopped, but is named: by [`System::health`] and in the supervisor log.
//!
//! What must survive an actor lies outside of it. Accepted chunks and cut batches wait in the tenant's lane, in memory;
//! a message between actors is only a hint to look there. So a fresh actor goes on where the dead one was, and nothing
//! is lost or doubled by a restart. With the default [`MemoryJournal`] all of it is lost with the process; with a durable
//! [`Journal`] each step goes on record, and the next process goes on where this one was.
//!
//! # Where it runs
//!
//! On a thread of its own ([`Placement::OwnThread`]), so that it embeds in any service or in a plain `main`. Handles
//! are [`Clone`], [`Send`] and [`Sync`], and work from any thread and any runtime. Several systems may live in one
//! process. Where one thread is not enough, [`Placement::Threads`] gives it several: connections are spread over them, a tenant's
//! actors live on one of them and move to another where theirs has more to do, and the order of each tenant's events stays.
//!
//! A panic must unwind: under `panic = "abort"` [`SystemBuilder::start`] refuses.
//!
//! # Layout
//!
//! Each module imports only those above it.
//!
//! | module | what is in it |
//! |---|---|
//! | [`model`] | the words: plain values |
//! | [`observe`] | what happened, told outward: counters, log, report, [`Observer`] |
//! | [`wire`] | bytes to events, pure |
//! | [`policy`] | the rules a tenant lives by, pure: `now` is an argument |
//! | [`port`] | what others plug in: [`Storage`] and [`Saga`], [`DeadLetters`], [`Hooks`], [`Seam`] |
//!
//! The feature `testing` adds a store that fails by script, conformance suites for stores, dead letters and sources,
//! `TenantHandle::inject_panic`, and `SystemBuilder::panic_at`.

mod actor;
pub mod model;
pub mod observe;
pub mod policy;
pub mod port;
mod system;
pub mod wire;

pub use actor::spec::{IngressSpec, TenantSpec};
pub use model::*;
pub use observe::*;
pub use policy::*;
pub use port::*;
pub use system::*;
pub use wire::*;
