//! Prunes what the rules of retention let go of, and goes on with what is to be erased, on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use headworks_actors::{Cause, Code, StorageError, StoreName, System, TenantId, UnixMillis, What};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::config::Running;
use crate::erasure::Eraser;
use crate::retention::{Orders, Pass, PrunedStore, Report, Rest, prune_letters};
use crate::store::SqliteStore;
use crate::text::count;

/// For so long a pass waits for the journal's disk; then the next one tries.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often, at most, the supervisor log says what was pruned.
const TELL_EVERY: Duration = Duration::from_secs(600);
/// So many tenants are told by name.
const NAMED: usize = 5;

/// The thread. Dropped, it ends after the step that it is at.
#[derive(Debug)]
pub(super) struct Retention {
    /// Dropped, it stops the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Who has no room for more dead letters, and what becomes of them: for the supervisor log.
pub(super) type Full = mpsc::Receiver<(Option<TenantId>, String)>;

/// What it works on.
pub(super) struct Pruning {
    pub(super) system: System,
    pub(super) letters: SqliteStore,
    pub(super) stores: Vec<(StoreName, PrunedStore)>,
    /// What was begun to be erased, and could not be ended, goes on before each pass.
    pub(super) eraser: Eraser,
    pub(super) running: watch::Receiver<Arc<Running>>,
}

impl Retention {
    /// Starts the thread. One that cannot be had is told; nothing is pruned then.
    pub(super) fn start(pruning: Pruning, orders: Orders, full: Full) -> Self {
        let (stop, stopped) = oneshot::channel();
        let run = move || run(pruning, orders, full, stopped);
        let thread = std::thread::Builder::new().name("headworks-prune".into()).spawn(run).inspect_err(|why| {
            tracing::error!(target: "headworks", %why, "no thread for retention: nothing is pruned");
        });
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in there has been told by the hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(mut pruning: Pruning, mut orders: Orders, mut full: Full, mut stopped: oneshot::Receiver<()>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            tracing::error!(target: "headworks", %why, "no runtime for retention: nothing is pruned");
            return;
        }
    };
    runtime.block_on(async {
        let mut told = Told::default();
        let mut is_failing = false;
        let system = pruning.system.clone();
        let mut unfinished = Unfinished::default();
        'passes: loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = unfinished.go_on(&pruning) => {}
            }
            let order = {
                let mut due = std::pin::pin!(pruning.wait());
                loop {
                    tokio::select! {
                        biased;
                        _ = &mut stopped => break 'passes,
                        Some((tenant, why)) = full.recv() => {
                            let cause = Cause::new(Code::DeadLetterFailed, why);
                            system.note_of(tenant.as_ref(), What::LettersFull, cause);
                        }
                        order = orders.next() => break Some(order),
                        () = &mut due => break None,
                    }
                }
            };
            let mut report = Report::default();
            let dry_run = order.as_ref().is_some_and(|(dry_run, _)| *dry_run);
            let passed = tokio::select! {
                biased;
                // A step that was handed over is done, and counted in the database.
                _ = &mut stopped => break,
                passed = pruning.pass(dry_run, &mut report) => passed,
            };
            if !dry_run {
                told.add(&report);
                told.tell(&pruning.system, order.is_some());
            }
            if let Some((_, answer)) = order {
                // Whoever asked may have gone.
                let _ = answer.send(passed.map(|()| report));
                continue;
            }
            // Once, and not with each pass.
            match passed {
                Err(why) if !is_failing => {
                    tracing::error!(target: "headworks", %why, "stored events cannot be pruned; that is tried again");
                    is_failing = true;
                }
                Err(_) => {}
                Ok(()) => is_failing = false,
            }
        }
    });
}

impl Pruning {
    /// Until the next pass is due by the configuration of then.
    async fn wait(&mut self) {
        let began = Instant::now();
        loop {
            let every = self.running.borrow_and_update().config.retention.every;
            tokio::select! {
                () = tokio::time::sleep_until(began + every) => return,
                changed = self.running.changed() => if changed.is_err() {
                    // The daemon ends, and stops this.
                    return std::future::pending().await;
                }
            }
        }
    }

