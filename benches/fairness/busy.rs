//! How busy the system's own thread is. Linux only.

use std::fs;
use std::time::{Duration, Instant};

use crate::Result;

/// The name of the thread on which all actors run.
const THREAD: &str = "headworks";

/// CPU time and time, at one moment.
pub(crate) struct Busy {
    cpu: Duration,
    at: Instant,
}

impl Busy {
    pub(crate) fn now() -> Result<Self> {
        Ok(Self { cpu: cpu_time()?, at: Instant::now() })
    }

    /// The share of the time since then in which it ran.
    pub(crate) fn share(&self) -> Result<f64> {
        let now = Self::now()?;
        Ok((now.cpu.saturating_sub(self.cpu)).as_secs_f64() / (now.at - self.at).as_secs_f64())
    }
}

fn cpu_time() -> Result<Duration> {
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        // A thread may end meanwhile.
        let Ok(name) = fs::read_to_string(thread.join("comm")) else { continue };
        if name.trim_end() == THREAD {
            let exact = fs::read_to_string(thread.join("schedstat"))?;
            let nanos = exact.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
            return Ok(Duration::from_nanos(nanos));
        }
    }
    Err(format!("there is no thread {THREAD}").into())
}
