//! Looks from outside for what fails without a word: an actor that does not answer, batches that do not move, and a thread that
//! does not turn.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::alarms::Alarm;
use super::control::Control;
use super::message::Beat;
use super::registry::{Phase, Shared};
use super::slot::Slot;
use crate::model::{Cause, Code, Hung, Role, SupervisorEvent, UnixMillis, What};
use crate::policy::{Holdup, Moves};

/// A tenant's heartbeat is due: looks what became of the last one, sends the next, and has the clock set again, whatever the
/// tenant does. A tenant that nobody needs any more is passivated. Only on the system's thread.
pub(super) fn beat(slot: &Arc<Slot>, shared: &Arc<Shared>) {
    let (now, policy) = (Instant::now(), slot.policy());
    let is_filled = slot.tenant.is_filled();
    if is_filled {
        look_at_tenant(slot, shared);
        look_at_batches(slot, shared, now);
    }
    let used = slot.lane.last_accepted().unwrap_or(slot.awake_since);
    if policy.heartbeat.is_forgotten(now, used) && slot.is_to_be_let_go() && slot.passivate(shared) && slot.is_gone() {
        return;
    }
    let is_downstream = policy.heartbeat.downstream_every.is_some();
    if !is_filled && !slot.is_held() && policy.heartbeat.passivate_after.is_none() && !is_downstream {
        // Whoever brings it back sets the clock.
        slot.beating.store(false, Ordering::Release);
        return;
    }
    shared.alarms.set(now + policy.heartbeat.every, slot, Alarm::Beat);
    slot.lane.record_door();
    if !is_filled && is_downstream && !slot.is_held() {
        // Whoever waits for a sign of life does not wait for the first window to close.
        slot.start(shared);
    }
    if slot.tenant.is_filled() {
        slot.tenant.tell(Beat, &slot.beat_sent);
    }
}

/// Whether the last heartbeat was answered.
fn look_at_tenant(slot: &Arc<Slot>, shared: &Arc<Shared>) {
    // One that waits for its restart cannot answer, and need not.
    let Some(control) = slot.tenant.control().filter(|control| control.status().is_none()) else { return };
    let policy = slot.policy();
    let mut upkeep = slot.upkeep();
    if !slot.beat_sent.load(Ordering::Acquire) {
        upkeep.missed = 0;
        return;
    }
    upkeep.missed += 1;
    let (missed, policy) = (upkeep.missed, &policy.heartbeat);
    let is_lost = missed >= policy.max_missed;
    if is_lost {
        upkeep.missed = 0;
    }
    drop(upkeep);
    shared.log(SupervisorEvent { attempt: Some(missed), ..slot.event(Role::Tenant, What::MissedHeartbeat) });
    if is_lost {
        let every = humantime::format_duration(policy.every);
        let detail =
            format!("it answered none of the last {missed} heartbeats, one every {every} (heartbeat.max_missed)");
        control.fail(Cause::new(Code::Hung, detail));
    }
}

/// Whether the batches move.
fn look_at_batches(slot: &Arc<Slot>, shared: &Arc<Shared>, now: Instant) {
    let limit = slot.policy().heartbeat.stall_after;
    let (moved, holdup) = slot.lane.standing(now);
    let writer = slot.writer.control();
    // One that waits for its restart is at nothing, and it is known when it goes on.
    let waits = writer.is_some_and(|writer| writer.status().is_some()) && slot.writer.is_filled();
    let holdup = holdup.map(|holdup| if waits { Holdup::Backoff } else { holdup });
    // Its turn may have come, and nobody came to take it.
    let holdup =
        holdup.map(|holdup| if holdup == Holdup::Turn && !slot.waits_for_turn() { Holdup::Writer } else { holdup });
    let Some(moves) = slot.upkeep().stall.look(limit, now, moved, holdup) else { return };
    let Moves::NoLonger(holdup) = moves else {
        return shared.log(slot.event(Role::Writer, What::Unstalled));
    };
    let cause = why(slot, shared, holdup, limit);
    shared.log(SupervisorEvent { cause: Some(cause.clone()), ..slot.event(Role::Writer, What::Stalled) });
    if holdup == Holdup::Writer {
        match writer {
            Some(writer) if slot.writer.is_filled() => writer.fail(cause),
            // There is none: it was never told.
            _ => slot.hint_batches(shared),
        }
    }
}

