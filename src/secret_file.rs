//! Files that hold a secret.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What is in the file, or its first `most` bytes where it is longer.
///
/// # Errors
/// The file cannot be read, or others than its owner and group may read it or others than its owner write it.
pub(crate) fn bytes(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o027 != 0 {
        let why = format!("its mode is {:04o}: others may use it; chmod 600 {}", mode & 0o7777, path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut bytes = vec![];
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same as a text.
///
/// # Errors
/// The same, and it is no UTF-8.
#[cfg(any(feature = "sqlite", feature = "http", feature = "nats", feature = "tls"))]
pub(crate) fn read(path: &Path, most: usize) -> io::Result<String> {
    let bytes = bytes(path, most)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8"))
}

/// The largest password, in bytes, and the largest file of credentials.
#[cfg(any(feature = "mqtt", feature = "nats", feature = "sqlite"))]
pub(crate) const MOST: usize = 64 << 10;
