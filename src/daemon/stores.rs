//! The stores of a daemon, and which of them a tenant's batches go through.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headworks_actors::{BoxStorage, Saga, StorageError, StorageExt, StoreLimits, StoreName, TenantId};

use super::DaemonError;
use crate::config::{Config, StoreConfig, StoreKind};
use crate::erasure::{Erasable, Eraser};
use crate::metrics::{OfStore, OfStores};
use crate::retention::PrunedStore;
#[cfg(feature = "nats")]
use crate::store::NatsStore;
#[cfg(feature = "stdout")]
use crate::store::StdoutStore;
#[cfg(feature = "webhook")]
use crate::store::WebhookStore;
use crate::store::manifest::{Kind, Manifest};
#[cfg(unix)]
use crate::store::patient::Patient;
#[cfg(unix)]
use crate::store::servers::{Server, Servers};
use crate::store::sqlite::OpenError;
use crate::store::{FilesOptions, FilesStore, SqliteOptions, SqliteStore, StoreReadError, StoreReader};
#[cfg(feature = "object")]
use crate::store::{ObjectReader, ObjectStore};
#[cfg(feature = "postgres")]
use crate::store::{PostgresReader, PostgresStore};

/// All stores of one daemon.
#[derive(Debug)]
pub(super) struct Stores {
    /// The dead letters, and the batches of the store `store` where no files are there for them.
    pub(super) database: SqliteStore,
    /// By name; `store` is one of them.
    named: BTreeMap<StoreName, Store>,
    /// Where the store `store` is.
    path: PathBuf,
}

#[derive(Debug)]
enum Store {
    Sqlite(SqliteStore),
    Files(FilesStore),
    #[cfg(feature = "postgres")]
    Postgres(PostgresStore),
    #[cfg(feature = "webhook")]
    Webhook(WebhookStore),
    #[cfg(feature = "stdout")]
    Stdout(StdoutStore),
    #[cfg(feature = "object")]
    Object(ObjectStore),
    #[cfg(feature = "nats")]
    Nats(NatsStore),
}

impl Store {
    /// `largest`: the most bytes that a batch may have.
    fn open(path: PathBuf, config: &StoreConfig, options: SqliteOptions, largest: usize) -> Result<Self, DaemonError> {
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |why| DaemonError::DataDir { path, why }
        };
        if let Some(parent) = path.parent().filter(|_| !config.kind.is_elsewhere()) {
            std::fs::create_dir_all(parent).map_err(cannot(parent))?;
        }
        Ok(match config.kind {
            StoreKind::Sqlite => Self::Sqlite(opened(&path, &options, PATIENCE)?),
            StoreKind::Files => {
                let options = FilesOptions {
                    group_max_bytes: config.group_max_bytes,
                    rotate_bytes: config.rotate_bytes as u64,
                    rotate_every: config.rotate_every,
                    ..FilesOptions::default()
                };
                Self::Files(FilesStore::open(path, options)?)
            }
            #[cfg(feature = "postgres")]
            StoreKind::Postgres => Self::Postgres(PostgresStore::open(config.postgres_options())?),
            #[cfg(not(feature = "postgres"))]
            StoreKind::Postgres => return Err(DaemonError::NotBuilt { what: "store", kind: "postgres" }),
            #[cfg(feature = "webhook")]
            StoreKind::Webhook => Self::Webhook(WebhookStore::open(config.webhook_options())?),
            #[cfg(not(feature = "webhook"))]
            StoreKind::Webhook => return Err(DaemonError::NotBuilt { what: "store", kind: "webhook" }),
            #[cfg(feature = "stdout")]
            StoreKind::Stdout => Self::Stdout(StdoutStore::open().map_err(DaemonError::Stdout)?),
            #[cfg(not(feature = "stdout"))]
            StoreKind::Stdout => return Err(DaemonError::NotBuilt { what: "store", kind: "stdout" }),
            #[cfg(feature = "object")]
            StoreKind::Object => Self::Object(ObjectStore::open(config.object_options())?),
            #[cfg(not(feature = "object"))]
            StoreKind::Object => return Err(DaemonError::NotBuilt { what: "store", kind: "object" }),
            #[cfg(feature = "nats")]
            StoreKind::Nats => {
                let mut options = config.nats_options();
                options.largest_batch = Some(largest);
                Self::Nats(NatsStore::open(options)?)
            }
            #[cfg(not(feature = "nats"))]
            StoreKind::Nats => {
                let _ = largest;
                return Err(DaemonError::NotBuilt { what: "store", kind: "nats" });
            }
        })
    }

    /// The server it is on.
    #[cfg(unix)]
    fn server(&self) -> Option<Server> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Some(Server::Postgres(store.clone())),
            #[cfg(feature = "nats")]
            Self::Nats(store) => Some(Server::Nats(store.clone())),
            #[cfg(feature = "object")]
            Self::Object(store) => Some(Server::Object(store.clone())),
            #[cfg(feature = "webhook")]
            Self::Webhook(store) => Some(Server::Webhook(store.clone())),
            _ => None,
        }
    }

    fn boxed(&self) -> BoxStorage {
        match self {
            Self::Sqlite(store) => store.clone().boxed(),
            Self::Files(store) => store.clone().boxed(),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.clone().boxed(),
            #[cfg(feature = "webhook")]
            Self::Webhook(store) => store.clone().boxed(),
            #[cfg(feature = "stdout")]
            Self::Stdout(store) => store.clone().boxed(),
            #[cfg(feature = "object")]
            Self::Object(store) => store.clone().boxed(),
            #[cfg(feature = "nats")]
            Self::Nats(store) => store.clone().boxed(),
        }
    }
}