fn why(slot: &Slot, shared: &Shared, holdup: Holdup, limit: Duration) -> Cause {
    let limit = humantime::format_duration(limit);
    let (code, why) = match holdup {
        Holdup::Writer | Holdup::Backoff | Holdup::Turn => (Code::Hung, "their writer made no step".to_owned()),
        Holdup::Store => (Code::StoreUnavailable, "the store is not available".to_owned()),
        Holdup::Compensation => (Code::Hung, "the first was given up, and is not settled yet".to_owned()),
        Holdup::Journal => {
            let failing = shared.journal.health().failing;
            let failing = failing.map_or_else(|| "it does not say why".to_owned(), |why| why.to_string());
            (Code::JournalUnavailable, format!("the journal does not record the next attempt: {failing}"))
        }
    };
    let batches = match slot.lane.snapshot().batches {
        1 => "1 batch waits".to_owned(),
        batches => format!("{batches} batches wait"),
    };
    Cause::new(code, format!("{batches}, and nothing has moved for {limit} (heartbeat.stall_after): {why}"))
}

/// How often the thread shows that it turns, and how often that is looked at, at the most.
const TURN: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_secs(1);

/// Tells how the journal is, for as long as the system runs.
pub(crate) async fn watch_journal(shared: Arc<Shared>) {
    let (mut is_failing, mut is_full) = (false, Lasting::default());
    loop {
        look_at_journal(&shared, &mut is_failing, &mut is_full);
        tokio::time::sleep(LOOK).await;
    }
}

/// Shows again and again that the thread turns. Ends with it.
pub(crate) async fn turn(shared: Arc<Shared>, home: usize, hang_after: Duration) {
    loop {
        shared.homes.all()[home].turns.fetch_add(1, Ordering::Release);
        tokio::time::sleep(TURN.min(hang_after / 4)).await;
    }
}

/// Whether the journal is full: it is so now and then where it is about as large as what is in flight, and only what lasts is told.
#[derive(Default)]
struct Lasting {
    is_told: bool,
    /// How many looks in a row found that it is otherwise.
    looks: u32,
}

impl Lasting {
    /// As many as last for two seconds at least.
    const LOOKS: u32 = 3;

    /// What is to be told now.
    fn look(&mut self, is_so: bool) -> Option<bool> {
        self.looks = if is_so == self.is_told { 0 } else { self.looks + 1 };
        (self.looks >= Self::LOOKS).then(|| {
            *self = Self { is_told: is_so, looks: 0 };
            is_so
        })
    }
}

/// Tells when the journal begins to fail, or is full, and when that is over.
fn look_at_journal(shared: &Shared, is_failing: &mut bool, is_full: &mut Lasting) {
    let health = shared.journal.health();
    if let Some(is_full) = is_full.look(health.is_full) {
        let what = if is_full { What::JournalFull } else { What::JournalHasRoom };
        let quota = health.quota_bytes;
        let cause =
            is_full.then(|| Cause::new(Code::JournalUnavailable, format!("its quota of {quota} bytes is reached")));
        shared.log(SupervisorEvent { cause, ..SupervisorEvent::new(None, Role::Supervisor, what) });
    }
    let failing = health.failing;
    if failing.is_some() == *is_failing {
        return;
    }
    *is_failing = failing.is_some();
    let what = if *is_failing { What::JournalFails } else { What::JournalWorks };
    let cause = failing.map(|why| Cause::new(Code::JournalUnavailable, why.to_string()));
    shared.log(SupervisorEvent { cause, ..SupervisorEvent::new(None, Role::Supervisor, what) });
}

/// What was last seen of a thread.
struct Seen {
    turns: u64,
    since: UnixMillis,
    still: Duration,
}

/// Has the allocator give back the memory that passivated tenants have let go of.
///
/// One may keep such memory until it comes by it again, and mimalloc does that only when a block that is too large for its pages is
/// freed, of which a stream of small events has none. To others such a block is nothing.
#[derive(Default)]
struct GivingBack {
    /// How many had been passivated when it last began.
    laid_down: usize,
    /// How many looks it still lasts: what was freed a moment ago is not given back at once.
    looks: u32,
}

impl GivingBack {
    /// So many have had some megabytes.
    const MANY: usize = 1_000;
    /// Those of a few seconds.
    const LOOKS: u32 = 4;
    const LARGE_BYTES: usize = 4 << 20;

    /// It may take tens of milliseconds.
    fn look(&mut self, laid_down: usize) {
        if self.is_due(laid_down) {
            drop(black_box(Vec::<u8>::with_capacity(Self::LARGE_BYTES)));
        }
    }

    fn is_due(&mut self, laid_down: usize) -> bool {
        if laid_down.wrapping_sub(self.laid_down) >= Self::MANY {
            *self = Self { laid_down, looks: Self::LOOKS };
        }
        let is_due = self.looks > 0;
        self.looks = self.looks.saturating_sub(1);
        is_due
    }
}

