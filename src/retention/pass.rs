use std::collections::BTreeSet;
use std::future::Future;
#[cfg(feature = "object")]
use std::sync::Arc;
use std::time::Duration;

use headworks_actors::{BatchId, RetentionPolicy, StorageError, StoreName, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{Asked, Pruned, Step, Stock, Walk};
#[cfg(feature = "object")]
use crate::store::ObjectStore;
#[cfg(feature = "postgres")]
use crate::store::PostgresStore;
use crate::store::files::{self, Mark};
#[cfg(feature = "object")]
use crate::store::object::Holding;
use crate::store::sqlite::ReadError;
use crate::store::{FilesReader, FilesStore, SqliteReader, SqliteStore};

/// One look at all that is stored, and the deletion of what is due of it. See the [module](super) for why in this order.
#[derive(Debug)]
pub struct Pass {
    stores: Vec<Looked>,
}

/// A store that prunes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PrunedStore {
    /// Batch by batch.
    Sqlite(SqliteStore),
    /// File by file.
    Files(FilesStore),
    /// Batch by batch, and the partitions that nothing is in any more.
    #[cfg(feature = "postgres")]
    Postgres(PostgresStore),
    /// Object by object.
    #[cfg(feature = "object")]
    Object(ObjectStore),
}

impl PrunedStore {
    /// Whether it has a server, which may be away.
    pub(crate) fn is_on_server(&self) -> bool {
        match self {
            Self::Sqlite(_) | Self::Files(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => true,
            #[cfg(feature = "object")]
            Self::Object(_) => true,
        }
    }
}

impl From<SqliteStore> for PrunedStore {
    fn from(store: SqliteStore) -> Self {
        Self::Sqlite(store)
    }
}

impl From<FilesStore> for PrunedStore {
    fn from(store: FilesStore) -> Self {
        Self::Files(store)
    }
}

#[cfg(feature = "object")]
impl From<ObjectStore> for PrunedStore {
    fn from(store: ObjectStore) -> Self {
        Self::Object(store)
    }
}

#[cfg(feature = "postgres")]
impl From<PostgresStore> for PrunedStore {
    fn from(store: PostgresStore) -> Self {
        Self::Postgres(store)
    }
}

#[derive(Debug)]
enum Looked {
    Ledger {
        name: StoreName,
        ledger: Ledger,
        stock: Stock,
    },
    Files {
        name: StoreName,
        store: FilesStore,
        reader: FilesReader,
        marks: Vec<Mark>,
    },
    #[cfg(feature = "object")]
    Objects {
        name: StoreName,
        store: ObjectStore,
        holdings: Vec<Arc<Holding>>,
    },
    /// Its server is: the others go on.
    #[cfg(any(feature = "object", feature = "postgres"))]
    Away(StorageError),
}

/// A store that has a row for each batch.
#[derive(Debug)]
enum Ledger {
    Sqlite(SqliteStore, SqliteReader),
    #[cfg(feature = "postgres")]
    Postgres(PostgresStore),
}

impl Ledger {
    /// Begins to look for what is due of a tenant, among what was there then.
    async fn walk(&self, stock: &Stock, asked: Asked) -> Result<Walk, PassError> {
        Ok(match self {
            Self::Sqlite(_, reader) => reader.walk(stock, asked)?,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.walk(stock.newest, asked).await?,
        })
    }

    /// The next that are to go together; none where nothing more is due.
    async fn next_step(&self, walk: &mut Walk) -> Result<Option<Step>, PassError> {
        Ok(match self {
            Self::Sqlite(_, reader) => reader.next_step(walk)?,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.next_step(walk).await?,
        })
    }

    async fn prune(&self, tenant: &TenantId, step: Step) -> Result<Pruned, StorageError> {
        match self {
            Self::Sqlite(store, _) => store.prune(tenant, step).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.prune(tenant, step).await,
        }
    }

