//! The registry of tenants: which are known, which of them are awake, and who may become known.
//!
//! A tenant is dormant or awake. Only an awake one has a [`Slot`], and it has one at a time: whoever comes for a dormant one wakes
//! it here, and [`Slot::passivate`] puts it back. Both happen under the lock of its place, so that a slot that is not in its place
//! any more is marked as [gone](Slot::is_gone), and whoever still holds it looks here again.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dashmap::{DashMap, DashSet, Entry};
use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::alarms::Alarm;
use super::dormant::{Dormant, Own};
use super::registry::{Phase, Shared};
use super::slot::Slot;
use super::spec::TenantSpec;
use crate::model::{Cause, Code, Error, InvalidTenantId, Role, SupervisorEvent, TenantId, What};
use crate::observe::{Counters, TenantDetail, TenantSnapshot};
use crate::policy::{Policy, SpawnGate, SpawnRate, Unknown};
use crate::port::RecoveredTenant;
use crate::port::lane::{Frames, Lane};

/// Who may become known by an event.
#[derive(Debug, Clone)]
pub(crate) struct Admittance {
    pub(crate) unknown: Unknown,
    /// How many may be known.
    pub(crate) max: usize,
    pub(crate) rate: Option<SpawnRate>,
}

/// All tenants that are known.
pub(crate) struct Tenants {
    places: DashMap<TenantId, Place, RandomState>,
    /// How many: to ask the map takes a lock of each of its parts.
    known: AtomicUsize,
    /// How often one was passivated.
    laid_down: AtomicUsize,
    mutes: DashSet<TenantId>,
    /// Rules that were given at run time.
    pub(crate) policies: DashMap<TenantId, Arc<Policy>>,
    pub(super) admittance: RwLock<Admittance>,
    /// Held while rules are changed.
    pub(super) changing: Mutex<()>,
    gate: Mutex<SpawnGate>,
}

enum Place {
    Awake(Arc<Slot>),
    Dormant(Box<Dormant>),
}

/// Why there is no tenant to take an event.
pub(crate) enum Unmet {
    /// What it is said to be is no id.
    BadId(InvalidTenantId),
    /// Nobody knows it, and it may not become known.
    Refused(Code),
}

impl Tenants {
    pub(crate) fn new(admittance: Admittance) -> Self {
        Self {
            places: DashMap::default(),
            known: AtomicUsize::new(0),
            laid_down: AtomicUsize::new(0),
            mutes: DashSet::new(),
            policies: DashMap::new(),
            admittance: RwLock::new(admittance),
            changing: Mutex::default(),
            gate: Mutex::default(),
        }
    }

    pub(super) fn is_muted(&self, id: &TenantId) -> bool {
        self.mutes.contains(id)
    }

    /// How many may be known.
    pub(crate) fn max(&self) -> usize {
        self.admittance.read().unwrap_or_else(PoisonError::into_inner).max
    }

