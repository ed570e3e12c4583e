//! Objects with several batches.
//!
//! A pack is put where there is nothing yet, and its batches are taken away from where they waited once it is there: whoever looks
//! for one of them finds it waiting, or then in the pack, or in both, where the pack counts. What is rolled back is taken out of
//! its pack by putting the rest in its place, if that is still as it was seen.
//!
//! Whoever makes a pack *first* marks its name on the page of its batches, and *then* looks for fences and for other packs there;
//! whoever rolls back *first* marks the fence, and *then* looks for packs. One of the two sees the other: either the batch is left out,
//! or the rollback takes it out of the pack, or takes the name of a pack that is not there yet. The same holds between two that
//! make packs of the same batches, be it one process or two, or one that is dead and whose requests arrive late.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use headworks_actors::{Attempt, BatchId};

use super::compact::Group;
use super::content::{self, Content, Head, Index};
use super::error::Failure;
use super::gone;
use super::key::{Name, PackName};
use super::page::{Mark, Page};
use super::write::{Writer, aside, conflict, damaged};

/// So many objects are fetched at once.
const AT_ONCE: usize = 8;
/// So often a pack is read again that somebody else changed meanwhile.
const TRIES: usize = 8;

impl Writer {
    fn pack_key(&self, of: &BatchId, name: &PackName) -> String {
        self.link.template.pack_key(&of.tenant, of.opening, name)
    }

    async fn index(&self, key: &str) -> Result<Option<Index>, Failure> {
        let Some(bytes) = self.link.get(key).await? else { return Ok(None) };
        content::index(self.link.options.format, &bytes).map(Some).map_err(|why| damaged(key, &why))
    }

    async fn packed_bytes(&self, batches: Vec<(u32, Content)>) -> Result<Bytes, Failure> {
        let (format, columns) = (self.link.options.format, self.link.options.columns.clone());
        let bytes = aside(move || content::pack(format, &columns, &batches)).await?;
        bytes.map(Bytes::from).map_err(Failure::Refused)
    }