fn options(config: &StoreConfig) -> SqliteOptions {
    SqliteOptions {
        group_max_bytes: config.group_max_bytes,
        busy_timeout: config.busy_timeout,
        layout: config.layout,
        segment_bytes: config.segment_bytes as u64,
        ..SqliteOptions::default()
    }
}

/// The most bytes that a batch of any tenant may have, but for its last event.
fn largest_batch(config: &Config) -> usize {
    let of_some = config.tenants.by_id.keys().map(|id| config.effective_policy(id).window.max_bytes);
    of_some.chain([config.tenants.defaults.window.max_bytes]).max().unwrap_or(0)
}

/// So long a database that somebody else holds is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens a database, once nobody else holds it. The first try alone takes as long as its busy timeout.
fn opened(path: &Path, options: &SqliteOptions, patience: Duration) -> Result<SqliteStore, DaemonError> {
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match SqliteStore::open(path, options.clone()) {
            Err(OpenError::Locked { path }) if began.elapsed() >= patience => {
                return Err(DaemonError::Locked { path, waited: patience });
            }
            Err(OpenError::Locked { path }) => {
                if !is_told {
                    let (path, at_most) = (path.display(), humantime::format_duration(patience));
                    tracing::warn!(target: "headworks", database = %path, %at_most, "waiting for the database, which another process holds locked");
                }
                is_told = true;
            }
            opened => return Ok(opened?),
        }
    }
}

impl Stores {
    /// Opens all of them, used or not.
    pub(super) fn open(config: &Config) -> Result<Self, DaemonError> {
        let with_letters = SqliteOptions {
            letters_max_bytes: config.dead_letters.max_bytes_per_tenant as u64,
            letters_when_full: config.dead_letters.when_full,
            ..options(&config.store)
        };
        let database = opened(&config.store_file(), &with_letters, PATIENCE)?;
        let largest = largest_batch(config);
        let first = match config.store.kind {
            StoreKind::Sqlite => Store::Sqlite(database.clone()),
            _ => Store::open(config.store_path(), &config.store, options(&config.store), largest)?,
        };
        let mut named = BTreeMap::from([(StoreName::ONLY, first)]);
        for (name, store) in &config.stores {
            let path = config.further_store_path(name, store);
            named.insert(name.clone(), Store::open(path, store, options(store), largest)?);
        }
        Ok(Self { database, named, path: config.store_path() })
    }

