//! An actor-based stream processor for services that carry many tenants in one stream: logs, telemetry, chat.
//!
//! Frames come in, are decoded, and go to exactly one supervised tenant actor each, which groups them into windows; its
//! storage child stores each closed window as one batch, in order, and tries again when that fails. One bad frame, one
//! bad store or one panic stays with its own tenant.
//!
//! This crate is the facade of [`headworks_actors`], which it exports whole, plus what a ready-made daemon needs:
//! sources, the embedded store, configuration. Most programs begin with [`System::builder`].
//!
//! # Quick start
//!
//! ```
//! use std::time::Duration;
//! use headworks::{Framing, IngressSpec, Json, MemoryStore, System};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let store = MemoryStore::new();
//!     let system = System::builder().store(store.clone()).start()?;
//!
//!     // One ingress a connection. `feed` takes the bytes of a read in any cut, and waits while something is full.
//!     let ingress = system.ingress(IngressSpec::new("demo", Framing::lines(), Json::new())).await?;
//!     ingress.feed("{\"tenant\":\"acme\",\"n\":1}\n{\"tenant\":\"umbrella\",\"n\":2}\nno JSON\n").await?;
//!     ingress.finish(true).await?;
//!
//!     let report = system.drain(Duration::from_secs(10)).await;
//!     assert!(report.complete);
//!     assert_eq!(store.totals().values().sum::<u64>(), 2);
//!     assert_eq!(system.sources()[0].1.malformed, 1);
//!     Ok(())
//! }
//! ```
//!
//! # Concepts
//!
//! | word | what it is here |
//! |---|---|
//! | frame | one delimited record as it came off a source; see [`Framing`] |
//! | event | one decoded frame: its tenant, its time, its bytes; see [`Decoder`], [`Json`], [`TypedJson`], [`RawLines`] |
//! | tenant | the unit of isolation: own actor, window, [`Policy`], store and [`Counters`]; see [`TenantSpec`] |
//! | window | the open group of a tenant's events, closed by count, bytes or age; see [`WindowPolicy`] |
//! | batch | a closed window under an id that never changes: the idempotency key of every [`Storage`] |
//! | writer | the tenant's storage child; stores batches in order and tries again by [`RetryPolicy`] |
//! | saga | the stores of a tenant, in order; a batch ends up in all of them or in none; see [`Saga`] |
//! | dead letter | what was given up on, kept whole with its reason; see [`DeadLetters`] |
//! | compensation | the undo of a given-up batch: its [`UndoStep`]s, newest first, then [`Storage::rollback`] |
//! | supervisor log | each failure, restart, quarantine and compensation, with its cause; see [`SupervisorLog`] |
//! | drain | refuse new work, store what was accepted, report; see [`System::drain`] |
//!
//! # What holds
//!
//! - Frames: `received = accepted + duplicate + muted + throttled + rejected + malformed`, at every moment of rest.
//!   Events, per tenant: `accepted = stored + dead_lettered + shed + discarded + in_flight`, at every moment. See
//!   [`TenantSnapshot::adds_up`].
//! - What one connection brings for one tenant is stored in the order it came.
//! - A batch comes to its store at least once, under one id; a store that goes by that id keeps it once.
//! - Accepted events survive the restart of any actor. What else they survive before they are stored depends on the journal:
//!   with the [`MemoryJournal`], the library's default, nothing; with a [`DurableJournal`](journal::DurableJournal), the
//!   daemon's, the process and the machine.
//! - All that waits has a bound in bytes; when a bound is reached the source is not read on.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `sqlite` | yes | the embedded store, the modules `daemon` and `admin`, and the command `headworks`; compiles SQLite from C |
//! | `metrics` | yes, by `sqlite` | [`metrics`]: the numbers of a system for Prometheus |
//! | `http`, `websocket`, `syslog`, `mqtt`, `nats`, `tail` | `tail` | sources: requests, WebSocket, syslog, MQTT, NATS JetStream, files that grow |
//! | `postgres`, `object`, `parquet`, `webhook`, `stdout`, `nats` | no | stores: PostgreSQL, objects in a directory or on S3, Parquet in them, a POST for each batch, the standard output, a NATS JetStream |
//! | `gcs`, `azure` | no | objects on Google Cloud Storage and on Azure; untested |
//! | `otlp` | no | traces and metrics to a collector |
//! | `mimalloc` | yes | the allocator of the command; the library sets none |
//! | `tls` | no | TLS for the sources that listen, and client certificates that are bound to tenants |
//! | `testing` | no | `Faulty`, a store that fails by script; the conformance suites of stores and sources; `TenantHandle::inject_panic` |

pub use headworks_actors::*;

#[cfg(feature = "sqlite")]
pub mod admin;
pub mod audit;
#[cfg(all(unix, feature = "sqlite"))]
pub mod backup;
pub mod config;
#[cfg(feature = "sqlite")]
pub mod daemon;
#[cfg(feature = "sqlite")]
mod erasure;
pub mod journal;
pub mod jsonl;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "nats")]
mod nats;
pub mod retention;
#[doc(hidden)]
pub mod sample;
#[cfg(any(feature = "sqlite", feature = "http", feature = "mqtt", feature = "nats", feature = "tls"))]
mod secret_file;
pub mod source;
pub mod store;
pub mod supervisor_log;
#[cfg(feature = "otlp")]
mod telemetry;
pub mod text;
#[cfg(any(feature = "mqtt", feature = "postgres", feature = "tls", feature = "webhook"))]
mod tls;

/// The code in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
