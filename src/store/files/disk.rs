//! Every call that changes the disk, so that a test can let each of them fail.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Opens a file to read and write it, for its owner alone where it is made.
pub(in crate::store) fn open(path: &Path, create: bool) -> io::Result<File> {
    step()?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a directory for its owner alone, if it is not there.
pub(in crate::store) fn make_dir(path: &Path) -> io::Result<()> {
    step()?;
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

pub(in crate::store) fn write_at(mut file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    if let Err(why) = step() {
        // What a disk does that fills up on the way.
        file.write_all(&bytes[..bytes.len() / 2])?;
        return Err(why);
    }
    file.write_all(bytes)
}

/// The bytes are on the disk once this returns, and so is the length of the file.
pub(in crate::store) fn sync(file: &File) -> io::Result<()> {
    step()?;
    file.sync_data()
}

/// What is in the directory is on the disk once this returns.
pub(in crate::store) fn sync_dir(path: &Path) -> io::Result<()> {
    step()?;
    // Elsewhere a directory cannot be opened, and need not be synced.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

pub(in crate::store) fn set_len(file: &File, len: u64) -> io::Result<()> {
    step()?;
    file.set_len(len)
}

/// Puts a file in the place of another.
#[cfg(feature = "sqlite")]
pub(in crate::store) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    std::fs::rename(from, to)
}

pub(in crate::store) fn remove(path: &Path) -> io::Result<()> {
    step()?;
    std::fs::remove_file(path)
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "it fails in tests")]
fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(in crate::store) use failing::fail_after;

#[cfg(test)]
use failing::step;

#[cfg(test)]
mod failing {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
        static FAIL: Cell<(u64, u64)> = const { Cell::new((u64::MAX, 0)) };
    }

    /// Lets `times` steps of this thread fail, after so many more that do not.
    pub(crate) fn fail_after(good: u64, times: u64) {
        FAIL.set((steps().saturating_add(good), times));
    }

    fn steps() -> u64 {
        STEPS.get()
    }

    pub(super) fn step() -> io::Result<()> {
        let (at, times) = FAIL.get();
        let now = STEPS.replace(steps() + 1);
        if now >= at && now - at < times {
            const ENOSPC: i32 = 28;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Ok(())
    }
}
