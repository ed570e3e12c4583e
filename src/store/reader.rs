use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use headworks_actors::{DeadLetter, DeadLetterPage, DeadLetterQuery, Opening, StoreName, TenantId};

#[cfg(feature = "object")]
use super::object::{self, HeldInObjects, ObjectReader};
#[cfg(feature = "postgres")]
use super::postgres::{self, HeldOnServer, PostgresReader};
use super::{FilesReader, SqliteReader, files, sqlite};
use crate::audit::{Held, Holdings, Kept, Unread};
use crate::store::files::{FILES, HeldInFiles};
use crate::store::manifest::{Kind, Manifest};
use crate::store::sqlite::TenantTotals;

/// Reads what a data directory holds, whatever its store is or was: the database with the dead letters, and the files of
/// tenants beside it. Also while a daemon writes to it; never writes to it.
///
/// For commands and tools: calls block.
#[derive(Debug)]
pub struct StoreReader {
    /// The store `store`, and the dead letters.
    database: SqliteReader,
    files: Option<FilesReader>,
    #[cfg(feature = "postgres")]
    postgres: Option<Box<PostgresReader>>,
    #[cfg(feature = "object")]
    object: Option<Box<ObjectReader>>,
    further: Vec<(StoreName, Further)>,
    manifest: Box<Manifest>,
}

/// A store beside that one.
#[derive(Debug)]
enum Further {
    Sqlite(SqliteReader),
    Files(FilesReader),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresReader>),
    /// Nobody here can read it.
    Unreadable,
    #[cfg(feature = "object")]
    Object(Box<ObjectReader>),
}

#[cfg(not(feature = "postgres"))]
pub(super) const NOT_BUILT: &str = "this headworks was built without the feature postgres, and cannot read it";

#[cfg(not(feature = "object"))]
pub(super) const NO_OBJECTS: &str = "this headworks was built without the feature object, and cannot read it";

/// Why the stores of a data directory cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreReadError(String);

