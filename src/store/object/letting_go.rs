//! Objects that go on purpose: pruned by the retention of their tenant, or erased on an operator's word. See [`gone`] for why each event
//! is counted once, whatever dies in between.
//!
//! What goes is the oldest of an opening, in whole objects: a pack goes with all that is in it, and so do objects whose batches lie between
//! those of another one, as those of two days at midnight may. Of one tenant nothing is packed meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use headworks_actors::fault_point::fault_point;
use headworks_actors::{Opening, RetentionPolicy, Seq, TenantId, UnixMillis};
use tokio::sync::OnceCell;

use super::error::Failure;
use super::gone::{self, Gone, Why};
use super::key::{self, Place};
use super::listing::{Found, Heads, Marks, Object, What, all_of, modified};
use super::turns::Turns;
use super::write::{Writer, conflict, damaged};
use crate::retention::{Asked, Kept, Pruned, due};

/// So many objects go in one step, at least where nothing ties more of them together.
const STEP: usize = 256;

/// What there was of a tenant when somebody looked at all.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) tenant: TenantId,
    /// The newest batch of each opening. What came later is not to be pruned by what is known of then.
    newest: BTreeMap<Opening, Place>,
    /// When the oldest object was put there, and what all of them take.
    oldest: UnixMillis,
    bytes: u64,
    /// Something went before, of which there may be a rest.
    has_gone: bool,
}

/// What was put there before this goes by its age.
fn before(asked: &Asked) -> Option<UnixMillis> {
    let age = |age: std::time::Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    asked.rules.max_age.map(|of| UnixMillis(asked.now.0.saturating_sub(age(of))))
}

/// Whether anything of it may be due.
fn may_be_due(holding: &Holding, asked: &Asked) -> bool {
    let most = asked.rules.max_bytes as u64;
    before(asked).is_some_and(|before| holding.oldest <= before) || (most > 0 && holding.bytes > most)
}

/// What a [`Writer`] needs to let objects go.
#[derive(Debug, Default)]
pub(super) struct LettingGo {
    /// Of a tenant whose objects go nothing is packed.
    pub(super) packing: Turns,
    /// Whether what was seen can be replaced.
    can_replace: OnceCell<()>,
    /// Of whom no rest of what went is there.
    swept: Mutex<HashSet<TenantId>>,
    /// Events that were pruned since the place was made; none until it has said so.
    pruned: Mutex<Option<u64>>,
}

impl LettingGo {
    /// How many events were pruned, where that is known.
    pub(super) fn pruned(&self) -> Option<u64> {
        *self.pruned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, events: u64) {
        if let Some(pruned) = self.pruned.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            *pruned += events;
        }
    }

    fn swept(&self) -> std::sync::MutexGuard<'_, HashSet<TenantId>> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be looked at more closely.
    pub(super) fn is_to_be_looked_at(&self, holding: &Holding, asked: &Asked) -> bool {
        may_be_due(holding, asked) || (holding.has_gone && !self.swept().contains(&holding.tenant))
    }
}

impl Writer {
    /// Looks up how many events were pruned before.
    pub(super) async fn know_pruned(&self) -> Result<(), Failure> {
        let events: u64 = gone::of_all(&self.link).await?.values().map(|gone| gone.events(None).0).sum();
        self.letting_go.pruned.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(events);
        Ok(())
    }

    /// What there is, by tenant.
    pub(super) async fn stock(&self) -> Result<Vec<Holding>, Failure> {
        self.ready().await?;
        let mut all = BTreeMap::<TenantId, Holding>::new();
        let mut has_gone = HashSet::new();
        for (key, meta) in self.link.list("").await? {
            let (tenant, what) = if let Some(name) = self.link.name_of(&key) {
                (name.batch.tenant.clone(), What::Batch(name))
            } else if let Some((tenant, opening, name)) = self.link.template.parse_pack(&key) {
                (tenant, What::Pack(opening, name))
            } else {
                has_gone.extend(gone::tenant_of(&key));
                continue;
            };
            let holding = all.entry(tenant.clone()).or_insert_with(|| Holding {
                tenant,
                newest: BTreeMap::new(),
                oldest: UnixMillis(i64::MAX),
                bytes: 0,
                has_gone: false,
            });
            let last = what.span().1;
            holding.newest.entry(what.opening()).and_modify(|newest| *newest = last.max(*newest)).or_insert(last);
            holding.oldest = holding.oldest.min(modified(&meta));
            holding.bytes += meta.size;
        }
        let known = |mut holding: Holding| {
            holding.has_gone = has_gone.contains(&holding.tenant);
            holding
        };
        Ok(all.into_values().map(known).collect())
    }