    /// What erases tenants from all of them. The store `store` may have been in the database before.
    pub(super) fn eraser(&self) -> Eraser {
        let erasable = |(name, store): (&StoreName, &Store)| {
            let erasable = match store {
                Store::Sqlite(store) => Erasable::Sqlite(store.clone()),
                Store::Files(store) => Erasable::Files(store.clone()),
                #[cfg(feature = "postgres")]
                Store::Postgres(store) => Erasable::Postgres(store.clone()),
                #[cfg(feature = "object")]
                Store::Object(store) => Erasable::Object(store.clone()),
                #[cfg(feature = "nats")]
                Store::Nats(store) => Erasable::Nats(store.clone()),
                #[cfg(feature = "webhook")]
                Store::Webhook(store) => Erasable::Sent(format!(
                    "what was sent to the webhook {} cannot be taken back from here; ask whoever runs it to erase it there",
                    store.url()
                )),
                #[cfg(feature = "stdout")]
                Store::Stdout(_) => {
                    Erasable::Sent("what was printed on the standard output cannot be taken back from here".to_owned())
                }
            };
            (name.clone(), erasable)
        };
        let mut all: Vec<_> = self.named.iter().map(erasable).collect();
        if !matches!(self.named.get(&StoreName::ONLY), Some(Store::Sqlite(_))) {
            all.push((StoreName::ONLY, Erasable::Sqlite(self.database.clone())));
        }
        Eraser::new(self.database.clone(), all)
    }

    /// Those that prune.
    pub(super) fn pruned(&self) -> Vec<(StoreName, PrunedStore)> {
        let pruned = |(name, store): (&StoreName, &Store)| match store {
            Store::Sqlite(store) => Some((name.clone(), store.clone().into())),
            Store::Files(store) => Some((name.clone(), store.clone().into())),
            #[cfg(feature = "postgres")]
            Store::Postgres(store) => Some((name.clone(), store.clone().into())),
            #[cfg(feature = "object")]
            Store::Object(store) => Some((name.clone(), store.clone().into())),
            #[cfg(any(feature = "nats", feature = "stdout", feature = "webhook"))]
            _ => None,
        };
        self.named.iter().filter_map(pruned).collect()
    }

