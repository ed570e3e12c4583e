//! What goes out: answers, and pings.

use std::time::Duration;

use futures::SinkExt;
use futures::stream::SplitSink;
use headworks_actors::Answers;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::super::ack::Reply;
use super::super::tcp::{ALIVE_EVERY, Gate, reply};
use super::talk::Socket;

/// About how long a message of answers is at the most: any client can take one of this length.
const MOST: usize = 16 << 10;

/// One end of a connection, and how long it may take to get rid of a message.
pub(super) struct Teller<'t> {
    pub(super) output: &'t mut SplitSink<Socket, Message>,
    pub(super) idle: Duration,
    pub(super) gate: &'t Gate,
}

impl Teller<'_> {
    async fn send(&mut self, message: Message) -> Result<(), String> {
        match timeout(self.idle, self.gate.while_writing(self.output.send(message))).await {
            Ok(sent) => sent.map_err(|why| format!("writing failed: {why}")),
            Err(_) => Err("the client does not read what it is told".to_owned()),
        }
    }

    /// Pings for ever, so that a client that is there says so; the answer is why it cannot.
    pub(super) async fn ping(mut self) -> String {
        let mut pings = pings(self.idle);
        loop {
            pings.tick().await;
            if let Err(why) = self.send(Message::Ping(Bytes::new())).await {
                return why;
            }
        }
    }

    /// Tells the answers as they come, after `ok`, and pings, until there will be no answers any more.
    pub(super) async fn tell(mut self, ok: Reply, answers: &mut Answers) -> Result<(), String> {
        let mut pings = pings(self.idle);
        let mut messages = vec![ok.to_string()];
        loop {
            for message in messages.drain(..) {
                self.send(Message::text(message)).await?;
            }
            let silent_until = Instant::now() + ALIVE_EVERY;
            // While a write takes its time the answers grow together on their side.
            tokio::select! {
                biased;
                more = answers.next() => match more {
                    Some(more) => together(more.into_iter().map(reply), &mut messages),
                    None => return Ok(()),
                },
                _ = pings.tick() => self.send(Message::Ping(Bytes::new())).await?,
                () = sleep_until(silent_until) => messages.push(Reply::Alive.to_string()),
            }
        }
    }
}

fn pings(idle: Duration) -> tokio::time::Interval {
    let mut pings = interval_at(Instant::now() + idle / 3, idle / 3);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// The lines of replies in as few messages as may be.
fn together(replies: impl Iterator<Item = Reply>, messages: &mut Vec<String>) {
    for reply in replies {
        let line = reply.to_string();
        match messages.last_mut().filter(|message| message.len() + line.len() < MOST) {
            Some(message) => {
                message.push('\n');
                message.push_str(&line);
            }
            None => messages.push(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_together_in_messages_that_any_client_can_take_and_none_is_cut() {
        let replies = |count: u64| (1..=count).map(|n| Reply::Ack(n..=n));
        let mut messages = vec![];
        together(replies(3), &mut messages);
        assert_eq!(messages, ["ack 1\nack 2\nack 3"]);
        let mut messages = vec![];
        together(replies(10_000), &mut messages);
        assert!(messages.len() > 1 && messages.iter().all(|message| message.len() <= MOST));
        let lines: Vec<_> = messages.iter().flat_map(|message| message.lines()).collect();
        assert_eq!(lines, replies(10_000).map(|reply| reply.to_string()).collect::<Vec<_>>());
    }
}
