//! The sender: writes what is due, open loop, and notes when each acknowledgement is read.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use headworks::source::ack::{Hello, Reply};

use crate::sample::{Sample, SampleEvents, Shape, Share, Zipf};
use crate::{Load, Result};

/// How often it writes.
const TICK: Duration = Duration::from_millis(1);
/// How many different events there are; they come again and again.
const EVENTS: u64 = 100_000;
/// A server that says nothing for so long is gone: it says `alive` more often.
const SILENCE: Duration = Duration::from_secs(30);

/// What the sender saw.
pub(crate) struct Seen {
    /// Of each event that counts, in microseconds, sorted.
    pub(crate) latencies: Vec<u32>,
    /// Events acknowledged a second, of those that count.
    pub(crate) reached: f64,
}

/// Sends all there is and waits until all is acknowledged.
pub(crate) fn send(address: SocketAddr, load: Load) -> Result<Seen> {
    let events = events()?;
    let mut output = TcpStream::connect(address)?;
    output.set_nodelay(true)?;
    output.set_read_timeout(Some(SILENCE))?;
    let mut input = BufReader::new(output.try_clone()?);
    let hello = Hello { stream: "bench".parse()?, next: 1, level: load.level, skip: true };
    output.write_all(format!("{hello}\n").as_bytes())?;
    match reply(&mut input)? {
        Some(Reply::Ok { last: 0, next: 1 }) => {}
        other => return Err(format!("the server answered {other:?}").into()),
    }
    let began = Instant::now();
    let reading = thread::Builder::new().name("reader".to_owned()).spawn(move || read(input, load, began))?;
    let written = write(&mut output, &events, load, began);
    output.shutdown(Shutdown::Write)?;
    // Why the server ended the connection is the better reason.
    let read = reading.join().map_err(|_| "the reader panicked")??;
    written?;
    seen(&read, load)
}

/// The lines, one after the other, all of one length.
fn events() -> Result<Vec<u8>> {
    let shape =
        Shape { tenants: Load::TENANTS, zipf: Zipf::default(), bytes: Load::BYTES, bad: Share::default(), seed: 1 };
    let mut samples = SampleEvents::new(&shape);
    let mut lines = Vec::new();
    for _ in 0..EVENTS {
        if let Sample::Bad(bad) = samples.write_next(&mut lines) {
            return Err(format!("a sample event is bad: {bad:?}").into());
        }
    }
    if lines.len() as u64 == EVENTS * (Load::BYTES as u64 + 1) {
        Ok(lines)
    } else {
        Err("lines differ in length".into())
    }
}

fn write(output: &mut TcpStream, events: &[u8], load: Load, began: Instant) -> Result<()> {
    let (mut sent, mut tick) = (0, began);
    while sent < load.events() {
        let due = load.due(began.elapsed());
        while sent < due {
            // Up to the last of the different events, and again from the first.
            let from = sent % EVENTS;
            let until = (from + due - sent).min(EVENTS);
            output.write_all(&events[from as usize * (Load::BYTES + 1)..until as usize * (Load::BYTES + 1)])?;
            sent += until - from;
        }
        tick += TICK;
        thread::sleep(tick.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// When each event was acknowledged, after the beginning.
fn read(mut input: BufReader<TcpStream>, load: Load, began: Instant) -> Result<Vec<Option<Duration>>> {
    let mut acked = vec![None; usize::try_from(load.events())?];
    let mut missing = acked.len();
    loop {
        match reply(&mut input)? {
            Some(Reply::Ack(range)) => {
                let at = began.elapsed();
                let (from, until) = (usize::try_from(*range.start())? - 1, usize::try_from(*range.end())?);
                let events = acked.get_mut(from..until).ok_or_else(|| format!("{range:?} were never sent"))?;
                if events.iter().any(Option::is_some) {
                    return Err(format!("of {range:?} some are acknowledged twice").into());
                }
                events.fill(Some(at));
                missing -= events.len();
            }
            Some(Reply::Alive) | None => {}
            Some(Reply::End) if missing == 0 => return Ok(acked),
            Some(other) => return Err(format!("with {missing} events open the server said {other:?}").into()),
        }
    }
}

fn reply(input: &mut BufReader<TcpStream>) -> Result<Option<Reply>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err("the server closed the connection without a word".into());
    }
    Ok(Reply::parse(line.trim_end_matches('\n').as_bytes())?)
}

fn seen(acked: &[Option<Duration>], load: Load) -> Result<Seen> {
    let first = load.due(load.warm_up);
    let counted = acked.iter().zip(0..).skip(usize::try_from(first)?);
    let latency = |(at, n): (&Option<Duration>, u64)| Some((*at)?.saturating_sub(load.due_at(n)).as_micros() as u32);
    let mut latencies: Vec<u32> = counted.map(latency).collect::<Option<_>>().ok_or("an event has no answer")?;
    latencies.sort_unstable();
    let last = acked.iter().flatten().max().ok_or("nothing was sent")?;
    let reached = latencies.len() as f64 / last.saturating_sub(load.due_at(first)).as_secs_f64();
    Ok(Seen { latencies, reached })
}
