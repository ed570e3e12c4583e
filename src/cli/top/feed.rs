use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use headworks::UnixMillis;
use headworks::admin::{Explanation, OVERVIEW_COLUMNS};
use headworks::supervisor_log::LogEntry;
use serde::Deserialize;

use super::super::data::{Data, Directory};
use super::super::exit::Exit;
use super::super::live::{Live, NoAnswer, encoded};
use super::APART;
use super::state::{Look, Row, Totals};

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
    let (mut tenant, mut log) = (None, Log::default());
    loop {
        let look = asker.ask(tenant.as_deref()).map(|look| Look { log: log.newest(&asker.data), ..look });
        if tell.send(look.map_err(|(_, why)| why)).is_err() {
            return;
        }
        match wanted.recv_timeout(APART) {
            Ok(wants) => tenant = wanted.try_iter().last().unwrap_or(wants),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The newest entries of the supervisor log, followed on a thread of its own: a daemon that is asked for them reads its files.
#[derive(Default)]
struct Log {
    entries: Entries,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    fn newest(&mut self, data: &Data) -> Vec<LogEntry> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (data, mut entries) = (data.clone(), self.entries.clone());
            let follow = move || {
                if let Ok((_, Directory::Live(live))) = data.directory() {
                    entries.lock().clear();
                    // Why it ends is told by who asks for all the rest.
                    let _ = live.copy(&format!("/v1/log?last={ENTRIES}&brief=true&follow=true"), &mut entries);
                }
            };
            // Where there is no thread to be had, the next look tries again.
            self.thread = std::thread::Builder::new().name("headworks-top-log".to_owned()).spawn(follow).ok();
        }
        self.entries.lock().newest.iter().cloned().collect()
    }
}

/// Takes lines, keeps the newest entries of them.
#[derive(Clone, Default)]
struct Entries(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    newest: VecDeque<LogEntry>,
    /// The line that is not whole yet.
    pending: Vec<u8>,
}

impl Lines {
    fn clear(&mut self) {
        (self.newest, self.pending) = (VecDeque::new(), vec![]);
    }
}

impl Entries {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Entries {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.lock();
        lines.pending.extend_from_slice(bytes);
        let end = memchr::memrchr(b'\n', &lines.pending).map_or(0, |at| at + 1);
        let whole: Vec<u8> = lines.pending.drain(..end).collect();
        // What a newer daemon says otherwise is passed by.
        let entries = whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        lines.newest.extend(entries);
        let more = lines.newest.len().saturating_sub(ENTRIES);
        lines.newest.drain(..more);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Asks the daemon; where it is gone, whoever is there next.
pub(super) struct Asker {
    data: Data,
    live: Option<Live>,
    began: Instant,
}

/// What of an [`Overview`](headworks::admin::Overview) is shown.
#[derive(Deserialize)]
struct Overview {
    opening: String,
    trouble: Option<String>,
    totals: Totals,
    sources: BTreeMap<String, Source>,
    columns: Vec<String>,
    tenants: Vec<Row>,
}

/// The frames of a source.
#[derive(Deserialize)]
struct Source {
    malformed: u64,
}

impl Asker {
    pub(super) fn new(data: Data) -> Self {
        Self { data, live: None, began: Instant::now() }
    }

    /// The daemon that is there now.
    fn live(&mut self) -> Result<Live, (Exit, String)> {
        if let Some(live) = self.live.take() {
            return Ok(live);
        }
        match self.data.directory()? {
            (_, Directory::Live(live)) => Ok(live),
            // The directory is let go of at once: a daemon may want to start.
            (path, Directory::Files(_)) => {
                let why = format!(
                    "no daemon runs on {0}; start it with `headworks run --data {0}`, or name its directory with --data",
                    path.display()
                );
                Err((Exit::Unavailable, why))
            }
        }
    }

    /// How it is now, but for the log. Nothing of that is read from a file or the store.
    pub(super) fn ask(&mut self, tenant: Option<&str>) -> Result<Look, (Exit, String)> {
        let live = self.live()?;
        let Overview { opening, trouble, totals, sources, columns, tenants } = live.get("/v1/overview")?;
        if columns != OVERVIEW_COLUMNS {
            let why =
                "the daemon is of another version and tells of its tenants in another way; use its own `headworks top`";
            return Err((Exit::Unavailable, why.to_owned()));
        }
        // Most of them name no tenant.
        let totals = Totals { malformed: sources.values().map(|source| source.malformed).sum(), ..totals };
        let explained = match tenant {
            None => None,
            Some(tenant) => {
                match live.get::<Explanation>(&format!("/v1/tenants/{}/explain?memory=true", encoded(tenant))) {
                    Ok(explained) => Some(explained),
                    Err(NoAnswer::Refused(problem)) if problem.status == 404 => None,
                    Err(why) => return Err(why.into()),
                }
            }
        };
        self.live = Some(live);
        let (at, since, log) = (UnixMillis::now(), self.began.elapsed(), vec![]);
        Ok(Look { at, since, opening, trouble, totals, tenants, log, explained })
    }

    /// The newest entries of the log, once.
    pub(super) fn log(&mut self) -> Result<Vec<LogEntry>, (Exit, String)> {
        let (live, mut entries) = (self.live()?, Entries::default());
        let copied = live.copy(&format!("/v1/log?last={ENTRIES}&brief=true"), &mut entries)?;
        copied.map_err(|why| (Exit::Io, why.to_string()))?;
        self.live = Some(live);
        let newest = std::mem::take(&mut entries.lock().newest);
        Ok(newest.into())
    }
}
