//! A tenant: the open window over its lane, the timer that closes it, the heartbeat.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, AsyncContext, Context, Handler, Supervised};
use tokio::time::Instant;

use super::message::{Beat, ChunksWait, WindowDue};
use super::registry::{Shared, Slot};
use super::supervise::Child;
use crate::model::Role;
use crate::policy::{Heartbeat, Window};
use crate::port::journal::Cursor;

pub(crate) struct Tenant {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    /// Numbers only: the events lie in the lane.
    window: Window,
    cursor: Cursor,
    heartbeat: Heartbeat,
    /// Whether a `WindowDue` is on its way.
    timer_armed: bool,
}

impl Tenant {
    pub(crate) fn new(slot: Arc<Slot>, shared: Arc<Shared>) -> Self {
        Self {
            window: Window::new(slot.policy.window.clone()),
            cursor: slot.lane.uncut(),
            heartbeat: Heartbeat::new(Instant::now()),
            timer_armed: false,
            slot,
            shared,
        }
    }

    /// Takes what came since the last look into the window, closes it where a rule says so, and tells the writer.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let flush = self.slot.take_flush();
        let advanced = self.slot.lane.advance(&mut self.cursor, &mut self.window, now, flush);
        if advanced.events > 0
            && let Some(turned) = self.heartbeat.events(now)
        {
            self.slot.turned(&self.shared, turned);
        }
        if !advanced.flushed.is_empty() {
            self.shared.budget.cut(advanced.cut_bytes);
            for flushed in &advanced.flushed {
                tracing::trace!(target: "headworks", tenant = %self.slot.id, reason = %flushed.reason, events = flushed.events, "flush");
                self.shared.observe(|observer| observer.flushed(&self.slot.id, flushed));
            }
            self.slot.hint_batches(&self.shared);
        }
        if let Some(deadline) = self.window.deadline()
            && !self.timer_armed
        {
            self.timer_armed = true;
            ctx.notify_later(WindowDue, deadline.saturating_duration_since(now));
        }
    }
}

impl Actor for Tenant {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify_later(Beat, self.slot.policy.heartbeat.every);
        // What a dead predecessor left: an open window, and batches that it cut without telling the writer.
        self.look(ctx);
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

    fn handle(&mut self, _: ChunksWait, ctx: &mut Self::Context) {
        self.slot.chunks_hinted.store(false, Ordering::Release);
        self.look(ctx);
    }
}

impl Handler<WindowDue> for Tenant {
    type Result = ();

    fn handle(&mut self, _: WindowDue, ctx: &mut Self::Context) {
        // A timer that was armed for a window flushed since then finds a younger one, and is armed again for that.
        self.timer_armed = false;
        self.look(ctx);
    }
}

impl Handler<Beat> for Tenant {
    type Result = ();

    fn handle(&mut self, _: Beat, ctx: &mut Self::Context) {
        let policy = self.slot.policy.heartbeat.clone();
        ctx.notify_later(Beat, policy.every);
        // A hint that went missing is made good here at the latest.
        self.look(ctx);
        if let Some(turned) = self.heartbeat.beat(&policy, Instant::now()) {
            self.slot.turned(&self.shared, turned);
        }
    }
}
