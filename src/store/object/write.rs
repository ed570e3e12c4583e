use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use headworks_actors::{Attempt, Batch, BatchId, Opening, TenantId};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::ObjectFormat;
use super::compact::Waiting;
use super::content::{self, Head, Rows};
use super::error::Failure;
use super::key::{self, Day, Name};
use super::letting_go::LettingGo;
use super::link::Link;
use super::page::{Mark, Page};

/// So many tenants' pages are remembered; what is forgotten is read again.
const PAGES: usize = 1 << 16;

/// What the store has decided once, in an object of its own.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Decided {
    version: u32,
    path: String,
    format: ObjectFormat,
    columns: Vec<String>,
    /// Whether batches become part of packs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    compacts: bool,
}

/// The version of a place with packs, which an older headworks does not know of.
const WITH_PACKS: u32 = 2;

/// Writes batches; see the [module](super) for how.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) link: Link,
    /// The page that each tenant is on.
    pages: Mutex<HashMap<TenantId, (Opening, u64, Page)>>,
    is_ready: OnceCell<()>,
    pub(super) waiting: Waiting,
    pub(super) letting_go: LettingGo,
}

impl Writer {
    pub(super) fn new(link: Link) -> Self {
        let waiting = Waiting::new(&link.options);
        let (pages, is_ready) = (Mutex::default(), OnceCell::new());
        Self { link, pages, is_ready, waiting, letting_go: LettingGo::default() }
    }

