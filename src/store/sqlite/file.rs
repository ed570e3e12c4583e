use std::path::Path;

use headworks_actors::StorageError;

/// Which file a path named when it was opened.
///
/// SQLite goes on writing to a database that was removed or replaced under it, and everything written from then on is
/// gone with the process. One look at the path before each commit prevents that.
#[derive(Debug)]
pub(super) struct Identity {
    #[cfg(unix)]
    opened: Option<(u64, u64)>,
}

impl Identity {
    #[cfg(unix)]
    pub(super) fn of(path: &Path) -> Self {
        Self { opened: inode(path) }
    }

    #[cfg(unix)]
    pub(super) fn check(&self, path: &Path) -> Result<(), StorageError> {
        if inode(path) == self.opened {
            return Ok(());
        }
        Err(StorageError::unavailable(format!(
            "the database {} was removed or replaced while it is in use; put it back or restart to begin a new one",
            path.display()
        )))
    }

    #[cfg(not(unix))]
    pub(super) fn of(_path: &Path) -> Self {
        Self {}
    }

    #[cfg(not(unix))]
    pub(super) fn check(&self, _path: &Path) -> Result<(), StorageError> {
        Ok(())
    }
}

#[cfg(unix)]
fn inode(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
