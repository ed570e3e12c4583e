use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::DaemonError;

const LOCK: &str = "headworks.lock";

/// How long a daemon that starts waits for a command that reads the directory's files.
const PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(20);

/// A data directory that this process alone writes to, until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, readable by its owner alone, and takes its lock; waits some seconds for commands
    /// that read there.
    ///
    /// # Errors
    /// It cannot be made, or another process writes there.
    pub fn open(path: &Path) -> Result<Self, DaemonError> {
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
        let mut lock = options.open(path.join(LOCK)).map_err(cannot)?;
        let mut waiting = None;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(why)) => return Err(cannot(why)),
                Err(TryLockError::WouldBlock) if !is_read(&lock) => {
                    let holder = holder(&mut lock);
                    return Err(DaemonError::InUse { path: path.to_owned(), holder });
                }
                Err(TryLockError::WouldBlock) => {
                    let since = *waiting.get_or_insert_with(|| {
                        tracing::info!(target: "headworks", "waiting for a command that reads the data directory");
                        Instant::now()
                    });
                    if since.elapsed() < PATIENCE {
                        std::thread::sleep(GLANCE);
                        continue;
                    }
                    let holder = "another headworks command, which reads it".to_owned();
                    return Err(DaemonError::InUse { path: path.to_owned(), holder });
                }
            }
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(cannot)?;
        Ok(Self { _lock: lock })
    }
}

/// Whether nobody writes there.
fn is_read(lock: &File) -> bool {
    // Given back at once: what is wanted is the other one.
    lock.try_lock_shared().and_then(|()| lock.unlock().map_err(TryLockError::Error)).is_ok()
}

fn holder(lock: &mut File) -> String {
    let mut pid = String::new();
    match lock.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
        _ => "another process".to_owned(),
    }
}

/// What a data directory is found as by somebody who does not write there.
#[derive(Debug)]
pub enum Found {
    /// No daemon writes there, and none will as long as this is kept: its files may be read.
    AtRest(AtRest),
    /// A daemon writes there. Its files are not to be read; ask it on its control socket.
    InUse {
        /// Which process, as far as it said so.
        holder: String,
    },
}

/// Keeps a daemon from writing to the directory.
#[derive(Debug)]
pub struct AtRest {
    /// None where no daemon was ever there.
    _lock: Option<File>,
}

impl Found {
    /// Looks, and makes nothing. A daemon that starts while an [`AtRest`] is kept waits for some seconds.
    ///
    /// # Errors
    /// The lock cannot be read.
    pub fn look(data_dir: &Path) -> io::Result<Self> {
        let mut lock = match File::open(data_dir.join(LOCK)) {
            Ok(lock) => lock,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Self::AtRest(AtRest { _lock: None })),
            Err(why) => return Err(why),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self::AtRest(AtRest { _lock: Some(lock) })),
            Err(TryLockError::WouldBlock) => Ok(Self::InUse { holder: holder(&mut lock) }),
            Err(TryLockError::Error(why)) => Err(why),
        }
    }
}