    /// Sees to it, once, that the place is one for this store, and that it can keep what this store needs.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        self.is_ready.get_or_try_init(|| self.make_ready()).await.copied()
    }

    /// Whether the place is there now.
    pub(super) async fn look(&self) -> Result<(), Failure> {
        self.ready().await?;
        self.link.get(&self.decided()).await.map(drop)
    }

    /// Where it is kept what was decided for the place.
    fn decided(&self) -> String {
        format!("{}/store.json", key::OWN)
    }

    async fn make_ready(&self) -> Result<(), Failure> {
        let (options, compacts) = (&self.link.options, self.link.compacts());
        let asked = Decided {
            version: if compacts { WITH_PACKS } else { content::VERSION },
            path: options.path.clone(),
            format: options.format,
            columns: options.columns.clone(),
            compacts,
        };
        let json = serde_json::to_vec_pretty(&asked).map_err(|why| Failure::Unfit(why.to_string()))?;
        let (key, json) = (self.decided(), Bytes::from(json));
        if self.link.create(&key, json.clone()).await? {
            // What says yes to the same question twice would let a batch be stored twice, and in spite of its rollback.
            if self.link.create(&key, json.clone()).await? {
                let why = "it puts an object where there is one already, though asked not to (If-None-Match: *); choose a server \
                           that heeds conditions";
                return Err(Failure::Unfit(why.into()));
            }
            if compacts && !self.link.heeds_versions(&key, json).await? {
                let why = "it replaces an object that is not as it was seen, though asked not to (If-Match), which compact_after \
                           needs; choose a server that heeds conditions, or compact_after = \"never\"";
                return Err(Failure::Unfit(why.into()));
            }
        } else {
            let known = self.link.get(&key).await?.ok_or_else(|| conflict(&key))?;
            fits(&known, &asked, &key)?;
        }
        // Whether it may be asked for at all.
        self.link.list(&format!("{}/pages/-", key::OWN)).await.map(drop)
    }

    /// Stores the batch, once.
    pub(super) async fn store(&self, batch: &Batch, attempt: Attempt) -> Result<(), Failure> {
        self.ready().await?;
        let id = batch.id();
        let day = self.link.template.day(batch.first_arrived());
        let mut page = self.claimed(id, &day).await?;
        let head = Head::of(batch, attempt);
        let bytes = self.encoded(head.clone(), Some(batch.clone())).await?;
        let mut is_anew = false;
        loop {
            let life = page.life(id);
            if attempt.0 <= life {
                return Err(Failure::Refused(format!("attempt {attempt} of batch {id} was rolled back")));
            }
            let name = Name { batch: id.clone(), day: day.clone(), life };
            let key = self.link.key(&name);
            let there = match self.packed(&page, &name).await? {
                Some(there) => there,
                None if self.link.create(&key, bytes.clone()).await? => {
                    self.waiting.add(name, bytes.len());
                    return Ok(());
                }
                None => match self.head(&key).await? {
                    Some(there) => there,
                    // It has just become part of a pack.
                    None if self.link.compacts() && !is_anew => {
                        (page, is_anew) = (self.read(id).await?, true);
                        continue;
                    }
                    None => return Err(conflict(&key)),
                },
            };
            match there.fence {
                Some(fence) if fence.0 > life => {
                    // By another than this one.
                    page.take(Mark::Fence(id.place(), fence));
                    self.remember(id, page.clone());
                }
                Some(_) => return Err(Failure::Unfit(format!("{key} is a fence of no attempt"))),
                None if there.hash != head.hash || there.batch != *id => {
                    return Err(Failure::Refused(format!(
                        "batch {id} is already stored with other content: {} events there, {} events now, and their hashes \
                         differ; nothing was changed. A batch id must never be used for other events",
                        there.events,
                        batch.len()
                    )));
                }
                None => {
                    if there.attempt.max(page.kept(id).unwrap_or(there.attempt)) < attempt {
                        // A rollback of an earlier attempt must not take away what this one was told is there.
                        let mark = Mark::Kept(id.place(), attempt);
                        self.mark(id, &mark).await?;
                        page.take(mark);
                        self.remember(id, page);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Takes away what attempts up to this one left, and fences them.
    pub(super) async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), Failure> {
        self.ready().await?;
        let mut page = self.read(id).await?;
        let life = page.life(id);
        if attempt.0 > life && !self.is_kept(id, &page, attempt).await? {
            self.mark(id, &Mark::Fence(id.place(), attempt)).await?;
            // Whoever claims a day from now on sees the fence; who did before is seen here.
            page = self.read(id).await?;
        }
        self.take_out(id, &page).await?;
        for (life, fence) in page.ended(id) {
            let fence = self.encoded(Head::fence(id, fence), None).await?;
            for day in &page.days {
                let key = self.link.key(&Name { batch: id.clone(), day: day.clone(), life });
                if !self.link.create(&key, fence.clone()).await?
                    && self.head(&key).await?.ok_or_else(|| conflict(&key))?.fence.is_none()
                {
                    // Nobody ever stores there again, so that it does not matter when this arrives.
                    self.link.replace(&key, fence.clone()).await?;
                }
            }
        }
        self.remember(id, page);
        Ok(())
    }

    /// Whether a later attempt stored the batch, or was told that it is there.
    async fn is_kept(&self, id: &BatchId, page: &Page, attempt: Attempt) -> Result<bool, Failure> {
        let life = page.life(id);
        for day in &page.days {
            let name = Name { batch: id.clone(), day: day.clone(), life };
            let there = match self.head(&self.link.key(&name)).await? {
                None => self.packed(page, &name).await?,
                there => there.filter(|there| there.fence.is_none()),
            };
            if there.is_some_and(|there| there.attempt.max(page.kept(id).unwrap_or(there.attempt)) > attempt) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The page of the batch, on which this day is marked before anything is filed under it.
    async fn claimed(&self, id: &BatchId, day: &Option<Day>) -> Result<Page, Failure> {
        let (opening, block, _) = self.page(id);
        let known = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&id.tenant).cloned();
        match known {
            Some((of, at, page)) if (of, at) == (opening, block) && page.days.contains(day) => Ok(page),
            _ => {
                self.mark(id, &Mark::Day(day.clone())).await?;
                let page = self.read(id).await?;
                self.remember(id, page.clone());
                Ok(page)
            }
        }
    }

    /// Its opening, its number and its folder.
    pub(super) fn page(&self, id: &BatchId) -> (Opening, u64, String) {
        key::page(id, self.page_size())
    }

    /// So many batches share a page.
    pub(super) fn page_size(&self) -> u64 {
        if self.link.compacts() { key::PACKED_PAGE } else { key::PAGE }
    }

    /// The page that the tenant is on is to be begun anew.
    pub(super) fn forget_page(&self, tenant: &TenantId) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }

    /// Notes that there is a mark, on the page that the tenant is on.
    pub(super) fn note(&self, id: &BatchId, mark: Mark) {
        let (opening, block, _) = self.page(id);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, page)) = pages.get_mut(&id.tenant).filter(|(of, at, _)| (*of, *at) == (opening, block)) {
            page.take(mark);
        }
    }

    fn remember(&self, id: &BatchId, page: Page) {
        let (opening, block, _) = self.page(id);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= PAGES {
            pages.clear();
        }
        pages.insert(id.tenant.clone(), (opening, block, page));
    }

    /// As it is there.
    pub(super) async fn read(&self, id: &BatchId) -> Result<Page, Failure> {
        let (_, _, folder) = self.page(id);
        let mut page = Page::default();
        for (key, _) in self.link.list(&folder).await? {
            if let Some(mark) = key.rsplit('/').next().and_then(Mark::parse) {
                page.take(mark);
            }
        }
        Ok(page)
    }

    /// Puts a mark on the batch's page, where it may be already.
    pub(super) async fn mark(&self, id: &BatchId, mark: &Mark) -> Result<(), Failure> {
        let (_, _, folder) = self.page(id);
        self.link.create(&format!("{folder}/{}", mark.name()), Bytes::new()).await.map(drop)
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, Failure> {
        let Some(bytes) = self.link.get(key).await? else { return Ok(None) };
        content::head(self.link.options.format, &bytes).map(Some).map_err(|why| damaged(key, &why))
    }

    /// The object, made where that keeps nobody waiting.
    async fn encoded(&self, head: Head, batch: Option<Batch>) -> Result<Bytes, Failure> {
        let (format, columns) = (self.link.options.format, self.link.options.columns.clone());
        let encode = move || {
            let rows: Vec<_> = batch.iter().map(Rows::of).collect();
            content::encode(format, &columns, &head, &rows)
        };
        aside(encode).await?.map(Bytes::from).map_err(Failure::Refused)
    }
}

/// Done where that keeps nobody waiting.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(why) if why.is_panic() => std::panic::resume_unwind(why.into_panic()),
        Err(why) => Err(Failure::Unfit(why.to_string())),
    }
}

