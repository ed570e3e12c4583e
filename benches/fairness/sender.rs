//! The sender: a thread a connection, which writes what is due.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::load::{Cycle, Line, Load, Of};

/// How often it writes.
const TICK: Duration = Duration::from_millis(1);
/// What it writes at once, or a little more.
const WRITE: usize = 64 << 10;
/// A connection that is not taken in for so long after its end never will be.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Events of each tenant.
    pub(crate) events: Vec<u64>,
    /// Of tenants that nobody knows.
    pub(crate) strangers: u64,
    /// What is no event.
    pub(crate) garbage: u64,
}

impl Sent {
    pub(crate) fn frames(&self) -> u64 {
        self.events.iter().sum::<u64>() + self.strangers + self.garbage
    }
}

/// Sends all that is due within `length` of `began`, and returns once the system has accepted or refused it.
pub(crate) fn send(address: SocketAddr, load: &Load, began: Instant, length: Duration) -> Result<Sent> {
    let mut lines = vec![0; load.lines.len()];
    thread::scope(|scope| {
        let one = |cycle| scope.spawn(move || send_one(address, cycle, &load.lines, began, length));
        let threads: Vec<_> = load.connections.iter().map(one).collect();
        for thread in threads {
            let sent = thread.join().map_err(|_| "a sender panicked")??;
            lines.iter_mut().zip(sent).for_each(|(all, sent)| *all += sent);
        }
        Result::Ok(())
    })?;
    let mut sent = Sent { events: vec![0; load.tenants], strangers: 0, garbage: 0 };
    for (line, times) in load.lines.iter().zip(lines) {
        match line.of {
            Of::Tenant(tenant) => sent.events[tenant] += times,
            Of::Stranger => sent.strangers += times,
            Of::Nobody => sent.garbage += times,
        }
    }
    Ok(sent)
}

/// How often each line was sent.
fn send_one(address: SocketAddr, cycle: &Cycle, lines: &[Line], began: Instant, length: Duration) -> Result<Vec<u64>> {
    let mut output = TcpStream::connect(address)?;
    output.set_nodelay(true)?;
    output.set_read_timeout(Some(PATIENCE))?;
    let mut times = vec![0; lines.len()];
    let (mut sent, mut tick, mut bytes) = (0, began, Vec::with_capacity(2 * WRITE));
    loop {
        let elapsed = began.elapsed();
        let due = cycle.due(elapsed.min(length));
        while sent < due {
            let line = cycle.line(sent);
            lines[line].write(cycle.due_at(sent), &mut bytes);
            times[line] += 1;
            sent += 1;
            if bytes.len() >= WRITE {
                output.write_all(&bytes)?;
                bytes.clear();
            }
        }
        output.write_all(&bytes)?;
        bytes.clear();
        if elapsed >= length {
            break;
        }
        tick += TICK;
        thread::sleep(tick.saturating_duration_since(Instant::now()));
    }
    output.shutdown(Shutdown::Write)?;
    // The other side closes once all of it was accepted or refused.
    output.read_to_end(&mut bytes).map_err(|why| format!("what was sent is not taken in: {why}"))?;
    Ok(times)
}
