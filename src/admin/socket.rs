use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The longest path that a Unix socket may have, in bytes, with the end mark that C wants not counted.
const MAX_LEN: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The name of the control socket of a data directory, as the operating system takes it.
///
/// The operating system wants no path longer than 107 bytes (Linux). For a longer one, on Linux, this holds the directory
/// open and names the socket by way of it: `/proc/self/fd/5/control.sock`.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    bound: PathBuf,
    _directory: Option<File>,
}

impl Address {
    /// The address in `data_dir`, which must be there.
    ///
    /// # Errors
    /// The path is too long and there is no way around it, or the directory cannot be opened.
    pub fn of(data_dir: &Path) -> io::Result<Self> {
        let path = std::path::absolute(data_dir)?.join("control.sock");
        if path.as_os_str().len() <= MAX_LEN {
            return Ok(Self { bound: path.clone(), path, _directory: None });
        }
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let directory = File::open(data_dir)?;
            let bound = PathBuf::from(format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd()));
            Ok(Self { path, bound, _directory: Some(directory) })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let why = format!("{} is longer than the {MAX_LEN} bytes that a socket's path may have", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, why + "; choose a shorter data directory"))
        }
    }

    /// The path, for people and for everything but the socket calls.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path to bind or connect to, as long as this lives.
    #[must_use]
    pub fn bound(&self) -> &Path {
        &self.bound
    }
}
