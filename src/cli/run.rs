use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headworks::config::{Config, FileWatch, Layers, LogConfig, LogFormat, environment};
use headworks::daemon::{Daemon, DaemonError, OpenFiles};
#[cfg(feature = "object")]
use headworks::store::object;
#[cfg(feature = "postgres")]
use headworks::store::postgres;
#[cfg(feature = "webhook")]
use headworks::store::webhook;
use headworks::{DrainReport, Hung, SourceCounters, TenantSnapshot};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::exit::Exit;
use super::say;
use super::service::ServiceManager;
use super::table::{Narrow, Rows, json, screen};

/// What `headworks run` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// The configuration; everything has a default
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data is kept [default: daemon.data_dir of the configuration, else headworks-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep what was accepted and is not stored yet in memory or on disk [default: journal.type of the configuration, else
    /// durable]
    #[arg(long, value_name = "memory|durable")]
    journal: Option<String>,
    /// Take in this file, or stdin for -, to its end, store it and print a summary, instead of listening
    #[arg(long, value_name = "FILE|-")]
    input: Option<PathBuf>,
    /// Print the summary as one JSON document
    #[arg(long, requires = "input")]
    json: bool,
}

type Failure = (Exit, String);

/// Runs the daemon to its end.
pub(crate) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let config = read(args).map_err(|why| (Exit::Config, why.to_string()))?;
    let bar = ProgressBar::hidden();
    let set_level = log(&config.log, &bar);
    raise_open_files();
    // A file is opened before anything is made, so that a slip in its name leaves nothing behind.
    let input = args.input.as_deref().map(open).transpose()?;
    let began = Instant::now();
    let manager = ServiceManager::of_environment();
    let mut told = began;
    let read_back = |done, total| {
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            manager.starting(&format!("reading the journal: {done} of {total} bytes"));
        }
        // What takes no time needs no bar.
        if began.elapsed() > Duration::from_millis(500) && bar.is_hidden() {
            show(&bar, Some(total));
            bar.set_message("reading the journal");
        }
        bar.set_position(done);
    };
    let daemon = Daemon::start_with(config, read_back).map_err(|why| (exit(&why), why.to_string()))?;
    bar.reset();
    tell_recovered(&daemon);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|why| (Exit::Internal, format!("cannot start a runtime: {why}")))?;
    let ended = runtime.block_on(async {
        tokio::spawn(end_when_hung(daemon.hung()));
        let system = daemon.system().clone();
        tokio::spawn(manager.clone().keep_alive(move || system.health().hung.is_none()));
        match input {
            Some(input) => take_in(daemon, input, args.json, &bar).await,
            None => serve(daemon, args, &set_level, &manager).await,
        }
    });
    // A read of stdin that never returns must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// As many connections as the operating system lets the process have.
fn raise_open_files() {
    let before = OpenFiles::now();
    match OpenFiles::raise() {
        Ok(now) => tracing::debug!(target: "headworks", %before, %now, "the limit of open files"),
        // What it comes to is told with what the sources may want.
        Err(why) => tracing::warn!(target: "headworks", %before, %why, "the limit of open files cannot be raised"),
    }
}

/// Ends the process where nothing else helps. What is in the durable journal is there for the next one.
async fn end_when_hung(hung: impl Future<Output = Hung>) {
    let hung = hung.await;
    let line =
        format!("headworks: {hung} (daemon.exit_when_hung); it cannot be stopped from outside, so the process ends\n");
    // Where stderr is gone, the code alone must say it.
    let _ = std::io::stderr().write_all(line.as_bytes());
    std::process::exit(Exit::Internal as i32)
}

fn read(args: &RunArgs) -> Result<Config, headworks::config::ConfigError> {
    let layers = match &args.config {
        Some(path) => Layers::default().file(path)?,
        None => Layers::default(),
    };
    let layers = layers.environment(environment())?;
    let layers = match &args.data {
        Some(data) => layers.flag("--data", "daemon.data_dir", data.to_string_lossy().into_owned()),
        None => layers,
    };
    let layers = match &args.journal {
        Some(kind) => layers.flag("--journal", "journal.type", kind.clone()),
        None => layers,
    };
    layers.read()
}

