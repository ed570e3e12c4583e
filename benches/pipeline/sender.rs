//! The sender: a process that has every byte ready in memory before it connects, and then sends as fast as it can.

use std::io::{self, BufRead};
use std::net::SocketAddr;

use crate::blast::blast;
use crate::contest::{Load, Result};
use crate::measure::unix_nanos;
use crate::report::{Counts, say};
use crate::sample::{Sample, SampleEvents};

/// Says the counts of each tenant, and then for each address on stdin sends everything there and says when it began.
///
/// The same sender serves all the runs of a contest: they get the same bytes, and these are made once.
pub(crate) fn run(load: &Load) -> Result<()> {
    let (streams, counts) = generate(load)?;
    say(&counts)?;
    for line in io::stdin().lock().lines() {
        let address: SocketAddr = line?.parse()?;
        say(&send(&streams, address)?)?;
    }
    Ok(())
}

/// One stream of bytes a connection, and how many events of each tenant are in them together.
fn generate(load: &Load) -> Result<(Vec<Vec<u8>>, Counts)> {
    let shape = load.shape();
    let mut events = SampleEvents::new(&shape);
    let mut counts = vec![0; load.tenants as usize];
    let mut streams = Vec::new();
    let connections = u64::from(load.connections);
    for connection in 0..connections {
        let share = load.events / connections + u64::from(connection < load.events % connections);
        let mut stream = Vec::with_capacity(share as usize * (shape.bytes + 1));
        for _ in 0..share {
            match events.write_next(&mut stream) {
                Sample::Good(tenant) => counts[tenant as usize] += 1,
                Sample::Bad(bad) => return Err(format!("a sample event is bad: {bad:?}").into()),
            }
        }
        streams.push(stream);
    }
    let name = |tenant| {
        let mut name = Vec::new();
        events.write_name(tenant, &mut name);
        String::from_utf8_lossy(&name).into_owned()
    };
    let sent = (0..).zip(counts).filter(|&(_, count)| count > 0).map(|(tenant, count)| (name(tenant), count));
    Ok((streams, sent.collect()))
}

/// Sends every stream over a connection of its own, all at once. The time is that of the first byte.
fn send(streams: &[Vec<u8>], address: SocketAddr) -> Result<u128> {
    let mut began_at = None;
    blast(streams, address, || began_at = Some(unix_nanos()))?;
    began_at.ok_or("nothing was sent")?
}
