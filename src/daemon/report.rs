//! Takes the periodic failure report where the configuration says: to a file or to the store, on a thread of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use headworks_actors::{Event, Report, ReportEntry, System, SystemBuilder, TenantId, UnixMillis};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, ReportTo};
use crate::jsonl::RotatedFile;
use crate::supervisor_log::rfc3339;

/// So many reports may wait; further ones are logged.
const WAITING: usize = 16;

/// Where reports go, and the thread that takes them, where there is one.
#[derive(Debug)]
pub(super) struct Reports {
    way: Way,
    to: Arc<Mutex<To>>,
    waiting: Option<Waiting>,
    taking: Option<Taking>,
}

/// What of the configuration says where reports go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    to: ReportTo,
    path: PathBuf,
    tenant: TenantId,
    /// The size and the number of its files: those of the supervisor log.
    files: (usize, u32),
}

/// Whom the system tells.
#[derive(Debug)]
enum To {
    Log,
    Nobody,
    Taker(mpsc::Sender<Report>),
}

/// The thread. Dropped, it writes what waits.
#[derive(Debug)]
struct Taking {
    /// Dropped, it stops the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Reports that somebody is yet to take.
#[derive(Debug)]
struct Waiting {
    taker: Taker,
    reports: mpsc::Receiver<Report>,
}

#[derive(Debug)]
enum Taker {
    File { file: RotatedFile, path: PathBuf },
    Store { tenant: TenantId, tenant_field: String },
}

impl To {
    /// Whom to tell by the configuration, and who takes it, where that is not the log.
    fn of(config: &Config) -> (Self, Option<Waiting>) {
        let taker = match config.report.to {
            ReportTo::File => {
                let (path, max_bytes) = (config.report_file(), config.log.supervisor_max_bytes as u64);
                Taker::File { file: RotatedFile::new(path.clone(), max_bytes, config.log.supervisor_files), path }
            }
            ReportTo::Store => {
                let (tenant, tenant_field) = (config.report.tenant.clone(), config.decoder.tenant_field.clone());
                Taker::Store { tenant, tenant_field }
            }
            ReportTo::Log => return (Self::Log, None),
            ReportTo::None => return (Self::Nobody, None),
        };
        let (tell, reports) = mpsc::channel(WAITING);
        (Self::Taker(tell), Some(Waiting { taker, reports }))
    }

    fn tell(&self, report: &Report) {
        match self {
            Self::Nobody => {}
            Self::Taker(taker) if taker.try_send(report.clone()).is_ok() => {}
            Self::Log | Self::Taker(_) => report.log(),
        }
    }
}

fn every(config: &Config) -> Option<Duration> {
    Some(config.report.every).filter(|every| *every > Duration::ZERO && config.report.to != ReportTo::None)
}

fn way(config: &Config) -> Way {
    let files = match config.report.to {
        ReportTo::File => (config.log.supervisor_max_bytes, config.log.supervisor_files),
        _ => (0, 0),
    };
    Way { to: config.report.to, path: config.report.path.clone(), tenant: config.report.tenant.clone(), files }
}

impl Reports {
    /// How the system is to report by the configuration.
    pub(super) fn of(config: &Config) -> (impl FnOnce(SystemBuilder) -> SystemBuilder, Self) {
        let (to, waiting) = To::of(config);
        let to = Arc::new(Mutex::new(to));
        let (every, told) = (every(config), to.clone());
        let set = move |builder: SystemBuilder| {
            let tell = move |report: &Report| told.lock().unwrap_or_else(PoisonError::into_inner).tell(report);
            builder.report_every(every).on_report(tell)
        };
        (set, Self { way: way(config), to, waiting, taking: None })
    }

    /// Has somebody take what is reported.
    pub(super) fn start(&mut self, system: &System) {
        self.taking = self.waiting.take().map(|waiting| waiting.start(system));
    }