impl StoreReadError {
    pub(super) fn new(why: impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl From<sqlite::ReadError> for StoreReadError {
    fn from(why: sqlite::ReadError) -> Self {
        Self(why.to_string())
    }
}

#[cfg(feature = "postgres")]
impl From<postgres::ReadError> for StoreReadError {
    fn from(why: postgres::ReadError) -> Self {
        Self(why.to_string())
    }
}

#[cfg(feature = "object")]
impl From<object::ReadError> for StoreReadError {
    fn from(why: object::ReadError) -> Self {
        Self(why.to_string())
    }
}

impl From<files::ReadError> for StoreReadError {
    fn from(why: files::ReadError) -> Self {
        Self(why.to_string())
    }
}

impl StoreReader {
    /// Opens what is there.
    ///
    /// # Errors
    /// There is no database, or what is there cannot be read. Nothing is made.
    pub fn open(data_dir: &Path) -> Result<Self, StoreReadError> {
        let manifest = Manifest::read(data_dir).map_err(|why| StoreReadError(why.to_string()))?;
        Self::open_as(data_dir, manifest)
    }

    /// The same, by another word than the directory's own of which stores there are.
    pub(crate) fn open_as(data_dir: &Path, manifest: Manifest) -> Result<Self, StoreReadError> {
        let unread = |why: &dyn std::fmt::Display| StoreReadError(why.to_string());
        let database = SqliteReader::open(data_dir.join("headworks.db")).map_err(|why| unread(&why))?;
        let files = data_dir.join(FILES);
        let files = if files.exists() { Some(FilesReader::open(files).map_err(|why| unread(&why))?) } else { None };
        let mut further = vec![];
        for (name, kind) in &manifest.stores {
            let path = Manifest::place(data_dir, name, *kind).unwrap_or_default();
            let store = match kind {
                Kind::Sqlite => Further::Sqlite(SqliteReader::open(path).map_err(|why| unread(&why))?),
                Kind::Files => Further::Files(FilesReader::open(path).map_err(|why| unread(&why))?),
                Kind::Webhook | Kind::Stdout | Kind::Nats => Further::Unreadable,
                #[cfg(feature = "postgres")]
                Kind::Postgres => {
                    let reader = postgres::of(&manifest.postgres, name).map_err(|why| unread(&why))?;
                    Further::Postgres(Box::new(reader))
                }
                #[cfg(not(feature = "postgres"))]
                Kind::Postgres => return Err(StoreReadError(format!("store {name} is on PostgreSQL: {NOT_BUILT}"))),
                #[cfg(feature = "object")]
                Kind::Object => {
                    Further::Object(Box::new(object::of(&manifest.object, name).map_err(|why| unread(&why))?))
                }
                #[cfg(not(feature = "object"))]
                Kind::Object => return Err(StoreReadError(format!("store {name} is in objects: {NO_OBJECTS}"))),
            };
            further.push((name.clone(), store));
        }
        let is_on_server = manifest.postgres.contains_key(&StoreName::ONLY);
        #[cfg(feature = "postgres")]
        let postgres = is_on_server.then(|| postgres::of(&manifest.postgres, &StoreName::ONLY)).transpose();
        #[cfg(not(feature = "postgres"))]
        if is_on_server {
            return Err(StoreReadError(format!("store {} is on PostgreSQL: {NOT_BUILT}", StoreName::ONLY)));
        }
        let is_in_objects = manifest.object.contains_key(&StoreName::ONLY);
        #[cfg(feature = "object")]
        let object = is_in_objects.then(|| object::of(&manifest.object, &StoreName::ONLY)).transpose();
        #[cfg(not(feature = "object"))]
        if is_in_objects {
            return Err(StoreReadError(format!("store {} is in objects: {NO_OBJECTS}", StoreName::ONLY)));
        }
        Ok(Self {
            database,
            files,
            #[cfg(feature = "postgres")]
            postgres: postgres.map_err(|why| unread(&why))?.map(Box::new),
            #[cfg(feature = "object")]
            object: object.map_err(|why| unread(&why))?.map(Box::new),
            further,
            manifest: Box::new(manifest),
        })
    }

    /// How many events of each tenant each store was ever given and did not roll back, whether or not they are there yet.
    pub(crate) fn ever_stored(&self) -> Result<BTreeMap<StoreName, BTreeMap<TenantId, u64>>, StoreReadError> {
        let mut all = BTreeMap::new();
        let mut add = |name: &StoreName, totals: Vec<TenantTotals>, gone: Vec<(TenantId, u64)>| {
            let of_store: &mut BTreeMap<TenantId, u64> = all.entry(name.clone()).or_default();
            for (tenant, events) in totals.into_iter().map(|totals| (totals.tenant, totals.events)).chain(gone) {
                if events > 0 {
                    *of_store.entry(tenant).or_default() += events;
                }
            }
        };
        let mut gone = self.database.gone()?;
        if let Some(files) = &self.files {
            gone.extend(gone_of_files(files)?);
        }
        #[cfg(feature = "postgres")]
        if let Some(postgres) = &self.postgres {
            gone.extend(postgres.gone()?);
        }
        #[cfg(feature = "object")]
        if let Some(object) = &self.object {
            gone.extend(object.gone()?.into_iter().map(|(tenant, pruned, erased)| (tenant, pruned + erased)));
        }
        add(&StoreName::ONLY, self.first_tenants()?, gone);
        for (name, further) in &self.further {
            add(name, further.tenants()?, further.gone()?);
        }
        Ok(all)
    }

    /// How many events were pruned from all stores, since each was made.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn pruned(&self) -> Result<u64, StoreReadError> {
        self.pruned_in(true)
    }

    /// The same, of those that have no server: nobody has to wait for one.
    pub(crate) fn pruned_here(&self) -> Result<u64, StoreReadError> {
        self.pruned_in(false)
    }

    fn pruned_in(&self, on_servers: bool) -> Result<u64, StoreReadError> {
        #[cfg(not(any(feature = "object", feature = "postgres")))]
        let _ = on_servers;
        #[cfg(feature = "postgres")]
        let on_server = |postgres: &PostgresReader| match on_servers {
            true => Ok::<u64, StoreReadError>(postgres.pruned()?.iter().map(|(_, events)| events).sum()),
            false => Ok(0),
        };
        #[cfg(feature = "object")]
        let in_objects = |object: &ObjectReader| match on_servers {
            true => Ok::<u64, StoreReadError>(object.gone()?.iter().map(|(_, pruned, _)| pruned).sum()),
            false => Ok(0),
        };
        let of_files = |files: &FilesReader| Ok(files.gone()?.iter().map(|(_, pruned, _)| pruned).sum::<u64>());
        let mut pruned = self.database.pruned()? + self.files.as_ref().map_or(Ok::<_, StoreReadError>(0), of_files)?;
        for (_, further) in &self.further {
            pruned += match further {
                Further::Sqlite(database) => database.pruned()?,
                Further::Files(files) => of_files(files)?,
                Further::Unreadable => 0,
                #[cfg(feature = "postgres")]
                Further::Postgres(postgres) => on_server(postgres)?,
                #[cfg(feature = "object")]
                Further::Object(object) => in_objects(object)?,
            };
        }
        #[cfg(feature = "postgres")]
        if let Some(postgres) = &self.postgres {
            pruned += on_server(postgres)?;
        }
        #[cfg(feature = "object")]
        if let Some(object) = &self.object {
            pruned += in_objects(object)?;
        }
        Ok(pruned)
    }

    /// Whether any store or dead letter has, or had, something of the tenant, as far as that can be read.
    pub(crate) fn knows(&self, tenant: &TenantId) -> Result<bool, StoreReadError> {
        let mut query = DeadLetterQuery::default();
        query.tenant = Some(tenant.clone());
        if self.database.knows(tenant)? || self.count_dead_letters(&query)? > 0 {
            return Ok(true);
        }
        if self.files.as_ref().is_some_and(|files| files.knows(tenant)) {
            return Ok(true);
        }
        #[cfg(feature = "postgres")]
        if let Some(postgres) = &self.postgres
            && postgres.knows(tenant)?
        {
            return Ok(true);
        }
        #[cfg(feature = "object")]
        if let Some(object) = &self.object
            && object.knows(tenant)?
        {
            return Ok(true);
        }
        for (_, further) in &self.further {
            if further.knows(tenant)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is there of the tenant in places that the store `store` had when it was of another type: of which, and what to do, in sentences.
    pub(crate) fn left(&self, tenant: &TenantId, is_now: impl Fn(Kind) -> bool) -> Vec<String> {
        let mut left = vec![];
        let mut add = |kind: &str, has: Result<bool, StoreReadError>, help: &str| match has {
            Ok(true) => left.push(format!("what it stored when it was of type {kind:?} is still there; {help}")),
            Ok(false) => {}
            Err(why) => {
                left.push(format!("nobody can tell what is left from when it was of type {kind:?}: {why}; {help}"))
            }
        };
        if let Some(files) = self.files.as_ref().filter(|_| !is_now(Kind::Files)) {
            let help = "remove the directory of the tenant in the folder events of the data directory";
            add("files", files.holds(tenant).map_err(StoreReadError::from), help);
        }
        #[cfg(feature = "postgres")]
        if let Some(postgres) = self.postgres.as_ref().filter(|_| !is_now(Kind::Postgres)) {
            let help = "delete its rows there by SQL, from batches and events";
            add("postgres", postgres.holds(tenant).map_err(StoreReadError::from), help);
        }
        #[cfg(feature = "object")]
        if let Some(object) = self.object.as_ref().filter(|_| !is_now(Kind::Object)) {
            let help = "delete its objects there, also those below _headworks";
            add("object", object.holds(tenant).map_err(StoreReadError::from), help);
        }
        left
    }

    /// Whether the tenant's batches go through this store.
    pub(crate) fn goes_to(&self, tenant: &TenantId, store: &StoreName) -> bool {
        self.manifest.saga_of(tenant).contains(store)
    }

    /// The totals of every tenant that has an event or a dead letter, by name. Of several stores that a tenant's batches go through,
    /// those of the first count.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantTotals>, StoreReadError> {
        let mut tenants = self.first_tenants()?;
        for (name, further) in &self.further {
            for more in further.tenants()? {
                if self.manifest.saga_of(&more.tenant).first() == Some(name) {
                    let totals = at(&mut tenants, &more.tenant);
                    // Dead letters are in the database alone.
                    let dead_letters = totals.dead_letters;
                    *totals = TenantTotals { dead_letters, ..more };
                }
            }
        }
        Ok(tenants)
    }

    /// The totals of the store `store`.
    fn first_tenants(&self) -> Result<Vec<TenantTotals>, StoreReadError> {
        let mut tenants = self.database.tenants()?;
        let beside = self.files.as_ref().map_or_else(|| Ok(vec![]), of_files)?;
        #[cfg(feature = "postgres")]
        let beside = match &self.postgres {
            Some(postgres) => [beside, postgres.tenants()?].concat(),
            None => beside,
        };
        #[cfg(feature = "object")]
        let beside = match &self.object {
            Some(object) => [beside, object.tenants()?].concat(),
            None => beside,
        };
        for more in beside {
            let totals = at(&mut tenants, &more.tenant);
            totals.events += more.events;
            totals.batches += more.batches;
            totals.first_arrived = totals.first_arrived.into_iter().chain(more.first_arrived).min();
            totals.last_arrived = totals.last_arrived.max(more.last_arrived);
        }
        Ok(tenants)
    }

    /// Dead letters of frames that name no tenant.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters_without_tenant(&self) -> Result<u64, StoreReadError> {
        Ok(self.database.dead_letters_without_tenant()?)
    }

    /// How many dead letters are kept, and what they take of their quotas, in bytes. By the accounts of the quotas: no letter is
    /// looked at.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters_kept(&self) -> Result<(u64, u64), StoreReadError> {
        Ok(self.database.dead_letters_kept()?)
    }

