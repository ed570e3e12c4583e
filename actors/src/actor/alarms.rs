//! One timer for all tenants: when a window's time has come, and when to show a sign of life.
//!
//! A timer an actor would cost memory and a place in the runtime's wheel for each; here an alarm is a place in a list that is
//! shared by all that are due in the same millisecond, and an actor that has nothing to do is not woken.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::registry::Shared;
use super::slot::Slot;
use super::stage::Stage;
use super::tenant::{Cut, follow, window_is_due};
use super::watchdog::beat;
use crate::model::FlushReason;

/// Alarms that are due within the same millisecond go off together, at the end of them: the price in lateness.
const TICK: Duration = Duration::from_millis(1);

/// How many tenants are told before they get their turn: few enough that what was touched to tell them is still in the
/// processor's cache when they look.
const TOGETHER: usize = 32;

/// From so much lateness on, windows are cut before the writers of those cut earlier are told: what is late is the cut, and what
/// follows from it can wait. What follows from one that holds many chunks takes many times as long as the cut.
const LATE: Duration = Duration::from_micros(500);

/// For how long that goes on before all others have their turn.
const SLICE: Duration = Duration::from_millis(4);

/// Once so many windows are cut and their writers not told, what follows has slices of its own among those of cuts, so that neither is
/// ever starved, and what piles up is bounded.
const PILE: usize = 1024;

/// What an alarm is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// The open window may be due.
    Window,
    /// A heartbeat is due.
    Beat,
    /// A quarantine may be over.
    Lift,
    /// The tenant was passivated: nobody is to remember its slot.
    Forget,
    /// The tenant's actors are to be started, where they live.
    Start,
    /// The tenant is to move to another thread.
    Move,
}

/// What goes off together.
type Due = Vec<(Arc<Slot>, Alarm)>;

/// Whose windows were cut, with what follows.
type Untold = VecDeque<(Arc<Slot>, Cut)>;

/// The alarms that are set, on a clock for each thread. Each tenant has at most one of each kind here.
pub(crate) struct Alarms(Box<[Clock]>);

struct Clock {
    began: Instant,
    set: Mutex<BTreeMap<u64, Due>>,
    /// An alarm was set before all others.
    sooner: Notify,
}

impl Alarms {
    pub(crate) fn new(homes: usize) -> Self {
        let clock = || Clock { began: Instant::now(), set: Mutex::default(), sooner: Notify::new() };
        Self((0..homes).map(|_| clock()).collect())
    }

    /// Goes off at `at`, or up to a tick later, on the thread that the tenant's actors live on.
    pub(crate) fn set(&self, at: Instant, slot: &Arc<Slot>, alarm: Alarm) {
        if alarm == Alarm::Forget {
            return self.0.iter().for_each(|clock| clock.set(at, slot, alarm));
        }
        self.0[slot.home()].set(at, slot, alarm);
    }

    /// Has the windows cut now that are due first, as many as hold about so much memory.
    pub(crate) fn hasten_windows(&self, bytes: usize) {
        self.0.iter().for_each(|clock| clock.hasten_windows(bytes / self.0.len()));
    }
}

impl Clock {
    fn set(&self, at: Instant, slot: &Arc<Slot>, alarm: Alarm) {
        let tick = at.saturating_duration_since(self.began).as_nanos().div_ceil(TICK.as_nanos());
        let tick = u64::try_from(tick).unwrap_or(u64::MAX);
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let first = set.first_key_value().is_none_or(|(first, _)| tick < *first);
        set.entry(tick).or_default().push((slot.clone(), alarm));
        drop(set);
        if first {
            self.sooner.notify_one();
        }
    }