    /// Forgets the fences of batches that will not come again.
    async fn forget_fences(&self, batches: Vec<BatchId>) -> Result<(), StorageError> {
        match self {
            Self::Sqlite(store, _) => store.forget_fences(batches).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.forget_fences(batches).await,
        }
    }

    /// Gives back what holds nothing any more, where that is done by the way.
    async fn tidy(&self, now: UnixMillis) -> Result<(), StorageError> {
        #[cfg(not(feature = "postgres"))]
        let _ = now;
        match self {
            Self::Sqlite(..) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.drop_empty_partitions(now).await,
        }
    }
}

/// The journal's word that what is settled is on disk, asked for once. Where it is not given, nothing more is pruned.
struct Settling<F> {
    asked: Option<F>,
    refused: Option<StorageError>,
}

impl<F: Future<Output = Result<(), StorageError>>> Settling<F> {
    async fn settle(&mut self) -> Result<(), StorageError> {
        if let Some(asked) = self.asked.take() {
            self.refused = asked.await.err();
        }
        self.refused.clone().map_or(Ok(()), Err)
    }
}

/// How far what is stored of a tenant is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// All of it.
    Settled,
    /// All but the newest batch in each store.
    InFlight,
    /// An older batch may have to be rolled back yet.
    Owed,
}

/// What a pass pruned, or would.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// By store and tenant, without those of whom nothing is due.
    pub events: Vec<PrunedRow>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Tenants of whom nothing is pruned as long as compensations are owed to them.
    pub held_back: BTreeSet<TenantId>,
}

