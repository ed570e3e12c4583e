use std::path::Path;

use headworks_actors::{StoreName, TenantId, UnixMillis};

use super::StoreReadError;
use super::files::{self, FilesReader};
use super::manifest::{Kind, Manifest};
#[cfg(feature = "object")]
use super::object::{self, ObjectReader};
#[cfg(feature = "postgres")]
use super::postgres::{self, PostgresReader};
use super::sqlite::{self, SqliteReader};

/// Which events of a tenant are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Those that arrived then or later.
    pub since: Option<UnixMillis>,
    /// Those that arrived then or earlier.
    pub until: Option<UnixMillis>,
    /// How many at the most, the oldest.
    pub limit: Option<u64>,
    /// In which store; else in the first of those that the tenant's batches go through.
    pub store: Option<StoreName>,
}

impl EventQuery {
    /// All of a tenant.
    #[must_use]
    pub fn of(tenant: TenantId) -> Self {
        Self { tenant, since: None, until: None, limit: None, store: None }
    }
}

/// An event as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEvent<'e> {
    /// When it happened, if it said so. Plain files do not keep it.
    pub time: Option<UnixMillis>,
    /// When it arrived. Plain files keep it where all events of its batch arrived at once.
    pub arrived: Option<UnixMillis>,
    /// The id of its batch.
    pub batch: &'e str,
    /// Its place there, from 0.
    pub place: u64,
    /// The body as it came.
    pub body: &'e [u8],
}

/// The times between which an event is wanted, in milliseconds, both included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) since: i64,
    pub(super) until: i64,
}

impl Span {
    pub(super) const ALL: Self = Self { since: i64::MIN, until: i64::MAX };

    pub(super) fn meets(self, (first, last): (i64, i64)) -> bool {
        last >= self.since && first <= self.until
    }
}

/// Goes through the stored events of a tenant, batch by batch, in the order they were stored; also while a daemon stores more.
/// Whatever is stored, no more than one batch of it is in memory, and 8 bytes a batch (of plain files: 150).
///
/// For commands and tools: calls block.
#[derive(Debug)]
pub struct EventReader {
    tenant: TenantId,
    span: Span,
    left: u64,
    sources: Vec<Source>,
}

#[derive(Debug)]
enum Source {
    Database(Box<SqliteReader>, Box<sqlite::Cursor>),
    Files(FilesReader, files::Cursor),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresReader>, postgres::Cursor),
    #[cfg(feature = "object")]
    Object(Box<ObjectReader>, Box<object::Cursor>),
}

impl Source {
    fn database(path: &Path) -> Result<Self, StoreReadError> {
        let reader = SqliteReader::open(path).map_err(StoreReadError::new)?;
        let cursor = reader.cursor();
        Ok(Self::Database(Box::new(reader), Box::new(cursor)))
    }

    fn files(path: &Path) -> Result<Self, StoreReadError> {
        Ok(Self::Files(FilesReader::open(path).map_err(StoreReadError::new)?, files::Cursor::default()))
    }

    /// The store of that name, on its server.
    fn postgres(manifest: &Manifest, name: &StoreName) -> Result<Self, StoreReadError> {
        #[cfg(feature = "postgres")]
        return match postgres::of(&manifest.postgres, name) {
            Ok(reader) => Ok(Self::Postgres(Box::new(reader), postgres::Cursor::default())),
            Err(why) => Err(StoreReadError::new(why)),
        };
        #[cfg(not(feature = "postgres"))]
        {
            let _ = manifest;
            Err(StoreReadError::new(format!("store {name} is on PostgreSQL: {}", super::reader::NOT_BUILT)))
        }
    }

    /// The store of that name, in its objects.
    fn object(manifest: &Manifest, name: &StoreName) -> Result<Self, StoreReadError> {
        #[cfg(feature = "object")]
        return match object::of(&manifest.object, name) {
            Ok(reader) => Ok(Self::Object(Box::new(reader), Box::default())),
            Err(why) => Err(StoreReadError::new(why)),
        };
        #[cfg(not(feature = "object"))]
        {
            let _ = manifest;
            Err(StoreReadError::new(format!("store {name} is in objects: {}", super::reader::NO_OBJECTS)))
        }
    }

    fn knows(&self, tenant: &TenantId) -> Result<bool, StoreReadError> {
        match self {
            Self::Database(reader, _) => Ok(reader.knows(tenant)?),
            Self::Files(reader, _) => Ok(reader.knows(tenant)),
            #[cfg(feature = "postgres")]
            Self::Postgres(reader, _) => Ok(reader.knows(tenant)?),
            #[cfg(feature = "object")]
            Self::Object(reader, _) => Ok(reader.knows(tenant)?),
        }
    }

