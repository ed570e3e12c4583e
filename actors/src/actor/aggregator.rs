//! Reports the failures that were collected, and runs compensations. Never on the data path, and never waits in a handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Supervised};

use super::compensation;
use super::message::GaveUp;
use super::registry::Shared;
use super::supervise::Child;
use crate::model::Role;
use crate::observe::Report;
use crate::port::spawn;

pub(crate) struct Aggregator {
    shared: Arc<Shared>,
    reporting: Reporting,
}

/// When and whom to tell what failed since the last time, if anything did.
#[derive(Clone, Default)]
pub(crate) struct Reporting {
    pub(crate) every: Option<Duration>,
    /// Where there is nobody, it is logged.
    pub(crate) to: Vec<OnReport>,
}

/// Somebody who takes the periodic report.
pub(crate) type OnReport = Arc<dyn Fn(&Report) + Send + Sync>;

impl Aggregator {
    pub(crate) fn new(shared: Arc<Shared>, reporting: Reporting) -> Self {
        Self { shared, reporting }
    }

    fn report(&self) {
        let now = self.shared.seam.now();
        let Some(report) = self.shared.collect(|collector| collector.take_recent(now)) else { return };
        if self.reporting.to.is_empty() {
            report.log();
        }
        for tell in &self.reporting.to {
            if catch_unwind(AssertUnwindSafe(|| tell(&report))).is_err() {
                tracing::warn!(target: "headworks", "whoever takes the failure report panicked; this one is lost to it");
            }
        }
    }
}

impl Actor for Aggregator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(every) = self.reporting.every {
            ctx.run_interval(every, |aggregator, _| aggregator.report());
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.report();
    }
}

impl Supervised for Aggregator {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.shared.clone(), self.reporting.clone());
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
