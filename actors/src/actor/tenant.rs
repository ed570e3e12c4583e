//! A tenant: the open window over its lane, and the heartbeat.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, Context, Handler, Supervised};
use tokio::time::Instant;

use super::alarms::Alarm;
use super::downstream::{self, Sign};
use super::message::{Beat, ChunksWait};
use super::registry::Shared;
use super::slot::Slot;
use super::steps::host;
use super::supervise::Child;
use crate::model::{FlushReason, Role};
use crate::policy::{Heartbeat, Window};
use crate::port::lane::{Advanced, Cursor};

pub(crate) struct Tenant {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    /// Numbers only: the events lie in the lane.
    window: Window,
    cursor: Cursor,
    heartbeat: Heartbeat,
    /// When a sender's event was accepted last, as far as it knows, and one that the system made.
    accepted: (Option<Instant>, Option<Instant>),
}

impl Tenant {
    pub(crate) fn new(slot: Arc<Slot>, shared: Arc<Shared>) -> Self {
        Self {
            window: Window::new(slot.policy().window.clone()),
            cursor: slot.lane.uncut(),
            heartbeat: Heartbeat::resumed(Instant::now(), slot.liveliness()),
            accepted: (slot.lane.last_accepted(), None),
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
        if advanced.events > 0 {
            self.events(now);
        }
        told(&self.slot, &self.shared, &advanced);
    }
}

impl Tenant {
    /// Events came.
    fn events(&mut self, now: Instant) {
        let (sender, own) = self.slot.lane.last_accepted_and_own();
        let (before, own_before) = std::mem::replace(&mut self.accepted, (sender, own));
        if sender == before && own != own_before {
            // The system's own keep nobody from idling.
            return;
        }
        if let Some(turned) = self.heartbeat.events(now) {
            self.slot.turned(&self.shared, turned);
        }
    }
}

/// Cuts a window that is due without waking its tenant: most windows of most tenants hold a few events and close by age, and
/// then the tenant has nothing to decide. Where it has, it is woken. What has to [follow](follow).
pub(crate) fn window_is_due(slot: &Arc<Slot>, shared: &Arc<Shared>) -> Option<Cut> {
    if slot.is_at_rest() {
        let advanced = slot.lane.cut_due(Instant::now(), slot.take_flush());
        noted(slot, shared, &advanced)
    } else {
        slot.lane.alarm_rang();
        slot.hint_chunks(shared);
        None
    }
}

/// Whose it is to store what was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The writer's.
    Writers,
    /// That of whoever cut it, as far as nothing has to be waited for.
    Cutters,
}

/// Tells whoever has to know what a look at the lane came to. Only on one of the system's threads.
pub(super) fn told(slot: &Arc<Slot>, shared: &Arc<Shared>, advanced: &Advanced) {
    if let Some(cut) = noted(slot, shared, advanced) {
        follow(slot, shared, cut);
    }
}

/// Has stored what was cut. Only on one of the system's threads.
pub(super) fn follow(slot: &Arc<Slot>, shared: &Arc<Shared>, cut: Cut) {
    if cut == Cut::Cutters && shared.homes.is_here(slot.home()) {
        host(slot, shared);
    } else {
        slot.hint_batches(shared);
    }
}

/// Tells everybody but who is to store it.
fn noted(slot: &Arc<Slot>, shared: &Arc<Shared>, advanced: &Advanced) -> Option<Cut> {
    if let Some(due) = advanced.alarm {
        shared.alarms.set(due, slot, Alarm::Window);
    }
    if advanced.flushed.is_empty() {
        return None;
    }
    shared.budget.cut(advanced.cut_bytes);
    if shared.homes.are_several() {
        slot.work.fetch_add(advanced.cut_bytes as u64, Ordering::Relaxed);
    }
    for flushed in &advanced.flushed {
        shared.meters.flushed(flushed);
        tracing::trace!(target: "headworks", tenant = %slot.id, reason = %flushed.reason, events = flushed.events, "flush");
        shared.observe(Some(&slot.id), |observer| observer.flushed(&slot.id, flushed));
    }
    // Whose windows fill is busy, and its writer is near; an earlier batch comes first; and a durable journal has to be waited for.
    let is_cold =
        advanced.flushed.iter().all(|flushed| matches!(flushed.reason, FlushReason::Age | FlushReason::Pressure));
    let is_cold = is_cold && advanced.was_clear && !shared.journal.is_durable();
    Some(if is_cold { Cut::Cutters } else { Cut::Writers })
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
        let (policy, now, last) = (self.slot.policy(), Instant::now(), self.slot.lane.last_accepted());
        if let Some(turned) = self.heartbeat.beat(&policy.heartbeat, now, last) {
            self.slot.turned(&self.shared, turned);
        }
        if self.heartbeat.is_downstream(&policy.heartbeat, now, last.unwrap_or(self.slot.awake_since)) {
            let silent_for = last.map(|last| now.saturating_duration_since(last));
            let sign = Sign { what: "heartbeat", silent_for, expected_within: None };
            downstream::tell(&self.shared, &self.slot, &sign);
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
