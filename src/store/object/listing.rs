//! What there is, by the names of objects, and what the objects say of themselves.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use headworks_actors::{BatchId, Opening, TenantId, UnixMillis};
use object_store::ObjectMeta;

use super::content::{self, Head};
use super::error::Failure;
use super::gone::{self, Gone};
use super::key::{self, Name, PackName, Place};
use super::link::Link;
use super::page::Mark;

/// So many objects are fetched at once.
pub(super) const AT_ONCE: usize = 4;

/// Where a batch stands among all of its tenant: when its opening began, which that is, its place there, and its life.
pub(super) type Order = (Option<UnixMillis>, Opening, Place, u32);

/// An object with a batch, or with several.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) what: What,
    pub(super) meta: ObjectMeta,
}

#[derive(Debug)]
pub(super) enum What {
    Batch(Name),
    Pack(Opening, PackName),
}

impl What {
    pub(super) fn opening(&self) -> Opening {
        match self {
            Self::Batch(name) => name.batch.opening,
            Self::Pack(opening, _) => *opening,
        }
    }

    /// The first and the last of its batches.
    pub(super) fn span(&self) -> (Place, Place) {
        match self {
            Self::Batch(name) => (name.batch.place(), name.batch.place()),
            Self::Pack(_, name) => (name.first, name.last),
        }
    }
}

/// What is known beside the objects: when each opening began, in which of its lives a batch is that was rolled back, and what is gone.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) began: BTreeMap<Opening, UnixMillis>,
    lives: HashMap<BatchId, u32>,
    pub(super) gone: Gone,
}

impl Marks {
    pub(super) fn take(&mut self, key: &str, at: UnixMillis) {
        let Some((tenant, opening, name)) = key::mark_of(key) else { return };
        self.begin(opening, at);
        if let Some(Mark::Fence((seq, piece), attempt)) = Mark::parse(name) {
            let life = self.lives.entry(BatchId { opening, tenant, seq, piece }).or_default();
            *life = attempt.0.max(*life);
        }
    }

    pub(super) fn begin(&mut self, opening: Opening, at: UnixMillis) {
        self.began.entry(opening).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }

    pub(super) fn is_over(&self, batch: &BatchId, life: u32) -> bool {
        self.lives.get(batch).is_some_and(|now| life < *now) || self.gone.has(batch)
    }

    pub(super) fn order(&self, batch: &BatchId, life: u32) -> Order {
        (self.began.get(&batch.opening).copied(), batch.opening, batch.place(), life)
    }

    /// Where the first of an object's batches stands.
    pub(super) fn first(&self, what: &What) -> Order {
        match what {
            What::Batch(Name { batch, life, .. }) => self.order(batch, *life),
            What::Pack(opening, name) => (self.began.get(opening).copied(), *opening, name.first, 0),
        }
    }
}

pub(super) fn modified(meta: &ObjectMeta) -> UnixMillis {
    UnixMillis(meta.last_modified.timestamp_millis())
}

/// The objects of a tenant in the order of the batches: of openings by when they began, of an opening by seq.
///
/// A batch moves from where it waits into a pack, and what was rolled back comes again under another name; so those that wait are listed
/// first, then the marks, and the packs last: what is gone from one listing is in a later one. What is gone on purpose is not there.
pub(super) async fn listing(link: &Link, tenant: &TenantId) -> Result<(Vec<Object>, Marks), Failure> {
    let (mut objects, marks) = all_of(link, tenant).await?;
    objects.retain(|object| !marks.gone.is_upto(object.what.opening(), object.what.span().1));
    Ok((objects, marks))
}

/// The same, with what is left of what is gone.
pub(super) async fn all_of(link: &Link, tenant: &TenantId) -> Result<(Vec<Object>, Marks), Failure> {
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
    marks.gone = gone::of(link, tenant).await?.0;
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

/// A batch, by the word of its object.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) batch: BatchId,
    pub(super) events: u64,
    /// When the first and the last of its events arrived.
    pub(super) arrived: (UnixMillis, UnixMillis),
    /// Whether it is as it was stored, where that was asked.
    pub(super) is_whole: bool,
}

impl Found {
    fn of(head: &Head, is_whole: bool) -> Self {
        Self { batch: head.batch.clone(), events: head.events, arrived: head.arrived, is_whole }
    }
}