    async fn pass(&self, dry_run: bool, report: &mut Report) -> Result<(), StorageError> {
        let now = UnixMillis::now();
        // A server is asked only where somebody has a rule: it may be away.
        let prunes = self.stores.iter().any(|(_, store)| store.is_on_server()) && self.prunes();
        let stores = self.stores.iter().filter(|(_, store)| prunes || !store.is_on_server());
        let pass = Pass::begin(stores.cloned()).await?;
        let tenants: BTreeMap<TenantId, Rest> = self
            .system
            .tenants()
            .into_iter()
            .map(|told| {
                let rest = match (told.uncompensated, told.in_flight) {
                    (1.., _) => Rest::Owed,
                    (_, 1..) => Rest::InFlight,
                    (0, 0) => Rest::Settled,
                };
                (told.tenant, rest)
            })
            .collect();
        let of = |tenant: &TenantId| {
            let rest = tenants.get(tenant).copied().unwrap_or(Rest::Settled);
            (self.system.policy(tenant).retention, rest)
        };
        let committed = async {
            let late = |_| StorageError::unavailable("the journal cannot be written, and says what may be pruned");
            tokio::time::timeout(PATIENCE, self.system.recorded()).await.map_err(late)
        };
        let ran = pass.run(now, of, committed, dry_run, report).await;
        let max_age = self.running.borrow().config.dead_letters.max_age;
        let own = |tenant: &TenantId| self.system.policy(tenant).retention.dead_letters_max_age;
        let letters = prune_letters(&self.letters, max_age, own, now, dry_run, report).await;
        ran.and(letters)
    }

    /// Whether any rule lets go of stored events: of the configuration, or of a tenant since.
    fn prunes(&self) -> bool {
        let by_config = self.running.borrow().config.tenants.prunes();
        by_config || self.system.tenants().iter().any(|told| !self.system.policy(&told.tenant).retention.keeps_all())
    }
}

/// Erasures that could not be ended.
#[derive(Default)]
struct Unfinished {
    /// Of whom it was told why.
    told: BTreeSet<TenantId>,
}

impl Unfinished {
    async fn go_on(&mut self, Pruning { eraser, system, .. }: &Pruning) {
        let finished = match eraser.finish_elsewhere().await {
            Ok(finished) => finished,
            Err(why) => {
                tracing::error!(target: "headworks", %why, "it cannot be looked up what is to be erased yet; that is tried again");
                return;
            }
        };
        for (tenant, gone) in finished {
            if gone.waits.is_empty() {
                self.told.remove(&tenant);
                system.log_order(
                    &tenant,
                    What::Erased,
                    &format!("{}, the rest of what could not be ended before", gone.in_words()),
                );
            } else if self.told.insert(tenant.clone()) {
                for (store, why) in gone.waits {
                    tracing::warn!(target: "headworks", %tenant, %store, why, "what is to be erased of a tenant is still there; that is tried again");
                }
            }
        }
    }
}

/// What was pruned since the supervisor log said so.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
    /// Events, by tenant.
    events: BTreeMap<TenantId, u64>,
    dead_letters: u64,
}

impl Told {
    fn add(&mut self, report: &Report) {
        for row in &report.events {
            *self.events.entry(row.tenant.clone()).or_default() += row.pruned.events;
        }
        self.dead_letters += report.dead_letters;
    }

    /// Where it was asked for by hand, at once.
    fn tell(&mut self, system: &System, by_hand: bool) {
        let is_due = by_hand || self.last.is_none_or(|last| last.elapsed() >= TELL_EVERY);
        if !is_due || (self.events.is_empty() && self.dead_letters == 0) {
            return;
        }
        system.note(What::Pruned, Cause::new(Code::Config, self.in_words()));
        *self = Self { last: Some(Instant::now()), ..Self::default() };
    }

    /// Those of whom most was pruned, by name.
    fn in_words(&self) -> String {
        let mut words = count(self.events.values().sum(), "event");
        let mut most: Vec<_> = self.events.iter().collect();
        most.sort_by_key(|(_, events)| std::cmp::Reverse(**events));
        for (nth, (tenant, events)) in most.iter().take(NAMED).enumerate() {
            let _ = write!(words, "{} {events} of {tenant}", if nth == 0 { ":" } else { "," });
        }
        if most.len() > NAMED {
            let _ = write!(words, " and the rest of {}", count((most.len() - NAMED) as u64, "more tenant"));
        }
        if self.dead_letters > 0 {
            let _ = write!(words, "; {}", count(self.dead_letters, "dead letter"));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pruned_is_told_by_the_tenants_that_lost_most() {
        let tenant = |n: u64| TenantId::new(&format!("t{n}")).unwrap();
        let mut told = Told { events: (1..=7).map(|n| (tenant(n), n * 10)).collect(), ..Told::default() };
        told.dead_letters = 1;
        let expected = "280 events: 70 of t7, 60 of t6, 50 of t5, 40 of t4, 30 of t3 and the rest of 2 more tenants; 1 dead letter";
        assert_eq!(told.in_words(), expected);
    }
}
