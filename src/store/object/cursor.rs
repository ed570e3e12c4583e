//! Through the batches of a tenant, in the order in which they were stored.

use std::collections::{BTreeMap, HashSet, VecDeque};

use futures::{StreamExt, TryStreamExt, stream};
use headworks_actors::{BatchId, TenantId};

use super::content::{self, Content};
use super::error::Failure;
use super::link::Link;
use super::listing::{AT_ONCE, Marks, Object, Order, What, listing, modified};
use super::reader::damaged;
use crate::store::events::{Span, StoredEvent};

/// A clock of a server is no further from ours than this.
const SKEW: i64 = 86_400_000;

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

    /// The batch at hand.
    pub(super) fn at_hand(&self) -> Option<&Content> {
        self.ready.front()
    }

    /// Visits the events of the batch at hand, and goes on to the next.
    pub(in crate::store) fn read_next(&mut self, visit: &mut dyn FnMut(StoredEvent<'_>)) {
        let Some(Content { head, events }) = self.ready.pop_front() else { return };
        let batch = head.batch.to_string();
        for (place, event) in (0..).zip(&events) {
            let (time, arrived) = (event.time, Some(event.arrived));
            visit(StoredEvent { time, arrived, batch: &batch, place, body: &event.body });
        }
    }

    /// Has the next batches at hand that may have events of the span.
    pub(super) async fn fetch(&mut self, link: &Link, tenant: &TenantId, span: Span) -> Result<(), Failure> {
        let mut is_listed = false;
        while self.ready.is_empty() {
            if self.objects.is_empty() {
                if is_listed {
                    return Ok(());
                }
                is_listed = true;
                self.relist(link, tenant, span).await?;
            }
            let mut is_gone = false;
            let next: Vec<_> = self.objects.drain(..self.objects.len().min(AT_ONCE)).collect();
            // What has become part of a pack that stands before it was read there.
            let next = next.into_iter().filter(|object| !self.has(object)).collect::<Vec<_>>();
            let mut objects = stream::iter(next)
                .map(async |object| Ok::<_, Failure>((link.get(&object.key).await?, object)))
                .buffered(AT_ONCE);
            while let Some((bytes, object)) = objects.try_next().await? {
                let Some(bytes) = bytes else {
                    // It has become part of a pack that was not there yet; or was taken away.
                    is_gone |= link.compacts() && self.gone.insert(object.key);
                    continue;
                };
                self.take(link, object, &bytes, span)?;
            }
            if is_gone {
                self.relist(link, tenant, span).await?;
            }
            let next = self.objects.front().map(|object| self.marks.first(&object.what));
            while let Some(read) = self.read.first_entry() {
                if next.as_ref().is_some_and(|next| read.key() >= next) {
                    break;
                }
                self.ready.push_back(read.remove());
            }
        }
        Ok(())
    }

    /// Takes in what is in an object.
    fn take(&mut self, link: &Link, object: Object, bytes: &[u8], span: Span) -> Result<(), Failure> {
        let format = link.options.format;
        let found = match &object.what {
            What::Batch(name) => vec![(name.life, content::decode(format, bytes))],
            What::Pack(..) => {
                let batches = content::unpack_whole(format, bytes).map_err(|why| damaged(&object.key, &why))?;
                batches.into_iter().map(|(life, content)| (life, Ok(content))).collect()
            }
        };
        for (life, content) in found {
            let content = content.map_err(|why| damaged(&object.key, &why))?;
            let batch = &content.head.batch;
            let (order, is_over) = (self.marks.order(batch, life), self.marks.is_over(batch, life));
            if is_over || content.head.fence.is_some() {
                continue;
            }
            let is_new = self.batches.insert(batch.clone());
            let (first, last) = content.head.arrived;
            if is_new && span.meets((first.0, last.0)) {
                self.read.insert(order, content);
            }
        }
        self.seen.insert(object.key);
        Ok(())
    }

    /// What was not looked at yet.
    async fn relist(&mut self, link: &Link, tenant: &TenantId, span: Span) -> Result<(), Failure> {
        let (objects, marks) = listing(link, tenant).await?;
        // No event arrived after it was stored.
        let since = span.since.saturating_sub(SKEW);
        let fresh = objects.into_iter().filter(|object| !self.has(object));
        self.objects = fresh.filter(|object| modified(&object.meta).0 >= since).collect();
        self.marks = marks;
        Ok(())
    }
}
