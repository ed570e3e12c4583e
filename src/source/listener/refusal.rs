use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// So many are told of in so long; of the others it is told how many they were.
const TOLD: u32 = 5;
const TOLD_IN: Duration = Duration::from_secs(10);

/// How long a client may take to read why it is turned away, and how much of what it says is read meanwhile.
const LINGER: Duration = Duration::from_secs(2);
const LEFTOVER: u64 = 64 << 10;

/// Whether the first bytes of a connection are those of TLS. Of fewer than six it is taken for a beginning: nothing else that is spoken
/// here begins so.
pub(super) fn speaks_tls(first: &[u8]) -> bool {
    // A handshake of version 3.x that begins with a hello.
    let is = |at: usize, of: &dyn Fn(u8) -> bool| first.get(at).is_none_or(|byte| of(*byte));
    is(0, &|byte| byte == 22) && is(1, &|byte| byte == 3) && is(2, &|byte| byte <= 4) && is(5, &|byte| byte == 1)
}

/// Says why, and gives the client the time to read it: to close with bytes unread would throw away what is on its way.
pub(super) async fn turn_away(mut stream: TcpStream, why: &[u8]) {
    let said = async {
        stream.write_all(why).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LEFTOVER), &mut tokio::io::sink()).await
    };
    // A client that is gone, or does not go, is not waited for.
    let _ = timeout(LINGER, said).await;
}

/// How often something was told of lately.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Tellings {
    /// Whether to tell of one more, and of how many before it was not told.
    pub(super) fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= TOLD_IN) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told == TOLD {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_a_few_times_and_then_by_its_number() {
        let (mut tellings, now) = (Tellings::default(), Instant::now());
        let told = (0..1_000).filter(|_| tellings.tell(now).is_some()).count();
        assert_eq!(told, 5);
        assert_eq!(tellings.tell(now + TOLD_IN / 2), None);
        assert_eq!(tellings.tell(now + TOLD_IN), Some(996));
        assert_eq!(tellings.tell(now + TOLD_IN), Some(0));
    }

    #[test]
    fn only_a_client_hello_is_taken_for_tls() {
        for (first, is) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], true),
            (b"\x16\x03", true),
            (b"\x16\x03\x01\x02\x00\x02", false),
            (b"{\"tena", false),
            (b"\x00\x00\x01\x0a{\"", false),
            (b"POST /", false),
        ] {
            assert_eq!(speaks_tls(first), is, "{first:?}");
        }
    }
}