    /// Lets go of what is due of what there was then.
    pub(super) async fn prune(&self, holding: &Holding, asked: &Asked, dry_run: bool) -> Result<Pruned, Failure> {
        self.can_replace().await?;
        let Asked { tenant, rules, now, in_flight } = asked;
        let _alone = self.letting_go.packing.of(tenant).await;
        let (objects, marks) = all_of(&self.link, tenant).await?;
        let objects = self.without_rest(tenant, objects, &marks, dry_run).await?;
        // What is beyond this stays, and so does what stands behind it.
        let newest = holding.newest.iter().max_by_key(|(opening, _)| (marks.began.get(*opening), **opening));
        let is_within = |object: &Object| {
            let (opening, last) = (object.what.opening(), object.what.span().1);
            let is_known = holding.newest.get(&opening).is_some_and(|newest| last <= *newest);
            is_known && !(*in_flight && newest.is_some_and(|(of, at)| *of == opening && last >= *at))
        };
        let within = objects.iter().position(|object| !is_within(object)).unwrap_or(objects.len());
        let kept: Vec<_> = objects.iter().map(kept).collect();
        let bytes = kept.iter().map(|kept| kept.bytes).sum();
        let by_size = due(&kept, bytes, &RetentionPolicy { max_age: None, ..rules.clone() }, *now);
        let all = due(&kept, bytes, rules, *now).min(within);
        let mut gone = Pruned::default();
        for step in steps(&objects, all) {
            let (end, step) = (step.end, &objects[step]);
            let heads = self.heads(&marks, step).await?;
            if let Some((key, why)) = heads.damaged.first() {
                return Err(damaged(key, why));
            }
            // The clock of the server may be another than the one by which they arrived.
            let is_young = |found: &Found| before(asked).is_some_and(|before| found.arrived.1 > before);
            if end > by_size && heads.found.iter().any(is_young) {
                break;
            }
            let events = heads.found.iter().map(|found| found.events).sum();
            gone += Pruned {
                batches: heads.found.len() as u64,
                events,
                bytes: step.iter().map(|object| object.meta.size).sum(),
            };
            if !dry_run {
                self.let_go(tenant, step, &heads, Why::Pruned).await?;
                self.letting_go.count(events);
            }
        }
        if gone != Pruned::default() && !dry_run {
            let marks = gone::of(&self.link, tenant).await?.0;
            // The opening that is stored to may have a batch on the page of the last one that went.
            let is_over = |opening: Opening, block: u64| {
                let is_old = newest.is_some_and(|(newest, _)| *newest != opening);
                let all_of_it = holding.newest.get(&opening).is_some_and(|last| marks.is_upto(opening, *last));
                (is_old && all_of_it) || marks.is_upto(opening, (Seq((block + 1) * self.page_size()), FIRST))
            };
            self.forget_pages(tenant, is_over).await?;
        }
        Ok(gone)
    }

    /// Takes down that all is to be erased that there is of the tenant; whether there is anything.
    pub(super) async fn mark_erasure(&self, tenant: &TenantId) -> Result<bool, Failure> {
        self.can_replace().await?;
        let _alone = self.letting_go.packing.of(tenant).await;
        let (objects, _) = all_of(&self.link, tenant).await?;
        let (mut gone, seen) = gone::of(&self.link, tenant).await?;
        for object in objects.iter().filter(|object| !is_gone(&gone, object)).collect::<Vec<_>>() {
            gone.begin_erasing(object.what.opening(), object.what.span().1);
        }
        // A page may have marks about batches that are not there.
        for (key, _) in self.link.list(&key::pages(Some(tenant))).await? {
            if let Some((opening, block)) = key::page_of(&key) {
                gone.begin_erasing(opening, (Seq(block * self.page_size()), FIRST));
            }
        }
        if gone.erasing().is_empty() {
            return Ok(!objects.is_empty());
        }
        gone::write(&self.link, tenant, seen, &gone).await?;
        Ok(true)
    }

