//! What a process can say about itself: its CPU time, its memory and the time. Linux only.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::contest::Result;

/// The state of a contestant when it begins to listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    cpu: Duration,
}

impl Start {
    pub(crate) fn now() -> Result<Self> {
        Ok(Self { cpu: cpu_time()? })
    }

    /// The call of a contestant at the moment its last event is stored.
    pub(crate) fn finish(self) -> Result<Finish> {
        let at = unix_nanos()?;
        Ok(Finish { at, cpu: cpu_time()?.saturating_sub(self.cpu), peak_rss_bytes: peak_rss_bytes()? })
    }
}

/// What a contestant has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    /// See [`unix_nanos`].
    pub(crate) at: u128,
    /// CPU time of all threads, user and system, since the start.
    pub(crate) cpu: Duration,
    pub(crate) peak_rss_bytes: u64,
}

/// The wall clock: the one clock that sender and contestant share.
pub(crate) fn unix_nanos() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}

/// CPU time of the process so far.
///
/// `stat` counts every thread, but in ticks of 10 ms rounded down; `schedstat` is exact, but only knows threads that
/// still live. Neither says too much, so the larger one is the better one.
fn cpu_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name in parentheses, and may hold anything; utime and stime are 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat: no name")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    let mut exact = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        // A thread may end, and a kernel may lack the file.
        let Ok(schedstat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        exact += schedstat.split_whitespace().next().map_or(Ok(0), str::parse::<u64>)?;
    }
    Ok(Duration::from_millis(ticks * 10).max(Duration::from_nanos(exact)))
}

fn peak_rss_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or("/proc/self/status: no VmHWM")?;
    Ok(kib.parse::<u64>()? * 1024)
}