    /// The newest dead letters that match, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, StoreReadError> {
        Ok(self.database.dead_letters(query)?)
    }

    /// A page of all dead letters that match; see [`DeadLetters::page`](headworks_actors::DeadLetters::page).
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letter_page(&self, query: &DeadLetterQuery, after: u64) -> Result<DeadLetterPage, StoreReadError> {
        Ok(self.database.dead_letter_page(query, after)?)
    }

    /// How many dead letters match, whatever the query's limit is.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64, StoreReadError> {
        Ok(self.database.count_dead_letters(query)?)
    }

    /// One dead letter.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letter(&self, id: &str) -> Result<Option<DeadLetter>, StoreReadError> {
        Ok(self.database.dead_letter(id)?)
    }

    /// What an audit is to find: events of one opening or of all, and malformed frames of one opening or of all. Every event
    /// in a file is read and compared with what was stored.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn holdings(&self, events: Option<Opening>, frames: Option<Opening>) -> Result<Holdings, StoreReadError> {
        let mut holdings = self.database.holdings(events, frames)?;
        let in_files = self.files.as_ref().map_or_else(|| Ok(vec![]), |files| files.held(events))?;
        for HeldInFiles { tenant, events, whole, pruned, erased } in in_files {
            add(&mut holdings.pruned, &tenant, pruned);
            add(&mut holdings.erased, &tenant, erased);
            let held = holdings.tenants.entry(tenant).or_default();
            // What is gone on purpose counts as held.
            held.events += events + pruned + erased;
            held.rows += whole + pruned + erased;
            // Nothing is deleted from a file by hand: what is not whole is damaged.
            held.damaged += events.saturating_sub(whole);
        }
        #[cfg(feature = "postgres")]
        if let Some(postgres) = &self.postgres {
            for HeldOnServer { tenant, events, rows, pruned, erased } in postgres.held(events)? {
                add(&mut holdings.pruned, &tenant, pruned);
                add(&mut holdings.erased, &tenant, erased);
                let held = holdings.tenants.entry(tenant).or_default();
                held.events += events;
                held.rows += rows;
            }
        }
        #[cfg(feature = "object")]
        if let Some(object) = &self.object {
            let (in_objects, damage) = object.held(events)?;
            for HeldInObjects { tenant, events, whole, pruned, erased } in in_objects {
                add(&mut holdings.pruned, &tenant, pruned);
                add(&mut holdings.erased, &tenant, erased);
                let held = holdings.tenants.entry(tenant).or_default();
                held.events += events + pruned + erased;
                held.rows += whole + pruned + erased;
                held.damaged += events.saturating_sub(whole);
            }
            holdings.damage.extend(damage);
        }
        if *self.manifest == Manifest::default() {
            return Ok(holdings);
        }
        holdings.unread = Unread {
            all: self.unread(&self.manifest.saga),
            by_id: self.manifest.saga_by_id.iter().map(|(id, saga)| (id.clone(), self.unread(saga))).collect(),
        };
        // What each store holds, by its name; then, for each tenant, those of its saga.
        let first = holdings.tenants.iter_mut().map(|(tenant, held)| {
            let (events, rows) = (std::mem::take(&mut held.events), std::mem::take(&mut held.rows));
            let kept = Kept { events, rows, damaged: std::mem::take(&mut held.damaged) };
            (tenant.clone(), kept)
        });
        let mut by_store = BTreeMap::from([(StoreName::ONLY, first.collect::<BTreeMap<_, _>>())]);
        let mut pruned_by = BTreeMap::from([(StoreName::ONLY, std::mem::take(&mut holdings.pruned))]);
        let mut erased_by = BTreeMap::from([(StoreName::ONLY, std::mem::take(&mut holdings.erased))]);
        for (name, further) in &self.further {
            let AllHeld { held, pruned, erased, damage } = further.held(events)?;
            by_store.insert(name.clone(), held);
            pruned_by.insert(name.clone(), pruned);
            erased_by.insert(name.clone(), erased);
            holdings.damage.extend(damage.into_iter().map(|damage| format!("in {name}: {damage}")));
        }
        let tenants: BTreeSet<_> =
            by_store.values().flat_map(BTreeMap::keys).chain(holdings.tenants.keys()).cloned().collect();
        for tenant in tenants {
            let readable = self.manifest.saga_of(&tenant).iter().filter(|name| self.manifest.is_readable(name));
            let mut kept = readable.map(|name| {
                let kept = by_store.get(name).and_then(|tenants| tenants.get(&tenant)).copied().unwrap_or_default();
                // What was stored before the store took part is not to be there; of one run alone nothing was.
                let before = if events.is_some() { 0 } else { self.manifest.stored_before(name, &tenant) };
                (name.clone(), Kept { events: kept.events + before, rows: kept.rows + before, ..kept })
            });
            let (_, first) = kept.next().unwrap_or((StoreName::ONLY, Kept::default()));
            let further: Vec<_> = kept.collect();
            let mut readable = self.manifest.saga_of(&tenant).iter().filter(|name| self.manifest.is_readable(name));
            let first_of_it = readable.next();
            for (by, of_it) in [(&pruned_by, &mut holdings.pruned), (&erased_by, &mut holdings.erased)] {
                let gone = first_of_it.and_then(|name| by.get(name)).and_then(|tenants| tenants.get(&tenant));
                add(of_it, &tenant, gone.copied().unwrap_or(0));
            }
            let held = holdings.tenants.entry(tenant.clone()).or_default();
            (held.events, held.rows, held.damaged) = (first.events, first.rows, first.damaged);
            if !further.is_empty() {
                holdings.further.insert(tenant, further);
            }
        }
        Ok(holdings)
    }
}

