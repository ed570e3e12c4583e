use std::fmt::Result;

use super::families::{Families, In};

/// What the system says of this process, under the names that are usual. What it does not say is left out.
pub(super) fn tell(families: &mut Families<'_>) -> Result {
    let Some(process) = Process::read() else { return Ok(()) };
    let Process { resident_bytes, virtual_bytes, cpu_seconds, started_seconds, threads, open_files } = process;
    families.gauge("process_resident_memory", In::Bytes, "Memory of the process that lies in RAM.", resident_bytes)?;
    families.gauge(
        "process_virtual_memory",
        In::Bytes,
        "Memory of the process, as it has asked for.",
        virtual_bytes,
    )?;
    families.seconds_counter("process_cpu", "Time that processors have worked for the process.", cpu_seconds)?;
    families.gauge("process_threads", In::Things, "Threads of the process.", threads)?;
    if let Some(started) = started_seconds {
        families.seconds("process_start_time", "When the process was started, since 1970.", started)?;
    }
    if let Some(open) = open_files {
        families.gauge("process_open_fds", In::Things, "Files and sockets that the process has open.", open)?;
    }
    Ok(())
}

struct Process {
    resident_bytes: u64,
    virtual_bytes: u64,
    cpu_seconds: f64,
    started_seconds: Option<f64>,
    threads: u64,
    open_files: Option<u64>,
}

/// What Linux calls `USER_HZ`: its times in `/proc` are in hundredths of a second whatever the machine.
const TICKS: f64 = 100.0;

impl Process {
    /// As Linux tells it.
    #[cfg(target_os = "linux")]
    #[expect(clippy::cast_precision_loss, reason = "ticks of a processor, in 64 bits")]
    fn read() -> Option<Self> {
        use std::fs::read_to_string;

        let status = read_to_string("/proc/self/status").ok()?;
        let line = |name: &str| -> Option<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.split_whitespace().next()?.parse().ok()
        };
        let stat = read_to_string("/proc/self/stat").ok()?;
        // The name before may hold anything, and ends with the last parenthesis. What follows it begins with the third field.
        let fields: Vec<_> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
        let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
        let booted = read_to_string("/proc/stat").ok();
        let booted = booted.and_then(|all| {
            let line = all.lines().find_map(|line| line.strip_prefix("btime "))?;
            line.trim().parse::<u64>().ok()
        });
        let started = field(22);
        Some(Self {
            resident_bytes: line("VmRSS")? * 1024,
            virtual_bytes: line("VmSize")? * 1024,
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS,
            started_seconds: booted.zip(started).map(|(booted, ticks)| booted as f64 + ticks as f64 / TICKS),
            threads: line("Threads")?,
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as u64),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn read() -> Option<Self> {
        let _ = TICKS;
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_a_thread_and_a_beginning_in_the_past() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let process = Process::read().unwrap();
        assert!(process.resident_bytes > 100_000 && process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads >= 1 && process.open_files.unwrap() >= 3);
        // The boot time is told in whole seconds.
        let started = process.started_seconds.unwrap();
        assert!(started <= now + 2.0 && started > now - 86_400.0, "{started} against {now}");
    }
}
