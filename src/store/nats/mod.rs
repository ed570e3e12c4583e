//! A store in a NATS JetStream: one message a batch, for whoever consumes the stream.
//!
//! ```text
//! subject   headworks.acme.5f0c9b1e2d3a4f60-42               one subject a batch; a dot in a tenant's name is %2E
//! Nats-Msg-Id: 5f0c9b1e2d3a4f60/acme/42                      the id of the batch
//! Headworks-Tenant: acme
//! Headworks-Batch: 5f0c9b1e2d3a4f60/acme/42
//! Headworks-Attempt: 1
//! Headworks-Events: 2
//! Headworks-Hash: 0c13b3eca16cb982
//! Headworks-Arrived: 2026-11-23T09:10:38.204Z                the first event
//! Headworks-First-Time, Headworks-Last-Time                  the least and the greatest time of its events, where they have any
//! Content-Type: application/x-ndjson
//!
//! {"tenant":"acme","n":1}
//! {"tenant":"acme","n":2}
//! ```
//!
//! - **Lines.** A body is its line, byte for byte; one that is empty, begins with a backslash or has a newline in it is escaped as in a
//!   store on [plain files](super::files).
//! - **Whole or not at all.** A batch is one message.
//! - **Once.** Its subject is its own, and it is published *if the subject has no message yet* (`Nats-Expected-Last-Subject-Sequence: 0`).
//!   So a batch that comes again is there once for as long as its message is kept, and not only within the stream's duplicate window, in
//!   which `Nats-Msg-Id` does the same. One with other content under the same id is an error.
//! - **Rollback and fence.** A rollback publishes a message without events on the batch's subject (`Headworks-Rolled-Back: 2`, the attempt),
//!   *if nothing came in between*, and then purges what lies before it there. The fence stays: a request that was given up and arrives
//!   late, also one of a process that is gone, expects another last message and is refused. An attempt above the fence is published behind
//!   it. Each step is one that the server does whole, and a rollback that was cut off is completed by the next one. A rollback takes away
//!   what its attempt or an earlier one published, also where a later one was told that it is there.
//! - **What a consumer sees.** The batch until it is purged, and then the fence; or the fence alone, also of a batch that never came, as one
//!   that was halved. Whoever has consumed the batch before learns from the fence that it was taken back. What has no
//!   `Headworks-Events` is no batch.
//! - **Order.** A batch is published once the one of its tenant before is acknowledged, so that the stream has the order of each tenant.
//! - **Stored** means acknowledged by the server (`PubAck`), and is as safe as the stream: the log warns of settings that may lose messages.
//! - **Errors.** A server that is away, hangs, has no leader or no room, that does not let one in or lost the stream: an outage, which is waited for
//!   ([`StorageError::Unavailable`](headworks_actors::StorageError::Unavailable)). A batch that is not acknowledged in time is looked for: where
//!   it is not there, though the server answers, an attempt is spent. A batch that is larger than the server or the stream takes is
//!   refused for good, and halved.
//! - **The stream** is made where it is not there, unless somebody else is to; one that is there is checked: it must take the subjects, keep
//!   messages that were consumed (retention `limits`, from which a work queue may be sourced), acknowledge, and change no subjects.
//! - **Erased.** What is erased of a tenant is purged by its subjects, in one request, fences too; what consumers, mirrors and streams that are
//!   sourced from this one have of it they keep.
//! - The server takes about 0.3 KiB of memory for each subject that has messages, so for each batch that is kept: choose `window` large, and limit the
//!   stream's age or size. What it expires is gone; a batch that comes again after that is there again.

mod options;

#[cfg(feature = "nats")]
mod error;
#[cfg(feature = "nats")]
mod fit;
#[cfg(feature = "nats")]
mod link;
#[cfg(feature = "nats")]
mod message;
#[cfg(feature = "nats")]
mod store;
#[cfg(feature = "nats")]
mod subject;
#[cfg(feature = "nats")]
mod write;

pub use options::NatsStoreOptions;

#[cfg(feature = "nats")]
pub use error::OpenError;
#[cfg(feature = "nats")]
pub use store::NatsStore;
#[cfg(feature = "nats")]
pub(crate) use subject::Template;
