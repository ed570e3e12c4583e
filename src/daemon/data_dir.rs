use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::DaemonError;

/// A data directory that this process alone writes to, until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, readable by its owner alone, and takes its lock.
    pub(super) fn open(path: &Path) -> Result<Self, DaemonError> {
        let cannot = |why| DaemonError::DataDir { path: path.to_owned(), why };
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
            builder.mode(0o700);
            options.mode(0o600);
        }
        builder.create(path).map_err(cannot)?;
        let mut lock = options.open(path.join("headworks.lock")).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(why)) => return Err(cannot(why)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let holder = match lock.read_to_string(&mut pid) {
                    Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
                    _ => "another process".to_owned(),
                };
                return Err(DaemonError::InUse { path: path.to_owned(), holder });
            }
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(cannot)?;
        Ok(Self { _lock: lock })
    }
}
