//! Sample events: the same shape and seed give the same bytes.
//!
//! Pure: for the command `gen`, the demo source and the benchmarks alike. No part of what this crate promises.

mod bad;
mod tenants;

use std::io::Write as _;

use fastrand::Rng;

pub use bad::{Bad, InvalidShare, Share};
pub use tenants::{InvalidZipf, Zipf};

/// What the events are like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many tenants there are; 0 counts as 1.
    pub tenants: u32,
    /// How unevenly the events fall to them; the first tenant is the busiest.
    pub zipf: Zipf,
    /// The length of a good line without its newline. Shorter than the fields themselves it cannot be.
    pub bytes: usize,
    /// The share of broken lines.
    pub bad: Share,
    /// Where the random numbers start.
    pub seed: u64,
}

/// What one line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// An event of the tenant with this number.
    Good(u32),
    /// A line that no decoder may accept.
    Bad(Bad),
}

/// How many lines of each sort there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub good: u64,
    pub bad: u64,
}

/// An endless stream of sample events.
#[derive(Debug)]
pub struct SampleEvents {
    tenants: tenants::Tenants,
    turns: bad::Turns,
    /// Digits in a tenant's name, so that all names are equally long.
    digits: u32,
    bytes: usize,
    rng: Rng,
    /// Log text to cut lines from, longer than a line by all phrases.
    text: Vec<u8>,
    /// Where the words of the phrases begin in it.
    words: Vec<usize>,
    counts: Counts,
    /// The time of the first one, in milliseconds.
    first: u64,
}

/// The time of the first event: 2024-11-22T00:00:00Z. Each event is one millisecond after the one before.
const FIRST_MILLIS: u64 = 1_732_233_600_000;

const LEVELS: [&str; 8] = ["info", "info", "info", "info", "info", "debug", "warn", "error"];

const PHRASES: [&str; 8] = [
    "accepted connection from gateway, session resumed; ",
    "GET /api/v1/orders 200 in 17 ms, 4812 bytes; ",
    "cache miss for key profile, read from replica 2; ",
    "sensor reading 21.4 C, humidity 48 %, battery 3.7 V; ",
    "user joined the room, 42 members present; ",
    "retrying upstream in 250 ms after timeout; ",
    "flushed 500 rows to shard 7 without conflict; ",
    "token refreshed, expires in 3600 s; ",
];

impl SampleEvents {
    /// A stream from its beginning.
    pub fn new(shape: &Shape) -> Self {
        let mut text = PHRASES.concat().into_bytes();
        let phrases = text.len();
        let words = std::iter::once(0).chain(memchr::memchr_iter(b' ', &text).map(|space| space + 1));
        let words = words.filter(|&word| word < phrases).collect();
        while text.len() < phrases + shape.bytes {
            text.extend_from_within(..phrases);
        }
        let last = shape.tenants.saturating_sub(1);
        Self {
            tenants: tenants::Tenants::new(shape.tenants, shape.zipf),
            turns: bad::Turns::of(shape.bad),
            digits: last.checked_ilog10().map_or(1, |log| log + 1).max(4),
            bytes: shape.bytes,
            rng: Rng::with_seed(shape.seed),
            text,
            words,
            counts: Counts::default(),
            first: FIRST_MILLIS,
        }
    }

    /// Has the next event be of this time, in milliseconds.
    pub fn set_time(&mut self, millis: u64) {
        self.first = millis.saturating_sub(self.counts.good + self.counts.bad);
    }

    /// Appends the next line and its newline.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> Sample {
        let time = self.first + self.counts.good + self.counts.bad;
        let tenant = self.tenants.draw(&mut self.rng);
        let sample = if self.turns.next() {
            let bad = Bad::ALL[(self.counts.bad % Bad::ALL.len() as u64) as usize];
            let mut name = Vec::new();
            self.write_name(tenant, &mut name);
            bad.write(&name, out);
            self.counts.bad += 1;
            Sample::Bad(bad)
        } else {
            self.write_good(tenant, time, out);
            self.counts.good += 1;
            Sample::Good(tenant)
        };
        out.push(b'\n');
        sample
    }

    /// How many lines were written so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends the name of the tenant with this number.
    pub fn write_name(&self, tenant: u32, out: &mut Vec<u8>) {
        out.push(b't');
        // By hand, since formatting it takes a quarter of the time of a whole line.
        let mut unit = 10_u32.pow(self.digits - 1);
        while unit > 0 {
            out.push(b'0' + (tenant / unit % 10) as u8);
            unit /= 10;
        }
    }

    fn write_good(&mut self, tenant: u32, time: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let level = LEVELS[self.rng.usize(..LEVELS.len())];
        let from = self.words[self.rng.usize(..self.words.len())];
        out.extend_from_slice(b"{\"tenant\":\"");
        self.write_name(tenant, out);
        out.extend_from_slice(b"\",\"ts\":");
        // Writing to a vector cannot fail.
        let _ = write!(out, "{time}");
        out.extend_from_slice(b",\"level\":\"");
        out.extend_from_slice(level.as_bytes());
        out.extend_from_slice(b"\",\"line\":\"");
        let room = self.bytes.saturating_sub(out.len() - start + b"\"}".len());
        out.extend_from_slice(&self.text[from..from + room]);
        out.extend_from_slice(b"\"}");
    }
}

#[cfg(test)]
mod tests;
