use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use headworks::UnixMillis;
use headworks::admin::Explanation;
use headworks::supervisor_log::LogEntry;

use super::super::data::{Data, Directory};
use super::super::exit::Exit;
use super::super::live::{Live, NoAnswer, encoded};
use super::APART;
use super::state::{Look, Row};

/// So many entries of the supervisor log.
const ENTRIES: usize = 50;

/// The thread that asks the daemon.
pub(super) struct Feed {
    pub(super) told: Receiver<Result<Look, String>>,
    wants: Sender<Option<String>>,
}

impl Feed {
    pub(super) fn start(data: Data) -> std::io::Result<Self> {
        // One look is drawn before the next is taken.
        let ((tell, told), (wants, wanted)) = (sync_channel(1), channel());
        std::thread::Builder::new()
            .name("headworks-top".to_owned())
            .spawn(move || go_on(&mut Asker::new(data), &tell, &wanted))?;
        Ok(Self { told, wants })
    }

    /// Has it ask at once, about this tenant too.
    pub(super) fn ask(&self, tenant: Option<&str>) {
        // Where it has ended, the next look says so.
        let _ = self.wants.send(tenant.map(str::to_owned));
    }
}

/// Until nobody takes what is told.
fn go_on(asker: &mut Asker, tell: &SyncSender<Result<Look, String>>, wanted: &Receiver<Option<String>>) {
    let mut tenant = None;
    loop {
        let look = asker.ask(tenant.as_deref()).map_err(|(_, why)| why);
        if tell.send(look).is_err() {
            return;
        }
        match wanted.recv_timeout(APART) {
            Ok(wants) => tenant = wanted.try_iter().last().unwrap_or(wants),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Asks the daemon; where it is gone, whoever is there next.
pub(super) struct Asker {
    data: Data,
    live: Option<Live>,
    began: Instant,
}

impl Asker {
    pub(super) fn new(data: Data) -> Self {
        Self { data, live: None, began: Instant::now() }
    }

    /// How it is now.
    pub(super) fn ask(&mut self, tenant: Option<&str>) -> Result<Look, (Exit, String)> {
        let live = match self.live.take() {
            Some(live) => live,
            None => match self.data.directory()? {
                (_, Directory::Live(live)) => live,
                // The directory is let go of at once: a daemon may want to start.
                (path, Directory::Files(_)) => {
                    let why = format!(
                        "no daemon runs on {0}; start it with `headworks run --data {0}`, or name its directory with --data",
                        path.display()
                    );
                    return Err((Exit::Unavailable, why));
                }
            },
        };
        let tenants: Vec<Row> = live.get("/v1/tenants")?;
        let mut lines = vec![];
        let copied = live.copy(&format!("/v1/log?last={ENTRIES}&brief=true"), &mut lines)?;
        copied.map_err(|why| (Exit::Io, why.to_string()))?;
        // What a newer daemon says otherwise is passed by.
        let log = lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let log: Vec<LogEntry> = log.collect();
        let explained = match tenant {
            None => None,
            Some(tenant) => match live.get::<Explanation>(&format!("/v1/tenants/{}/explain", encoded(tenant))) {
                Ok(explained) => Some(explained),
                Err(NoAnswer::Refused(problem)) if problem.status == 404 => None,
                Err(why) => return Err(why.into()),
            },
        };
        self.live = Some(live);
        Ok(Look { at: now(), since: self.began.elapsed(), tenants, log, explained })
    }
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