pub(super) fn damaged(key: &str, why: &str) -> Failure {
    Failure::Unfit(format!("{key} is not as it was left: {why}; nothing was changed. Restore it, or move it away"))
}

pub(super) fn conflict(key: &str) -> Failure {
    Failure::Conflict(format!("{key} is there and is not: somebody else is at it"))
}

/// What was decided when the place was made is what is asked for.
fn fits(known: &[u8], asked: &Decided, key: &str) -> Result<(), Failure> {
    let known: Decided = serde_json::from_slice(known)
        .map_err(|why| Failure::Unfit(format!("{key} is not as it was left ({why}); restore it")))?;
    let choice = |compacts| if compacts { "a time" } else { "\"never\"" };
    if known.compacts != asked.compacts {
        let (there, now) = (choice(known.compacts), choice(asked.compacts));
        return Err(Failure::Unfit(format!(
            "what is there was made with compact_after = {there}, but compact_after = {now}; whether it is \"never\" is decided at the \
             first start: choose {there}, or another prefix"
        )));
    }
    if known.version != asked.version {
        let (version, ours) = (known.version, asked.version);
        return Err(Failure::Unfit(format!(
            "what is there has version {version}, but this headworks knows only {ours}; it was left as it is: run the newer \
             headworks, or choose another prefix"
        )));
    }
    for (name, there, now) in [
        ("path", format!("{:?}", known.path), format!("{:?}", asked.path)),
        ("format", format!("{:?}", known.format.ending()), format!("{:?}", asked.format.ending())),
        ("columns", format!("{:?}", known.columns), format!("{:?}", asked.columns)),
    ] {
        if there != now {
            return Err(Failure::Unfit(format!(
                "what is there was made with {name} = {there}, but {name} = {now}; that is decided at the first start: choose \
                 {name} = {there}, or another prefix"
            )));
        }
    }
    Ok(())
}
