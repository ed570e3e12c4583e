//! The data directory that a command is about: its files where no daemon writes there, else the daemon.

use std::path::{Path, PathBuf};

use headworks::DeadLetterQuery;
use headworks::admin::{Inspect, JournalFiles, Letter, TenantRow};
use headworks::audit::{Account, Audit, Books, Scope, audit};
use headworks::config::{Config, environment};
use headworks::daemon::{AtRest, Found};
use headworks::store::{StoreReadError, StoreReader};

use super::exit::Exit;
use super::live::{Live, NoAnswer, encoded};

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

fn open(data_dir: &Path) -> Result<StoreReader, Failure> {
    let file = data_dir.join("headworks.db");
    if !file.exists() {
        let why =
            format!("there is no {}: name the directory that `headworks run --data DIR` writes to", file.display());
        return Err((Exit::Failure, why));
    }
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
    /// What it holds, by tenant.
    pub(crate) fn tenants(&self) -> Result<Vec<TenantRow>, Failure> {
        match self {
            Self::Live(live) => {
                let mut rows: Vec<TenantRow> = live.get("/v1/tenants")?;
                rows.retain(TenantRow::is_stored);
                Ok(rows)
            }
            Self::Files { store, .. } => headworks::admin::rows(store).map_err(unread),
        }
    }

    pub(crate) fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Vec<Letter>, Failure> {
        match self {
            Self::Live(live) => {
                let tenant = query.tenant.as_ref().map(|tenant| format!("&tenant={}", encoded(tenant.as_str())));
                let reason = query.code.map(|code| format!("&reason={code}"));
                let more = tenant.unwrap_or_default() + &reason.unwrap_or_default();
                Ok(live.get(&format!("/v1/dead-letters?limit={}{more}", query.limit))?)
            }
            Self::Files { store, .. } => {
                Ok(store.dead_letters(query).map_err(unread)?.iter().map(Letter::from).collect())
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
    let accounts = journal.tenants.into_iter().map(|told| {
        let books = Books { frames: None, events: told.events };
        Account::at_rest(told.tenant, books)
    });
    let mut audit = audit(Scope::Journal, Some(accounts.collect()), None, &holdings);
    let damage = journal.damage.into_iter();
    audit.unchecked.extend(damage.map(|damage| format!("what the journal lost by damage: {damage}")));
    Ok(audit)
}
