use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use headworks_actors::{StoreName, TenantId};
use serde::{Deserialize, Serialize};

use super::files::FILES;
use super::object::ObjectOptions;
use super::postgres::PostgresOptions;

/// Which stores a data directory has and which of them a tenant's batches go through: for tools that read the directory without the
/// daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Manifest {
    /// The stores beside the one that every directory has.
    pub(crate) stores: BTreeMap<StoreName, Kind>,
    /// The saga of a tenant that has none of its own.
    pub(crate) saga: Vec<StoreName>,
    /// The sagas of those that have.
    pub(crate) saga_by_id: BTreeMap<TenantId, Vec<StoreName>>,
    /// Events that had been stored before a store was part of the tenant's saga, which it need not hold.
    pub(crate) stored_before: BTreeMap<StoreName, BTreeMap<TenantId, u64>>,
    /// What `store` is, where it cannot be read from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<Kind>,
    /// How to reach those that are on a PostgreSQL server; `store` too, where it is or was.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) postgres: BTreeMap<StoreName, PostgresOptions>,
    /// The same of those that are in objects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) object: BTreeMap<StoreName, ObjectOptions>,
}

/// What a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A database.
    Sqlite,
    /// A directory of plain files.
    Files,
    /// On a PostgreSQL server.
    Postgres,
    /// In objects.
    Object,
    /// Behind a webhook: nobody here can read it.
    Webhook,
    /// Printed.
    Stdout,
    /// Published: whoever consumes the stream has it.
    Nats,
}

impl Kind {
    /// Whether what was stored can be read from here.
    pub(crate) fn is_readable(self) -> bool {
        !matches!(self, Self::Webhook | Self::Stdout | Self::Nats)
    }
}

impl Default for Manifest {
    /// Of a directory with one store.
    fn default() -> Self {
        let (stores, saga_by_id, stored_before) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (postgres, object) = (BTreeMap::new(), BTreeMap::new());
        Self { stores, saga: vec![StoreName::ONLY], saga_by_id, stored_before, store: None, postgres, object }
    }
}

const NAME: &str = "stores.json";

impl Manifest {
    /// The directory's; that of one store where it has none.
    ///
    /// # Errors
    /// It cannot be read, or is no manifest.
    pub(crate) fn read(data_dir: &Path) -> io::Result<Self> {
        match std::fs::read(data_dir.join(NAME)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| {
                let path = data_dir.join(NAME);
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
            }),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(why) => Err(why),
        }
    }

    /// Puts it there, whole or not at all, unless it is there already.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        if Self::read(data_dir).is_ok_and(|known| known == *self) {
            return Ok(());
        }
        let fresh = data_dir.join("stores.json.new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
        std::fs::File::open(&fresh)?.sync_all()?;
        std::fs::rename(fresh, data_dir.join(NAME))
    }

    /// The stores that the tenant's batches go through, in order.
    #[must_use]
    pub(crate) fn saga_of(&self, tenant: &TenantId) -> &[StoreName] {
        self.saga_by_id.get(tenant).unwrap_or(&self.saga)
    }

    /// Whether what the store has can be read from here.
    #[must_use]
    pub(crate) fn is_readable(&self, name: &StoreName) -> bool {
        let kind = if *name == StoreName::ONLY { self.store } else { self.stores.get(name).copied() };
        kind.is_none_or(Kind::is_readable)
    }

    /// How many of the tenant's events had been stored before the store was part of its saga.
    #[must_use]
    pub(crate) fn stored_before(&self, store: &StoreName, tenant: &TenantId) -> u64 {
        self.stored_before.get(store).and_then(|tenants| tenants.get(tenant)).copied().unwrap_or(0)
    }

    /// Where a store beside the one that every directory has lies; one on a server lies nowhere here.
    #[must_use]
    pub(crate) fn place(data_dir: &Path, name: &StoreName, kind: Kind) -> Option<PathBuf> {
        let stores = data_dir.join("stores");
        match kind {
            Kind::Sqlite => Some(stores.join(format!("{name}.db"))),
            Kind::Files => Some(stores.join(name.as_str()).join(FILES)),
            Kind::Postgres | Kind::Object | Kind::Webhook | Kind::Stdout | Kind::Nats => None,
        }
    }
}
