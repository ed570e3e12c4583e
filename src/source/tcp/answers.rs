use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::Answer;
use crate::source::ack::Reply;

/// After how long without an answer the server says that it is there.
pub(in crate::source) const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// How many bytes may be read from a client while it does not read its answers. What is answered meanwhile is kept.
const AHEAD: usize = 4 << 20;

/// Between the reader and the writer of a connection: shut while the client does not read its answers and was read from
/// for [`AHEAD`] bytes meanwhile.
#[derive(Debug, Default)]
pub(in crate::source) struct Gate {
    writing: Cell<bool>,
    ahead: Cell<usize>,
    moved: Notify,
}

impl Gate {
    /// Waits while it is shut.
    pub(in crate::source) async fn passed(&self) {
        while self.is_shut() {
            self.moved.notified().await;
        }
    }

    pub(in crate::source) fn is_shut(&self) -> bool {
        self.writing.get() && self.ahead.get() >= AHEAD
    }

    /// So many bytes were read.
    pub(in crate::source) fn read(&self, bytes: usize) {
        self.ahead.set(self.ahead.get() + bytes);
    }

    pub(in crate::source) async fn while_writing<T>(&self, write: impl Future<Output = T>) -> T {
        self.writing.set(true);
        self.ahead.set(0);
        let written = write.await;
        self.writing.set(false);
        self.moved.notify_one();
        written
    }
}

/// What is to be written to a client. What is left of it when a write was dropped is not lost: no line is ever cut in two.
#[derive(Debug, Default)]
pub(super) struct Lines(VecDeque<u8>);

impl Lines {
    pub(super) fn push(&mut self, reply: &Reply) {
        // Memory takes everything.
        let _ = writeln!(self.0, "{reply}");
    }

    pub(super) async fn write(&mut self, output: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        output.write_all_buf(&mut self.0).await?;
        // What is encrypted is not on its way yet.
        output.flush().await
    }
}

/// Writes the answers as they come, until there will be none any more.
pub(super) async fn write_all(
    output: &mut (impl AsyncWrite + Unpin),
    lines: &mut Lines,
    answers: impl Stream<Item = Vec<Answer>>,
    gate: &Gate,
) -> io::Result<()> {
    let mut answers = std::pin::pin!(answers);
    loop {
        gate.while_writing(lines.write(output)).await?;
        // While a write takes its time the answers grow together on their side.
        match tokio::time::timeout(ALIVE_EVERY, answers.next()).await {
            Ok(Some(answers)) => answers.into_iter().for_each(|answer| lines.push(&reply(answer))),
            Ok(None) => return Ok(()),
            Err(_) => lines.push(&Reply::Alive),
        }
    }
}

pub(in crate::source) fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Ack(positions) => Reply::Ack(positions),
        Answer::Nack(positions, code, retry_after) => {
            Reply::Nack { positions, code: code.as_str().to_owned(), retry_after }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use futures::FutureExt;
    use futures::stream;
    use tokio::io::AsyncReadExt;

    fn virtual_time() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    }

    #[test]
    fn answers_are_written_as_lines_and_none_is_held_back_for_the_next() {
        virtual_time().block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
            let answers = stream::iter([
                vec![Answer::Ack(1..=3), Answer::Nack(4..=4, Code::BadJson, None)],
                vec![Answer::Nack(5..=9, Code::Throttled, Some(Duration::from_millis(1_500)))],
            ]);
            let (mut lines, gate) = (Lines::default(), Gate::default());
            lines.push(&Reply::Ok { last: 0, next: 1 });
            let mut written = Box::pin(write_all(&mut ours, &mut lines, answers.chain(stream::pending()), &gate));
            assert!((&mut written).now_or_never().is_none());
            let expected = "ok last=0 next=1\nack 1-3\nnack 4 bad_json\nnack 5-9 throttled retry_after=1500\n";
            let mut read = vec![0; expected.len()];
            theirs.read_exact(&mut read).await.unwrap();
            assert_eq!(String::from_utf8(read).unwrap(), expected);
        });
    }

    #[test]
    fn a_client_with_nothing_to_be_told_is_told_every_ten_seconds_that_the_server_is_there() {
        virtual_time().block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
            let began = tokio::time::Instant::now();
            let answers = stream::once(async {
                tokio::time::sleep(Duration::from_secs(25)).await;
                vec![Answer::Ack(1..=1)]
            });
            let (mut lines, gate) = (Lines::default(), Gate::default());
            write_all(&mut ours, &mut lines, answers, &gate).await.unwrap();
            drop(ours);
            let mut read = String::new();
            theirs.read_to_string(&mut read).await.unwrap();
            assert_eq!((read.as_str(), began.elapsed().as_secs()), ("alive\nalive\nack 1\n", 25));
        });
    }

    #[test]
    fn a_client_that_does_not_read_its_answers_is_read_from_so_far_and_no_further_until_it_does() {
        virtual_time().block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(4);
            let answers = stream::iter([vec![Answer::Ack(1..=3)]]).chain(stream::pending());
            let (mut lines, gate) = (Lines::default(), Gate::default());
            let mut written = Box::pin(write_all(&mut ours, &mut lines, answers, &gate));
            gate.read(AHEAD);
            assert!((&mut written).now_or_never().is_none());
            gate.read(AHEAD - 1);
            assert!(gate.passed().now_or_never().is_some(), "so far");
            gate.read(1);
            let mut passed = Box::pin(gate.passed());
            assert!((&mut passed).now_or_never().is_none(), "no further");
            let mut read = [0; 8];
            tokio::select! {
                _ = theirs.read_exact(&mut read) => {}
                _ = &mut written => unreachable!(),
            }
            assert!((&mut written).now_or_never().is_none());
            passed.await;
            assert_eq!(&read, b"ack 1-3\n");
        });
    }
}