    /// Erases what was marked, and adds how many events went to `events`.
    pub(super) async fn erase(&self, tenant: &TenantId, events: &mut u64) -> Result<(), Failure> {
        self.can_replace().await?;
        let _alone = self.letting_go.packing.of(tenant).await;
        let (objects, marks) = all_of(&self.link, tenant).await?;
        let objects = self.without_rest(tenant, objects, &marks, false).await?;
        let erasing = marks.gone.erasing();
        let is_to_go =
            |object: &Object| erasing.get(&object.what.opening()).is_some_and(|upto| object.what.span().1 <= *upto);
        let (going, staying): (Vec<_>, Vec<_>) = objects.into_iter().partition(is_to_go);
        for step in steps(&going, going.len()) {
            let step = &going[step];
            let heads = self.heads(&marks, step).await?;
            for (key, why) in &heads.damaged {
                tracing::warn!(target: "headworks", place = %self.link.place, key, why, "an object is erased that does not say how many events it has");
            }
            self.let_go(tenant, step, &heads, Why::Erased).await?;
            *events += heads.found.iter().map(|found| found.events).sum::<u64>();
        }
        // Where something came since, it may be on the page of the last one that went.
        let is_over = |opening: Opening, block: u64| {
            let has_more = staying.iter().any(|object| object.what.opening() == opening);
            erasing.get(&opening).is_some_and(|(upto, _)| !has_more || block < upto.0 / self.page_size())
        };
        self.forget_pages(tenant, is_over).await?;
        self.forget_page(tenant);
        let (mut gone, seen) = gone::of(&self.link, tenant).await?;
        if !gone.erasing().is_empty() {
            gone.end_erasing();
            gone::write(&self.link, tenant, seen, &gone).await?;
        }
        Ok(())
    }

    /// Whether the server heeds it when something is to be replaced only as it was seen, which is looked at once.
    async fn can_replace(&self) -> Result<(), Failure> {
        self.ready().await?;
        let look = async || {
            // With packs it was looked at before anything was put there.
            if self.link.compacts() {
                return Ok(());
            }
            let key = format!("{}/store.json", key::OWN);
            let json = self.link.get(&key).await?.ok_or_else(|| conflict(&key))?;
            if self.link.heeds_versions(&key, json).await? {
                return Ok(());
            }
            let why = "it replaces an object that is not as it was seen, though asked not to (If-Match), which erasing and retention \
                       need; choose a server that heeds conditions";
            Err(Failure::Unfit(why.into()))
        };
        self.letting_go.can_replace.get_or_try_init(look).await.copied()
    }

    /// Without what is left of what is gone, which is taken away.
    async fn without_rest(
        &self,
        tenant: &TenantId,
        objects: Vec<Object>,
        marks: &Marks,
        dry_run: bool,
    ) -> Result<Vec<Object>, Failure> {
        let (rest, objects): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| is_gone(&marks.gone, object));
        if !dry_run {
            self.remove(&rest).await?;
            self.letting_go.swept().insert(tenant.clone());
        }
        Ok(objects)
    }

    /// What the objects say, in the lives that their batches are in.
    async fn heads(&self, marks: &Marks, objects: &[Object]) -> Result<Heads, Failure> {
        let (mut batches, mut packs) = (vec![], vec![]);
        for object in objects {
            match &object.what {
                What::Batch(name) if marks.is_over(&name.batch, name.life) => {}
                What::Batch(name) => batches.push((name.clone(), object.key.clone())),
                What::Pack(..) => packs.push(object.key.clone()),
            }
        }
        let mut heads = Heads::default();
        heads.of_batches(&self.link, batches, false).await?;
        heads.of_packs(&self.link, packs, false).await?;
        Ok(heads)
    }

    /// Says that all up to the last of these objects are gone, and takes them away.
    async fn let_go(&self, tenant: &TenantId, step: &[Object], heads: &Heads, why: Why) -> Result<(), Failure> {
        let (mut gone, seen) = gone::of(&self.link, tenant).await?;
        let mut went = BTreeMap::<Opening, (Place, u64)>::new();
        for object in step {
            let last = object.what.span().1;
            let (upto, _) = went.entry(object.what.opening()).or_insert((last, 0));
            *upto = last.max(*upto);
        }
        for found in &heads.found {
            if let Some((_, events)) = went.get_mut(&found.batch.opening) {
                *events += found.events;
            }
        }
        for (opening, (upto, events)) in went {
            gone.take(opening, upto, events, why);
        }
        // Until they are away there is a rest.
        self.letting_go.swept().remove(tenant);
        gone::write(&self.link, tenant, seen, &gone).await?;
        fault_point(if why == Why::Pruned { "in-prune" } else { "in-erase" });
        self.remove(step).await?;
        self.letting_go.swept().insert(tenant.clone());
        if why == Why::Pruned {
            fault_point("after-prune");
        }
        Ok(())
    }

    async fn remove(&self, objects: &[Object]) -> Result<(), Failure> {
        if objects.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = objects.iter().map(|object| object.key.clone()).collect();
        self.link.delete(&keys).await?;
        let names = objects.iter().filter_map(|object| match &object.what {
            What::Batch(name) => Some(name),
            What::Pack(..) => None,
        });
        names.for_each(|name| self.waiting.forget(name));
        Ok(())
    }

    /// Takes away the marks of the tenant's pages of which that is so.
    async fn forget_pages(&self, tenant: &TenantId, is_over: impl Fn(Opening, u64) -> bool) -> Result<(), Failure> {
        let pages = self.link.list(&key::pages(Some(tenant))).await?.into_iter().map(|(key, _)| key);
        let is_over = |key: &String| key::page_of(key).is_some_and(|(opening, block)| is_over(opening, block));
        let keys: Vec<_> = pages.filter(is_over).collect();
        if keys.is_empty() { Ok(()) } else { self.link.delete(&keys).await }
    }
}

