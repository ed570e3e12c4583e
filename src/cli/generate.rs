//! `headworks gen`: sample events to try things with.

use std::io::{self, ErrorKind, Write};

use clap::Args;
use headworks::sample::{Counts, SampleEvents, Shape, Share, Zipf};

/// Lines are handed over in blocks of about this size.
const BLOCK: usize = 256 * 1024;

/// The arguments of `headworks gen`.
#[derive(Debug, Args)]
pub(crate) struct GenArgs {
    /// How many lines to write
    #[arg(long, value_name = "N")]
    events: u64,
    /// How many tenants they belong to
    #[arg(long, value_name = "T", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    tenants: u32,
    /// How unevenly: the exponent of a Zipf distribution, from 0 (every tenant alike) to 10
    #[arg(long, value_name = "S", default_value_t)]
    zipf: Zipf,
    /// The length of a good line in bytes, without its newline; fields that need more take more
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    bytes: u32,
    /// The share of broken lines in percent; they take turns in how they are broken
    #[arg(long, value_name = "PERCENT", default_value_t)]
    bad: Share,
    /// The same seed gives the same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Why sample events could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write sample events to stdout after {} lines: {source}", .written.good + .written.bad)]
pub(crate) struct GenError {
    written: Counts,
    source: io::Error,
}

/// Writes the events to stdout. A reader that closes the pipe has seen enough: no error.
///
/// With `--bad`, says on stderr how many lines of each sort there were.
pub(crate) fn run(args: &GenArgs) -> Result<(), GenError> {
    let counts = write(args, io::stdout().lock())?;
    if args.bad != Share::default() {
        eprintln!("{} lines: {} good, {} bad", counts.good + counts.bad, counts.good, counts.bad);
    }
    Ok(())
}

/// Writes the events to `out`, and says how many lines it took.
fn write(args: &GenArgs, mut out: impl Write) -> Result<Counts, GenError> {
    let bytes = args.bytes as usize;
    let shape = Shape { tenants: args.tenants, zipf: args.zipf, bytes, bad: args.bad, seed: args.seed };
    let mut events = SampleEvents::new(&shape);
    let mut block = Vec::with_capacity(BLOCK + bytes + 4096);
    let mut written = Counts::default();
    let mut left = args.events;
    while left > 0 {
        while left > 0 && block.len() < BLOCK {
            events.write_next(&mut block);
            left -= 1;
        }
        match out.write_all(&block).and_then(|()| out.flush()) {
            Ok(()) => written = events.counts(),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(source) => return Err(GenError { written, source }),
        }
        block.clear();
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: GenArgs,
    }

    fn args(line: &str) -> Result<GenArgs, clap::Error> {
        Command::try_parse_from(std::iter::once("gen").chain(line.split_whitespace())).map(|command| command.args)
    }

    /// Takes `room` bytes, then fails.
    struct Full {
        room: usize,
        kind: ErrorKind,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            if taken == 0 { Err(self.kind.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn as_many_lines_are_written_as_were_asked_for() {
        for count in [0, 1, 5_000] {
            let mut out = Vec::new();
            let counts = write(&args(&format!("--events {count} --bad 10")).unwrap(), &mut out).unwrap();
            assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), count);
            assert_eq!((counts.good + counts.bad) as usize, count);
            assert_eq!(counts.bad as usize, count / 10);
        }
    }

    #[test]
    fn a_reader_that_closes_the_pipe_ends_it_quietly() {
        let closed = Full { room: 300_000, kind: ErrorKind::BrokenPipe };
        let counts = write(&args("--events 1000000").unwrap(), closed).unwrap();
        assert!(counts.good < 3_000, "{counts:?}");
    }

    #[test]
    fn any_other_failure_says_how_far_it_came() {
        let full = Full { room: 300_000, kind: ErrorKind::StorageFull };
        let error = write(&args("--events 1000000").unwrap(), full).unwrap_err().to_string();
        assert!(error.starts_with("cannot write sample events to stdout after 1305 lines: "), "{error}");
    }

    #[test]
    fn arguments_out_of_range_are_refused() {
        for bad in ["", "--events -1", "--events 1 --tenants 0", "--events 1 --bad 101", "--events 1 --zipf -1"] {
            assert!(args(bad).is_err(), "{bad}");
        }
    }
}
