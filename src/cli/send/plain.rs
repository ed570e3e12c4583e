use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, HumanFloatCount, ProgressBar};
use serde::Serialize;

use super::{SendArgs, SendError};
use crate::cli::table::json;

/// How much is read and sent at once.
const BLOCK: usize = 256 * 1024;

/// What was sent, and how long it took until the listener had taken it in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sent {
    bytes: u64,
    lines: u64,
    took: Duration,
}

/// What was sent and taken in, as a document.
#[derive(Serialize)]
struct Told<'t> {
    to: &'t str,
    lines: u64,
    bytes: u64,
    seconds: f64,
}

/// Sends the file, half-closes the connection and waits until the listener closes it too: then all was taken in.
///
/// Shows its progress on stderr if that is a terminal, and a line that sums up at the end.
pub(super) fn run(args: &SendArgs, input: impl Read, bar: &ProgressBar) -> Result<(), SendError> {
    let sent = send(args, input, bar);
    bar.finish_and_clear();
    let Sent { bytes, lines, took } = sent?;
    if args.json {
        let told = Told { to: &args.to, lines, bytes, seconds: took.as_secs_f64() };
        // Where stdout is gone, there is nobody to tell: all was sent.
        let _ = json(&told).map(|text| super::super::say(text.as_bytes()));
        return Ok(());
    }
    let per_second = lines as f64 / took.as_secs_f64().max(1e-9);
    eprintln!(
        "sent {} ({} lines) to {} in {:.1} s: {} lines/s",
        BinaryBytes(bytes),
        HumanCount(lines),
        args.to,
        took.as_secs_f64(),
        HumanFloatCount(per_second.round())
    );
    Ok(())
}

fn send(args: &SendArgs, mut input: impl Read, bar: &ProgressBar) -> Result<Sent, SendError> {
    let to = || args.to.clone();
    let mut connection = TcpStream::connect(&args.to).map_err(|source| match source.kind() {
        ErrorKind::ConnectionRefused => SendError::Refused { to: to(), source },
        _ => SendError::Connect { to: to(), source },
    })?;
    let started = Instant::now();
    let (mut bytes, mut lines, mut last) = (0, 0, b'\n');
    let mut block = vec![0; BLOCK];
    loop {
        let read = match input.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(source) => return Err(SendError::Read { file: args.file.clone(), bytes, source }),
        };
        let read = &block[..read];
        let mut rest = read;
        while !rest.is_empty() {
            let sent = match connection.write(rest) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(source) => return Err(SendError::Broken { to: to(), bytes, source }),
            };
            rest = &rest[sent..];
            bytes += sent as u64;
        }
        lines += memchr::memchr_iter(b'\n', read).count() as u64;
        last = read[read.len() - 1];
        bar.set_position(bytes);
    }
    // The last line counts with or without its newline.
    lines += u64::from(last != b'\n');
    bar.set_message("waiting until it is taken in");
    connection
        .shutdown(Shutdown::Write)
        // Whatever the listener answers is not for us; its end is.
        .and_then(|()| io::copy(&mut connection, &mut io::sink()))
        .map_err(|source| SendError::Broken { to: to(), bytes, source })?;
    Ok(Sent { bytes, lines, took: started.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn args(to: impl ToString) -> SendArgs {
        SendArgs {
            to: to.to_string(),
            ack: None,
            stream: None,
            give_up_after: Duration::ZERO,
            json: false,
            file: "-".into(),
        }
    }

    fn listener() -> (TcpListener, SendArgs) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let args = args(listener.local_addr().unwrap());
        (listener, args)
    }

    fn quiet() -> ProgressBar {
        ProgressBar::hidden()
    }

    #[test]
    fn everything_arrives_and_lines_are_counted_with_or_without_the_last_newline() {
        for (text, lines) in [("", 0), ("a\nb\n", 2), ("a\nb", 2), ("\n", 1), (&"x\n".repeat(400_000) as &str, 400_000)]
        {
            let (listener, args) = listener();
            let server = thread::spawn(move || {
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                received
            });
            let sent = send(&args, text.as_bytes(), &quiet()).unwrap();
            assert_eq!((sent.bytes, sent.lines), (text.len() as u64, lines));
            assert_eq!(server.join().unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn it_stays_until_the_listener_has_closed_whatever_is_answered() {
        let (listener, args) = listener();
        let sender = thread::spawn(move || send(&args, &b"a\n"[..], &quiet()));
        let (mut connection, _) = listener.accept().unwrap();
        io::copy(&mut connection, &mut io::sink()).unwrap();
        // More than any socket holds: it is written only if the other side stays and reads.
        connection.write_all(&vec![b'x'; 32 << 20]).unwrap();
        drop(connection);
        assert_eq!(sender.join().unwrap().unwrap().lines, 1);
    }

    #[test]
    fn a_refused_connection_names_the_address_and_what_helps() {
        let (listener, args) = listener();
        drop(listener);
        let error = send(&args, io::empty(), &quiet()).unwrap_err().to_string();
        assert!(error.contains(&args.to) && error.contains("is `headworks run` listening there?"), "{error}");
    }

    #[test]
    fn an_address_without_a_port_says_what_an_address_is() {
        let error = send(&args("localhost"), io::empty(), &quiet()).unwrap_err().to_string();
        assert!(error.contains("localhost") && error.contains("host:port"), "{error}");
    }

    #[test]
    fn a_connection_that_breaks_says_after_how_many_bytes() {
        let (listener, args) = listener();
        // Closed with bytes unread, so that the kernel resets the connection.
        let server = thread::spawn(move || listener.accept().unwrap().0.read_exact(&mut [0]).unwrap());
        let error = send(&args, io::repeat(b'\n'), &quiet()).unwrap_err();
        server.join().unwrap();
        assert!(matches!(error, SendError::Broken { bytes: 1.., .. }), "{error}");
        assert!(error.to_string().contains("broke after "), "{error}");
    }

    #[test]
    fn an_input_that_fails_halfway_says_what_was_sent() {
        struct Torn(bool);
        impl Read for Torn {
            fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("torn"));
                }
                block[..2].copy_from_slice(b"a\n");
                Ok(2)
            }
        }
        let (_listener, args) = listener();
        let error = send(&args, Torn(false), &quiet()).unwrap_err().to_string();
        assert!(error.contains("after 2 bytes: torn"), "{error}");
    }
}