impl StoreReader {
    /// Whether nothing of what is stored of the tenant can be read from here, as behind a webhook.
    #[must_use]
    pub fn is_unread(&self, tenant: &TenantId) -> bool {
        self.unread(self.manifest.saga_of(tenant)).1
    }

    /// Those of a saga that nobody here can read.
    fn unread(&self, saga: &[StoreName]) -> (Vec<StoreName>, bool) {
        let unread: Vec<_> = saga.iter().filter(|name| !self.manifest.is_readable(name)).cloned().collect();
        let is_all = unread.len() == saga.len();
        (unread, is_all)
    }
}

/// Something of each tenant.
type OfTenants<T> = BTreeMap<TenantId, T>;

/// Of a store, with what counts as held though it is gone: what was pruned, and what was erased on an operator's word.
#[derive(Default)]
struct AllHeld {
    held: OfTenants<Kept>,
    pruned: OfTenants<u64>,
    erased: OfTenants<u64>,
    damage: Vec<String>,
}

impl AllHeld {
    fn add(&mut self, tenant: TenantId, kept: Kept, pruned: u64, erased: u64) {
        add(&mut self.pruned, &tenant, pruned);
        add(&mut self.erased, &tenant, erased);
        self.held.insert(tenant, kept);
    }
}

fn add(to: &mut OfTenants<u64>, tenant: &TenantId, events: u64) {
    if events > 0 {
        *to.entry(tenant.clone()).or_default() += events;
    }
}

