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
use crate::port::journal::Cursor;

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
            window: Window::new(slot.policy.window.clone()),
            cursor: slot.lane.uncut(),
            heartbeat: Heartbeat::new(Instant::now()),
            slot,
            shared,
        }
    }

    /// Takes what came since the last look into the window, closes it where a rule says so, and tells the writer.
    fn look(&mut self) {
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
        if let Some(due) = advanced.alarm {
            self.shared.alarms.set(due, &self.slot, Alarm::Window);
        }
    }
}

impl Actor for Tenant {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        if !self.slot.beating.swap(true, Ordering::AcqRel) {
            self.shared.alarms.set(Instant::now() + self.slot.policy.heartbeat.every, &self.slot, Alarm::Beat);
        }
        // What a dead predecessor left: an open window, and batches that it cut without telling the writer.
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
        self.slot.chunks_hinted.store(false, Ordering::Release);
        self.look();
    }
}

impl Handler<Beat> for Tenant {
    type Result = ();

    fn handle(&mut self, _: Beat, _: &mut Self::Context) {
        self.shared.alarms.set(Instant::now() + self.slot.policy.heartbeat.every, &self.slot, Alarm::Beat);
        // A hint that went missing is made good here at the latest.
        self.look();
        if let Some(turned) = self.heartbeat.beat(&self.slot.policy.heartbeat, Instant::now()) {
            self.slot.turned(&self.shared, turned);
        }
    }
}