    /// When the first event of the next batch arrived, if there is one by now.
    fn peek(&mut self, tenant: &TenantId, span: Span) -> Result<Option<i64>, StoreReadError> {
        match self {
            Self::Database(reader, cursor) => Ok(reader.peek(cursor, tenant, span)?),
            Self::Files(reader, cursor) => Ok(reader.peek(cursor, tenant, span)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(reader, cursor) => Ok(reader.peek(cursor, tenant, span)?),
            #[cfg(feature = "object")]
            Self::Object(reader, cursor) => Ok(reader.peek(cursor, tenant, span)?),
        }
    }

    /// Visits the events of the next batch.
    fn read(&mut self, tenant: &TenantId, visit: &mut dyn FnMut(StoredEvent<'_>)) -> Result<(), StoreReadError> {
        match self {
            Self::Database(reader, cursor) => Ok(reader.read_next(cursor, visit)?),
            Self::Files(reader, cursor) => Ok(reader.read_next(cursor, tenant, visit)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(reader, cursor) => Ok(reader.read_next(cursor, visit)?),
            #[cfg(feature = "object")]
            Self::Object(_, cursor) => {
                cursor.read_next(visit);
                Ok(())
            }
        }
    }
}

impl EventReader {
    /// At the first event that is asked for.
    ///
    /// # Errors
    /// There is no store to read, or none of that name.
    pub fn open(data_dir: &Path, query: EventQuery) -> Result<Self, StoreReadError> {
        let manifest = Manifest::read(data_dir).map_err(StoreReadError::new)?;
        let EventQuery { tenant, since, until, limit, store } = query;
        let first = manifest.saga_of(&tenant).first().cloned();
        let store = store.or(first).unwrap_or(StoreName::ONLY);
        let place = |kind| Manifest::place(data_dir, &store, kind).unwrap_or_default();
        let sources = match manifest.stores.get(&store) {
            Some(kind @ Kind::Sqlite) => vec![Source::database(&place(*kind))?],
            Some(kind @ Kind::Files) => vec![Source::files(&place(*kind))?],
            Some(Kind::Postgres) => vec![Source::postgres(&manifest, &store)?],
            _ if !manifest.is_readable(&store) => {
                let why = format!(
                    "store {store} is a webhook, a NATS stream or the standard output: what went there cannot be read back from here"
                );
                return Err(StoreReadError::new(why));
            }
            Some(Kind::Webhook | Kind::Stdout | Kind::Nats) => vec![],
            Some(Kind::Object) => vec![Source::object(&manifest, &store)?],
            None if store == StoreName::ONLY => {
                let mut sources = vec![Source::database(&data_dir.join("headworks.db"))?];
                // The store may have been of another type before.
                let files = data_dir.join(files::FILES);
                if files.exists() {
                    sources.push(Source::files(&files)?);
                }
                if manifest.postgres.contains_key(&store) {
                    sources.push(Source::postgres(&manifest, &store)?);
                }
                if manifest.object.contains_key(&store) {
                    sources.push(Source::object(&manifest, &store)?);
                }
                sources
            }
            None => {
                let further: String = manifest.stores.keys().map(|name| format!(", {name}")).collect();
                let why = format!("{} has no store {store}; there is: store{further}", data_dir.display());
                return Err(StoreReadError::new(why));
            }
        };
        let span = Span { since: since.map_or(i64::MIN, |at| at.0), until: until.map_or(i64::MAX, |at| at.0) };
        Ok(Self { tenant, span, left: limit.unwrap_or(u64::MAX), sources })
    }

    /// Whether the store has ever heard of the tenant: there is a batch or a dead letter of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn knows(&self) -> Result<bool, StoreReadError> {
        for source in &self.sources {
            if source.knows(&self.tenant)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether as many events were visited as were asked for, so that nothing more can come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Visits the events of the next batch; false where there is none by now. What is stored later comes with a later call.
    ///
    /// # Errors
    /// Something cannot be read, or is damaged: it says what and where. Nothing of a damaged batch in a segment or in plain files
    /// is visited.
    pub fn next_batch(&mut self, mut visit: impl FnMut(StoredEvent<'_>)) -> Result<bool, StoreReadError> {
        if self.left == 0 {
            return Ok(false);
        }
        let mut next = None;
        for (at, source) in self.sources.iter_mut().enumerate() {
            let first = source.peek(&self.tenant, self.span)?.map(|arrived| (arrived, at));
            next = next.into_iter().chain(first).min();
        }
        let Some((_, at)) = next else { return Ok(false) };
        let (span, left) = (self.span, &mut self.left);
        self.sources[at].read(&self.tenant, &mut |event| {
            if *left > 0 && event.arrived.is_none_or(|at| span.meets((at.0, at.0))) {
                *left -= 1;
                visit(event);
            }
        })?;
        Ok(true)
    }
}