impl Further {
    fn tenants(&self) -> Result<Vec<TenantTotals>, StoreReadError> {
        match self {
            Self::Sqlite(database) => Ok(database.tenants()?),
            Self::Files(files) => of_files(files),
            Self::Unreadable => Ok(vec![]),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => Ok(postgres.tenants()?),
            #[cfg(feature = "object")]
            Self::Object(object) => Ok(object.tenants()?),
        }
    }

    fn held(&self, events: Option<Opening>) -> Result<AllHeld, StoreReadError> {
        let mut all = AllHeld::default();
        match self {
            Self::Sqlite(database) => {
                let Holdings { tenants, pruned, erased, damage, .. } = database.holdings(events, None)?;
                let kept = |held: Held| Kept { events: held.events, rows: held.rows, damaged: held.damaged };
                let held = tenants.into_iter().map(|(tenant, held)| (tenant, kept(held))).collect();
                all = AllHeld { held, pruned, erased, damage };
            }
            Self::Files(files) => {
                for HeldInFiles { tenant, events, whole, pruned, erased } in files.held(events)? {
                    let (gone, damaged) = (pruned + erased, events.saturating_sub(whole));
                    let kept = Kept { events: events + gone, rows: whole + gone, damaged };
                    all.add(tenant, kept, pruned, erased);
                }
            }
            Self::Unreadable => {}
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => {
                // Rows that are not there were deleted: a server's own checksums tell of damage.
                for HeldOnServer { tenant, events, rows, pruned, erased } in postgres.held(events)? {
                    all.add(tenant, Kept { events, rows, damaged: 0 }, pruned, erased);
                }
            }
            #[cfg(feature = "object")]
            Self::Object(object) => {
                let (held, damage) = object.held(events)?;
                all.damage = damage;
                for HeldInObjects { tenant, events, whole, pruned, erased } in held {
                    let (gone, damaged) = (pruned + erased, events.saturating_sub(whole));
                    let kept = Kept { events: events + gone, rows: whole + gone, damaged };
                    all.add(tenant, kept, pruned, erased);
                }
            }
        }
        Ok(all)
    }

