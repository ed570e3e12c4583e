//! The data directory that a command is about: its files where no daemon writes there, else the daemon.

use std::io::Write;
use std::path::{Path, PathBuf};

use headworks::admin::{
    ExportRequest, Inspect, JournalFiles, Letter, LetterFilter, PurgeRequest, Purged, ReplayRequest, TenantRow,
    UncompensatedRow, edited, export_letters,
};
use headworks::audit::{Account, Audit, Books, Scope, audit};
use headworks::config::{Config, environment};
use headworks::daemon::{AtRest, DaemonError, DataDir, Found};
use headworks::source::ReplayReport;
use headworks::store::{SqliteOptions, SqliteStore, StoreReadError, StoreReader};
use headworks::{DeadLetterQuery, DeadLetters, StorageError};

use super::exit::Exit;
use super::live::{Live, NoAnswer, encoded};
use super::tenants::Listed;

/// Which data directory.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Data {
    /// The data directory [default: daemon.data_dir of the configuration, else headworks-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The configuration that the daemon runs with
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

type Failure = (Exit, String);

/// Who answers for the directory.
pub(crate) enum Directory {
    /// The daemon that writes there.
    Live(Live),
    /// Its files, which nobody writes as long as this is kept.
    Files(AtRest),
}

impl Data {
    /// Where it is.
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => Config::load(self.config.as_deref(), environment())
                .map(|config| config.daemon.data_dir)
                .map_err(|why| (Exit::Config, why.to_string())),
        }
    }

    /// The file of the configuration, where one is named.
    pub(super) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Finds out who answers for it. A daemon that writes there and does not answer is an error: its files are not read.
    pub(crate) fn directory(&self) -> Result<(PathBuf, Directory), Failure> {
        let path = self.path()?;
        let found = Found::look(&path)
            .map_err(|why| (Exit::Io, format!("cannot look whether a daemon writes to {}: {why}", path.display())))?;
        let directory = match found {
            Found::AtRest(at_rest) => Directory::Files(at_rest),
            Found::InUse { holder } => Directory::Live(Live::greet(&path, holder)?),
        };
        Ok((path, directory))
    }

    /// The store in it.
    pub(crate) fn open(&self) -> Result<Store, Failure> {
        Ok(match self.directory()? {
            (_, Directory::Live(live)) => Store::Live(live),
            (path, Directory::Files(at_rest)) => Store::Files { store: open(&path)?, path, _at_rest: at_rest },
        })
    }
}

impl Data {
    /// Replays, which a daemon alone can do.
    pub(crate) fn replay(&self, request: &ReplayRequest) -> Result<ReplayReport, Failure> {
        match self.directory()? {
            (_, Directory::Live(live)) => Ok(live.send("POST", "/v1/dead-letters/replay", request)?),
            (path, Directory::Files(_)) => {
                database(&path)?;
                let path = path.display();
                let why = format!(
                    "replayed events go the normal way in, and no daemon runs on {path}: start `headworks run --data {path}`, and try again"
                );
                Err((Exit::Unavailable, why))
            }
        }
    }

    /// Purges, or says how many that would be.
    pub(crate) fn purge(&self, request: &PurgeRequest) -> Result<Purged, Failure> {
        match self.directory()? {
            (_, Directory::Live(live)) => Ok(live.send("POST", "/v1/dead-letters/purge", request)?),
            (path, Directory::Files(at_rest)) => {
                let query = asked(&request.which)?;
                if request.dry_run {
                    let letters = open(&path)?.count_dead_letters(&query).map_err(unread)?;
                    return Ok(Purged { letters });
                }
                let purged = change(&path, at_rest, async |letters| letters.purge(&query).await)?;
                Ok(Purged { letters: purged })
            }
        }
    }

    /// Edits a letter; false where there is none.
    pub(crate) fn edit(&self, id: &str, body: Vec<u8>) -> Result<bool, Failure> {
        match self.directory()? {
            (_, Directory::Live(live)) => {
                match live.put::<Letter>(&format!("/v1/dead-letters/{}", encoded(id)), body) {
                    Ok(_) => Ok(true),
                    Err(NoAnswer::Refused(problem)) if problem.status == 404 => Ok(false),
                    Err(why) => Err(why.into()),
                }
            }
            (path, Directory::Files(at_rest)) => {
                let done = change(&path, at_rest, async |letters| edited(letters, id, body.into()).await)?;
                done.map_err(|why| (Exit::Failure, why))
            }
        }
    }

    /// Writes dead letters, as they are read.
    pub(crate) fn export_letters(&self, request: &ExportRequest, out: &mut dyn Write) -> Result<Exit, Failure> {
        match self.directory()? {
            (_, Directory::Live(live)) => {
                let copied = live.copy_sent("/v1/dead-letters/export", request, out)?;
                Ok(Exit::after_writing(copied))
            }
            (path, Directory::Files(_at_rest)) => {
                let (store, query) = (open(&path)?, asked(&request.which)?);
                let written = export_letters(&store, &query, request.form, out).and_then(|()| out.flush());
                Ok(Exit::after_writing(written))
            }
        }
    }
}

