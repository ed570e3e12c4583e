use std::path::Path;

use headworks_actors::{DeadLetter, DeadLetterPage, DeadLetterQuery, Opening};

use super::{FilesReader, SqliteReader, files, sqlite};
use crate::audit::Holdings;
use crate::store::files::FILES;
use crate::store::sqlite::TenantTotals;

/// Reads what a data directory holds, whatever its store is or was: the database with the dead letters, and the files of
/// tenants beside it. Also while a daemon writes to it; never writes to it.
///
/// For commands and tools: calls block.
#[derive(Debug)]
pub struct StoreReader {
    database: SqliteReader,
    files: Option<FilesReader>,
}

/// Why the stores of a data directory cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreReadError(String);

impl From<sqlite::ReadError> for StoreReadError {
    fn from(why: sqlite::ReadError) -> Self {
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
        let unread = |why: &dyn std::fmt::Display| StoreReadError(why.to_string());
        let database = SqliteReader::open(data_dir.join("headworks.db")).map_err(|why| unread(&why))?;
        let files = data_dir.join(FILES);
        let files = if files.exists() { Some(FilesReader::open(files).map_err(|why| unread(&why))?) } else { None };
        Ok(Self { database, files })
    }

    /// The totals of every tenant that has an event or a dead letter, by name.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantTotals>, StoreReadError> {
        let mut tenants = self.database.tenants()?;
        for of_files in self.files.as_ref().map_or_else(|| Ok(vec![]), FilesReader::tenants)? {
            let place = match tenants.binary_search_by(|totals| totals.tenant.cmp(&of_files.tenant)) {
                Ok(place) => place,
                Err(place) => {
                    tenants.insert(place, TenantTotals::none(of_files.tenant.clone()));
                    place
                }
            };
            let totals = &mut tenants[place];
            totals.events += of_files.events;
            totals.batches += of_files.batches;
            totals.first_arrived = totals.first_arrived.into_iter().chain(of_files.first_arrived).min();
            totals.last_arrived = totals.last_arrived.max(of_files.last_arrived);
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
        for (tenant, stored, whole) in self.files.as_ref().map_or_else(|| Ok(vec![]), |files| files.held(events))? {
            let held = holdings.tenants.entry(tenant).or_default();
            held.events += stored;
            held.rows += whole;
        }
        Ok(holdings)
    }
}
