use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use headworks_actors::{Opening, TenantId};
use tokio::runtime::Runtime;

use super::cursor::Cursor;
use super::error::{Failure, ReadError};
use super::gone::{self, Gone};
use super::link::Link;
use super::listing;
use super::{ObjectOptions, OpenError};
use crate::store::events::Span;
use crate::store::sqlite::TenantTotals;

/// Reads what a store in objects holds, also while a daemon writes to it; never writes to it. It asks the server when it is first
/// asked something itself.
///
/// For commands and tools: calls block. What is not asked for of one tenant reads every object: nothing but the objects says how much
/// is in them.
pub struct ObjectReader {
    options: ObjectOptions,
    open: Mutex<Option<Open>>,
}

/// The way there, and the runtime that drives it.
struct Open {
    link: Link,
    runtime: Option<Runtime>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // Dropped otherwise, it would wait for its tasks, and panic where nobody may wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectReader").field("place", &self.options.url).finish_non_exhaustive()
    }
}

/// What is held of a tenant. All of them count events.
pub(in crate::store) struct HeldInObjects {
    pub(in crate::store) tenant: TenantId,
    /// By the word of their objects.
    pub(in crate::store) events: u64,
    /// Those that are there as they were stored.
    pub(in crate::store) whole: u64,
    /// Those that are gone, by the rules of retention.
    pub(in crate::store) pruned: u64,
    /// Those that are gone, on an operator's word.
    pub(in crate::store) erased: u64,
}

/// What is held of each tenant, and what is so damaged that it says nothing.
pub(in crate::store) type Held = (Vec<HeldInObjects>, Vec<String>);

impl ObjectReader {
    /// Of the store with these options.
    ///
    /// # Errors
    /// [`OpenError::Options`]: they cannot work.
    pub fn new(options: ObjectOptions) -> Result<Self, OpenError> {
        super::check_url(&options.url).map_err(OpenError::Options)?;
        Ok(Self { options, open: Mutex::new(None) })
    }

    /// The totals of every tenant that has an event, by name.
    ///
    /// # Errors
    /// The objects cannot be read, or one is damaged.
    pub fn tenants(&self) -> Result<Vec<TenantTotals>, ReadError> {
        self.ask(async |link| {
            let (heads, _) = listing::heads(link, None, false).await?;
            if let Some((key, why)) = heads.damaged.first() {
                return Err(damaged(key, why));
            }
            let mut tenants = BTreeMap::<TenantId, TenantTotals>::new();
            for found in heads.found {
                let tenant = &found.batch.tenant;
                let totals = tenants.entry(tenant.clone()).or_insert_with(|| TenantTotals::none(tenant.clone()));
                totals.events += found.events;
                totals.batches += 1;
                totals.first_arrived = totals.first_arrived.into_iter().chain([found.arrived.0]).min();
                totals.last_arrived = totals.last_arrived.max(Some(found.arrived.1));
            }
            Ok(tenants.into_values().collect())
        })
    }

    /// What is held of every tenant, of one opening or of all. Every object is read and compared with its hash.
    pub(in crate::store) fn held(&self, opening: Option<Opening>) -> Result<Held, ReadError> {
        self.ask(async |link| {
            let (heads, gone) = listing::heads(link, opening, true).await?;
            let mut held = BTreeMap::<TenantId, HeldInObjects>::new();
            let none = |tenant: TenantId| HeldInObjects { tenant, events: 0, whole: 0, pruned: 0, erased: 0 };
            for found in heads.found {
                let tenant = found.batch.tenant;
                let held = held.entry(tenant.clone()).or_insert_with(|| none(tenant));
                held.events += found.events;
                held.whole += if found.is_whole { found.events } else { 0 };
            }
            for (tenant, gone) in gone {
                let (pruned, erased) = gone.events(opening);
                if pruned + erased > 0 {
                    let held = held.entry(tenant.clone()).or_insert_with(|| none(tenant));
                    (held.pruned, held.erased) = (pruned, erased);
                }
            }
            let damage = heads.damaged.into_iter().map(|(key, why)| format!("{key}: {why}")).collect();
            Ok((held.into_values().collect(), damage))
        })
    }

    /// Of each tenant of which something is gone on purpose: how many events were pruned, and how many were erased.
    pub(in crate::store) fn gone(&self) -> Result<Vec<(TenantId, u64, u64)>, ReadError> {
        self.ask(async |link| {
            let events = |(tenant, gone): (TenantId, Gone)| {
                let (pruned, erased) = gone.events(None);
                (tenant, pruned, erased)
            };
            Ok(gone::of_all(link).await?.into_iter().map(events).collect())
        })
    }

    /// The bodies of the tenant's events, in the order they were stored; all of them at once, in memory.
    ///
    /// # Errors
    /// The objects cannot be read, or one is damaged.
    pub fn bodies(&self, tenant: &TenantId) -> Result<Vec<Vec<u8>>, ReadError> {
        let (mut cursor, mut bodies) = (Cursor::default(), vec![]);
        while self.peek(&mut cursor, tenant, Span::ALL)?.is_some() {
            cursor.read_next(&mut |event| bodies.push(event.body.to_vec()));
        }
        Ok(bodies)
    }

    pub(in crate::store) fn knows(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        self.ask(async |link| {
            let (objects, marks) = listing::listing(link, tenant).await?;
            Ok(!objects.is_empty() || marks.gone != Gone::default())
        })
    }

    /// Whether there are objects of the tenant.
    pub(in crate::store) fn holds(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        self.ask(async |link| Ok(!listing::listing(link, tenant).await?.0.is_empty()))
    }

    /// Makes sure that the next batch is at hand, if there is one; when its first event arrived.
    pub(in crate::store) fn peek(
        &self,
        cursor: &mut Cursor,
        tenant: &TenantId,
        span: Span,
    ) -> Result<Option<i64>, ReadError> {
        if cursor.at_hand().is_none() {
            self.ask(async |link| cursor.fetch(link, tenant, span).await)?;
        }
        Ok(cursor.at_hand().map(|content| content.head.arrived.0.0))
    }

    /// Asks, on a thread without a runtime of somebody else: whoever calls may be on one, where nobody may wait.
    fn ask<T: Send>(&self, question: impl AsyncFnOnce(&Link) -> Result<T, Failure> + Send) -> Result<T, ReadError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = &mut *open;
        let here = || {
            let known = match open.take() {
                Some(known) => known,
                None => {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let runtime = runtime.map_err(|why| Failure::Unfit(format!("no runtime for it: {why}")))?;
                    let link = Link::new(self.options.clone(), false).map_err(Failure::Unfit)?;
                    Open { link, runtime: Some(runtime) }
                }
            };
            let Open { link, runtime: Some(runtime) } = &*open.insert(known) else {
                return Err(Failure::Unfit("the reader is closed".into()));
            };
            runtime.block_on(question(link))
        };
        let asked = std::thread::scope(|scope| scope.spawn(here).join());
        let answer = asked.unwrap_or_else(|_| Err(Failure::Unfit("the reader panicked".into())));
        answer.map_err(|why| ReadError { place: self.options.url.clone(), detail: why.explain() })
    }
}

pub(super) fn damaged(key: &str, why: &str) -> Failure {
    Failure::Unfit(format!("{key}: {why}"))
}