/// What stands first of a seq.
const FIRST: headworks_actors::Piece = headworks_actors::Piece::WHOLE;

fn is_gone(gone: &Gone, object: &Object) -> bool {
    gone.is_upto(object.what.opening(), object.what.span().1)
}

fn kept(object: &Object) -> Kept {
    Kept { arrived: modified(&object.meta), bytes: object.meta.size }
}

/// The first so many of these objects in steps, each of which ends where no later object has anything that stands before: as far as they
/// end so.
fn steps(objects: &[Object], most: usize) -> Vec<Range<usize>> {
    let (mut steps, mut begin, mut end) = (vec![], 0, 0);
    let mut last: Option<(Opening, Place)> = None;
    for (at, object) in objects.iter().enumerate() {
        let (opening, (first, of_it)) = (object.what.opening(), object.what.span());
        if last.is_none_or(|(of, last)| of != opening || last < first) {
            end = at;
            if end - begin >= STEP {
                steps.push(begin..end);
                begin = end;
            }
        }
        if at == most {
            break;
        }
        last = match last {
            Some((of, last)) if of == opening => Some((of, last.max(of_it))),
            _ => Some((opening, of_it)),
        };
    }
    if most >= objects.len() {
        end = objects.len();
    }
    if end > begin {
        steps.push(begin..end);
    }
    steps
}

#[cfg(test)]
mod tests {
    use headworks_actors::{BatchId, Piece};
    use object_store::ObjectMeta;
    use object_store::path::Path;

    use super::super::key::{Name, PackName};
    use super::*;

    fn object(opening: u64, first: u64, last: u64) -> Object {
        let (opening, place) = (Opening(opening), |seq| (Seq(seq), Piece::WHOLE));
        let batch = BatchId::new(opening, TenantId::new("acme").unwrap(), Seq(first));
        let what = match first == last {
            true => What::Batch(Name { batch, day: None, life: 0 }),
            false => What::Pack(opening, PackName { first: place(first), last: place(last), nth: 0, day: None }),
        };
        let (location, last_modified) = (Path::from("x"), std::time::SystemTime::UNIX_EPOCH.into());
        Object {
            key: String::new(),
            what,
            meta: ObjectMeta { location, last_modified, size: 1, e_tag: None, version: None },
        }
    }

    #[test]
    fn what_lies_within_another_object_goes_with_it_or_not_at_all() {
        let objects = [object(1, 1, 9), object(1, 5, 5), object(1, 10, 12), object(1, 11, 20), object(2, 1, 1)];
        for (most, expected) in [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (5, 5)] {
            let end = steps(&objects, most).last().map_or(0, |step| step.end);
            assert_eq!(end, expected, "{most}");
        }
    }

    #[test]
    fn many_go_in_steps() {
        let objects: Vec<_> = (1..=1_000).map(|seq| object(1, seq, seq)).collect();
        let steps = steps(&objects, 600);
        assert_eq!(steps, [0..256, 256..512, 512..600]);
    }
}
