use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use headworks_actors::{Opening, TenantId, UnixMillis};
use object_store::ObjectMeta;
use tokio::runtime::Runtime;

use super::content::{self, Content};
use super::error::{Failure, ReadError};
use super::key::Name;
use super::link::Link;
use super::{ObjectOptions, OpenError};
use crate::store::events::{Span, StoredEvent};
use crate::store::sqlite::TenantTotals;

/// So many objects are fetched at once.
const AT_ONCE: usize = 4;
/// A clock of a server is no further from ours than this.
const SKEW: i64 = 86_400_000;

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

/// An object with a batch.
#[derive(Debug)]
struct Place {
    key: String,
    name: Name,
    meta: ObjectMeta,
}

/// Where somebody is who goes through a tenant's batches.
#[derive(Debug, Default)]
pub(in crate::store) struct Cursor {
    /// Those that were looked at.
    seen: HashSet<String>,
    places: VecDeque<Place>,
    /// Those at hand.
    ready: VecDeque<Content>,
}

/// What is held of each tenant: events by the word of their objects, and those that are there as they were stored. And what is so
/// damaged that it says nothing.
pub(in crate::store) type Held = (Vec<(TenantId, u64, u64)>, Vec<String>);

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
            let mut tenants = BTreeMap::<TenantId, TenantTotals>::new();
            let mut heads = stream::iter(places(link, "").await?)
                .map(async |Place { key, .. }| {
                    let Some(bytes) = link.get(&key).await? else { return Ok(None) };
                    content::head(link.options.format, &bytes).map(Some).map_err(|why| damaged(&key, &why))
                })
                .buffer_unordered(AT_ONCE);
            while let Some(head) = heads.try_next().await? {
                let Some(head) = head.filter(|head| head.fence.is_none()) else { continue };
                let tenant = &head.batch.tenant;
                let totals = tenants.entry(tenant.clone()).or_insert_with(|| TenantTotals::none(tenant.clone()));
                totals.events += head.events;
                totals.batches += 1;
                totals.first_arrived = totals.first_arrived.into_iter().chain([head.arrived.0]).min();
                totals.last_arrived = totals.last_arrived.max(Some(head.arrived.1));
            }
            Ok(tenants.into_values().collect())
        })
    }

    /// What is held of every tenant, of one opening or of all. Every object is read and compared with its hash.
    pub(in crate::store) fn held(&self, opening: Option<Opening>) -> Result<Held, ReadError> {
        self.ask(async |link| {
            let (mut held, mut damage) = (BTreeMap::<TenantId, (u64, u64)>::new(), vec![]);
            let all = places(link, "").await?.into_iter();
            let places = all.filter(|place| opening.is_none_or(|opening| place.name.batch.opening == opening));
            let mut objects = stream::iter(places.collect::<Vec<_>>())
                .map(async |place| Ok::<_, Failure>((link.get(&place.key).await?, place)))
                .buffer_unordered(AT_ONCE);
            while let Some((bytes, place)) = objects.try_next().await? {
                let Some(bytes) = bytes else { continue };
                match content::head(link.options.format, &bytes) {
                    Ok(head) if head.fence.is_some() => {}
                    Ok(head) => {
                        let is_whole = content::decode(link.options.format, &bytes).is_ok();
                        let (events, whole) = held.entry(head.batch.tenant).or_default();
                        *events += head.events;
                        *whole += if is_whole { head.events } else { 0 };
                    }
                    Err(why) => damage.push(format!("{}: {why}", place.key)),
                }
            }
            Ok((held.into_iter().map(|(tenant, (events, whole))| (tenant, events, whole)).collect(), damage))
        })
    }

    /// The bodies of the tenant's events, in the order they were stored; all of them at once, in memory.
    ///
    /// # Errors
    /// The objects cannot be read, or one is damaged.
    pub fn bodies(&self, tenant: &TenantId) -> Result<Vec<Vec<u8>>, ReadError> {
        let (mut cursor, mut bodies) = (Cursor::default(), vec![]);
        while self.peek(&mut cursor, tenant, Span::ALL)?.is_some() {
            self.read_next(&mut cursor, &mut |event| bodies.push(event.body.to_vec()));
        }
        Ok(bodies)
    }

    pub(in crate::store) fn knows(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        self.ask(async |link| Ok(!of_tenant(link, tenant).await?.is_empty()))
    }

    /// Makes sure that the next batch is at hand, if there is one; when its first event arrived.
    pub(in crate::store) fn peek(
        &self,
        cursor: &mut Cursor,
        tenant: &TenantId,
        span: Span,
    ) -> Result<Option<i64>, ReadError> {
        if cursor.ready.is_empty() {
            self.ask(async |link| fetch(link, cursor, tenant, span).await)?;
        }
        Ok(cursor.ready.front().map(|content| content.head.arrived.0.0))
    }

    /// Visits the events of the batch at hand, and goes on to the next.
    pub(in crate::store) fn read_next(&self, cursor: &mut Cursor, visit: &mut dyn FnMut(StoredEvent<'_>)) {
        let Some(Content { head, events }) = cursor.ready.pop_front() else { return };
        let batch = head.batch.to_string();
        for (place, event) in (0..).zip(&events) {
            let (time, arrived) = (event.time, Some(event.arrived));
            visit(StoredEvent { time, arrived, batch: &batch, place, body: &event.body });
        }
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

/// The next batches that may have events of the span, into the cursor.
async fn fetch(link: &Link, cursor: &mut Cursor, tenant: &TenantId, span: Span) -> Result<(), Failure> {
    let mut is_listed = false;
    while cursor.ready.is_empty() {
        if cursor.places.is_empty() {
            if is_listed {
                return Ok(());
            }
            is_listed = true;
            let fresh = of_tenant(link, tenant).await?.into_iter().filter(|place| !cursor.seen.contains(&place.key));
            // No event arrived after it was stored.
            let since = span.since.saturating_sub(SKEW);
            cursor.places = fresh.filter(|place| place.meta.last_modified.timestamp_millis() >= since).collect();
        }
        let next: Vec<_> = cursor.places.drain(..cursor.places.len().min(AT_ONCE)).collect();
        let keys: Vec<_> = next.iter().map(|place| place.key.clone()).collect();
        let mut objects = stream::iter(next)
            .map(async |place| Ok::<_, Failure>((link.get(&place.key).await?, place.key)))
            .buffered(AT_ONCE);
        while let Some((bytes, key)) = objects.try_next().await? {
            let Some(bytes) = bytes else { continue };
            let content = content::decode(link.options.format, &bytes).map_err(|why| damaged(&key, &why))?;
            let (first, last) = content.head.arrived;
            if content.head.fence.is_none() && span.meets((first.0, last.0)) {
                cursor.ready.push_back(content);
            }
        }
        cursor.seen.extend(keys);
    }
    Ok(())
}

fn damaged(key: &str, why: &str) -> Failure {
    Failure::Unfit(format!("{key}: {why}"))
}

async fn of_tenant(link: &Link, tenant: &TenantId) -> Result<Vec<Place>, Failure> {
    let mut places = places(link, &link.template.folder(tenant)).await?;
    places.retain(|place| place.name.batch.tenant == *tenant);
    Ok(places)
}

/// The objects of batches below a folder, in the order of the batches: of openings by their first object, of an opening by seq.
async fn places(link: &Link, folder: &str) -> Result<Vec<Place>, Failure> {
    let found = link.list(folder).await?.into_iter();
    let ours = found.filter_map(|(key, meta)| Some(Place { name: link.template.parse(&key)?, key, meta }));
    let mut places: Vec<_> = ours.collect();
    let mut began = BTreeMap::<Opening, UnixMillis>::new();
    for place in &places {
        let at = UnixMillis(place.meta.last_modified.timestamp_millis());
        began.entry(place.name.batch.opening).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    places.sort_by_cached_key(|Place { name: Name { batch, life, .. }, .. }| {
        (began.get(&batch.opening).copied(), batch.opening, batch.seq, batch.piece, *life)
    });
    Ok(places)
}