    /// What those on servers count.
    pub(super) fn counts(&self) -> OfStores {
        #[cfg_attr(
            not(any(feature = "object", feature = "postgres")),
            expect(unused_mut, reason = "none is on a server")
        )]
        let mut all: Vec<Box<dyn Fn() -> OfStore + Send + Sync>> = vec![];
        #[cfg(any(feature = "object", feature = "postgres"))]
        for (name, store) in &self.named {
            let name = name.to_string();
            match store {
                #[cfg(feature = "postgres")]
                Store::Postgres(store) => {
                    let counts = store.counts();
                    all.push(Box::new(move || OfStore {
                        store: name.clone(),
                        misfits: counts.misfits().map(|(column, misfits)| (column.to_owned(), misfits)).collect(),
                        pruned: counts.pruned(),
                    }));
                }
                #[cfg(feature = "object")]
                Store::Object(store) => {
                    let pruned = store.pruned();
                    all.push(Box::new(move || OfStore { store: name.clone(), misfits: vec![], pruned: pruned() }));
                }
                _ => {}
            }
        }
        std::sync::Arc::new(move || all.iter().map(|told| told()).collect())
    }

    /// Those that leave a server alone at its word.
    #[cfg(unix)]
    pub(super) fn patient(&self) -> Patient {
        #[cfg(feature = "webhook")]
        let webhooks = self.named.values().filter_map(|store| match store {
            Store::Webhook(webhook) => Some(webhook.clone()),
            _ => None,
        });
        Patient {
            #[cfg(feature = "webhook")]
            webhooks: webhooks.collect(),
        }
    }

    /// Those on servers.
    #[cfg(unix)]
    pub(super) fn servers(&self) -> Servers {
        let of = |(name, store): (&StoreName, &Store)| store.server().map(|server| (name.clone(), server));
        Servers::new(self.named.iter().filter_map(of).collect())
    }

    /// Whether one of them is the standard output.
    pub(super) fn prints(&self) -> bool {
        #[cfg(feature = "stdout")]
        return self.named.values().any(|store| matches!(store, Store::Stdout(_)));
        #[cfg(not(feature = "stdout"))]
        false
    }

    /// Where the store `store` is; of one on a server, its URL.
    pub(super) fn path(&self) -> &Path {
        match self.named.get(&StoreName::ONLY) {
            Some(Store::Files(files)) => files.path(),
            Some(Store::Sqlite(database)) => database.path(),
            _ => &self.path,
        }
    }

    /// The sagas of the config: that of all tenants, and those of tenants with others.
    pub(super) fn sagas(&self, config: &Config) -> (Saga, BTreeMap<TenantId, Saga>) {
        // Boxed once each, so that tenants that share a store are known to.
        let boxed: BTreeMap<_, _> = self.named.iter().map(|(name, store)| (name, store.boxed())).collect();
        let saga = |names: &[StoreName]| {
            // The config was checked: each is there.
            let stores = names.iter().filter_map(|name| Some((name, boxed.get(name)?)));
            let limits = |name| {
                let store = config.stores.get(name).unwrap_or(&config.store);
                StoreLimits { max_concurrency: store.max_concurrency }
            };
            stores.fold(Saga::new(), |saga, (name, store)| {
                saga.then_boxed(store.clone()).named(name.as_str()).limits(limits(name))
            })
        };
        let by_id = config.tenants.stores_by_id.iter().map(|(id, names)| (id.clone(), saga(names)));
        (saga(&config.tenants.stores), by_id.collect())
    }

    /// Leaves word in the data directory of which stores there are, for whoever reads it without the config. Where a tenant's saga is
    /// another from now on, what all stores of the old one have by now counts as stored before in those that lack it. To be
    /// called before anything is stored.
    pub(super) fn declare(config: &Config) -> Result<(), DaemonError> {
        let data_dir = &config.daemon.data_dir;
        let failed = |why| DaemonError::DataDir { path: data_dir.clone(), why };
        let unread = |why| failed(std::io::Error::other(why));
        let known = Manifest::read(data_dir).map_err(failed)?;
        let kind = |kind| match kind {
            StoreKind::Sqlite => Kind::Sqlite,
            StoreKind::Files => Kind::Files,
            StoreKind::Postgres => Kind::Postgres,
            StoreKind::Webhook => Kind::Webhook,
            StoreKind::Stdout => Kind::Stdout,
            StoreKind::Object => Kind::Object,
            StoreKind::Nats => Kind::Nats,
        };
        let further = config.stores.iter().map(|(name, store)| (name.clone(), store));
        let all = || further.clone().chain([(StoreName::ONLY, &config.store)]);
        let on_servers = all().filter(|(_, store)| store.kind == StoreKind::Postgres);
        let mut postgres: BTreeMap<_, _> = on_servers.map(|(name, store)| (name, store.postgres_options())).collect();
        let in_objects = all().filter(|(_, store)| store.kind == StoreKind::Object);
        let mut object: BTreeMap<_, _> = in_objects.map(|(name, store)| (name, store.object_options())).collect();
        // What was stored there when `store` was one on a server is read from there.
        if let Some(before) = known.postgres.get(&StoreName::ONLY) {
            postgres.entry(StoreName::ONLY).or_insert_with(|| before.clone());
        }
        if let Some(before) = known.object.get(&StoreName::ONLY) {
            object.entry(StoreName::ONLY).or_insert_with(|| before.clone());
        }
        let mut fresh = Manifest {
            stores: config.stores.iter().map(|(name, store)| (name.clone(), kind(store.kind))).collect(),
            saga: config.tenants.stores.clone(),
            saga_by_id: config.tenants.stores_by_id.clone(),
            stored_before: known.stored_before.clone(),
            store: Some(kind(config.store.kind)).filter(|kind| !kind.is_readable()),
            postgres,
            object,
        };
        let is_another = (&known.saga, &known.saga_by_id) != (&fresh.saga, &fresh.saga_by_id);
        if is_another && has_stored(data_dir, &known).map_err(unread)? {
            // With the stores of before too, where their files are still there.
            let mut both = fresh.clone();
            let is_left = |name: &StoreName, kind| match Manifest::place(data_dir, name, kind) {
                Some(place) => place.exists(),
                // It may be gone with its server, which nobody is to wait for.
                None => fresh.stores.contains_key(name) || can_be_read(name, &known),
            };
            let left: Vec<_> = known.stores.iter().filter(|(name, kind)| is_left(name, **kind)).collect();
            both.stores.extend(left.iter().map(|(name, kind)| ((*name).clone(), **kind)));
            let servers =
                left.iter().filter_map(|(name, _)| Some(((*name).clone(), known.postgres.get(*name)?.clone())));
            for (name, options) in servers {
                both.postgres.entry(name).or_insert(options);
            }
            let objects = left.iter().filter_map(|(name, _)| Some(((*name).clone(), known.object.get(*name)?.clone())));
            for (name, options) in objects {
                both.object.entry(name).or_insert(options);
            }
            let there: BTreeSet<_> = both.stores.keys().cloned().chain([StoreName::ONLY]).collect();
            let reader = StoreReader::open_as(data_dir, both).map_err(unread)?;
            let ever = reader.ever_stored().map_err(unread)?;
            let held = |name: &StoreName, tenant: &TenantId| {
                ever.get(name).and_then(|tenants| tenants.get(tenant)).copied().unwrap_or(0)
            };
            let tenants: BTreeSet<_> = ever.values().flat_map(BTreeMap::keys).cloned().collect();
            for tenant in tenants {
                let mut all = None::<u64>;
                let readable = |name: &&StoreName| there.contains(name) && known.is_readable(name);
                for name in known.saga_of(&tenant).iter().filter(readable) {
                    let held = held(name, &tenant) + known.stored_before(name, &tenant);
                    all = Some(all.map_or(held, |all| all.min(held)));
                }
                for name in fresh.saga_of(&tenant).to_vec() {
                    let held = held(&name, &tenant);
                    let before = all.unwrap_or(0).saturating_sub(held);
                    fresh.stored_before.entry(name).or_default().insert(tenant.clone(), before);
                }
            }
        }
        fresh.write(data_dir).map_err(failed)
    }

    /// Closes all of them; what went wrong.
    pub(super) async fn close(self) -> Vec<StorageError> {
        let mut failed = vec![];
        for store in self.named.into_values() {
            failed.extend(match store {
                Store::Sqlite(store) => store.close().await.err(),
                Store::Files(store) => store.close().await.err(),
                #[cfg(feature = "postgres")]
                Store::Postgres(store) => store.close().await.err(),
                #[cfg(feature = "webhook")]
                Store::Webhook(store) => store.close().await.err(),
                #[cfg(feature = "stdout")]
                Store::Stdout(store) => store.close().await.err(),
                #[cfg(feature = "object")]
                Store::Object(store) => store.close().await.err(),
                #[cfg(feature = "nats")]
                Store::Nats(store) => store.close().await.err(),
            });
        }
        failed.extend(self.database.close().await.err());
        failed
    }
}