    fn gone(&self) -> Result<Vec<(TenantId, u64)>, StoreReadError> {
        match self {
            Self::Sqlite(database) => Ok(database.gone()?),
            Self::Files(files) => gone_of_files(files),
            Self::Unreadable => Ok(vec![]),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => Ok(postgres.gone()?),
            #[cfg(feature = "object")]
            Self::Object(object) => {
                Ok(object.gone()?.into_iter().map(|(tenant, pruned, erased)| (tenant, pruned + erased)).collect())
            }
        }
    }

    fn knows(&self, tenant: &TenantId) -> Result<bool, StoreReadError> {
        match self {
            Self::Sqlite(database) => Ok(database.knows(tenant)?),
            Self::Files(files) => Ok(files.knows(tenant)),
            Self::Unreadable => Ok(false),
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => Ok(postgres.knows(tenant)?),
            #[cfg(feature = "object")]
            Self::Object(object) => Ok(object.knows(tenant)?),
        }
    }
}

fn gone_of_files(files: &FilesReader) -> Result<Vec<(TenantId, u64)>, StoreReadError> {
    let all = files.gone()?.into_iter().map(|(tenant, pruned, erased)| (tenant, pruned + erased));
    Ok(all.filter(|(_, events)| *events > 0).collect())
}

fn of_files(files: &FilesReader) -> Result<Vec<TenantTotals>, StoreReadError> {
    let totals = files.tenants()?.into_iter().map(|of_files| TenantTotals {
        events: of_files.events,
        batches: of_files.batches,
        first_arrived: of_files.first_arrived,
        last_arrived: of_files.last_arrived,
        ..TenantTotals::none(of_files.tenant)
    });
    Ok(totals.collect())
}

/// The tenant's place among the others, made if it has none.
fn at<'t>(tenants: &'t mut Vec<TenantTotals>, tenant: &TenantId) -> &'t mut TenantTotals {
    let place = tenants.binary_search_by(|totals| totals.tenant.cmp(tenant)).unwrap_or_else(|place| {
        tenants.insert(place, TenantTotals::none(tenant.clone()));
        place
    });
    &mut tenants[place]
}