fn exit(error: &DaemonError) -> Exit {
    match error {
        DaemonError::DataDir { .. } | DaemonError::Control { .. } => Exit::CantCreate,
        DaemonError::InUse { .. }
        | DaemonError::Locked { .. }
        | DaemonError::Listen { .. }
        | DaemonError::Subscription { .. }
        | DaemonError::Positions { .. }
        | DaemonError::Admin { .. } => Exit::Unavailable,
        DaemonError::Token { .. }
        | DaemonError::Tokens { .. }
        | DaemonError::File { .. }
        | DaemonError::Tls { .. }
        | DaemonError::NotBuilt { .. }
        | DaemonError::Telemetry(_) => Exit::Config,
        #[cfg(feature = "postgres")]
        DaemonError::Postgres(postgres::OpenError::Options(_) | postgres::OpenError::Refused { .. }) => Exit::Config,
        #[cfg(feature = "object")]
        DaemonError::Object(object::OpenError::Options(_) | object::OpenError::Refused { .. }) => Exit::Config,
        #[cfg(feature = "webhook")]
        DaemonError::Webhook(webhook::OpenError::Options(_)) => Exit::Config,
        DaemonError::Store(_) | DaemonError::Files(_) | DaemonError::Journal(_) => Exit::Io,
        _ => Exit::Internal,
    }
}

/// Says what an earlier process left.
fn tell_recovered(daemon: &Daemon) {
    let in_flight: u64 = daemon.before().iter().map(|tenant| tenant.in_flight).sum();
    if in_flight > 0 {
        let tenants = daemon.before().iter().filter(|tenant| tenant.in_flight > 0).count();
        tracing::info!(target: "headworks", in_flight, tenants, "recovered from the journal: accepted earlier and not stored yet");
    }
}

/// Until a signal.
async fn serve(
    daemon: Daemon,
    args: &RunArgs,
    set_level: &dyn Fn(&str),
    manager: &ServiceManager,
) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    if let Some(address) = daemon.serve_admin().map_err(|why| (exit(&why), why.to_string()))? {
        tracing::info!(target: "headworks", %address, "the admin API is served");
    }
    let mut changes = Changes::new(args.config.as_deref())?;
    if let Some(file) = &args.config {
        daemon.came_from(file);
    }
    let listening = daemon.listen().await.map_err(|why| (exit(&why), why.to_string()))?;
    let addresses: Vec<_> = listening.iter().map(|(source, address)| format!("{source} on {address}")).collect();
    for (source, address) in listening {
        tracing::info!(target: "headworks", source, %address, store = %daemon.store_path().display(), "listening");
    }
    manager.ready(&format!("listening: {}", addresses.join(", ")));
    let resume = daemon.resume_replay();
    tokio::spawn(async move {
        match resume.await {
            Ok(None) => {}
            Ok(Some(report)) => {
                tracing::info!(target: "headworks", replayed = report.replayed, interrupted = report.interrupted, "went on with a replay of dead letters that had been cut short");
            }
            Err(why) => {
                tracing::error!(target: "headworks", %why, "a replay of dead letters that had been cut short does not go on")
            }
        }
    });
    let name = loop {
        tokio::select! {
            biased;
            name = signals.next() => break name,
            () = changes.next() => reload(&daemon, args, set_level),
        }
    };
    tracing::info!(target: "headworks", signal = name, "draining: no new events, what was accepted is stored");
    manager.stopping(daemon.drain_deadline(), "draining: no new events, what was accepted is stored");
    let (system, left) = (daemon.system().clone(), left(&daemon));
    let report = drain(daemon, signals).await;
    for tenant in report.unfinished() {
        tracing::error!(target: "headworks", tenant = %tenant.end.tenant, in_flight = tenant.end.in_flight, status = %tenant.end.status, "not stored before the deadline");
    }
    let sum = |count: fn(&TenantSnapshot) -> u64| report.tenants.iter().map(|tenant| count(&tenant.end)).sum::<u64>();
    let frames =
        |count: fn(&SourceCounters) -> u64| system.sources().iter().map(|(_, source)| count(source)).sum::<u64>();
    tracing::info!(
        target: "headworks",
        complete = report.complete,
        tenants = report.tenants.len(),
        received = frames(|source| source.received),
        malformed = frames(|source| source.malformed),
        muted = frames(|source| source.muted),
        rejected = frames(|source| source.rejected),
        accepted = frames(|source| source.accepted),
        stored = sum(|tenant| tenant.counters.stored),
        dead_lettered = sum(|tenant| tenant.counters.dead_lettered),
        in_flight = sum(|tenant| tenant.in_flight),
        dead_letters_pending = report.dead_letters_pending,
        uncompensated = report.uncompensated(),
        "drained"
    );
    let in_flight = sum(|tenant| tenant.in_flight);
    if in_flight > 0 {
        tracing::warn!(target: "headworks", in_flight, "{left}");
    }
    if report.uncompensated() > 0 {
        tracing::warn!(target: "headworks", "{}", not_undone(report.uncompensated()));
    }
    Ok(if report.complete { Exit::Ok } else { Exit::Failure })
}

