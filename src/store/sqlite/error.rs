use std::path::{Path, PathBuf};

use headworks_actors::StorageError;
use rusqlite::ErrorCode;

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is not there and could not be created.
    #[error("cannot create the database {}: {source}; its directory must exist and be writable", path.display())]
    Create {
        /// The database.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A reader was asked for a file that is not there.
    #[error("there is no database at {}; check the path: it is created by the first run that stores to it", path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{} is not a SQLite database; it was left as it is: move it away or choose another path", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file is a database, but not one of ours.
    #[error("{} is a SQLite database, but not of headworks; it was left as it is: choose another path", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// A later version of headworks wrote it.
    #[error(
        "the database {} has schema version {found}, but this headworks knows only {known}; it was left as it is: \
         run the newer headworks, or choose another path",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The schema version of this program.
        known: i64,
    },
    /// The file system cannot share the memory that a write-ahead log needs.
    #[error(
        "the database {} cannot keep a write-ahead log (journal mode stays {mode:?}); put it on a local file system",
        path.display()
    )]
    NoWal {
        /// The database.
        path: PathBuf,
        /// The journal mode it has instead.
        mode: String,
    },
    /// The directory of the segments cannot be used.
    #[error("cannot use the segments {}: {source}; check the owner and the mode of the directory and its files", path.display())]
    Segments {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another store writes to the segments.
    #[error("the segments {} are in use by another process or store; stop it, or choose another path", path.display())]
    SegmentsInUse {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else holds it, and has not let go of it within the busy timeout.
    #[error(
        "the database {} is locked by another process, like a backup tool, or an SQLite shell with a transaction open; end it, or try again",
        path.display()
    )]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// SQLite refused for some other reason.
    #[error("cannot open the database {}: {detail}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said, and what helps.
        detail: String,
    },
    /// No thread for the writer.
    #[error("cannot start the thread that writes to the database: {0}")]
    Thread(std::io::Error),
}

impl OpenError {
    pub(super) fn sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            _ => Self::Sqlite { path, detail: explain(error) },
        }
    }
}

/// Why something could not be read from a database or its segments.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the {what} {}: {detail}", path.display())]
pub struct ReadError {
    what: &'static str,
    path: PathBuf,
    detail: String,
}

impl ReadError {
    pub(super) fn new(path: &Path, error: &rusqlite::Error) -> Self {
        Self { what: "database", path: path.to_owned(), detail: explain(error) }
    }

    pub(super) fn of_segment(path: &Path, detail: String) -> Self {
        Self { what: "segment", path: path.to_owned(), detail }
    }
}

/// What SQLite says, with what helps where something does.
fn explain(error: &rusqlite::Error) -> String {
    if let rusqlite::Error::StatementChangedRows(rows) = error {
        return format!("{rows} rows were inserted, not one for each event; is there a trigger on the table?");
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("the database is locked by another process ({error}); stop it, or try again")
        }
        Some(ErrorCode::DiskFull) => format!("the disk is full ({error}); make room"),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!("the database is not writable ({error}); check the owner and the mode of it and of its directory")
        }
        Some(ErrorCode::CannotOpen) => {
            format!("{error}; check the owner and the mode of the database and of its directory")
        }
        Some(ErrorCode::SystemIoFailure) => format!("the disk failed ({error}); check its health and the system log"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("the database is damaged ({error}); restore it, or move it away to begin a new one")
        }
        _ => error.to_string(),
    }
}

/// Whether the store as a whole fails, whatever it is asked.
pub(super) fn is_outage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// What SQLite's error means to a writer that was about to do `what`.
pub(super) fn storage_error(what: &str, path: &Path, error: &rusqlite::Error) -> StorageError {
    let detail = format!("cannot {what} in {}: {}", path.display(), explain(error));
    match error.sqlite_error_code() {
        _ if is_outage(error) => StorageError::unavailable(detail),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            StorageError::permanent(detail)
        }
        _ => StorageError::transient(detail),
    }
}