    /// What the packs on the page say of the batch.
    pub(super) async fn packed(&self, page: &Page, name: &Name) -> Result<Option<Head>, Failure> {
        let place = name.batch.place();
        for pack in page.packs.iter().filter(|pack| pack.day == name.day && pack.may_have(place)) {
            let index = self.index(&self.pack_key(&name.batch, pack)).await?;
            if let Some(head) = index.and_then(|index| index.has(&name.batch, name.life).cloned()) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// What is in the pack now, of which a mark tells; if it is not there yet, it never comes with anything in it.
    async fn settled(&self, of: &BatchId, pack: &PackName) -> Result<Index, Failure> {
        let key = self.pack_key(of, pack);
        if let Some(index) = self.index(&key).await? {
            return Ok(index);
        }
        self.link.create(&key, self.packed_bytes(vec![]).await?).await?;
        self.index(&key).await?.ok_or_else(|| conflict(&key))
    }

    /// Takes the batch's rolled back lives out of the packs that they are in, or may come to be in.
    pub(super) async fn take_out(&self, id: &BatchId, page: &Page) -> Result<(), Failure> {
        for pack in page.packs.iter().filter(|pack| pack.may_have(id.place())) {
            self.take_out_of(id, page, pack).await?;
        }
        Ok(())
    }

    async fn take_out_of(&self, id: &BatchId, page: &Page, pack: &PackName) -> Result<(), Failure> {
        let (key, format) = (self.pack_key(id, pack), self.link.options.format);
        for _ in 0..TRIES {
            let Some(seen) = self.link.look(&key).await? else {
                if self.link.create(&key, self.packed_bytes(vec![]).await?).await? {
                    return Ok(());
                }
                continue;
            };
            let index = content::index(format, &seen.bytes).map_err(|why| damaged(&key, &why))?;
            if !index.batches.iter().any(|entry| entry.life < page.life(&entry.head.batch)) {
                return Ok(());
            }
            let bytes = seen.bytes.clone();
            let batches = aside(move || content::unpack_whole(format, &bytes)).await?;
            let mut batches = batches.map_err(|why| damaged(&key, &why))?;
            batches.retain(|(life, content)| *life >= page.life(&content.head.batch));
            if self.link.replace_seen(&key, seen, self.packed_bytes(batches).await?).await? {
                return Ok(());
            }
        }
        Err(conflict(&key))
    }

    /// Puts batches that wait into one object, and takes them away from where they waited; those that need not wait any more.
    pub(super) async fn pack(&self, group: &Group, names: Vec<Name>) -> Result<Vec<Name>, Failure> {
        let Some(of) = names.first().map(|name| name.batch.clone()) else { return Ok(vec![]) };
        let _alone = self.letting_go.packing.of(&of.tenant).await;
        let (going, names) = self.without_those_that_go(&of, names).await?;
        if names.is_empty() {
            return Ok(going);
        }
        let waiting = self.fetched(&names).await?;
        let page = self.read(&of).await?;
        let places = || names.iter().map(|name| name.batch.place());
        let (Some(first), Some(last)) = (places().min(), places().max()) else { return Ok(vec![]) };
        let before = page.packs.iter().filter(|pack| pack.first == first && pack.day == group.day).count();
        let nth = u32::try_from(before).unwrap_or(u32::MAX);
        let pack = PackName { first, last, nth, day: group.day.clone() };
        let mut others = Others::default();
        others.look(self, &of, &page, &pack).await?;

        let is_fit = |page: &Page, others: &Others, name: &Name| {
            name.life >= page.life(&name.batch) && !others.has.contains_key(&(name.batch.clone(), name.life))
        };
        let mut chosen: Vec<(Name, Content)> = vec![];
        let mut done = vec![];
        for (name, content) in waiting {
            match content {
                Some(content) if content.head.fence.is_none() => {
                    if is_fit(&page, &others, &name) {
                        chosen.push((name, content));
                    } else {
                        done.extend(self.done_with(&page, &others, name, &content.head).await?);
                    }
                }
                // Rolled back, or taken away.
                _ => done.push((name, None)),
            }
        }
        if !chosen.is_empty() {
            let mark = Mark::Pack(pack.clone());
            self.mark(&of, &mark).await?;
            // Whoever rolls back from now on sees the mark; who did before is seen here.
            let page = self.read(&of).await?;
            others.look(self, &of, &page, &pack).await?;
            chosen.retain(|(name, _)| is_fit(&page, &others, name));
            let key = self.pack_key(&of, &pack);
            let batches: Vec<_> = chosen.into_iter().map(|(name, content)| (name.life, content)).collect();
            let lives: HashSet<_> = batches.iter().map(|(life, content)| (content.head.batch.clone(), *life)).collect();
            let bytes = self.packed_bytes(batches).await?;
            let put = self.link.create(&key, bytes).await;
            self.waiting.learn(put.is_ok(), &names);
            let lives = if put? {
                lives
            } else {
                // Somebody took the name.
                let index = self.index(&key).await?.ok_or_else(|| conflict(&key))?;
                index.batches.into_iter().map(|entry| (entry.head.batch, entry.life)).collect()
            };
            self.note(&of, mark);
            let gone = names.iter().filter(|name| lives.contains(&(name.batch.clone(), name.life)));
            done.extend(gone.map(|name| (name.clone(), Some(self.link.key(name)))));
        }
        let keys: Vec<_> = done.iter().filter_map(|(_, key)| key.clone()).collect();
        if !keys.is_empty() {
            self.link.delete(&keys).await?;
        }
        Ok(done.into_iter().map(|(name, _)| name).chain(going).collect())
    }

    /// Those that are gone on purpose, which need not wait any more, and those that may be in one pack: what is to be erased is in none with
    /// what is not.
    async fn without_those_that_go(&self, of: &BatchId, names: Vec<Name>) -> Result<(Vec<Name>, Vec<Name>), Failure> {
        let gone = gone::of(&self.link, &of.tenant).await?.0;
        let (going, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| gone.has(&name.batch));
        let (erasing, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| gone.is_erasing(&name.batch));
        let rest: Vec<_> = going.iter().map(|name| self.link.key(name)).collect();
        if !rest.is_empty() {
            self.link.delete(&rest).await?;
        }
        Ok((going, if names.is_empty() { erasing } else { names }))
    }

    /// What becomes of a batch that waits and is in a pack already, or was rolled back; with the key to be deleted.
    async fn done_with(
        &self,
        page: &Page,
        others: &Others,
        name: Name,
        waits: &Head,
    ) -> Result<Option<(Name, Option<String>)>, Failure> {
        if name.life < page.life(&name.batch) {
            // A rollback replaces it.
            return Ok(Some((name, None)));
        }
        let Some((hash, attempt)) = others.has.get(&(name.batch.clone(), name.life)) else { return Ok(None) };
        let key = self.link.key(&name);
        if *hash != waits.hash {
            let (id, place) = (name.batch.to_string(), self.link.place.as_str());
            tracing::error!(target: "headworks", batch = id, key, place, "a batch came again with other content; neither was changed");
            return Ok(Some((name, None)));
        }
        if waits.attempt > page.kept(&name.batch).unwrap_or(*attempt).max(*attempt) {
            self.mark(&name.batch, &Mark::Kept(name.batch.place(), waits.attempt)).await?;
        }
        Ok(Some((name, Some(key))))
    }

    async fn fetched(&self, names: &[Name]) -> Result<Vec<(Name, Option<Content>)>, Failure> {
        let format = self.link.options.format;
        let fetch = async |name: Name| {
            let key = self.link.key(&name);
            let Some(bytes) = self.link.get(&key).await? else { return Ok((name, None)) };
            match aside(move || content::decode(format, &bytes)).await? {
                Ok(content) => Ok((name, Some(content))),
                Err(why) => {
                    // It holds nobody up, and whoever reads it is told.
                    let why = damaged(&key, &why).explain();
                    tracing::error!(target: "headworks", place = %self.link.place, why, "a batch stays where it waited");
                    Ok((name, None))
                }
            }
        };
        stream::iter(names.to_vec()).map(fetch).buffered(AT_ONCE).try_collect().await
    }
}

/// What is in packs whose names might have the same batches.
#[derive(Debug, Default)]
struct Others {
    looked: HashSet<PackName>,
    /// By batch and life: its hash and its attempt.
    has: HashMap<(BatchId, u32), (u64, Attempt)>,
}

impl Others {
    async fn look(&mut self, writer: &Writer, of: &BatchId, page: &Page, own: &PackName) -> Result<(), Failure> {
        for pack in page.packs.iter().filter(|pack| pack.meets(own) && *pack != own) {
            if self.looked.insert(pack.clone()) {
                let index = writer.settled(of, pack).await?;
                let entries = index.batches.into_iter().map(|entry| (entry.head, entry.life));
                self.has.extend(entries.map(|(head, life)| ((head.batch, life), (head.hash, head.attempt))));
            }
        }
        Ok(())
    }
}
