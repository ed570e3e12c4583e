//! A tenant: the open window over its lane, and the heartbeat.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, Context, Handler, Supervised};
use tokio::time::Instant;

use super::alarms::Alarm;
use super::message::{Beat, ChunksWait};
use super::registry::Shared;
use super::slot::Slot;
use super::supervise::Child;
use crate::model::Role;
use crate::policy::{Heartbeat, Window};
use crate::port::lane::{Advanced, Cursor};

pub(crate) struct Tenant {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    /// Numbers only: the events lie in the lane.
    window: Window,
    cursor: Cursor,
    heartbeat: Heartbeat,
}

impl Tenant {
    pub(crate) fn new(slot: Arc<Slot>, shared: Arc<Shared>) -> Self {
        Self {
            window: Window::new(slot.policy().window.clone()),
            cursor: slot.lane.uncut(),
            heartbeat: Heartbeat::resumed(Instant::now(), slot.liveliness()),
            slot,
            shared,
        }
    }

    /// Takes what came since the last look into the window, closes it where a rule says so, and tells the writer.
    fn look(&mut self) {
        let _span = tracing::trace_span!(target: "headworks", "window", tenant = %self.slot.id).entered();
        let now = Instant::now();
        let flush = self.slot.take_flush();
        let advanced = self.slot.lane.advance(&mut self.cursor, &mut self.window, now, flush);
        if advanced.events > 0
            && let Some(turned) = self.heartbeat.events(now)
        {
            self.slot.turned(&self.shared, turned);
        }
        told(&self.slot, &self.shared, &advanced);
    }
}

/// Cuts a window that is due without waking its tenant: most windows of most tenants hold a few events and close by age, and
/// then the tenant has nothing to decide. Where it has, it is woken. Whether the writer has to be told.
pub(crate) fn window_is_due(slot: &Arc<Slot>, shared: &Arc<Shared>) -> bool {
    if slot.is_at_rest() {
        let advanced = slot.lane.cut_due(Instant::now());
        noted(slot, shared, &advanced)
    } else {
        slot.lane.alarm_rang();
        slot.hint_chunks(shared);
        false
    }
}

/// Tells whoever has to know what a look at the lane came to.
pub(super) fn told(slot: &Arc<Slot>, shared: &Arc<Shared>, advanced: &Advanced) {
    if noted(slot, shared, advanced) {
        slot.hint_batches(shared);
    }
}

/// The same, but for the writer: whether it has to be told, too.
fn noted(slot: &Arc<Slot>, shared: &Arc<Shared>, advanced: &Advanced) -> bool {
    if !advanced.flushed.is_empty() {
        shared.budget.cut(advanced.cut_bytes);
        for flushed in &advanced.flushed {
            tracing::trace!(target: "headworks", tenant = %slot.id, reason = %flushed.reason, events = flushed.events, "flush");
            shared.observe(Some(&slot.id), |observer| observer.flushed(&slot.id, flushed));
        }
    }
    if let Some(due) = advanced.alarm {
        shared.alarms.set(due, slot, Alarm::Window);
    }
    !advanced.flushed.is_empty()
}

impl Actor for Tenant {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.slot.beat_later(&self.shared);
        // The hint, or the heartbeat, may be what a dead predecessor died of.
        self.slot.chunks_hinted.store(false, Ordering::Release);
        self.slot.beat_sent.store(false, Ordering::Release);
        // What it left: an open window, and batches that it cut without telling the writer.
        self.look();
        if self.slot.lane.snapshot().batches > 0 {
            self.slot.hint_batches(&self.shared);
        }
    }
}

impl Supervised for Tenant {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.slot.clone(), self.shared.clone());
    }
}

impl Child for Tenant {
    const ROLE: Role = Role::Tenant;
}

impl Handler<ChunksWait> for Tenant {
    type Result = ();

    fn handle(&mut self, _: ChunksWait, _: &mut Self::Context) {
        self.shared.panic_points.pass("tenant/ChunksWait", Some(&self.slot.id));
        self.slot.chunks_hinted.store(false, Ordering::Release);
        self.look();
    }
}

impl Handler<Beat> for Tenant {
    type Result = ();

    fn handle(&mut self, _: Beat, _: &mut Self::Context) {
        self.shared.panic_points.pass("tenant/Beat", Some(&self.slot.id));
        self.slot.beat_sent.store(false, Ordering::Release);
        // A hint that went missing is made good here at the latest.
        self.look();
        if let Some(turned) =
            self.heartbeat.beat(&self.slot.policy().heartbeat, Instant::now(), self.slot.lane.last_accepted())
        {
            self.slot.turned(&self.shared, turned);
        }
    }
}

#[cfg(feature = "testing")]
impl Handler<super::message::Hang> for Tenant {
    type Result = ();

    fn handle(&mut self, _: super::message::Hang, ctx: &mut Self::Context) {
        use actix::{AsyncContext, WrapFuture};
        ctx.wait(std::future::pending::<()>().into_actor(self));
    }
}
