use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// How long the service manager waits for the next word while the journal is read, or beyond the deadline of a drain.
const MARGIN: Duration = Duration::from_secs(30);

/// The service manager that started the process, by the protocol of `sd_notify(3)`; nobody, where none did.
///
/// What it is told is lost where it does not listen: the daemon's work never waits for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceManager {
    socket: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(crate) fn of_environment() -> Self {
        let named = |name: &str| std::env::var(name).ok();
        Self::new(named("NOTIFY_SOCKET").as_deref(), interval(named, std::process::id()))
    }

    fn new(socket: Option<&str>, watchdog: Option<Duration>) -> Self {
        let socket = socket.filter(|path| !path.is_empty()).and_then(|path| match connect(path) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(why) => {
                tracing::warn!(target: "headworks", path, %why, "the service manager (NOTIFY_SOCKET) is not told anything");
                None
            }
        });
        Self { socket, watchdog }
    }

    /// The daemon is there: its sources listen.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It takes some time to start; to be said again and again.
    pub(crate) fn starting(&self, status: &str) {
        self.tell(&format!("STATUS={status}\nEXTEND_TIMEOUT_USEC={}", MARGIN.as_micros()));
    }

    /// The daemon ends, within this time.
    pub(crate) fn stopping(&self, within: Duration, status: &str) {
        let patience = within.saturating_add(MARGIN).as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC={patience}"));
    }

    /// Says that the process is alive, as often as the service manager wants it, while `moves` says that it does its work; for ever.
    pub(crate) async fn keep_alive(self, moves: impl Fn() -> bool) {
        let (Some(_), Some(interval)) = (&self.socket, self.watchdog) else { return };
        loop {
            if moves() {
                self.tell("WATCHDOG=1");
            }
            // A lost one is made up for before the time is over.
            tokio::time::sleep(interval / 3).await;
        }
    }

    fn tell(&self, words: &str) {
        if let Some(socket) = &self.socket {
            let (socket, address) = &**socket;
            // Where nobody listens, there is nobody to tell.
            let _ = socket.send_to_addr(words.as_bytes(), address);
        }
    }
}

/// How often the process must show that it is alive, if the watchdog is meant for it.
fn interval(named: impl Fn(&str) -> Option<String>, process: u32) -> Option<Duration> {
    let ours = named("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(process));
    let micros: u64 = named("WATCHDOG_USEC").filter(|_| ours)?.parse().ok()?;
    Some(Duration::from_micros(micros)).filter(|interval| !interval.is_zero())
}

fn connect(path: &str) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.strip_prefix('@') {
        None => SocketAddr::from_pathname(path)?,
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(std::io::ErrorKind::Unsupported.into()),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_is_meant_for_another_process_is_none() {
        let named = |usec: &'static str, pid: Option<&'static str>| {
            move |name: &str| (if name == "WATCHDOG_USEC" { Some(usec) } else { pid }).map(str::to_owned)
        };
        assert_eq!(interval(named("30000000", None), 7), Some(Duration::from_secs(30)));
        assert_eq!(interval(named("30000000", Some("7")), 7), Some(Duration::from_secs(30)));
        assert_eq!(interval(named("30000000", Some("8")), 7), None);
        assert_eq!(interval(named("0", None), 7), None);
        assert_eq!(interval(named("soon", None), 7), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_hangs_does_not_say_that_it_is_alive() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let heard = || {
            let mut bytes = [0; 64];
            std::iter::from_fn(|| manager.recv(&mut bytes).ok()).count()
        };
        let process = ServiceManager::new(path.to_str(), Some(Duration::from_secs(30)));
        for (moves, expected) in [(true, 6), (false, 0)] {
            let _ = tokio::time::timeout(Duration::from_secs(59), process.clone().keep_alive(|| moves)).await;
            assert_eq!(heard(), expected);
        }
    }
}