/// Reads the configuration again, and takes over what can be.
fn reload(daemon: &Daemon, args: &RunArgs, set_level: &dyn Fn(&str)) {
    let level = daemon.config().log.level;
    let reloaded = match read(args) {
        // Below its first line an error shows where it is in the file.
        Err(why) => Err(why.to_string().lines().next().unwrap_or_default().to_owned()),
        Ok(fresh) => daemon.reload(&fresh).map_err(|why| why.to_string()),
    };
    match reloaded {
        Err(why) => daemon.reload_refused(&why),
        Ok(_) => {
            let now = daemon.config().log.level;
            if now != level {
                set_level(&now);
            }
        }
    }
}

/// How often the file is looked at: a change is taken over after at most twice that.
const LOOK: Duration = Duration::from_millis(250);

/// SIGHUP, and changes of the file.
struct Changes {
    hangup: tokio::signal::unix::Signal,
    file: Option<FileWatch>,
    looks: tokio::time::Interval,
}

impl Changes {
    fn new(file: Option<&Path>) -> Result<Self, Failure> {
        let cannot = |why: std::io::Error| (Exit::Internal, format!("cannot listen for signals: {why}"));
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let hangup = signal(SignalKind::hangup()).map_err(cannot)?;
        Ok(Self { hangup, file: file.map(FileWatch::new), looks })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.hangup.recv() => {
                    if let Some(file) = &mut self.file {
                        file.is_read();
                    }
                    return;
                }
                _ = self.looks.tick() => {
                    if self.file.as_mut().is_some_and(FileWatch::look) {
                        return;
                    }
                }
            }
        }
    }
}

/// What is accepted when a drain is given up has so long to come to the journal's disk.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// Drains; one more signal ends the process at once.
async fn drain(daemon: Daemon, mut signals: Signals) -> DrainReport {
    let (system, before, mut left) = (daemon.system().clone(), daemon.before().to_owned(), left(&daemon));
    tokio::select! {
        biased;
        report = daemon.drain() => report.since(&before),
        name = signals.next() => {
            let in_flight = system.tenants().iter().map(|tenant| tenant.in_flight).sum::<u64>();
            let is_recorded = async {
                tokio::select! {
                    biased;
                    is_recorded = tokio::time::timeout(RECORD_PATIENCE, system.recorded()) => is_recorded.is_ok(),
                    _ = signals.next() => false,
                }
            };
            if in_flight == 0 {
                // The journal may have ended already: it is not waited for.
                left = "nothing was in flight";
            } else if !is_recorded.await {
                left = "what is in flight could not be written to the journal: what it lacks of that is lost, and was not acknowledged";
            }
            tracing::error!(target: "headworks", signal = name, in_flight, left, "stopped before the drain was done");
            std::process::exit(Exit::Failure as i32)
        }
    }
}

/// What becomes of that which a drain did not store.
fn left(daemon: &Daemon) -> &'static str {
    if daemon.is_durable() {
        "what is in flight stays in the journal, and the next start goes on with it"
    } else {
        "what is in flight was in memory alone (journal.type), and is lost"
    }
}