/// What some objects say.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Each batch once.
    pub(super) found: Vec<Found>,
    /// The objects that say nothing, with the reason.
    pub(super) damaged: Vec<(String, String)>,
    /// Those that wait to become part of a pack, each in the highest of its lives that was seen.
    waiting: HashMap<BatchId, u32>,
}

impl Heads {
    /// Takes in objects of one batch each; on demand with whether they are as they were stored.
    pub(super) async fn of_batches(
        &mut self,
        link: &Link,
        batches: impl IntoIterator<Item = (Name, String)>,
        with_events: bool,
    ) -> Result<(), Failure> {
        let format = link.options.format;
        let mut objects = stream::iter(batches.into_iter().collect::<Vec<_>>())
            .map(async |(name, key)| Ok::<_, Failure>((link.get(&key).await?, name, key)))
            .buffer_unordered(AT_ONCE);
        while let Some((bytes, name, key)) = objects.try_next().await? {
            let Some(bytes) = bytes else { continue };
            match content::head(format, &bytes) {
                Ok(head) if head.fence.is_some() => {}
                Ok(head) => {
                    if link.compacts() {
                        let life = self.waiting.entry(name.batch).or_default();
                        *life = name.life.max(*life);
                    }
                    let is_whole = !with_events || content::decode(format, &bytes).is_ok();
                    self.found.push(Found::of(&head, is_whole));
                }
                Err(why) => self.damaged.push((key, why)),
            }
        }
        Ok(())
    }

    /// Takes in packs. To be called after all that wait were looked at: what was gone by then is here.
    pub(super) async fn of_packs(&mut self, link: &Link, packs: Vec<String>, with_events: bool) -> Result<(), Failure> {
        let format = link.options.format;
        let mut objects = stream::iter(packs)
            .map(async |key| Ok::<_, Failure>((link.get(&key).await?, key)))
            .buffer_unordered(AT_ONCE);
        while let Some((bytes, key)) = objects.try_next().await? {
            let Some(bytes) = bytes else { continue };
            let index = match content::index(format, &bytes) {
                Ok(index) => index,
                Err(why) => {
                    self.damaged.push((key, why));
                    continue;
                }
            };
            let read = if with_events { content::unpack(format, &bytes).ok() } else { None };
            for (place, entry) in index.batches.iter().enumerate() {
                if self.waiting.get(&entry.head.batch).is_some_and(|life| *life >= entry.life) {
                    continue;
                }
                let batch = read.as_ref().and_then(|read| read.get(place));
                let is_whole = !with_events || batch.is_some_and(|batch| batch.is_whole);
                self.found.push(Found::of(&entry.head, is_whole));
            }
        }
        Ok(())
    }
}

/// All batches, of one opening or of all, each once; and what is gone, which is not among them.
pub(super) async fn heads(
    link: &Link,
    opening: Option<Opening>,
    with_events: bool,
) -> Result<(Heads, BTreeMap<TenantId, Gone>), Failure> {
    let is_wanted = |of: Opening| opening.is_none_or(|opening| of == opening);
    let names =
        link.list(&link.folder(None)).await?.into_iter().filter_map(|(key, _)| Some((link.name_of(&key)?, key)));
    let mut names: Vec<_> = names.filter(|(name, _)| is_wanted(name.batch.opening)).collect();
    if link.compacts() {
        let marks = marks_of(link, None).await?;
        names.retain(|(name, _)| !marks.is_over(&name.batch, name.life));
    }
    let mut heads = Heads::default();
    heads.of_batches(link, names, with_events).await?;
    if link.compacts() {
        let packs = link.list("").await?.into_iter();
        let packs = packs.filter_map(|(key, _)| Some((link.template.parse_pack(&key)?.1, key)));
        let packs = packs.filter(|(opening, _)| is_wanted(*opening)).map(|(_, key)| key);
        heads.of_packs(link, packs.collect(), with_events).await?;
    }
    // Last: what was seen above and went since counts as gone.
    let gone = gone::of_all(link).await?;
    heads.found.retain(|found| gone.get(&found.batch.tenant).is_none_or(|gone| !gone.has(&found.batch)));
    Ok((heads, gone))
}
