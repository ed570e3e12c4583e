//! Reports the failures that were collected, and runs compensations. Never on the data path, and never waits in a handler.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Supervised};

use super::compensation;
use super::message::GaveUp;
use super::registry::Shared;
use super::supervise::Child;
use crate::model::{Role, TenantId};
use crate::observe::Collector;
use crate::port::spawn;

pub(crate) struct Aggregator {
    shared: Arc<Shared>,
    report_every: Option<Duration>,
}

impl Aggregator {
    /// `report_every`: how often to log what failed since the last time, if anything did.
    pub(crate) fn new(shared: Arc<Shared>, report_every: Option<Duration>) -> Self {
        Self { shared, report_every }
    }

    fn log_report(&self) {
        for entry in self.shared.collect(Collector::take_recent) {
            tracing::warn!(
                target: "headworks::report",
                tenant = entry.tenant.as_ref().map(TenantId::as_str),
                code = entry.code.as_str(),
                recent = entry.recent,
                failures = entry.failures,
                events = entry.events,
                sample = &*entry.sample,
                "failures since the last report"
            );
        }
    }
}

impl Actor for Aggregator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(every) = self.report_every {
            ctx.run_interval(every, |aggregator, _| aggregator.log_report());
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.log_report();
    }
}

impl Supervised for Aggregator {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.shared.clone(), self.report_every);
    }
}

impl Child for Aggregator {
    const ROLE: Role = Role::Aggregator;
}

impl Handler<GaveUp> for Aggregator {
    type Result = ();

    fn handle(&mut self, GaveUp(slot): GaveUp, _: &mut Self::Context) {
        // On its own task: one that hangs delays its own tenant and nobody else.
        spawn(compensation::settle(self.shared.clone(), slot));
    }
}
