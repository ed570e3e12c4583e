use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use headworks_actors::{BatchId, Opening, TenantId, UnixMillis};
use object_store::ObjectMeta;
use tokio::runtime::Runtime;

use super::content::{self, Content, Head};
use super::error::{Failure, ReadError};
use super::key::{self, Name, PackName, Place};
use super::link::Link;
use super::page::Mark;
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

/// Where a batch stands among all of its tenant: when its opening began, which that is, its place there, and its life.
type Order = (Option<UnixMillis>, Opening, Place, u32);

/// An object with a batch, or with several.
#[derive(Debug)]
struct Object {
    key: String,
    what: What,
    meta: ObjectMeta,
}

#[derive(Debug)]
enum What {
    Batch(Name),
    Pack(Opening, PackName),
}

/// Where somebody is who goes through a tenant's batches.
#[derive(Debug, Default)]
pub(in crate::store) struct Cursor {
    /// What was looked at.
    seen: HashSet<String>,
    /// What was read.
    batches: HashSet<BatchId>,
    /// Those that were gone when they were looked at.
    gone: HashSet<String>,
    marks: Marks,
    objects: VecDeque<Object>,
    /// Those that were read; some may come before them that were not.
    read: BTreeMap<Order, Content>,
    /// Those at hand.
    ready: VecDeque<Content>,
}

impl Cursor {
    /// Whether it was read already; perhaps in an earlier life, since time passes while somebody reads.
    fn has(&self, object: &Object) -> bool {
        let is_read = matches!(&object.what, What::Batch(name) if self.batches.contains(&name.batch));
        is_read || self.seen.contains(&object.key)
    }
}

/// What the pages say: when each opening began, and in which of its lives a batch is that was rolled back.
#[derive(Debug, Default)]
struct Marks {
    began: BTreeMap<Opening, UnixMillis>,
    lives: HashMap<BatchId, u32>,
}

impl Marks {
    fn take(&mut self, key: &str, at: UnixMillis) {
        let Some((tenant, opening, name)) = key::mark_of(key) else { return };
        self.begin(opening, at);
        if let Some(Mark::Fence((seq, piece), attempt)) = Mark::parse(name) {
            let life = self.lives.entry(BatchId { opening, tenant, seq, piece }).or_default();
            *life = attempt.0.max(*life);
        }
    }

    fn begin(&mut self, opening: Opening, at: UnixMillis) {
        self.began.entry(opening).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }

    fn is_over(&self, batch: &BatchId, life: u32) -> bool {
        self.lives.get(batch).is_some_and(|now| life < *now)
    }

