use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use headworks_actors::StorageError;

/// Why a store on files was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory is not there and could not be made, or cannot be read.
    #[error("cannot use the directory {} for events: {}", path.display(), explain(why))]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        why: io::Error,
    },
    /// Another process, or another store of this one, writes there.
    #[error("the directory {} is in use by another store; stop it, or choose another directory", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// A reader was asked for a directory that is not there.
    #[error("there is no directory {}; check the path: it is made by the first run that stores to files", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// No thread for the writer.
    #[error("cannot start the thread that writes the files: {0}")]
    Thread(io::Error),
}

/// Why something could not be read from the files of a tenant.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {detail}", path.display())]
pub struct ReadError {
    path: PathBuf,
    detail: String,
}

impl ReadError {
    pub(super) fn new(path: &Path, detail: impl ToString) -> Self {
        Self { path: path.to_owned(), detail: detail.to_string() }
    }
}

/// What the operating system says, with what helps where something does.
fn explain(why: &io::Error) -> String {
    match why.kind() {
        ErrorKind::StorageFull => format!("the disk is full ({why}); make room"),
        ErrorKind::QuotaExceeded => format!("the quota is reached ({why}); make room, or raise it"),
        ErrorKind::ReadOnlyFilesystem => format!("the file system is read-only ({why}); check the system log"),
        ErrorKind::PermissionDenied => format!("{why}; check the owner and the mode of it and of its directory"),
        ErrorKind::FileTooLarge => {
            format!("{why}; stop, move the tenant's directory away, and start again to begin a new file")
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            format!("{why}; was it moved or replaced while in use? Put it back")
        }
        _ if is_disk_failure(why) => format!("the disk failed ({why}); check its health and the system log"),
        _ if is_out_of_files(why) => format!("{why}; raise the limit of open files"),
        _ => why.to_string(),
    }
}

/// EIO and ENXIO, for which `std` has no kind.
fn is_disk_failure(why: &io::Error) -> bool {
    cfg!(unix) && matches!(why.raw_os_error(), Some(5 | 6))
}

/// ENFILE and EMFILE.
fn is_out_of_files(why: &io::Error) -> bool {
    cfg!(unix) && matches!(why.raw_os_error(), Some(23 | 24))
}

/// What it means to a writer that could not do `what` to the file at `path`.
///
/// Nothing that files refuse has to do with what is in a batch: they are there and writable, for whatever comes, or they
/// are not. What has no name here spends an attempt, so that it is not tried for ever.
pub(super) fn storage_error(what: &str, path: &Path, why: &io::Error) -> StorageError {
    let detail = format!("cannot {what} {}: {}", path.display(), explain(why));
    let is_outage = matches!(
        why.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
            | ErrorKind::FileTooLarge
            | ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::StaleNetworkFileHandle
            | ErrorKind::NetworkDown
            | ErrorKind::HostUnreachable
    );
    if is_outage || is_disk_failure(why) || is_out_of_files(why) {
        StorageError::unavailable(detail)
    } else {
        StorageError::transient(detail)
    }
}

/// The files are not as this store left them.
pub(super) fn damaged(path: &Path, how: &str) -> StorageError {
    StorageError::unavailable(format!(
        "{} is not as it was left: {how}; nothing was changed. Restore it, or move the tenant's directory away and restart",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_the_disk_is_an_outage_with_advice() {
        for (errno, says) in [
            (28, "the disk is full"),
            (122, "the quota is reached"),
            (30, "the file system is read-only"),
            (5, "the disk failed"),
            (6, "the disk failed"),
            (13, "check the owner and the mode"),
            (2, "Put it back"),
            (20, "Put it back"),
            (24, "limit of open files"),
            (27, "begin a new file"),
        ] {
            let error = storage_error("write", Path::new("/srv/events"), &io::Error::from_raw_os_error(errno));
            assert!(matches!(error, StorageError::Unavailable { .. }), "{errno}: {error:?}");
            let text = error.to_string();
            assert!(text.starts_with("cannot write /srv/events: ") && text.contains(says), "{text}");
        }
    }

    #[test]
    fn what_has_no_name_spends_an_attempt() {
        let error = storage_error("write", Path::new("x"), &io::Error::other("odd"));
        assert!(matches!(error, StorageError::Transient { .. }), "{error:?}");
    }
}
