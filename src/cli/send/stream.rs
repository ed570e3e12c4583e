use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use headworks::StreamId;

/// How much of a file's first line tells it from another, in bytes.
const TELLING: u64 = 64 << 10;

/// The stream id of a file: the same for the same file on the same machine, also after it was renamed or has grown; another
/// for a file that replaces it, or that begins with another line.
///
/// # Errors
/// The file cannot be read.
pub(super) fn of_file(path: &Path) -> io::Result<StreamId> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mut begin = vec![];
    file.take(TELLING).read_to_end(&mut begin)?;
    let line = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    // Where the machine has no name to be found, the file alone must do.
    let machine = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let place = [meta.dev().to_le_bytes(), meta.ino().to_le_bytes()].concat();
    let hash = [&machine[..], &place, line].into_iter().fold(FNV_OFFSET, |hash, part| fnv(fnv(hash, part), &[0xff]));
    StreamId::new(&format!("file-{hash:016x}")).map_err(io::Error::other)
}

/// A stream id that nobody else has.
///
/// # Errors
/// None.
pub(super) fn random() -> io::Result<StreamId> {
    StreamId::new(&format!("input-{:032x}", fastrand::u128(..))).map_err(io::Error::other)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: a hash that stays the same in every version of everything.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_stream_while_it_grows_and_is_renamed_and_another_file_has_another() {
        let place = tempfile::tempdir().unwrap();
        let (log, old) = (place.path().join("log"), place.path().join("log.1"));
        fs::write(&log, "first\n").unwrap();
        let id = of_file(&log).unwrap();
        fs::write(&log, "first\nsecond\n").unwrap();
        assert_eq!(of_file(&log).unwrap(), id);
        fs::rename(&log, &old).unwrap();
        assert_eq!(of_file(&old).unwrap(), id);
        fs::write(&log, "first\n").unwrap();
        assert_ne!(of_file(&log).unwrap(), id);
        fs::write(&old, "other\nsecond\n").unwrap();
        assert_ne!(of_file(&old).unwrap(), id);
    }

    #[test]
    fn an_input_that_is_no_file_has_a_new_stream_each_time() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
