//! Which batches wait to become part of a pack, and who makes it.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::{FutureExt, StreamExt, stream};
use headworks_actors::{Cause, Code, Opening, TenantId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ObjectOptions;
use super::error::Failure;
use super::key::{self, Day, Name, Place};
use super::write::Writer;

/// So many packs are made at once.
const AT_ONCE: usize = 4;
/// How long what waits is put into packs when the store is closed; the rest is left to the next opening.
const LAST: Duration = Duration::from_secs(5);

/// What may become one pack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group {
    tenant: TenantId,
    opening: Opening,
    block: u64,
    pub(super) day: Option<Day>,
}

impl Group {
    fn of(name: &Name) -> Self {
        let id = &name.batch;
        let block = id.seq.0 / key::PACKED_PAGE;
        Self { tenant: id.tenant.clone(), opening: id.opening, block, day: name.day.clone() }
    }
}

/// The batches of a group that wait, in their order: how long each is, and since when it waits.
type Batches = BTreeMap<(Place, u32), (Name, usize, Instant)>;

/// The batches that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    groups: Mutex<HashMap<Group, (usize, Batches)>>,
    /// A group has become large.
    is_large: Notify,
    after: Option<Duration>,
    /// A pack is made of so many bytes; and of how many now, which are fewer after one could not be put there.
    most: usize,
    most_now: Mutex<usize>,
    /// Whether what an earlier process left is among them.
    is_known: AtomicBool,
}

impl Waiting {
    pub(super) fn new(options: &ObjectOptions) -> Self {
        let most = options.compact_bytes.max(1);
        let (groups, is_large) = (Mutex::default(), Notify::new());
        Self {
            groups,
            is_large,
            after: options.compact_after,
            most,
            most_now: Mutex::new(most),
            is_known: AtomicBool::new(false),
        }
    }

    /// Notes that it waits from now on.
    pub(super) fn add(&self, name: Name, bytes: usize) {
        self.add_since(name, bytes, Instant::now());
    }

    fn add_since(&self, name: Name, bytes: usize, since: Instant) {
        if self.after.is_none() {
            return;
        }
        let mut groups = self.groups();
        let (total, batches) = groups.entry(Group::of(&name)).or_default();
        if batches.insert((name.batch.place(), name.life), (name, bytes, since)).is_none() {
            *total += bytes;
        }
        if *total >= self.most_now() {
            self.is_large.notify_one();
        }
    }

    /// It is not there any more.
    pub(super) fn forget(&self, name: &Name) {
        self.remove(&Group::of(name), std::slice::from_ref(name));
    }

    fn remove(&self, group: &Group, names: &[Name]) {
        let mut groups = self.groups();
        let Some((total, batches)) = groups.get_mut(group) else { return };
        for name in names {
            if let Some((_, bytes, _)) = batches.remove(&(name.batch.place(), name.life)) {
                *total -= bytes;
            }
        }
        if batches.is_empty() {
            groups.remove(group);
        }
    }

    /// Those that are to become a pack each: what has waited for so long, and what is so large.
    fn due(&self, now: Instant, after: Duration) -> Vec<(Group, Vec<Name>)> {
        let most = self.most_now();
        let groups = self.groups();
        let is_old = |batches: &Batches| batches.values().any(|(_, _, since)| now.duration_since(*since) >= after);
        let due = groups.iter().filter(|(_, (total, batches))| *total >= most || is_old(batches));
        let names = |batches: &Batches| {
            let mut sum = 0;
            let fits = |(name, bytes, _): &(Name, usize, Instant)| {
                let fits = sum < most;
                sum += bytes;
                fits.then(|| name.clone())
            };
            batches.values().map_while(fits).collect()
        };
        due.map(|(group, (_, batches))| (group.clone(), names(batches))).collect()
    }

    /// What a server cannot take, or not in time, is tried with less, and with more again once it can.
    pub(super) fn learn(&self, was_put: bool, names: &[Name]) {
        let Some(group) = names.first().map(Group::of) else { return };
        let bytes: usize = {
            let groups = self.groups();
            let known = groups.get(&group).map(|(_, batches)| batches);
            let bytes = |name: &Name| Some(known?.get(&(name.batch.place(), name.life))?.1);
            names.iter().filter_map(bytes).sum()
        };
        let mut now = self.most_now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = if was_put { now.saturating_mul(2).min(self.most) } else { (bytes.min(*now) / 2).max(1) };
    }

    fn most_now(&self) -> usize {
        *self.most_now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<Group, (usize, Batches)>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Makes packs of what is due, for as long as it is polled. It may be dropped at any moment.
    pub(super) async fn keep_compacting(&self, after: Duration) {
        let every = (after / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
        let mut is_told = false;
        loop {
            let _ = tokio::time::timeout(every, self.waiting.is_large.notified()).await;
            match self.compact(after).await {
                Ok(()) => is_told = false,
                Err(why) => {
                    if !std::mem::replace(&mut is_told, true) {
                        let (place, why) = (&self.link.place, why.as_str());
                        tracing::warn!(target: "headworks", place, why, "cannot put batches together into larger objects now; they are stored, and wait");
                    }
                    // What is large does not ask for it again at once.
                    tokio::time::sleep(every).await;
                }
            }
        }
    }

    /// Makes packs of all that waits, since the store is closed.
    pub(super) async fn compact_the_last(&self) {
        let why = match tokio::time::timeout(LAST, self.compact(Duration::ZERO)).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => format!("it takes longer than {LAST:?}"),
        };
        let place = &self.link.place;
        tracing::warn!(target: "headworks", place, why, "not all batches are put together into larger objects; they are stored, and wait for the next start");
    }

    async fn compact(&self, after: Duration) -> Result<(), String> {
        match AssertUnwindSafe(self.compacted(after)).catch_unwind().await {
            Ok(done) => done.map_err(|why| why.explain()),
            Err(panic) => Err(format!("the store panicked: {}", Cause::from_panic(Code::StorePanic, &*panic).detail)),
        }
    }

    async fn compacted(&self, after: Duration) -> Result<(), Failure> {
        if !self.waiting.is_known.load(Ordering::Acquire) {
            self.ready().await?;
            self.find_waiting().await?;
            self.waiting.is_known.store(true, Ordering::Release);
        }
        loop {
            let due = self.waiting.due(Instant::now(), after);
            if due.is_empty() {
                return Ok(());
            }
            let pack = async |(group, names): (Group, Vec<Name>)| {
                let done = self.pack(&group, names).await?;
                self.waiting.remove(&group, &done);
                Ok::<_, Failure>(done.len())
            };
            // Of what fails one is told; the others are not held up.
            let made: Vec<_> = stream::iter(due).map(pack).buffer_unordered(AT_ONCE).collect().await;
            let done = made.into_iter().sum::<Result<usize, _>>()?;
            if done == 0 {
                return Ok(());
            }
        }
    }

    /// What an earlier process left.
    async fn find_waiting(&self) -> Result<(), Failure> {
        let (now, today) = (Instant::now(), SystemTime::now());
        for (key, meta) in self.link.list(&self.link.folder(None)).await? {
            let Some(name) = self.link.name_of(&key) else { continue };
            let waited = today.duration_since(meta.last_modified.into()).unwrap_or_default();
            let bytes = usize::try_from(meta.size).unwrap_or(usize::MAX);
            self.waiting.add_since(name, bytes, now.checked_sub(waited).unwrap_or(now));
        }
        Ok(())
    }
}