struct Input {
    name: String,
    reader: Box<dyn Read + Send>,
    bytes: Option<u64>,
}

fn open(path: &Path) -> Result<Input, Failure> {
    if path == Path::new("-") {
        return Ok(Input { name: "stdin".to_owned(), reader: Box::new(std::io::stdin()), bytes: None });
    }
    let name = path.display().to_string();
    let cannot = |why: std::io::Error| (Exit::Io, format!("cannot read the input {name}: {why}"));
    let file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if meta.is_dir() {
        return Err((Exit::Io, format!("cannot read the input {name}: it is a directory")));
    }
    Ok(Input { name, reader: Box::new(file), bytes: meta.is_file().then_some(meta.len()) })
}

/// The input to its end, or to a signal.
async fn take_in(daemon: Daemon, input: Input, as_json: bool, bar: &ProgressBar) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let began = Instant::now();
    let source = daemon.input(&input.name, input.reader);
    let taken_in = source.taken_in();
    show(bar, input.bytes);
    let failed = |why: headworks::Error| (Exit::Internal, why.to_string());
    let source = daemon.system().add_source(source).await.map_err(failed)?;
    let ended = loop {
        tokio::select! {
            biased;
            ended = source.ended() => break ended,
            name = signals.next() => {
                let bytes = taken_in.load(Ordering::Relaxed);
                let name = format!("stopped by {name} before the end of {}", input.name);
                break Err(format!("{name}, after about {bytes} bytes; the whole lines in them were taken in"));
            }
            () = tokio::time::sleep(Duration::from_millis(100)) => bar.set_position(taken_in.load(Ordering::Relaxed)),
        }
    };
    bar.set_position(taken_in.load(Ordering::Relaxed));
    bar.set_message("storing");
    let (system, prints) = (daemon.system().clone(), daemon.prints_events());
    let paths = [daemon.store_path(), daemon.dead_letters_file()].map(|path| path.display().to_string());
    let report = drain(daemon, signals).await;
    bar.finish_and_clear();
    let summary = Summary::new(&report, &system.sources(), began.elapsed(), paths);
    let text = if as_json { json(&summary).map_err(|why| (Exit::Internal, why.to_string()))? } else { summary.table() };
    let said = match prints {
        // Where events are printed, nothing else is.
        true => Exit::after_writing(std::io::stderr().write_all(text.as_bytes())),
        false => say(text.as_bytes()),
    };
    match ended {
        Err(why) => Err((Exit::Failure, why)),
        Ok(()) if !report.complete => {
            let letters = report.dead_letters_pending;
            let why = format!(
                "not everything was stored before the deadline (daemon.drain_deadline); dead letters not kept: {letters}"
            );
            Err((Exit::Failure, why))
        }
        Ok(()) if summary.source.rejected + summary.source.throttled > 0 => {
            let refused = summary.source.rejected + summary.source.throttled;
            Err((Exit::Failure, format!("{refused} frames were rejected and are not stored; the log says why")))
        }
        Ok(()) => Ok(said),
    }
}

fn show(bar: &ProgressBar, bytes: Option<u64>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let template = match bytes {
        Some(bytes) => {
            bar.set_length(bytes);
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"
        }
        None => "{spinner} {bytes} {bytes_per_sec} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_draw_target(ProgressDrawTarget::stderr());
}

/// What a run over an input came to.
#[derive(Serialize)]
struct Summary<'r> {
    seconds: f64,
    events_per_second: f64,
    store: String,
    dead_letters: String,
    source: SourceCounters,
    #[serde(flatten)]
    report: &'r DrainReport,
}

impl<'r> Summary<'r> {
    fn new(
        report: &'r DrainReport,
        sources: &[(std::sync::Arc<str>, SourceCounters)],
        took: Duration,
        [store, dead_letters]: [String; 2],
    ) -> Self {
        let source = sources.first().map(|(_, source)| *source).unwrap_or_default();
        let seconds = took.as_secs_f64();
        let events_per_second = source.received as f64 / seconds.max(1e-9);
        Self { seconds, events_per_second, store, dead_letters, source, report }
    }