    /// As another configuration says, from now on. What waits goes where it was to go.
    pub(super) fn change(&mut self, config: &Config, system: &System) {
        if way(config) != self.way {
            let (to, waiting) = To::of(config);
            *self.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
            self.taking = None;
            (self.way, self.waiting) = (way(config), waiting);
            self.start(system);
        }
        system.set_report_every(every(config));
    }
}

impl Waiting {
    /// Starts the thread. One that cannot be had is told; reports are logged then.
    fn start(self, system: &System) -> Taking {
        let (stop, stopped) = oneshot::channel();
        let system = system.clone();
        let run = move || run(self, &system, stopped);
        let thread = std::thread::Builder::new().name("headworks-report".into()).spawn(run).inspect_err(|why| {
            tracing::error!(target: "headworks", %why, "no thread for the failure report: it goes to the log");
        });
        Taking { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in there has been told by the hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(Waiting { mut taker, mut reports }: Waiting, system: &System, mut stopped: oneshot::Receiver<()>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            tracing::error!(target: "headworks", %why, "no runtime for the failure report: it goes to the log");
            return;
        }
    };
    runtime.block_on(async {
        loop {
            let report = tokio::select! {
                biased;
                report = reports.recv() => report,
                _ = &mut stopped => break,
            };
            let Some(report) = report else { break };
            tokio::select! {
                biased;
                () = taker.take(&report, system) => {}
                // The store took it in or not; the log has it for sure.
                _ = &mut stopped => {
                    report.log();
                    break;
                }
            }
        }
        reports.close();
        while let Ok(report) = reports.try_recv() {
            match &mut taker {
                Taker::File { .. } => taker.take(&report, system).await,
                // The system takes nothing any more.
                Taker::Store { .. } => report.log(),
            }
        }
    });
}

impl Taker {
    async fn take(&mut self, report: &Report, system: &System) {
        let taken = match self {
            Self::File { file, path } => append(file, path, report),
            Self::Store { tenant, tenant_field } => offer(system, tenant, tenant_field, report).await,
        };
        if let Err(why) = taken {
            tracing::error!(target: "headworks", %why, "the failure report goes to the log instead");
            report.log();
        }
    }
}

fn append(file: &mut RotatedFile, path: &std::path::Path, report: &Report) -> Result<(), String> {
    let mut lines = vec![];
    for entry in &report.entries {
        serde_json::to_writer(&mut lines, &Line::new(report, entry)).map_err(|why| why.to_string())?;
        lines.push(b'\n');
    }
    file.append(&lines).map_err(|why| format!("cannot write {}: {why}", path.display()))
}

async fn offer(system: &System, tenant: &TenantId, tenant_field: &str, report: &Report) -> Result<(), String> {
    // What the reports themselves fail with is no event of theirs: that would never end.
    let (own, others): (Vec<_>, Vec<_>) =
        report.entries.iter().partition(|entry| entry.tenant.as_ref() == Some(tenant));
    if !own.is_empty() {
        Report { entries: own.into_iter().cloned().collect(), ..*report }.log();
    }
    let mut events = vec![];
    for entry in others {
        // Read in again from a rescue, it must not pass for an event of the tenant that failed.
        let mut body = serde_json::Map::new();
        body.insert(tenant_field.to_owned(), tenant.as_str().into());
        let line = serde_json::to_value(Line::new(report, entry)).map_err(|why| why.to_string())?;
        body.insert("report".to_owned(), line);
        let body = serde_json::to_vec(&body).map_err(|why| why.to_string())?;
        events.push(Event::new(tenant.clone(), Some(report.at), body));
    }
    if events.is_empty() {
        return Ok(());
    }
    system.offer(events).await.map_err(|why| why.to_string())
}

/// A report's entry as a line.
#[derive(Serialize)]
struct Line<'r> {
    #[serde(with = "rfc3339")]
    since: UnixMillis,
    #[serde(with = "rfc3339")]
    at: UnixMillis,
    tenant: Option<&'r TenantId>,
    code: &'r str,
    recent: u64,
    last_minute: u64,
    last_5_minutes: u64,
    last_hour: u64,
    failures: u64,
    events: u64,
    #[serde(with = "rfc3339")]
    first_at: UnixMillis,
    #[serde(with = "rfc3339")]
    last_at: UnixMillis,
    sample: &'r str,
}

impl<'r> Line<'r> {
    fn new(report: &Report, entry: &'r ReportEntry) -> Self {
        Self {
            since: report.since,
            at: report.at,
            tenant: entry.tenant.as_ref(),
            code: entry.code.as_str(),
            recent: entry.recent,
            last_minute: entry.last_minute,
            last_5_minutes: entry.last_5_minutes,
            last_hour: entry.last_hour,
            failures: entry.failures,
            events: entry.events,
            first_at: entry.first_at,
            last_at: entry.last_at,
            sample: &entry.sample,
        }
    }
}