    fn hasten_windows(&self, mut bytes: usize) {
        let mut hastened = vec![];
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        for due in set.values_mut() {
            due.retain(|(slot, alarm)| {
                if bytes == 0 || *alarm != Alarm::Window {
                    return true;
                }
                slot.ask_flush(FlushReason::Pressure);
                bytes = bytes.saturating_sub(slot.lane.bytes());
                hastened.push((slot.clone(), *alarm));
                false
            });
            if bytes == 0 {
                break;
            }
        }
        set.retain(|_, due| !due.is_empty());
        if !hastened.is_empty() {
            // Before all others.
            set.entry(0).or_default().extend(hastened);
            drop(set);
            self.sooner.notify_one();
        }
    }

    fn first(&self) -> Option<Instant> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (tick, _) = set.first_key_value()?;
        // An alarm further away than the clock can tell is as good as none.
        let ticks = u32::try_from(*tick).ok()?;
        self.began.checked_add(TICK * ticks)
    }

    /// What is due first, if it is by now, and since when.
    fn take_due(&self, now: Instant) -> Option<(Instant, Due)> {
        let first = self.first().filter(|first| *first <= now)?;
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.pop_first().map(|(_, alarms)| (first, alarms))
    }
}

/// Sets the alarms of a thread off until the end of the system.
pub(crate) async fn ring(shared: Arc<Shared>, home: usize, stage: Rc<RefCell<Stage>>) {
    let alarms = &shared.alarms.0[home];
    // What follows from cuts, and is still to be done.
    let mut untold = VecDeque::new();
    loop {
        let mut turn = Instant::now();
        while let Some((since, due)) = alarms.take_due(turn) {
            for together in due.chunks(TOGETHER) {
                set_off(together, &shared, home, &stage, &mut untold);
                let mut now = Instant::now();
                while now.saturating_duration_since(since) < LATE && !untold.is_empty() {
                    tell(&mut untold, &shared);
                    now = Instant::now();
                }
                if now.saturating_duration_since(turn) >= SLICE {
                    tokio::task::yield_now().await;
                    if untold.len() >= PILE {
                        tell_for_a_slice(&mut untold, &shared).await;
                    }
                    turn = Instant::now();
                }
            }
        }
        if !untold.is_empty() {
            tell_for_a_slice(&mut untold, &shared).await;
            continue;
        }
        let Some(first) = alarms.first() else {
            alarms.sooner.notified().await;
            continue;
        };
        // Whichever is first: its time, or an alarm set for before that.
        let sooner = std::pin::pin!(alarms.sooner.notified());
        let due = std::pin::pin!(tokio::time::sleep_until(first));
        futures::future::select(sooner, due).await;
    }
}

/// Has batches stored for as long as a slice lasts; then all others have their turn.
async fn tell_for_a_slice(untold: &mut Untold, shared: &Arc<Shared>) {
    let turn = Instant::now();
    while !untold.is_empty() {
        tell(untold, shared);
        if turn.elapsed() >= SLICE {
            break;
        }
    }
    tokio::task::yield_now().await;
}

fn set_off(due: &[(Arc<Slot>, Alarm)], shared: &Arc<Shared>, home: usize, stage: &RefCell<Stage>, untold: &mut Untold) {
    due.iter().for_each(|(slot, _)| slot.near_actors());
    for (slot, alarm) in due {
        match alarm {
            Alarm::Forget => stage.borrow_mut().forget(slot),
            _ if slot.is_gone() => {}
            // It has moved meanwhile.
            _ if slot.home() != home => shared.alarms.set(Instant::now(), slot, *alarm),
            Alarm::Window => untold.extend(window_is_due(slot, shared).map(|cut| (slot.clone(), cut))),
            Alarm::Beat => beat(slot, shared),
            Alarm::Lift => slot.lift(shared),
            Alarm::Start => slot.start_here(shared),
            Alarm::Move => slot.moves(shared),
        }
    }
}

/// Has the batches of whoever waits longest stored.
fn tell(untold: &mut Untold, shared: &Arc<Shared>) {
    if let Some((slot, cut)) = untold.pop_front().filter(|(slot, _)| !slot.is_gone()) {
        // Its writer may have been told otherwise meanwhile, and be at it.
        follow(&slot, shared, if slot.lane.is_work_begun() { Cut::Writers } else { cut });
    }
}
