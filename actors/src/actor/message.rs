//! Every message there is, in the order of the flow.
//!
//! Between actors a message is a hint: what it is about lies in the journal or in a slot, so that a hint which is lost,
//! doubled or late does no harm. At most one of each hint is on its way to an actor, which bounds every mailbox.

use std::sync::Arc;

use actix::{Addr, Message};

use super::ingress::Ingress;
use super::slot::Slot;
use super::spec::{IngressSpec, TenantSpec};
use super::streams::Stream;
use crate::model::{Error, Event, TenantId};
use crate::port::StorageError;

// A source or an embedder, to an ingress.

/// Bytes of a read, in order. Answered when all of it has been accepted or refused; the buffer comes back for reuse.
#[derive(Message)]
#[rtype(result = "Result<Vec<u8>, Error>")]
pub(crate) struct Read(pub(crate) Vec<u8>);

/// The input has ended: cleanly, or cut off.
#[derive(Message)]
#[rtype(result = "Result<(), Error>")]
pub(crate) struct Finish {
    pub(crate) clean: bool,
}

/// Events that an embedder made. Answered when each has been accepted or refused.
#[derive(Message)]
#[rtype(result = "Result<(), Error>")]
pub(crate) struct Offer {
    pub(crate) events: Vec<Event>,
    /// Where to tell what becomes of each, by its place in the call, from 1.
    pub(crate) stream: Option<Arc<Stream>>,
}

// Ingress to tenant.

/// Accepted chunks in the lane may close the window, its time has come, or a flush is wanted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChunksWait;

// The alarms to a tenant; a window that is due is one more `ChunksWait`.

/// The tenant's timer message, sent by the alarm clock, which sees whether it is answered: look whether anything was missed, and show that you are alive.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Beat;

// Tenant to writer.

/// Batches wait in the lane, or the one at its front was settled by another.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BatchesWait;

// Writer to itself.

/// The store has answered, or its time is up (`None`).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Attempted(pub(crate) Option<Result<(), StorageError>>);

/// A backoff is over.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AttemptDue;

// A test to a tenant or a writer.

/// Hang: wait for what never comes.
#[cfg(feature = "testing")]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Hang;

// Writer to the aggregator.

/// The batch at the front of the tenant's lane was given up: compensate, keep it as dead letters, settle it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct GaveUp(pub(crate) Arc<Slot>);

// A handle to the supervisor.

/// Start a tenant.
#[derive(Message)]
#[rtype(result = "Result<TenantId, Error>")]
pub(crate) struct Spawn(pub(crate) TenantSpec);

/// Start an ingress.
#[derive(Message)]
#[rtype(result = "Result<Addr<Ingress>, Error>")]
pub(crate) struct OpenIngress {
    pub(crate) spec: IngressSpec,
    /// The connection of a stream of numbered frames that it is, if it is one.
    pub(crate) stream: Option<(Arc<Stream>, u64)>,
}

/// Run a task on the system's thread.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Run(pub(crate) Box<dyn FnOnce() -> futures::future::LocalBoxFuture<'static, ()> + Send>);
