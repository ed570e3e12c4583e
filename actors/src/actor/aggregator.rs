//! Reports the failures that were collected, and runs compensations. Never on the data path, and never waits in a handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, StreamHandler, Supervised};
use futures::{FutureExt, Stream, stream};
use tokio::sync::watch;

use super::compensation;
use super::message::GaveUp;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use super::supervise::Child;
use crate::model::{Cause, Code, Role, SupervisorEvent, What};
use crate::observe::{Folding, Report};
use crate::port::spawn;

pub(crate) struct Aggregator {
    shared: Arc<Shared>,
    /// Whom to tell what failed since the last time, if anything did; where there is nobody, it is logged.
    report_to: Vec<OnReport>,
}

/// Somebody who takes the periodic report.
pub(crate) type OnReport = Arc<dyn Fn(&Report) + Send + Sync>;

impl Aggregator {
    pub(crate) fn new(shared: Arc<Shared>, report_to: Vec<OnReport>) -> Self {
        Self { shared, report_to }
    }

    /// On a task of its own: one that hangs, or panics, delays its own tenant and nobody else.
    fn settle(&self, slot: Arc<Slot>) {
        spawn(settle(self.shared.clone(), slot));
    }

    fn report(&self) {
        let now = self.shared.seam.now();
        let Some(report) = self.shared.collect(|collector| collector.take_recent(now)) else { return };
        if self.report_to.is_empty() {
            report.log();
        }
        for tell in &self.report_to {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(&report))) {
                tracing::warn!(target: "headworks", "whoever takes the failure report panicked; this one is lost to it");
                self.shared.observer_panicked(None, &*panic);
            }
        }
    }
}

impl Actor for Aggregator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.add_stream(report_times(self.shared.report_every.subscribe()));
        // A period that a dead predecessor waited for the end of.
        self.shared.folding_began.notify_one();
        ctx.add_stream(log_turns(self.shared.clone()));
        // Of which a dead predecessor was told, and nobody else.
        let given_up = self.shared.all_slots().into_iter().filter(|slot| slot.lane.given_up().is_some());
        given_up.for_each(|slot| self.settle(slot));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.report();
        self.shared.turn_log(self.shared.phase() >= Phase::Stopping);
    }
}

impl Supervised for Aggregator {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.shared.clone(), self.report_to.clone());
    }
}

/// It is time for a report.
struct ReportTime;

/// The times for reports, so often as is said; where that is changed, counted anew.
fn report_times(every: watch::Receiver<Option<Duration>>) -> impl Stream<Item = ReportTime> {
    stream::unfold(every, |mut every| async {
        loop {
            let now = *every.borrow_and_update();
            match now {
                Some(time) => match tokio::time::timeout(time, every.changed()).await {
                    Ok(changed) => changed.ok()?,
                    Err(_) => return Some((ReportTime, every)),
                },
                None => every.changed().await.ok()?,
            }
        }
    })
}

impl StreamHandler<ReportTime> for Aggregator {
    fn handle(&mut self, ReportTime: ReportTime, _: &mut Self::Context) {
        self.report();
    }

    /// Never: the sender lives as long as the actor.
    fn finished(&mut self, _: &mut Self::Context) {}
}

/// A period of the supervisor log is over.
struct LogTurn;

/// The ends of the periods, each of which begins with the first entry that is counted in it.
fn log_turns(shared: Arc<Shared>) -> impl Stream<Item = LogTurn> {
    stream::unfold(shared, |shared| async {
        shared.folding_began.notified().await;
        tokio::time::sleep(Folding::PERIOD).await;
        Some((LogTurn, shared))
    })
}

impl StreamHandler<LogTurn> for Aggregator {
    fn handle(&mut self, LogTurn: LogTurn, _: &mut Self::Context) {
        self.shared.turn_log(false);
    }

    /// Never: the times go on for as long as there is a system.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Child for Aggregator {
    const ROLE: Role = Role::Aggregator;
}

/// Compensates what was given up. A panic on the way, of a store's for example, is a failure like any other: it goes on from where
/// it was.
async fn settle(shared: Arc<Shared>, slot: Arc<Slot>) {
    let mut rng = shared.seam.rng();
    for tries in 1.. {
        let settled = AssertUnwindSafe(compensation::settle(shared.clone(), slot.clone())).catch_unwind().await;
        let Err(panic) = settled else { return };
        let cause = Cause::from_panic(Code::CompensationFailed, &*panic);
        let wait = slot.policy().retry.wait(tries, None, &mut rng).max(Duration::from_millis(100));
        shared.failed(&slot.failure(&shared, cause.clone(), 0));
        let (attempt, next_attempt_at) = (Some(tries), Some(shared.seam.now().plus(wait)));
        let event = slot.event(Role::Aggregator, What::Failed);
        shared.log(SupervisorEvent { cause: Some(cause), attempt, next_attempt_at, ..event });
        tokio::time::sleep(wait).await;
        if shared.phase() >= Phase::Stopping {
            return;
        }
    }
}

impl Handler<GaveUp> for Aggregator {
    type Result = ();

    fn handle(&mut self, GaveUp(slot): GaveUp, _: &mut Self::Context) {
        self.shared.panic_points.pass("aggregator/GaveUp", Some(&slot.id));
        self.settle(slot);
    }
}
