//! What is sent, and when each event is due.

use std::ops::Range;
use std::time::Duration;

use headworks::TenantId;

use crate::Result;

/// Of an event, without its newline.
pub(crate) const BYTES: usize = 200;
/// Where an event says when it was due, in microseconds after the beginning.
const STAMP: Range<usize> = 24..36;
/// The same of an event of a tenant that nobody knows: in its name, so that each is another one.
const STRANGE_STAMP: Range<usize> = 12..24;

/// A frame that is sent again and again.
pub(crate) struct Line {
    /// With its newline.
    pub(crate) bytes: Vec<u8>,
    pub(crate) of: Of,
}

/// Whose a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Tenant(usize),
    /// Of a tenant that nobody knows, each time of another one.
    Stranger,
    /// It is no event.
    Nobody,
}

/// What one connection sends: these lines, evenly over a cycle's time, and again from the first.
pub(crate) struct Cycle {
    /// Which lines, by their places in the load.
    pub(crate) order: Vec<usize>,
    pub(crate) every: Duration,
}

/// All connections together.
pub(crate) struct Load {
    pub(crate) tenants: usize,
    pub(crate) lines: Vec<Line>,
    pub(crate) connections: Vec<Cycle>,
}

/// The name of tenant `n`: the same length for all of them.
pub(crate) fn name(n: usize) -> Result<TenantId> {
    Ok(format!("t{n:03}").parse()?)
}

/// Which tenant has this name.
pub(crate) fn number(tenant: &TenantId) -> Option<usize> {
    tenant.as_str().strip_prefix('t')?.parse().ok()
}

/// When the event was due after the beginning, as it says.
pub(crate) fn due(body: &[u8]) -> Option<Duration> {
    std::str::from_utf8(body.get(STAMP)?).ok()?.parse().ok().map(Duration::from_micros)
}

impl Line {
    /// An event of tenant `n`, `bytes` long.
    pub(crate) fn event(n: usize, bytes: usize) -> Result<Self> {
        let mut line = format!("{{\"tenant\":\"{}\",\"due\":\"{:012}\",\"line\":\"", name(n)?, 0).into_bytes();
        line.resize(bytes.saturating_sub(2).max(line.len()), b'x');
        line.extend_from_slice(b"\"}\n");
        Ok(Self { bytes: line, of: Of::Tenant(n) })
    }

    /// An event of a tenant that nobody knows; those of connections with different letters are different ones.
    pub(crate) fn stranger(letter: char) -> Self {
        let mut line = format!("{{\"tenant\":\"{letter}{:012}\",\"line\":\"", 0).into_bytes();
        line.resize(BYTES - 2, b'x');
        line.extend_from_slice(b"\"}\n");
        Self { bytes: line, of: Of::Stranger }
    }

    /// Appends it, as one that is due at `due`.
    pub(crate) fn write(&self, due: Duration, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&self.bytes);
        let stamp = match self.of {
            Of::Tenant(_) => STAMP,
            Of::Stranger => STRANGE_STAMP,
            Of::Nobody => return,
        };
        let mut rest = due.as_micros();
        for digit in out[begin + stamp.start..begin + stamp.end].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

impl Cycle {
    /// How many lines are due after such a time.
    pub(crate) fn due(&self, since: Duration) -> u64 {
        (since.as_nanos() * self.order.len() as u128 / self.every.as_nanos()) as u64
    }

    /// When line `n`, from 0, is due.
    pub(crate) fn due_at(&self, n: u64) -> Duration {
        Duration::from_nanos((u128::from(n) * self.every.as_nanos() / self.order.len() as u128) as u64)
    }

    /// Which line is the `n`th.
    pub(crate) fn line(&self, n: u64) -> usize {
        self.order[(n % self.order.len() as u64) as usize]
    }
}

/// Puts `more` between `some`, evenly.
pub(crate) fn mixed(some: &[usize], more: &[usize]) -> Vec<usize> {
    let mut all: Vec<_> = [some, more]
        .iter()
        .flat_map(|lines| lines.iter().enumerate().map(|(n, line)| ((2 * n + 1) as f64 / lines.len() as f64, *line)))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().map(|(_, line)| line).collect()
}
