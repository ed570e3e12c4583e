use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use headworks_actors::{JournalError, StorageError, StoreName, TenantId, UnixMillis};

use super::{DaemonError, DataDir};
use crate::config::Config;
use crate::journal::inspect;
use crate::retention::{Pass, PrunedStore, Report, Rest, prune_letters};
use crate::store::files::{self, FILES};
use crate::store::manifest::{Kind, Manifest};
use crate::store::sqlite::OpenError;
use crate::store::{FilesOptions, FilesStore, SqliteOptions, SqliteStore};

/// Why a data directory at rest was not pruned, or not to the end. What was pruned is counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// Somebody else writes there.
    #[error(transparent)]
    Directory(#[from] DaemonError),
    /// The journal, which says what is settled, cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file cannot be read or made sure of.
    #[error("cannot make sure of {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        why: io::Error,
    },
    /// A database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A directory of plain files cannot be opened.
    #[error(transparent)]
    Files(#[from] files::OpenError),
    /// A store on a server cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] crate::store::postgres::OpenError),
    /// A store in objects cannot be used.
    #[cfg(feature = "object")]
    #[error(transparent)]
    Object(#[from] crate::store::object::OpenError),
    /// A database cannot be read or written.
    #[error(transparent)]
    Store(#[from] StorageError),
}

/// Prunes a data directory, on which no daemon runs, by the rules of a configuration. With `vacuum` the databases are written anew
/// afterwards, without the room of what is gone: that needs as much free disk. With `dry_run` nothing is changed but, where an
/// earlier version wrote them, the schemas of the databases.
///
/// # Errors
/// See [`PruneError`].
pub async fn prune_at_rest(
    data_dir: &Path,
    config: &Config,
    vacuum: bool,
    dry_run: bool,
) -> Result<Report, PruneError> {
    let _alone = DataDir::open(data_dir)?;
    let rest = rest_of(&data_dir.join("journal"))?;
    let cannot = |why| PruneError::File { path: data_dir.join("stores.json"), why };
    let manifest = Manifest::read(data_dir).map_err(cannot)?;
    let letters = SqliteStore::open(data_dir.join("headworks.db"), SqliteOptions::default())?;
    let mut stores = vec![(StoreName::ONLY, PrunedStore::from(letters.clone()))];
    // The store may be, or have been, one on files.
    if data_dir.join(FILES).is_dir() {
        let beside = FilesStore::open(data_dir.join(FILES), FilesOptions::default())?;
        stores.push((StoreName::ONLY, beside.into()));
    }
    for (name, kind) in &manifest.stores {
        let Some(place) = Manifest::place(data_dir, name, *kind) else { continue };
        stores.push((
            name.clone(),
            match kind {
                Kind::Sqlite => SqliteStore::open(place, SqliteOptions::default())?.into(),
                Kind::Files => FilesStore::open(place, FilesOptions::default())?.into(),
                _ => continue,
            },
        ));
    }
    #[cfg(feature = "postgres")]
    for (name, options) in manifest.postgres.iter().filter(|_| config.tenants.prunes()) {
        if *name == StoreName::ONLY || manifest.stores.get(name) == Some(&Kind::Postgres) {
            stores.push((name.clone(), crate::store::PostgresStore::open(options.clone())?.into()));
        }
    }
    #[cfg(feature = "object")]
    for (name, options) in manifest.object.iter().filter(|_| config.tenants.prunes()) {
        if *name == StoreName::ONLY || manifest.stores.get(name) == Some(&Kind::Object) {
            stores.push((name.clone(), crate::store::ObjectStore::open(options.clone())?.into()));
        }
    }
    let mut report = Report::default();
    let now = UnixMillis::now();
    let of = |tenant: &TenantId| {
        let rest = rest.get(tenant).copied().unwrap_or(Rest::Settled);
        (config.tenants.policy(tenant).retention.clone(), rest)
    };
    let pruned = Pass::begin(stores.clone()).await?.run(now, of, async { Ok(()) }, dry_run, &mut report).await;
    let own = |tenant: &TenantId| config.tenants.policy(tenant).retention.dead_letters_max_age;
    prune_letters(&letters, config.dead_letters.max_age, own, now, dry_run, &mut report).await?;
    for (_, store) in stores {
        match store {
            PrunedStore::Sqlite(store) => {
                if vacuum && !dry_run {
                    store.vacuum().await?;
                }
                store.close().await?;
            }
            PrunedStore::Files(store) => store.close().await?,
            #[cfg(feature = "postgres")]
            PrunedStore::Postgres(store) => store.close().await?,
            #[cfg(feature = "object")]
            PrunedStore::Object(store) => store.close().await?,
        }
    }
    pruned?;
    Ok(report)
}

/// How far each tenant of the journal is settled, for good: what a process that died has not synced is synced here.
fn rest_of(journal: &Path) -> Result<BTreeMap<TenantId, Rest>, PruneError> {
    if !journal.is_dir() {
        return Ok(BTreeMap::new());
    }
    let sync = || {
        for entry in std::fs::read_dir(journal)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        File::open(journal)?.sync_all()
    };
    sync().map_err(|why| PruneError::File { path: journal.to_owned(), why })?;
    let rest = |told: inspect::TenantSummary| {
        let rest = if !told.uncompensated.is_empty() {
            Rest::Owed
        } else if told.in_flight > 0 {
            Rest::InFlight
        } else {
            Rest::Settled
        };
        (told.tenant, rest)
    };
    Ok(inspect::summary(journal, |_, _| {})?.tenants.into_iter().map(rest).collect())
}