    fn table(&self) -> String {
        type Column = (&'static str, fn(&TenantSnapshot) -> u64);
        // The last ones only where there is anything to tell: of most inputs there is not.
        let always: [Column; 7] = [
            ("#received", |end| end.counters.received),
            ("#stored", |end| end.counters.stored),
            ("#batches", |end| end.counters.batches),
            ("#dead-lettered", |end| end.counters.dead_lettered),
            ("#muted", |end| end.counters.muted),
            ("#rejected", |end| end.counters.rejected),
            ("#in flight", |end| end.in_flight),
        ];
        let seldom: [Column; 3] = [
            ("#throttled", |end| end.counters.throttled),
            ("#shed", |end| end.counters.shed),
            ("#spilled", |end| end.counters.spilled),
        ];
        let ends = || self.report.tenants.iter().map(|tenant| &tenant.end);
        let sum = |number: fn(&TenantSnapshot) -> u64| ends().map(number).sum::<u64>();
        let told = seldom.into_iter().filter(|(_, number)| sum(*number) > 0);
        let columns: Vec<Column> = always.into_iter().chain(told).collect();
        let names: Vec<_> = std::iter::once("tenant").chain(columns.iter().map(|(name, _)| *name)).collect();
        let mut rows = Rows::new(&names);
        for end in ends() {
            let numbers = columns.iter().map(|(_, number)| number(end).to_string());
            rows.push(std::iter::once(end.tenant.to_string()).chain(numbers).collect());
        }
        let sums = columns.iter().map(|(_, number)| sum(*number).to_string());
        rows.push(std::iter::once("all tenants".to_owned()).chain(sums).collect());
        let narrow = Narrow {
            names: &[("dead-lettered", "dead")],
            spare: &["batches", "muted", "rejected", "throttled", "shed", "spilled"],
            long: &[("tenant", 11)],
        };
        let mut text = rows.fit(screen(), &narrow);
        let SourceCounters { received, malformed, rejected, throttled, .. } = self.source;
        let throttled = if throttled > 0 { format!(", {throttled} throttled") } else { String::new() };
        let kept = match self.report.dead_letters_pending {
            0 => "kept as dead letters".to_owned(),
            pending => format!("{pending} dead letters could NOT be kept"),
        };
        text += &format!(
            "\n{received} frames received, {malformed} malformed ({kept}), {rejected} rejected{throttled}; {:.2} s, {:.0} frames/s\nstore: {}\n",
            self.seconds, self.events_per_second, self.store
        );
        if self.report.uncompensated() > 0 {
            text += &format!("{}\n", not_undone(self.report.uncompensated()));
        }
        if self.dead_letters != self.store {
            text += &format!("dead letters: {}\n", self.dead_letters);
        }
        text
    }
}

fn not_undone(uncompensated: u64) -> String {
    let which = if uncompensated == 1 { "1 compensation".to_owned() } else { format!("{uncompensated} compensations") };
    format!(
        "{which} could NOT be done yet: a store may still hold events that were given up; `headworks uncompensated` lists what, \
         and with the durable journal the next start tries it again"
    )
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let cannot = |why: std::io::Error| (Exit::Internal, format!("cannot listen for signals: {why}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(cannot)?,
            interrupt: signal(SignalKind::interrupt()).map_err(cannot)?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Sends the log to stderr, past the progress bar. What it gives changes the level.
fn log(config: &LogConfig, bar: &ProgressBar) -> Box<dyn Fn(&str)> {
    let filter = EnvFilter::new(&config.level);
    let bar = bar.clone();
    let writer = move || Beside(bar.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // It fails only where the subscriber is gone.
    let set_level: Box<dyn Fn(&str)> = match config.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |level| _ = handle.reload(EnvFilter::new(level)))
        }
        _ => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |level| _ = handle.reload(EnvFilter::new(level)))
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(target: "headworks", place, panic = panic.payload_as_str(), "panic");
    }));
    set_level
}

/// Writes to stderr without tearing the progress bar.
struct Beside(ProgressBar);

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
