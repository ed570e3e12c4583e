//! What there is to know of the disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::Result;

const WRITES: usize = 200;
const WRITE: usize = 64 << 10;

/// The file system that a directory is on, so that nobody takes memory for a disk. Linux only.
pub(crate) fn file_system(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    // Of two on one place the later one is seen.
    let found = mounts.filter(|(place, _)| dir.starts_with(place)).max_by_key(|(place, _)| place.components().count());
    let (_, kind) = found.ok_or("no file system")?;
    Ok(match kind {
        "tmpfs" | "ramfs" => format!("{kind}: THAT IS MEMORY, set HEADWORKS_BENCH_DIR"),
        kind => kind.to_owned(),
    })
}

/// How long the disk takes to take an append and say that it is safe, in words.
pub(crate) fn answer(base: &Path) -> Result<String> {
    let dir = tempfile::tempdir_in(base)?;
    let mut file = File::create(dir.path().join("appended"))?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let began = Instant::now();
        file.write_all(&[7; WRITE])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let (p50, p99) = (times[WRITES / 2], times[WRITES * 99 / 100]);
    Ok(format!("the disk alone: {} KiB and fdatasync take {p50:.2?} (p50), {p99:.2?} (p99)", WRITE >> 10))
}
