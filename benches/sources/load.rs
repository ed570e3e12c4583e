//! What is sent.

use bytes::Bytes;
use headworks::sample::{Sample, SampleEvents, Shape, Share, Zipf};

/// How many clients send at once, where they are several.
pub(crate) const CONNECTIONS: u64 = 4;

const TENANTS: u32 = 10;
const BYTES: usize = 200;

pub(crate) struct Load {
    pub(crate) events: u64,
    /// Systems have a durable journal.
    pub(crate) journal: bool,
}

impl Load {
    /// So many events for each connection.
    fn shares(&self) -> impl Iterator<Item = u64> {
        (0..CONNECTIONS).map(|nth| self.events / CONNECTIONS + u64::from(nth < self.events % CONNECTIONS))
    }

    /// Lines of JSON, those of each connection.
    pub(crate) fn json(&self) -> Vec<Bytes> {
        let shape = Shape { tenants: TENANTS, zipf: Zipf::default(), bytes: BYTES, bad: Share::default(), seed: 1 };
        let mut events = SampleEvents::new(&shape);
        let mut stream = |share: u64| {
            let mut lines = Vec::with_capacity(share as usize * (BYTES + 1));
            for _ in 0..share {
                let sample = events.write_next(&mut lines);
                assert!(matches!(sample, Sample::Good(_)), "none is to be bad: {sample:?}");
            }
            lines.into()
        };
        self.shares().map(&mut stream).collect()
    }

    /// Messages of RFC 5424, one a line, of ten hosts; those of each connection.
    pub(crate) fn syslog(&self) -> Vec<Bytes> {
        let stream = |share: u64| {
            let mut lines = Vec::with_capacity(share as usize * (BYTES + 1));
            for n in 0..share {
                let host = n % u64::from(TENANTS);
                let head = format!("<14>1 2024-11-22T00:00:00.000Z host-{host} app 77 - - request {n} answered ");
                lines.extend_from_slice(head.as_bytes());
                lines.resize(lines.len() + BYTES.saturating_sub(head.len()), b'x');
                lines.push(b'\n');
            }
            lines.into()
        };
        self.shares().map(stream).collect()
    }
}

/// The same lines, so many in a piece.
pub(crate) fn pieces(stream: &Bytes, lines: usize) -> Vec<Bytes> {
    let ends = memchr::memchr_iter(b'\n', stream).map(|end| end + 1).skip(lines - 1).step_by(lines);
    let mut from = 0;
    let mut piece = |to| stream.slice(std::mem::replace(&mut from, to)..to);
    let mut pieces: Vec<_> = ends.map(&mut piece).collect();
    pieces.push(piece(stream.len()));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
