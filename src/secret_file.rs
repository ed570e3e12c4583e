//! Files that hold a secret.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The text of the file, or its first `most` bytes where it is longer.
///
/// # Errors
/// The file cannot be read, is no UTF-8, or others than its owner and group may read it or others than its owner write it.
pub(crate) fn read(path: &Path, most: usize) -> io::Result<String> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o027 != 0 {
        let why = format!("its mode is {:04o}: others may use it; chmod 600 {}", mode & 0o7777, path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut text = String::new();
    file.take(most as u64).read_to_string(&mut text)?;
    Ok(text)
}
