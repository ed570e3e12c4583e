//! A source that keeps the contract passes the suite, and the suite notices one that does not.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::source_conformance::{self, Acknowledges, SourceTester, Told, Traits};
use headworks_actors::{AckLevel, Answer, Framing, IngressSpec, Intake, Json, Source};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream, DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const MAX_FRAME: usize = 20_000;

/// Which part of the contract it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    None,
    TellsEarly,
    FeedsTwice,
    ReadsAhead,
    TakesHalves,
    TakesAnything,
    NeverEnds,
    LeavesClients,
}

/// Lines in memory, and for each an `a` or an `r`.
struct Pipes {
    connections: UnboundedReceiver<DuplexStream>,
    level: AckLevel,
    rule: Rule,
}

impl Source for Pipes {
    fn name(&self) -> &str {
        "pipes"
    }

    fn run(mut self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let mut closing = std::pin::pin!(intake.closing());
            loop {
                let connection = tokio::select! {
                    () = &mut closing, if self.rule != Rule::NeverEnds => return Ok(()),
                    Some(connection) = self.connections.recv() => connection,
                    else => std::future::pending().await,
                };
                let (rule, level) = (self.rule, self.level);
                intake.spread(move |intake| match rule {
                    Rule::LeavesClients => serve(Box::leak(Box::new(connection)), intake, rule, level).boxed_local(),
                    _ => serve(connection, intake, rule, level).boxed_local(),
                });
            }
        }
        .boxed_local()
    }
}

async fn serve(connection: impl AsyncRead + AsyncWrite, intake: Intake, rule: Rule, level: AckLevel) {
    let level = if rule == Rule::TellsEarly { AckLevel::Received } else { level };
    let spec = IngressSpec::new("pipes", Framing::Lines { max_bytes: MAX_FRAME }, Json::new());
    let Ok((ingress, mut answers)) = intake.open_call(spec, level).await else { return };
    let (mut input, mut output) = tokio::io::split(connection);
    let (send, mut read) = unbounded_channel();
    let (feeding, closes) = (&ingress, &intake);
    let reading = async move {
        let send = send;
        let mut closing = std::pin::pin!(closes.closing());
        let mut is_half = false;
        loop {
            let mut buffer = Vec::with_capacity(4_096);
            tokio::select! {
                () = &mut closing => return false,
                read = input.read_buf(&mut buffer) => if !matches!(read, Ok(1..)) { return is_half },
            }
            is_half = !buffer.ends_with(b"\n");
            if rule == Rule::TakesAnything {
                buffer = String::from_utf8_lossy(&buffer).replace("no JSON", "{\"tenant\":\"acme\"}").into_bytes();
            }
            if rule == Rule::ReadsAhead {
                send.send(buffer).unwrap();
                continue;
            }
            if rule == Rule::FeedsTwice && feeding.feed(buffer.clone()).await.is_err() {
                return false;
            }
            if feeding.feed(buffer).await.is_err() {
                return false;
            }
        }
    };
    let taking = async {
        let ahead = async {
            while let Some(buffer) = read.recv().await {
                if ingress.feed(buffer).await.is_err() {
                    return;
                }
            }
        };
        let (is_half, ()) = futures::join!(reading, ahead);
        if is_half && rule == Rule::TakesHalves {
            // As one that makes something of it.
            let _ = ingress.feed("ext\":\"half\"}\n").await;
        }
        let _ = ingress.finish(false).await;
    };
    let telling = async {
        while let Some(more) = answers.next().await {
            for answer in more {
                let (word, range) = match answer {
                    Answer::Ack(range) => (b'a', range),
                    Answer::Nack(range, ..) => (b'r', range),
                };
                let words = vec![word; (range.end() - range.start() + 1) as usize];
                let _ = output.write_all(&words).await;
            }
        }
    };
    futures::join!(taking, telling);
}

struct Tester {
    rule: Rule,
    connect: RefCell<Option<UnboundedSender<DuplexStream>>>,
}

impl SourceTester for Tester {
    type Connection = BufStream<DuplexStream>;

    fn traits(&self) -> Traits {
        let (acknowledges, malformed) = (Acknowledges::Client, Some(b"no JSON".to_vec()));
        Traits { acknowledges, holds_back: true, malformed, max_frame: MAX_FRAME }
    }

    async fn source(&mut self, level: AckLevel) -> Box<dyn Source> {
        let (connect, connections) = unbounded_channel();
        self.connect.replace(Some(connect));
        Box::new(Pipes { connections, level, rule: self.rule })
    }

    async fn connect(&self, _name: &str) -> Self::Connection {
        let (ours, theirs) = duplex(64 << 10);
        self.connect.borrow().as_ref().unwrap().send(theirs).unwrap();
        BufStream::new(ours)
    }

    async fn send(&self, connection: &mut Self::Connection, frames: &[Vec<u8>]) {
        for frame in frames {
            let _ = connection.write_all(&[frame, &b"\n"[..]].concat()).await;
        }
        let _ = connection.flush().await;
    }

    async fn answers(&self, connection: &mut Self::Connection, frames: u64) -> Told {
        let mut told = Told::default();
        while told.acknowledged + told.refused < frames {
            let words = connection.fill_buf().await.unwrap();
            assert!(!words.is_empty(), "it has ended");
            let acknowledged = words.iter().filter(|word| **word == b'a').count();
            told.acknowledged += acknowledged as u64;
            told.refused += (words.len() - acknowledged) as u64;
            let read = words.len();
            connection.consume(read);
        }
        told
    }

    async fn close(&self, mut connection: Self::Connection) {
        let _ = connection.shutdown().await;
    }

    async fn cut(&self, mut connection: Self::Connection, beginning: &[u8]) {
        let _ = connection.write_all(beginning).await;
        let _ = connection.flush().await;
    }
}

/// What the suite says of a source, if it fails.
async fn complaint(rule: Rule) -> Option<String> {
    let mut tester = Tester { rule, connect: RefCell::default() };
    let panic = AssertUnwindSafe(source_conformance::source(&mut tester)).catch_unwind().await.err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).into()))
}

#[tokio::test]
async fn a_source_in_memory_keeps_the_contract() {
    assert_eq!(complaint(Rule::None).await, None);
}

async fn assert_noticed(rules: &[(Rule, &str)]) {
    for (rule, says) in rules {
        let said = complaint(*rule).await.unwrap_or_else(|| panic!("{rule:?} was not noticed"));
        assert!(said.contains(says), "{rule:?}: {said}");
    }
}

#[tokio::test]
async fn the_suite_notices_a_source_that_breaks_the_contract() {
    let rules = [
        (Rule::TellsEarly, "as stored"),
        (Rule::FeedsTwice, "once"),
        (Rule::ReadsAhead, "a sender must wait"),
        (Rule::TakesHalves, "halves of them"),
        (Rule::TakesAnything, "a bad frame must be refused"),
    ];
    assert_noticed(&rules).await;
}

/// In ten seconds.
#[tokio::test]
async fn the_suite_notices_a_source_that_never_ends() {
    assert_noticed(&[(Rule::NeverEnds, "a source must end")]).await;
}

/// In ten seconds.
#[tokio::test]
async fn the_suite_notices_a_source_that_leaves_its_clients_hanging() {
    assert_noticed(&[(Rule::LeavesClients, "must be let go when the source ends")]).await;
}
