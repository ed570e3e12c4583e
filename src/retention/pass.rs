use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use headworks_actors::{RetentionPolicy, StorageError, StoreName, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::Pruned;
use crate::store::files::{self, Mark};
use crate::store::sqlite::{ReadError, Stock};
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

#[derive(Debug)]
enum Looked {
    Sqlite { name: StoreName, store: SqliteStore, reader: SqliteReader, stock: Stock },
    Files { name: StoreName, store: FilesStore, reader: FilesReader, marks: Vec<Mark> },
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
    /// Takes down what there is.
    ///
    /// # Errors
    /// A store cannot be read.
    pub fn begin<S: Into<PrunedStore>>(stores: impl IntoIterator<Item = (StoreName, S)>) -> Result<Self, StorageError> {
        let look = |(name, store): (StoreName, S)| {
            let unread = |why: &dyn std::fmt::Display| StorageError::unavailable(why.to_string());
            Ok(match store.into() {
                PrunedStore::Sqlite(store) => {
                    let reader = SqliteReader::open(store.path()).map_err(|why| unread(&why))?;
                    let stock = reader.stock().map_err(|why| unread(&why))?;
                    Looked::Sqlite { name, store, reader, stock }
                }
                PrunedStore::Files(store) => {
                    let reader = FilesReader::open(store.path()).map_err(|why| unread(&why))?;
                    let marks = reader.marks().map_err(|why| unread(&why))?;
                    Looked::Files { name, store, reader, marks }
                }
            })
        };
        Ok(Self { stores: stores.into_iter().map(look).collect::<Result<_, StorageError>>()? })
    }

    /// Prunes what is due at `now` by the rules of each tenant, whose events are settled as far as it says; all of that was asked
    /// after [`begin`](Self::begin), and `committed` resolves once it is on disk in the journal: it is awaited before the first
    /// step, and where it fails there is none. After each step it waits for a moment. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// A store cannot be read or written. What was pruned until then is pruned, and in the report.
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
        let mut committed = Some(committed);
        let ran = self.steps(now, of, &mut committed, dry_run, report).await;
        ran.map_err(|why| match why {
            PassError::Read(why) => StorageError::unavailable(why.to_string()),
            PassError::Files(why) => StorageError::unavailable(why.to_string()),
            PassError::Write(why) => why,
        })
    }

    async fn steps(
        &self,
        now: UnixMillis,
        of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
        committed: &mut Option<impl Future<Output = Result<(), StorageError>>>,
        dry_run: bool,
        report: &mut Report,
    ) -> Result<(), PassError> {
        for looked in &self.stores {
            match looked {
                Looked::Sqlite { name, store, reader, stock } => {
                    let looked = (name, store, reader, stock);
                    steps_of_sqlite(looked, now, &of, committed, dry_run, report).await?;
                }
                Looked::Files { name, store, reader, marks } => {
                    steps_of_files((name, store, reader, marks), now, &of, committed, dry_run, report).await?;
                }
            }
        }
        Ok(())
    }
}

async fn steps_of_files(
    (name, store, reader, marks): (&StoreName, &FilesStore, &FilesReader, &[Mark]),
    now: UnixMillis,
    of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
    committed: &mut Option<impl Future<Output = Result<(), StorageError>>>,
    dry_run: bool,
    report: &mut Report,
) -> Result<(), PassError> {
    for mark in marks {
        let tenant = &mark.tenant;
        let (rules, rest) = of(tenant);
        if rules.keeps_all() {
            continue;
        }
        if rest == Rest::Owed {
            report.held_back.insert(tenant.clone());
            continue;
        }
        let Some(step) = reader.due(mark, &rules, now, rest)? else { continue };
        let pruned = if dry_run {
            step.holds
        } else {
            settle(committed).await?;
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

async fn steps_of_sqlite(
    (name, store, reader, stock): (&StoreName, &SqliteStore, &SqliteReader, &Stock),
    now: UnixMillis,
    of: impl Fn(&TenantId) -> (RetentionPolicy, Rest),
    committed: &mut Option<impl Future<Output = Result<(), StorageError>>>,
    dry_run: bool,
    report: &mut Report,
) -> Result<(), PassError> {
    let mut done_with = vec![];
    for tenant in &stock.tenants {
        let (rules, rest) = of(tenant);
        if rules.keeps_all() {
            continue;
        }
        if rest == Rest::Owed {
            report.held_back.insert(tenant.clone());
            continue;
        }
        let mut walk = reader.walk(stock, tenant, &rules, now, rest == Rest::InFlight)?;
        let mut all = Pruned::default();
        while let Some(step) = reader.next_step(&mut walk)? {
            if dry_run {
                all += step.holds;
                continue;
            }
            settle(committed).await?;
            let pruned = store.prune(tenant, step).await?;
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
        settle(committed).await?;
        store.forget_fences(done_with).await?;
    }
    Ok(())
}

/// Between two steps others have a turn.
const BREATH: Duration = Duration::from_millis(1);

async fn settle(committed: &mut Option<impl Future<Output = Result<(), StorageError>>>) -> Result<(), StorageError> {
    match committed.take() {
        Some(committed) => committed.await,
        None => Ok(()),
    }
}

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