/// What was pruned of one tenant in one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedRow {
    /// Where.
    pub store: StoreName,
    /// Whose.
    pub tenant: TenantId,
    /// How much.
    #[serde(flatten)]
    pub pruned: Pruned,
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Files(#[from] files::ReadError),
    #[error(transparent)]
    Write(#[from] StorageError),
}

impl Pass {
    /// Takes down what there is. A store whose server is away is passed over: [`run`](Self::run) tells of it.
    ///
    /// # Errors
    /// A store cannot be read.
    pub async fn begin<S: Into<PrunedStore>>(
        stores: impl IntoIterator<Item = (StoreName, S)>,
    ) -> Result<Self, StorageError> {
        let unread = |why: &dyn std::fmt::Display| StorageError::unavailable(why.to_string());
        let mut looked = vec![];
        for (name, store) in stores {
            looked.push(match store.into() {
                PrunedStore::Sqlite(store) => {
                    let reader = SqliteReader::open(store.path()).map_err(|why| unread(&why))?;
                    let stock = reader.stock().map_err(|why| unread(&why))?;
                    Looked::Ledger { name, ledger: Ledger::Sqlite(store, reader), stock }
                }
                PrunedStore::Files(store) => {
                    let reader = FilesReader::open(store.path()).map_err(|why| unread(&why))?;
                    let marks = reader.marks().map_err(|why| unread(&why))?;
                    Looked::Files { name, store, reader, marks }
                }
                #[cfg(feature = "postgres")]
                PrunedStore::Postgres(store) => match store.stock().await {
                    Ok(stock) => Looked::Ledger { name, ledger: Ledger::Postgres(store), stock },
                    Err(why) => Looked::Away(why),
                },
                #[cfg(feature = "object")]
                PrunedStore::Object(store) => match store.stock().await {
                    Ok(holdings) => {
                        Looked::Objects { name, store, holdings: holdings.into_iter().map(Arc::new).collect() }
                    }
                    Err(why) => Looked::Away(why),
                },
            });
        }
        Ok(Self { stores: looked })
    }

    /// Prunes what is due at `now` by the rules of each tenant, whose events are settled as far as it says; all of that was asked
    /// after [`begin`](Self::begin), and `committed` resolves once it is on disk in the journal: it is awaited before the first
    /// step, and where it fails there is none. After each step it waits for a moment. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// A store cannot be read or written: the first of them; the others were pruned all the same. What was pruned is in the report.
    ///
    /// # Cancel safety
    /// May be dropped at any time: a step is done whole or not at all.
    pub async fn run(
        &self,
        now: UnixMillis,
        of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
        committed: impl Future<Output = Result<(), StorageError>>,
        dry_run: bool,
        report: &mut Report,
    ) -> Result<(), StorageError> {
        let mut settling = Settling { asked: Some(committed), refused: None };
        let mut first = Ok(());
        for looked in &self.stores {
            let ran = match looked {
                Looked::Ledger { name, ledger, stock } => {
                    steps_of_ledger((name, ledger, stock), now, &of, &mut settling, dry_run, report).await
                }
                Looked::Files { name, store, reader, marks } => {
                    steps_of_files((name, store, reader, marks), now, &of, &mut settling, dry_run, report).await
                }
                #[cfg(feature = "object")]
                Looked::Objects { name, store, holdings } => {
                    steps_of_objects((name, store, holdings), now, &of, &mut settling, dry_run, report).await
                }
                #[cfg(any(feature = "object", feature = "postgres"))]
                Looked::Away(why) => Err(PassError::Write(why.clone())),
            };
            first = first.and(ran.map_err(|why| match why {
                PassError::Read(why) => StorageError::unavailable(why.to_string()),
                PassError::Files(why) => StorageError::unavailable(why.to_string()),
                PassError::Write(why) => why,
            }));
        }
        first
    }
}

/// By what rules, and how far, unless all of the tenant's is kept, or has to be for now.
fn to_be_pruned(
    tenant: &TenantId,
    of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
    report: &mut Report,
) -> Option<(RetentionPolicy, Rest)> {
    let (rules, rest) = of(tenant);
    if rules.keeps_all() {
        return None;
    }
    if rest == Rest::Owed {
        report.held_back.insert(tenant.clone());
        return None;
    }
    Some((rules, rest))
}

async fn steps_of_files(
    (name, store, reader, marks): (&StoreName, &FilesStore, &FilesReader, &[Mark]),
    now: UnixMillis,
    of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
    settling: &mut Settling<impl Future<Output = Result<(), StorageError>>>,
    dry_run: bool,
    report: &mut Report,
) -> Result<(), PassError> {
    for mark in marks {
        let tenant = &mark.tenant;
        let Some((rules, rest)) = to_be_pruned(tenant, &of, report) else { continue };
        let Some(step) = reader.due(mark, &rules, now, rest)? else { continue };
        let pruned = if dry_run {
            step.holds
        } else {
            settling.settle().await?;
            store.prune(tenant, step).await?
        };
        if pruned != Pruned::default() {
            add(report, name, tenant, pruned);
        }
        if !dry_run {
            tokio::time::sleep(BREATH).await;
        }
    }
    Ok(())
}

#[cfg(feature = "object")]
async fn steps_of_objects(
    (name, store, holdings): (&StoreName, &ObjectStore, &[Arc<Holding>]),
    now: UnixMillis,
    of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
    settling: &mut Settling<impl Future<Output = Result<(), StorageError>>>,
    dry_run: bool,
    report: &mut Report,
) -> Result<(), PassError> {
    let mut first = Ok(());
    for holding in holdings {
        let tenant = &holding.tenant;
        let Some((rules, rest)) = to_be_pruned(tenant, &of, report) else { continue };
        let asked = Asked { tenant: tenant.clone(), rules, now, in_flight: rest == Rest::InFlight };
        if !store.is_to_be_looked_at(holding, &asked) {
            continue;
        }
        if !dry_run {
            settling.settle().await?;
        }
        match store.prune(holding.clone(), asked, dry_run).await {
            Ok(pruned) if pruned != Pruned::default() => add(report, name, tenant, pruned),
            Ok(_) => {}
            // An object of one tenant that is damaged keeps no other from it.
            Err(why) => first = first.and(Err(why)),
        }
    }
    Ok(first?)
}

async fn steps_of_ledger(
    (name, ledger, stock): (&StoreName, &Ledger, &Stock),
    now: UnixMillis,
    of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
    settling: &mut Settling<impl Future<Output = Result<(), StorageError>>>,
    dry_run: bool,
    report: &mut Report,
) -> Result<(), PassError> {
    let mut done_with = vec![];
    for tenant in &stock.tenants {
        let Some((rules, rest)) = to_be_pruned(tenant, &of, report) else { continue };
        let asked = Asked { tenant: tenant.clone(), rules, now, in_flight: rest == Rest::InFlight };
        let mut walk = ledger.walk(stock, asked).await?;
        let mut all = Pruned::default();
        while let Some(step) = ledger.next_step(&mut walk).await? {
            if dry_run {
                all += step.holds;
                continue;
            }
            settling.settle().await?;
            let pruned = ledger.prune(tenant, step).await?;
            all += pruned;
            add(report, name, tenant, pruned);
            // So that a step is never together with the next one.
            tokio::time::sleep(BREATH).await;
        }
        if dry_run && all != Pruned::default() {
            add(report, name, tenant, all);
        }
    }
    for batch in &stock.fences {
        let (rules, rest) = of(&batch.tenant);
        if rest == Rest::Settled && !rules.keeps_all() {
            done_with.push(batch.clone());
        }
    }
    if !dry_run && !done_with.is_empty() {
        settling.settle().await?;
        ledger.forget_fences(done_with).await?;
    }
    if !dry_run {
        ledger.tidy(now).await?;
    }
    Ok(())
}

/// Between two steps others have a turn.
const BREATH: Duration = Duration::from_millis(1);

fn add(report: &mut Report, store: &StoreName, tenant: &TenantId, pruned: Pruned) {
    match report.events.last_mut().filter(|row| (&row.store, &row.tenant) == (store, tenant)) {
        Some(row) => row.pruned += pruned,
        None => report.events.push(PrunedRow { store: store.clone(), tenant: tenant.clone(), pruned }),
    }
}

/// Deletes the dead letters that were given up `max_age` ago, and of each tenant those that `of` says are too old.
pub(crate) async fn prune_letters(
    letters: &SqliteStore,
    max_age: Option<Duration>,
    of: impl Fn(&TenantId) -> Option<Duration>,
    now: UnixMillis,
    dry_run: bool,
    report: &mut Report,
) -> Result<(), StorageError> {
    let unread = |why: ReadError| StorageError::unavailable(why.to_string());
    let before = |age: Duration| UnixMillis(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    let reader = SqliteReader::open(letters.path()).map_err(|why| StorageError::unavailable(why.to_string()))?;
    if let Some(before) = max_age.map(before) {
        if dry_run {
            report.dead_letters += reader.letters_due(before, true).map_err(unread)?;
        }
        while !dry_run && reader.letters_due(before, false).map_err(unread)? > 0 {
            let pruned = letters.prune_letters(before).await?;
            if pruned == 0 {
                break;
            }
            report.dead_letters += pruned;
            tokio::time::sleep(BREATH).await;
        }
    }
    for tenant in reader.letter_owners().map_err(unread)? {
        // What all are held to has gone.
        let Some(age) = of(&tenant).filter(|age| max_age.is_none_or(|max_age| *age < max_age)) else { continue };
        let due = reader.letters_due_of(&tenant, before(age)).map_err(unread)?;
        if dry_run {
            let told = max_age.map_or(Ok(0), |age| reader.letters_due_of(&tenant, before(age)).map_err(unread))?;
            report.dead_letters += due - told.min(due);
            continue;
        }
        let mut left = due;
        while left > 0 {
            let pruned = letters.prune_letters_of(&tenant, before(age)).await?;
            if pruned == 0 {
                break;
            }
            report.dead_letters += pruned;
            left = left.saturating_sub(pruned);
            tokio::time::sleep(BREATH).await;
        }
    }
    Ok(())
}
