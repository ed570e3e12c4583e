use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headworks_actors::{IngressSpec, Intake, Lost};
use tokio::time::Instant;

use crate::source::octet_counted::frame;

/// The largest datagram there is.
const LARGEST: usize = 65_536;

/// So many bytes of datagrams are fed at once, if so many are there.
const FED: usize = 256 << 10;

/// How often it is told at the most what was dropped.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How often the kernel is asked what it dropped.
const ASK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn take_in(
    name: &str,
    socket: UdpSocket,
    spec: IngressSpec,
    intake: &Intake,
    lost: &AtomicU64,
) -> Result<(), String> {
    let socket = tokio::net::UdpSocket::from_std(socket).map_err(|why| why.to_string())?;
    let port = socket.local_addr().map_err(|why| why.to_string())?.port();
    let ingress = intake.open(spec).await.map_err(|why| why.to_string())?;
    let mut closing = std::pin::pin!(intake.closing());
    let mut asks = tokio::time::interval(ASK_EVERY);
    asks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drops = Drops { port, untold: 0, told: None };
    let (mut datagram, mut fed) = (vec![0; LARGEST], Vec::new());
    loop {
        let received = tokio::select! {
            biased;
            () = &mut closing => break,
            _ = asks.tick() => {
                drops.ask(lost);
                drops.tell(name, intake, TELL_EVERY);
                continue;
            }
            received = socket.recv_from(&mut datagram) => received,
        };
        fed.clear();
        let mut received = received.map(|(length, _)| length);
        while let Ok(length) = received {
            frame(&datagram[..length], &mut fed);
            if fed.len() >= FED {
                break;
            }
            received = socket.try_recv(&mut datagram);
        }
        // A refusal that an earlier packet met is none of ours.
        if fed.is_empty() {
            continue;
        }
        fed = match ingress.feed(fed).await {
            Ok(used) => used,
            Err(why) => {
                let _ = ingress.finish(false).await;
                return Err(why.to_string());
            }
        };
    }
    // What the kernel still has cannot be taken in any more.
    let left = std::iter::from_fn(|| socket.try_recv(&mut datagram).ok()).take(1_000_000).count() as u64;
    if left > 0 {
        lost.fetch_add(left, Ordering::Relaxed);
        intake.lost(name, Lost::Datagrams(left), "they came while the system closes, and are not taken in");
    }
    drops.ask(lost);
    drops.tell(name, intake, Duration::ZERO);
    ingress.finish(true).await.map_err(|why| why.to_string())
}

/// What the kernel dropped of a port.
struct Drops {
    port: u16,
    untold: u64,
    told: Option<Instant>,
}

impl Drops {
    /// Asks the kernel.
    fn ask(&mut self, lost: &AtomicU64) {
        let tables =
            ["/proc/net/udp", "/proc/net/udp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
        let dropped: u64 = tables.iter().map(|table| drops(table, self.port)).sum();
        let before = lost.fetch_max(dropped, Ordering::Relaxed);
        self.untold += dropped.saturating_sub(before);
    }

    /// Says what was dropped, if anything was: what goes on and on, once in so long.
    fn tell(&mut self, name: &str, intake: &Intake, every: Duration) {
        if self.untold > 0 && self.told.is_none_or(|told| told.elapsed() >= every) {
            let why = "the kernel dropped them, since they came faster than they were taken in";
            intake.lost(name, Lost::Datagrams(std::mem::take(&mut self.untold)), why);
            self.told = Some(Instant::now());
        }
    }
}

/// What the kernel's table says it dropped at a port: the last column of its lines.
fn drops(table: &str, port: u16) -> u64 {
    let of_port = |line: &&str| {
        let local = line.split_ascii_whitespace().nth(1).and_then(|local| local.rsplit_once(':'));
        local.is_some_and(|(_, found)| u16::from_str_radix(found, 16) == Ok(port))
    };
    let last = |line: &str| line.split_ascii_whitespace().last().and_then(|drops| drops.parse::<u64>().ok());
    table.lines().skip(1).filter(of_port).filter_map(last).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_dropped_is_read_from_its_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 17\n\
             2: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 4\n";
        assert_eq!((drops(table, 0x0202), drops(table, 0x0203), drops(table, 1)), (17, 4, 0));
    }
}