    fn order(&self, batch: &BatchId, life: u32) -> Order {
        (self.began.get(&batch.opening).copied(), batch.opening, batch.place(), life)
    }
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
            heads(link, None, false, |key, head| {
                let (head, _) = head.map_err(|why| damaged(key, &why))?;
                let tenant = &head.batch.tenant;
                let totals = tenants.entry(tenant.clone()).or_insert_with(|| TenantTotals::none(tenant.clone()));
                totals.events += head.events;
                totals.batches += 1;
                totals.first_arrived = totals.first_arrived.into_iter().chain([head.arrived.0]).min();
                totals.last_arrived = totals.last_arrived.max(Some(head.arrived.1));
                Ok(())
            })
            .await?;
            Ok(tenants.into_values().collect())
        })
    }

    /// What is held of every tenant, of one opening or of all. Every object is read and compared with its hash.
    pub(in crate::store) fn held(&self, opening: Option<Opening>) -> Result<Held, ReadError> {
        self.ask(async |link| {
            let (mut held, mut damage) = (BTreeMap::<TenantId, (u64, u64)>::new(), vec![]);
            heads(link, opening, true, |key, head| {
                match head {
                    Ok((head, is_whole)) => {
                        let (events, whole) = held.entry(head.batch.tenant.clone()).or_default();
                        *events += head.events;
                        *whole += if is_whole { head.events } else { 0 };
                    }
                    Err(why) => damage.push(format!("{key}: {why}")),
                }
                Ok(())
            })
            .await?;
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
        self.ask(async |link| Ok(!listing(link, tenant).await?.0.is_empty()))
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
        if cursor.objects.is_empty() {
            if is_listed {
                return Ok(());
            }
            is_listed = true;
            relist(link, cursor, tenant, span).await?;
        }
        let mut is_gone = false;
        let next: Vec<_> = cursor.objects.drain(..cursor.objects.len().min(AT_ONCE)).collect();
        // What has become part of a pack that stands before it was read there.
        let next = next.into_iter().filter(|object| !cursor.has(object)).collect::<Vec<_>>();
        let mut objects = stream::iter(next)
            .map(async |object| Ok::<_, Failure>((link.get(&object.key).await?, object)))
            .buffered(AT_ONCE);
        while let Some((bytes, object)) = objects.try_next().await? {
            let Some(bytes) = bytes else {
                // It has become part of a pack that was not there yet; or was taken away.
                is_gone |= link.compacts() && cursor.gone.insert(object.key);
                continue;
            };
            let format = link.options.format;
            let found = match &object.what {
                What::Batch(name) => vec![(name.life, content::decode(format, &bytes))],
                What::Pack(..) => {
                    let batches = content::unpack_whole(format, &bytes).map_err(|why| damaged(&object.key, &why))?;
                    batches.into_iter().map(|(life, content)| (life, Ok(content))).collect()
                }
            };
            for (life, content) in found {
                let content = content.map_err(|why| damaged(&object.key, &why))?;
                let batch = &content.head.batch;
                let (order, is_over) = (cursor.marks.order(batch, life), cursor.marks.is_over(batch, life));
                if is_over || content.head.fence.is_some() {
                    continue;
                }
                let is_new = cursor.batches.insert(batch.clone());
                let (first, last) = content.head.arrived;
                if is_new && span.meets((first.0, last.0)) {
                    cursor.read.insert(order, content);
                }
            }
            cursor.seen.insert(object.key);
        }
        if is_gone {
            relist(link, cursor, tenant, span).await?;
        }
        let next = cursor.objects.front().map(|object| cursor.marks.first(&object.what));
        while let Some(read) = cursor.read.first_entry() {
            if next.as_ref().is_some_and(|next| read.key() >= next) {
                break;
            }
            cursor.ready.push_back(read.remove());
        }
    }
    Ok(())
}

/// What was not looked at yet.
async fn relist(link: &Link, cursor: &mut Cursor, tenant: &TenantId, span: Span) -> Result<(), Failure> {
    let (objects, marks) = listing(link, tenant).await?;
    // No event arrived after it was stored.
    let since = span.since.saturating_sub(SKEW);
    let fresh = objects.into_iter().filter(|object| !cursor.has(object));
    cursor.objects = fresh.filter(|object| object.meta.last_modified.timestamp_millis() >= since).collect();
    cursor.marks = marks;
    Ok(())
}

fn damaged(key: &str, why: &str) -> Failure {
    Failure::Unfit(format!("{key}: {why}"))
}

fn modified(meta: &ObjectMeta) -> UnixMillis {
    UnixMillis(meta.last_modified.timestamp_millis())
}

impl Marks {
    /// Where the first of an object's batches stands.
    fn first(&self, what: &What) -> Order {
        match what {
            What::Batch(Name { batch, life, .. }) => self.order(batch, *life),
            What::Pack(opening, name) => (self.began.get(opening).copied(), *opening, name.first, 0),
        }
    }
}

/// The objects of a tenant in the order of the batches: of openings by when they began, of an opening by seq.
///
/// A batch moves from where it waits into a pack, and what was rolled back comes again under another name; so those that wait are listed
/// first, then the marks, and the packs last: what is gone from one listing is in a later one.
async fn listing(link: &Link, tenant: &TenantId) -> Result<(Vec<Object>, Marks), Failure> {
    let (mut marks, mut objects) = (Marks::default(), vec![]);
    for (key, meta) in link.list(&link.folder(Some(tenant))).await? {
        let Some(name) = link.name_of(&key).filter(|name| name.batch.tenant == *tenant) else { continue };
        marks.begin(name.batch.opening, modified(&meta));
        objects.push(Object { key, what: What::Batch(name), meta });
    }
    if link.compacts() {
        marks = marks_of(link, Some(tenant)).await?;
        for (key, meta) in link.list(&link.template.folder(tenant)).await? {
            let pack = link.template.parse_pack(&key).filter(|(of, ..)| of == tenant);
            let Some((_, opening, name)) = pack else { continue };
            objects.push(Object { key, what: What::Pack(opening, name), meta });
        }
    }
    // A pack stands before its first batch, which need not be looked at then.
    objects.sort_by_cached_key(|object| (marks.first(&object.what), matches!(object.what, What::Batch(_))));
    Ok((objects, marks))
}

async fn marks_of(link: &Link, tenant: Option<&TenantId>) -> Result<Marks, Failure> {
    let mut marks = Marks::default();
    for (key, meta) in link.list(&key::pages(tenant)).await? {
        marks.take(&key, modified(&meta));
    }
    Ok(marks)
}

/// Visits the heads of all batches, each once; on demand with whether they are as they were stored. An object that says nothing is
/// visited with the reason.
async fn heads(
    link: &Link,
    opening: Option<Opening>,
    with_events: bool,
    mut visit: impl FnMut(&str, Result<(&Head, bool), String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let format = link.options.format;
    let is_wanted = |of: Opening| opening.is_none_or(|opening| of == opening);
    // Each in the highest of its lives that was seen.
    let mut waiting = HashMap::<BatchId, u32>::new();
    let names =
        link.list(&link.folder(None)).await?.into_iter().filter_map(|(key, _)| Some((link.name_of(&key)?, key)));
    let mut names: Vec<_> = names.filter(|(name, _)| is_wanted(name.batch.opening)).collect();
    if link.compacts() {
        let marks = marks_of(link, None).await?;
        names.retain(|(name, _)| !marks.is_over(&name.batch, name.life));
    }
    let mut objects = stream::iter(names)
        .map(async |(name, key)| Ok::<_, Failure>((link.get(&key).await?, name, key)))
        .buffer_unordered(AT_ONCE);
    while let Some((bytes, name, key)) = objects.try_next().await? {
        let Some(bytes) = bytes else { continue };
        match content::head(format, &bytes) {
            Ok(head) if head.fence.is_some() => {}
            Ok(head) => {
                if link.compacts() {
                    let life = waiting.entry(name.batch).or_default();
                    *life = name.life.max(*life);
                }
                visit(&key, Ok((&head, !with_events || content::decode(format, &bytes).is_ok())))?;
            }
            Err(why) => visit(&key, Err(why))?,
        }
    }
    if !link.compacts() {
        return Ok(());
    }
    // After all that wait were looked at: what was gone by then is here.
    let packs = link.list("").await?.into_iter().filter_map(|(key, _)| Some((link.template.parse_pack(&key)?.1, key)));
    let packs = packs.filter(|(opening, _)| is_wanted(*opening)).map(|(_, key)| key);
    let mut objects = stream::iter(packs.collect::<Vec<_>>())
        .map(async |key| Ok::<_, Failure>((link.get(&key).await?, key)))
        .buffer_unordered(AT_ONCE);
    while let Some((bytes, key)) = objects.try_next().await? {
        let Some(bytes) = bytes else { continue };
        let index = match content::index(format, &bytes) {
            Ok(index) => index,
            Err(why) => {
                visit(&key, Err(why))?;
                continue;
            }
        };
        let read = if with_events { content::unpack(format, &bytes).ok() } else { None };
        for (place, entry) in index.batches.iter().enumerate() {
            if waiting.get(&entry.head.batch).is_some_and(|life| *life >= entry.life) {
                continue;
            }
            let batch = read.as_ref().and_then(|read| read.get(place));
            visit(&key, Ok((&entry.head, !with_events || batch.is_some_and(|batch| batch.is_whole))))?;
        }
    }
    Ok(())
}