/// Looks whether the system's threads turn, on one that they cannot hold, until the system has stopped. Unpark that thread
/// to have it look at once.
pub(crate) fn watch(shared: &Arc<Shared>, hang_after: Duration) {
    let look = LOOK.min(hang_after / 4);
    let homes = shared.homes.all();
    let began = || Seen { turns: 0, since: shared.seam.now(), still: Duration::ZERO };
    let mut seen: Vec<_> = homes.iter().map(|_| began()).collect();
    let mut looked = std::time::Instant::now();
    let mut giving_back = GivingBack::default();
    while shared.phase() < Phase::Stopped {
        std::thread::park_timeout(look);
        // A process that was suspended as a whole does not hang: a wait that took longer than it was to counts as one that did
        // not.
        let waited = looked.elapsed().min(2 * look);
        looked = std::time::Instant::now();
        for (home, seen) in homes.iter().zip(&mut seen) {
            let turns = home.turns.load(Ordering::Acquire);
            *seen = if turns == seen.turns {
                Seen { still: seen.still + waited, ..*seen }
            } else {
                Seen { turns, ..began() }
            };
        }
        let still = seen.iter().enumerate().filter(|(_, seen)| seen.still >= hang_after);
        match still.max_by_key(|(_, seen)| seen.still) {
            Some((home, seen)) => hangs(shared, find(shared, home, seen)),
            None => {
                if let Some(hung) = shared.root.hangs(None) {
                    shared.log(event(shared, &hung, What::Unhung));
                }
            }
        }
        giving_back.look(shared.tenants.laid_down());
    }
}

fn hangs(shared: &Shared, mut hung: Hung) {
    let before = shared.root.health().hung;
    hung.is_logged =
        before.is_some_and(|before| before.is_logged && (before.actor, &before.tenant) == (hung.actor, &hung.tenant));
    // First of all: whoever asks must not have to wait for the log.
    shared.root.hangs(Some(hung.clone()));
    if !hung.is_logged {
        shared.log(event(shared, &hung, What::Hung));
        shared.root.hangs(Some(Hung { is_logged: true, ..hung }));
    }
}

/// Whose code holds the thread.
fn find(shared: &Shared, home: usize, &Seen { since, still: lasting, .. }: &Seen) -> Hung {
    let here = shared.all_slots().into_iter().filter(|slot| slot.home() == home);
    let of_tenant = here.into_iter().find_map(|slot| {
        let is_polling = |control: Option<&Arc<Control>>| control.is_some_and(|control| control.is_polling());
        let writes = is_polling(slot.writer.control()) || slot.hosting.load(Ordering::Relaxed);
        let writer = writes.then_some(Role::Writer);
        let role = writer.or_else(|| is_polling(slot.tenant.control()).then_some(Role::Tenant))?;
        Some((role, slot.id.clone()))
    });
    let (actor, tenant) = match of_tenant {
        Some((role, tenant)) => (Some(role), Some(tenant)),
        None => (shared.root.polled(), None),
    };
    Hung { actor, tenant, since, lasting, is_logged: false }
}

/// Says nothing of what the tenant's lane holds: whoever hangs may have it locked.
fn event(shared: &Shared, hung: &Hung, what: What) -> SupervisorEvent {
    let slot = hung.tenant.as_ref().and_then(|tenant| shared.slot(tenant));
    let epoch = slot.and_then(|slot| match hung.actor {
        Some(Role::Writer) => slot.writer.control().map(|control| control.epoch()),
        _ => slot.tenant.control().map(|control| control.epoch()),
    });
    let actor = hung.actor.unwrap_or(Role::Supervisor);
    let cause = (what == What::Hung).then(|| Cause::new(Code::Hung, hung.to_string()));
    let event = SupervisorEvent::new(hung.tenant.clone(), actor, what);
    SupervisorEvent { epoch: epoch.unwrap_or(0), cause, ..event }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_for_some_seconds_each_time_that_many_tenants_were_passivated_and_not_for_a_few() {
        let mut giving_back = GivingBack::default();
        let mut looks = |laid_down: &[usize]| laid_down.iter().filter(|&&now| giving_back.is_due(now)).count();
        assert_eq!(looks(&[0, 1, 500, 999, 999]), 0);
        assert_eq!(looks(&[1_000; 10]), 4);
        assert_eq!(looks(&[1_400, 1_999, 1_999]), 0);
        // They go on falling asleep: until four looks after the last thousand.
        assert_eq!(looks(&[2_000, 3_000, 4_000, 5_999]), 4);
        assert_eq!(looks(&[5_999; 10]), 3);
    }
}