/// Changes dead letters at rest, as the one process that writes there.
fn change<T>(
    path: &Path,
    at_rest: AtRest,
    change: impl AsyncFnOnce(&SqliteStore) -> Result<T, StorageError>,
) -> Result<T, Failure> {
    database(path)?;
    // The lock of a reader would be in the way of a writer's.
    drop(at_rest);
    let _alone = DataDir::open(path).map_err(|why| match &why {
        DaemonError::InUse { .. } => (Exit::Unavailable, why.to_string()),
        _ => (Exit::Io, why.to_string()),
    })?;
    let letters = SqliteStore::open(path.join("headworks.db"), SqliteOptions::default());
    let letters = letters.map_err(|why| (Exit::Io, why.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| (Exit::Internal, format!("cannot start a runtime: {why}")))?;
    let done = runtime.block_on(async {
        let done = change(&letters).await?;
        letters.close().await?;
        Ok(done)
    });
    done.map_err(|why: StorageError| (Exit::Io, why.to_string()))
}

fn asked(filter: &LetterFilter) -> Result<DeadLetterQuery, Failure> {
    filter.query().map_err(|why| (Exit::Failure, why))
}

/// The database, if it is there.
pub(super) fn database(data_dir: &Path) -> Result<PathBuf, Failure> {
    let file = data_dir.join("headworks.db");
    if file.exists() {
        return Ok(file);
    }
    let why = format!("there is no {}: name the directory that `headworks run --data DIR` writes to", file.display());
    Err((Exit::Failure, why))
}

fn open(data_dir: &Path) -> Result<StoreReader, Failure> {
    database(data_dir)?;
    StoreReader::open(data_dir).map_err(|why| (Exit::Io, why.to_string()))
}

/// The store of a data directory.
pub(crate) enum Store {
    Live(Live),
    Files {
        store: StoreReader,
        path: PathBuf,
        /// Kept for as long as the files are read.
        _at_rest: AtRest,
    },
}

fn unread(why: StoreReadError) -> Failure {
    (Exit::Io, why.to_string())
}

impl Store {
    /// Every tenant that is known, and what is known of it; at rest by store and journal.
    pub(crate) fn tenants(&self) -> Result<Vec<Listed>, Failure> {
        match self {
            Self::Live(live) => {
                live.warn_unless_ready();
                Ok(live.get("/v1/tenants")?)
            }
            Self::Files { store, path, .. } => {
                let rows = headworks::admin::rows(store).map_err(unread)?;
                let mut listed: Vec<_> = rows.into_iter().map(|row| Listed { row, live: None }).collect();
                let journal = path.join("journal");
                if journal.is_dir() {
                    let summary = JournalFiles::new(journal).summary().map_err(|why| (Exit::Io, why.to_string()))?;
                    for told in summary.tenants {
                        let numbers =
                            serde_json::to_value(told.events).ok().and_then(|events| events.as_object().cloned());
                        let tenant = Some(told.tenant);
                        match listed.iter_mut().find(|known| known.row.tenant == tenant) {
                            Some(known) => known.live = numbers,
                            None => {
                                let unread = tenant.as_ref().is_some_and(|tenant| store.is_unread(tenant));
                                let row = TenantRow { tenant, unread, ..TenantRow::default() };
                                listed.push(Listed { row, live: numbers });
                            }
                        }
                    }
                    // What is of no tenant stays last.
                    listed.sort_by_key(|one| (one.row.tenant.is_none(), one.row.tenant.clone()));
                }
                Ok(listed)
            }
        }
    }

    pub(crate) fn dead_letters(&self, filter: &LetterFilter) -> Result<Vec<Letter>, Failure> {
        match self {
            Self::Live(live) => {
                let LetterFilter { ids: _, tenant, reason, since, until, replayed, limit } = filter;
                let fields = [
                    ("tenant", tenant.as_ref().map(ToString::to_string)),
                    ("reason", reason.clone()),
                    ("since", since.map(|at| at.to_string())),
                    ("until", until.map(|at| at.to_string())),
                    ("replayed", replayed.map(|replayed| replayed.to_string())),
                    ("limit", limit.map(|limit| limit.to_string())),
                ];
                let set = fields.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
                Ok(live.get(&format!("/v1/dead-letters?{}", set.collect::<Vec<_>>().join("&")))?)
            }
            Self::Files { store, .. } => {
                let query = asked(filter)?;
                Ok(store.dead_letters(&query).map_err(unread)?.iter().map(Letter::from).collect())
            }
        }
    }

    pub(crate) fn dead_letter(&self, id: &str) -> Result<Option<Letter>, Failure> {
        match self {
            Self::Live(live) => match live.get(&format!("/v1/dead-letters/{}", encoded(id))) {
                Ok(letter) => Ok(Some(letter)),
                Err(NoAnswer::Refused(problem)) if problem.status == 404 => Ok(None),
                Err(why) => Err(why.into()),
            },
            Self::Files { store, .. } => Ok(store.dead_letter(id).map_err(unread)?.as_ref().map(Letter::from)),
        }
    }

    pub(crate) fn audit(&self) -> Result<Audit, Failure> {
        match self {
            Self::Live(live) => Ok(live.get("/v1/audit")?),
            Self::Files { store, path, .. } => at_rest(store, &path.join("journal")),
        }
    }
}

/// The audit of files that nobody writes: against the durable journal, if there is one.
fn at_rest(store: &StoreReader, journal: &Path) -> Result<Audit, Failure> {
    let holdings = store.holdings(None, None).map_err(unread)?;
    if !journal.is_dir() {
        return Ok(audit(Scope::Store, None, None, &holdings));
    }
    let journal = JournalFiles::new(journal.to_owned()).summary().map_err(|why| (Exit::Io, why.to_string()))?;
    let owed: Vec<_> = journal.tenants.iter().flat_map(|told| told.uncompensated.clone()).collect();
    let accounts = journal.tenants.into_iter().map(|told| {
        let books = Books { frames: None, events: told.events };
        Account::at_rest(told.tenant, books)
    });
    let mut audit = audit(Scope::Journal, Some(accounts.collect()), None, &holdings);
    audit.unchecked.extend(UncompensatedRow::unchecked(&owed));
    let damage = journal.damage.into_iter();
    audit.unchecked.extend(damage.map(|damage| format!("what the journal lost by damage: {damage}")));
    Ok(audit)
}