/// Whether anything can have been stored before. A directory without a manifest had one store, in itself: it is looked at alone, so that
/// the first start waits for no server.
fn has_stored(data_dir: &Path, known: &Manifest) -> Result<bool, StoreReadError> {
    if *known != Manifest::default() {
        return Ok(true);
    }
    let ever = StoreReader::open_as(data_dir, known.clone())?.ever_stored()?;
    Ok(ever.values().any(|tenants| !tenants.is_empty()))
}

/// Whether a store on a server, which is none of this daemon's any more, answers.
fn can_be_read(name: &StoreName, known: &Manifest) -> bool {
    #[cfg(feature = "postgres")]
    if let Some(options) = known.postgres.get(name) {
        let read = PostgresReader::new(options.clone()).map_err(|why| why.to_string());
        match read.and_then(|reader| reader.tenants().map_err(|why| why.to_string())) {
            Ok(_) => return true,
            Err(why) => {
                tracing::warn!(target: "headworks", store = %name, why, "a store that batches do not go to any more is not counted");
            }
        }
    }
    #[cfg(feature = "object")]
    if let Some(options) = known.object.get(name) {
        let read = ObjectReader::new(options.clone()).map_err(|why| why.to_string());
        match read.and_then(|reader| reader.tenants().map_err(|why| why.to_string())) {
            Ok(_) => return true,
            Err(why) => {
                tracing::warn!(target: "headworks", store = %name, why, "a store that batches do not go to any more is not counted");
            }
        }
    }
    let _ = (name, known);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_somebody_else_holds_to_the_end_is_named_with_how_long_it_was_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headworks.db");
        let options = SqliteOptions { busy_timeout: Duration::from_millis(1), ..SqliteOptions::default() };
        drop(opened(&path, &options, Duration::ZERO).unwrap());
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let why = opened(&path, &options, Duration::from_millis(20)).unwrap_err().to_string();
        assert!(why.contains("headworks.db is locked by another process, and was for all of the 20ms"), "{why}");
        other.execute_batch("ROLLBACK").unwrap();
        opened(&path, &options, Duration::ZERO).unwrap();
    }
}