    pub(super) fn admittance(&self) -> Admittance {
        self.admittance.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_full(&self) -> bool {
        self.known.load(Ordering::Acquire) >= self.max()
    }

    /// Where the tenant's slot is the one that is in its place, puts what `make` makes of it there. Under the lock of the place.
    pub(super) fn lay_down(&self, slot: &Arc<Slot>, make: impl FnOnce() -> Option<Dormant>) -> bool {
        let Some(mut place) = self.places.get_mut(&slot.id) else { return false };
        match &*place {
            Place::Awake(awake) if Arc::ptr_eq(awake, slot) => match make() {
                Some(dormant) => *place = Place::Dormant(Box::new(dormant)),
                None => return false,
            },
            _ => return false,
        }
        self.laid_down.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// How often a tenant was passivated so far.
    pub(super) fn laid_down(&self) -> usize {
        self.laid_down.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// The tenant's slot, if it is awake.
    pub(crate) fn slot(&self, id: &TenantId) -> Option<Arc<Slot>> {
        match &*self.tenants.places.get(id)? {
            Place::Awake(slot) => Some(slot.clone()),
            Place::Dormant(_) => None,
        }
    }

    pub(crate) fn knows(&self, id: &TenantId) -> bool {
        self.tenants.places.contains_key(id)
    }

    /// The slots of all tenants that are awake, by name.
    pub(crate) fn all_slots(&self) -> Vec<Arc<Slot>> {
        let mut slots: Vec<_> = self.tenants.places.iter().filter_map(|place| place.awake().cloned()).collect();
        slots.sort_by(|a, b| a.id.cmp(&b.id));
        slots
    }

    /// Every tenant as it is now, by name. Wakes none.
    pub(crate) fn snapshots(&self) -> Vec<TenantSnapshot> {
        // A lane may be locked for long, by code that hangs: not to be waited for with a part of the map locked.
        let (mut awake, mut snapshots) = (vec![], vec![]);
        for at in &self.tenants.places {
            match at.value() {
                Place::Awake(slot) => awake.push(slot.clone()),
                Place::Dormant(dormant) => snapshots.push(dormant.snapshot(at.key(), self)),
            }
        }
        snapshots.extend(awake.iter().map(|slot| slot.snapshot()));
        snapshots.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        snapshots
    }

    /// One tenant as it is now. Does not wake it.
    pub(crate) fn snapshot(&self, id: &TenantId) -> Option<TenantSnapshot> {
        let slot = match &*self.tenants.places.get(id)? {
            Place::Awake(slot) => slot.clone(),
            Place::Dormant(dormant) => return Some(dormant.snapshot(id, self)),
        };
        Some(slot.snapshot())
    }

    /// All that is known of a tenant. Does not wake it.
    pub(crate) fn detail(&self, id: &TenantId) -> Option<TenantDetail> {
        let slot = match &*self.tenants.places.get(id)? {
            Place::Awake(slot) => slot.clone(),
            Place::Dormant(dormant) => return Some(dormant.detail(id, self)),
        };
        Some(slot.detail(self))
    }

    /// The slot of the tenant that an event of `name` is for, made or woken where there is none. What is refused costs a look or
    /// two, and leaves nothing behind: of refused names there is no end.
    pub(crate) fn meet(self: &Arc<Self>, name: &str) -> Result<Arc<Slot>, Unmet> {
        match self.tenants.places.get(name).as_deref() {
            Some(Place::Awake(slot)) => return Ok(slot.clone()),
            Some(Place::Dormant(_)) => {}
            None => {
                TenantId::check(name).map_err(Unmet::BadId)?;
                if let Cow::Owned(other) = self.admitted(name).map_err(Unmet::Refused)? {
                    return self.meet(&other);
                }
            }
        }
        Ok(self.wake(&TenantId::new(name).map_err(Unmet::BadId)?))
    }

    /// By whose name an unknown tenant's events come in.
    fn admitted<'n>(&self, name: &'n str) -> Result<Cow<'n, str>, Code> {
        let Tenants { gate, policies, .. } = &self.tenants;
        if self.defaults.specs.contains_key(name) || policies.contains_key(name) || self.defaults.rules().names(name) {
            return Ok(name.into());
        }
        let admittance = self.tenants.admittance();
        match &admittance.unknown {
            Unknown::Reject => return Err(Code::UnknownTenant),
            Unknown::CatchAll(other) if other.as_str() == name => return Ok(name.into()),
            Unknown::CatchAll(other) => return Ok(other.as_str().to_owned().into()),
            Unknown::Spawn if self.tenants.is_full() => return Err(Code::TenantLimit),
            Unknown::Spawn => {}
        }
        let passes = |rate| gate.lock().unwrap_or_else(PoisonError::into_inner).take(rate, Instant::now());
        if admittance.rate.is_none_or(passes) { Ok(name.into()) } else { Err(Code::SpawnRate) }
    }

    /// Why events of `name` were refused, in words.
    pub(crate) fn refusal(&self, code: Code, name: &str) -> Cause {
        let Admittance { max, rate, .. } = self.tenants.admittance();
        let why = match (code, rate) {
            (Code::TenantLimit, _) => format!("{max} tenants are known, and limits.max_tenants allows no more"),
            (Code::SpawnRate, Some(rate)) => {
                format!("tenants.max_spawn_rate allows {} new tenants a second", rate.per_second)
            }
            _ => "tenants.unknown is \"reject\": only tenants that are configured, or were spawned, are let in"
                .to_owned(),
        };
        Cause::new(code, format!("tenant {name} is not known, and cannot come up: {why}"))
    }

    /// The slot of a tenant: the one there is, or a new one.
    pub(crate) fn wake(self: &Arc<Self>, id: &TenantId) -> Arc<Slot> {
        let mut place = match self.tenants.places.entry(id.clone()) {
            Entry::Occupied(place) => place,
            Entry::Vacant(place) => {
                let base = self.defaults.specs.get(id).cloned();
                let own = Own::of(id, base.unwrap_or_else(TenantSpec::silent), &self.defaults);
                let slot = self.made(id, self.changed(id, own), None);
                place.insert(Place::Awake(slot.clone()));
                self.tenants.known.fetch_add(1, Ordering::AcqRel);
                return slot;
            }
        };
        let dormant = match place.get() {
            Place::Awake(slot) => return slot.clone(),
            Place::Dormant(dormant) => dormant,
        };
        let slot = self.made(id, self.changed(id, dormant.own(id, &self.defaults)), Some(dormant));
        place.insert(Place::Awake(slot.clone()));
        slot
    }

    /// The same slot, or the one that took its place.
    pub(crate) fn present(self: &Arc<Self>, slot: &Arc<Slot>) -> Arc<Slot> {
        if slot.is_gone() { self.wake(&slot.id) } else { slot.clone() }
    }

    /// Counts something in the tenant's counters, whichever slot it has.
    pub(super) fn count(self: &Arc<Self>, slot: &Arc<Slot>, count: impl Fn(&mut Counters)) {
        self.at_lane(slot, |lane| lane.count(&count));
    }

    /// Frames of the tenant came of which none became part of a chunk.
    pub(super) fn count_frames(self: &Arc<Self>, slot: &Arc<Slot>, frames: Frames) {
        self.at_lane(slot, |lane| lane.count_frames(frames));
    }

    /// An event of the tenant was received that the system made itself.
    pub(super) fn count_own(self: &Arc<Self>, slot: &Arc<Slot>) {
        self.at_lane(slot, Lane::count_own);
    }

    /// An event of the tenant was accepted and given up in the same breath.
    pub(super) fn give_up_at_door(self: &Arc<Self>, slot: &Arc<Slot>) {
        self.at_lane(slot, Lane::give_up_at_door);
    }

    /// Does something at the tenant's lane: where it is not that of `slot` any more, and says so, at the next.
    fn at_lane(self: &Arc<Self>, slot: &Arc<Slot>, so: impl Fn(&Lane) -> bool) {
        if !so(&slot.lane) {
            while !so(&self.wake(&slot.id).lane) {}
        }
    }

    /// A slot, under the lock of its place. From now on somebody looks every now and then whether it is still needed.
    fn made(&self, id: &TenantId, own: Own, left: Option<&Dormant>) -> Arc<Slot> {
        let slot = Arc::new(Slot::new(id.clone(), own, left, self));
        slot.beat_later(self);
        slot
    }

    /// A new tenant's slot. Where the spec is silent, the one given to the builder counts.
    pub(crate) fn new_slot(&self, spec: TenantSpec) -> Result<Arc<Slot>, Error> {
        let base = self.defaults.specs.get(&spec.id);
        let (is_expected, has_own) = (base.is_some(), spec.policy.is_some());
        let spec = spec.over(base).checked()?;
        spec.check_journal(self.journal.is_durable())?;
        let id = spec.id.clone();
        match self.tenants.places.entry(id.clone()) {
            Entry::Occupied(_) => Err(Error::TenantExists(id)),
            Entry::Vacant(_) if !is_expected && self.tenants.is_full() => {
                Err(Error::TenantLimit { tenant: id, limit: self.tenants.max() })
            }
            Entry::Vacant(place) => {
                if has_own {
                    // What is said last counts.
                    self.tenants.policies.remove(&id);
                }
                let slot = self.made(&id, self.changed(&id, Own::of(&id, spec, &self.defaults)), None);
                if has_own {
                    drop(self.silences.of(&id, &slot.policy().silence, true));
                }
                place.insert(Place::Awake(slot.clone()));
                self.tenants.known.fetch_add(1, Ordering::AcqRel);
                Ok(slot)
            }
        }
    }

    /// A tenant that is on record: it is known whatever the limit is now. It has a slot only where anything is left to be done.
    pub(crate) fn recovered_tenant(self: &Arc<Self>, left: &RecoveredTenant) -> Option<Arc<Slot>> {
        if left.is_settled() && left.uncompensated.is_empty() {
            let base = self.defaults.specs.get(&left.tenant).cloned();
            let dormant = Dormant::recovered(left, base.unwrap_or_else(TenantSpec::silent), self);
            self.tenants.places.insert(left.tenant.clone(), Place::Dormant(Box::new(dormant)));
            self.tenants.known.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        let slot = self.wake(&left.tenant);
        slot.lane.restore(left);
        slot.is_unclaimed.store(true, Ordering::Release);
        if left.is_settled() {
            return None;
        }
        slot.recovering.store(true, Ordering::Release);
        self.unread.fetch_add(1, Ordering::AcqRel);
        Some(slot)
    }

    /// The slot of a tenant that is known because it was on record, for the first who asks to spawn it with nothing of its own.
    pub(crate) fn unclaimed(self: &Arc<Self>, spec: &TenantSpec) -> Option<Arc<Slot>> {
        if !spec.is_silent() || !self.knows(&spec.id) {
            return None;
        }
        let slot = self.wake(&spec.id);
        slot.is_unclaimed.swap(false, Ordering::AcqRel).then_some(slot)
    }

    /// What was said of the tenant, with the rules that it was given at run time.
    pub(super) fn changed(&self, id: &TenantId, own: Own) -> Own {
        match self.tenants.policies.get(id) {
            Some(policy) => Own { policy: policy.clone(), ..own },
            None => own,
        }
    }

    /// Other rules for a tenant from now on, whether or not it is awake, or known yet.
    pub(crate) fn set_policy(&self, id: &TenantId, policy: Policy) -> Result<(), Error> {
        let check = policy.check().and_then(|()| policy.overflow.check_journal(self.journal.is_durable()));
        check.map_err(|why| Error::InvalidPolicy(format!("tenant {id}: {why}")))?;
        let _only = self.tenants.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, policy) = (self.policy(id), Arc::new(policy));
        self.tenants.policies.insert(id.clone(), policy.clone());
        drop(self.silences.of(id, &policy.silence, true));
        if let Some(slot) = self.slot(id) {
            slot.set_policy(self, &policy, true);
        } else if let Some(cause) = changes(&before, &policy) {
            let event = SupervisorEvent::new(Some(id.clone()), Role::Tenant, What::PolicyChanged);
            self.log(SupervisorEvent { cause: Some(cause), ..event });
        }
        Ok(())
    }

    /// The rules of a tenant, whether or not it is awake, or known yet.
    pub(crate) fn policy(&self, id: &TenantId) -> Arc<Policy> {
        if let Some(slot) = self.slot(id) {
            return slot.policy();
        }
        if let Some(given) = self.tenants.policies.get(id) {
            return given.clone();
        }
        if let Some(Place::Dormant(dormant)) = self.tenants.places.get(id).as_deref() {
            return dormant.own(id, &self.defaults).policy;
        }
        let own = self.defaults.specs.get(id).and_then(|spec| spec.policy.clone());
        own.map_or_else(|| self.defaults.policy(id), Arc::new)
    }

    pub(crate) fn mute(&self, id: &TenantId, muted: bool) {
        let is_other = match muted {
            true => self.tenants.mutes.insert(id.clone()),
            false => self.tenants.mutes.remove(id).is_some(),
        };
        if let Some(slot) = self.slot(id) {
            slot.muted.store(muted, Ordering::Release);
        }
        if is_other {
            let what = if muted { What::Muted } else { What::Unmuted };
            self.log(SupervisorEvent::new(Some(id.clone()), Role::Supervisor, what));
        }
    }

    pub(crate) fn muted(&self) -> Vec<TenantId> {
        let mut muted: Vec<_> = self.tenants.mutes.iter().map(|id| id.clone()).collect();
        muted.sort();
        muted
    }
}

/// How rules were changed, in words.
pub(super) fn changes(from: &Policy, to: &Policy) -> Option<Cause> {
    let changes: Vec<_> = from.changes(to).iter().map(ToString::to_string).collect();
    (!changes.is_empty()).then(|| Cause::new(Code::PolicyChanged, changes.join("; ")))
}

impl Place {
    fn awake(&self) -> Option<&Arc<Slot>> {
        match self {
            Self::Awake(slot) => Some(slot),
            Self::Dormant(_) => None,
        }
    }
}

impl Slot {
    /// Sets the alarm for the next heartbeat, if it is not set.
    pub(super) fn beat_later(self: &Arc<Self>, shared: &Shared) {
        if shared.phase() < Phase::Stopping && !self.beating.swap(true, Ordering::AcqRel) {
            shared.alarms.set(Instant::now() + self.policy().heartbeat.every, self, Alarm::Beat);
        }
    }
}
