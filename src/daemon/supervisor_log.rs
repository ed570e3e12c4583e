//! Writes the supervisor log to disk, on a thread of its own: never on the way of an event.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use headworks_actors::{LogItem, Opening, Subscription, System, UnixMillis};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Config, LogConfig};
use crate::jsonl::RotatedFile;
use crate::supervisor_log::{CLOSED, LogEntry, OPENED, file, is_kept};

/// So much is written at once, at the most.
const GROUP_BYTES: usize = 256 << 10;
/// How often it is looked for what is too old.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// The thread. Ended or dropped, it writes what is left and says that the log was closed.
#[derive(Debug)]
pub(super) struct LogFile {
    /// Dropped, it stops the thread.
    orders: Option<mpsc::Sender<Flush>>,
    bounds: watch::Sender<Bounds>,
    thread: Option<JoinHandle<()>>,
}

/// How much of the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    max_bytes: u64,
    files: u32,
    max_age: Option<Duration>,
}

impl Bounds {
    pub(super) fn of(config: &LogConfig) -> Self {
        let (max_bytes, files) = (config.supervisor_max_bytes as u64, config.supervisor_files);
        Self { max_bytes, files, max_age: config.supervisor_max_age }
    }
}

/// To be answered once all that was logged before is written.
type Flush = oneshot::Sender<()>;

/// Has the log written to disk. Does not keep its thread alive.
#[derive(Debug)]
pub(super) struct Flusher(mpsc::WeakSender<Flush>);

impl Flusher {
    /// Waits until all that was logged before is written, or the thread has ended.
    pub(super) async fn flush(&self) {
        let (flush, flushed) = oneshot::channel();
        if let Some(orders) = self.0.upgrade()
            && orders.send(flush).await.is_ok()
        {
            drop(orders);
            let _ = flushed.await;
        }
    }
}

impl LogFile {
    /// Starts the thread; the daemon `began` then. It begins with the first entry that the system wrote. A thread that cannot be had is told and no reason not
    /// to run.
    pub(super) fn start(config: &Config, began: UnixMillis, system: &System) -> Self {
        let (path, opening) = (file(&config.daemon.data_dir), system.opening());
        let of_config = Bounds::of(&config.log);
        let Bounds { max_bytes, files, max_age } = of_config;
        let file = RotatedFile::new(path.clone(), max_bytes, files).max_age(max_age);
        let mut lines = Lines { file, path, opening, pending: vec![], entries: 0, unwritten: 0 };
        let (version, process) = (Some(env!("CARGO_PKG_VERSION").to_owned()), Some(std::process::id()));
        lines.add(&LogEntry { at: began, version, process, ..LogEntry::own(OPENED, opening) });
        lines.expire();
        // Here and now: whoever asks for the log finds it, however late the thread comes up.
        lines.write();
        let (entries, (orders, of_flushing)) = (system.log().subscribe_from(0), mpsc::channel(1));
        let (bounds, bounded) = watch::channel(of_config);
        let spawned = std::thread::Builder::new()
            .name("headworks-log".into())
            .spawn(move || run(lines, entries, of_flushing, bounded));
        let thread = spawned.inspect_err(|why| {
            tracing::error!(target: "headworks", %why, "no thread for the supervisor log: it is not written to disk");
        });
        Self { orders: Some(orders), bounds, thread: thread.ok() }
    }

    /// As another configuration says, from now on.
    pub(super) fn change(&self, config: &Config) {
        let now = Bounds::of(&config.log);
        self.bounds.send_if_modified(|bounds| std::mem::replace(bounds, now) != now);
    }

    pub(super) fn flusher(&self) -> Flusher {
        Flusher(self.orders.as_ref().map_or_else(|| mpsc::channel(1).0.downgrade(), mpsc::Sender::downgrade))
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.orders = None;
        // A panic in there has been told by the hook; the log ends with it.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(
    mut lines: Lines,
    mut entries: Subscription,
    mut orders: mpsc::Receiver<Flush>,
    mut bounds: watch::Receiver<Bounds>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            tracing::error!(target: "headworks", %why, "no runtime for the supervisor log: it is not written to disk");
            return;
        }
    };
    runtime.block_on(async {
        let mut looks = tokio::time::interval(EXPIRE_EVERY);
        loop {
            lines.take_all(&mut entries);
            tokio::select! {
                biased;
                item = entries.next() => lines.take(&item),
                _ = looks.tick() => lines.expire(),
                Ok(()) = bounds.changed() => {
                    let bounds = *bounds.borrow_and_update();
                    lines.bound(bounds);
                }
                order = orders.recv() => match order {
                    Some(flush) => {
                        lines.take_all(&mut entries);
                        // Whoever asked may have given up.
                        let _ = flush.send(());
                    }
                    None => break,
                },
            }
        }
    });
    lines.take_all(&mut entries);
    lines.add(&LogEntry::own(CLOSED, lines.opening));
    lines.write();
}

/// Lines on their way to the file.
struct Lines {
    file: RotatedFile,
    path: PathBuf,
    opening: Opening,
    pending: Vec<u8>,
    /// How many are pending.
    entries: u64,
    /// How many could not be written since one could.
    unwritten: u64,
}

impl Lines {
    fn take_all(&mut self, entries: &mut Subscription) {
        while let Some(item) = entries.try_next() {
            self.take(&item);
        }
        self.write();
    }

    fn take(&mut self, item: &LogItem) {
        match item {
            LogItem::Event(event) if !is_kept(event) => {}
            LogItem::Event(event) => self.add(&LogEntry::of(event, self.opening)),
            LogItem::Missed(missed) => {
                self.add(&LogEntry::missed(self.opening, *missed, "more came than could be written to disk in time"));
            }
        }
    }

    fn add(&mut self, entry: &LogEntry) {
        // A map of words and numbers: there is nothing in it that JSON cannot say.
        if serde_json::to_writer(&mut self.pending, entry).is_ok() {
            self.pending.push(b'\n');
            self.entries += 1;
        }
        if self.pending.len() >= GROUP_BYTES {
            self.write();
        }
    }

    /// Lets go of what is too old. What cannot go is tried again.
    fn expire(&mut self) {
        if let Err(why) = self.file.expire(SystemTime::now()) {
            tracing::warn!(target: "headworks", path = %self.path.display(), %why, "old entries of the supervisor log cannot be removed");
        }
    }

    fn bound(&mut self, Bounds { max_bytes, files, max_age }: Bounds) {
        if let Err(why) = self.file.bound(max_bytes, files, max_age) {
            tracing::warn!(target: "headworks", path = %self.path.display(), %why, "a file of the supervisor log that is too many cannot be removed");
        }
        self.expire();
    }

    fn write(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.entries);
        let pending = std::mem::take(&mut self.pending);
        match self.try_write(&pending) {
            Ok(()) if self.unwritten > 0 => {
                tracing::info!(target: "headworks", unwritten = self.unwritten, "the supervisor log is written again");
                self.unwritten = 0;
            }
            Ok(()) => {}
            Err(why) => {
                if self.unwritten == 0 {
                    tracing::error!(target: "headworks", path = %self.path.display(), %why, "the supervisor log cannot be written to disk; the daemon goes on without, and counts what is missing");
                }
                self.unwritten += entries;
            }
        }
    }

    fn try_write(&mut self, pending: &[u8]) -> std::io::Result<()> {
        if let Some(directory) = self.path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(directory)?;
        }
        if self.unwritten > 0 {
            let missed = LogEntry::missed(self.opening, self.unwritten, "they could not be written to disk");
            let mut lines = serde_json::to_vec(&missed)?;
            lines.push(b'\n');
            lines.extend_from_slice(pending);
            return self.file.append(&lines);
        }
        self.file.append(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor_log::{LogQuery, read};

    fn lines(path: PathBuf) -> Lines {
        let file = RotatedFile::new(path.clone(), 1_000_000, 2);
        Lines { file, path, opening: Opening(1), pending: vec![], entries: 0, unwritten: 0 }
    }

    #[test]
    fn what_could_not_be_written_is_counted_in_the_log_once_it_can() {
        let place = tempfile::tempdir().unwrap();
        let path = file(place.path());
        // A file in the place of its directory.
        std::fs::write(place.path().join("supervisor-log"), "").unwrap();
        let mut lines = lines(path.clone());
        for _ in 0..3 {
            lines.add(&LogEntry::own("x", Opening(1)));
            lines.write();
        }
        std::fs::remove_file(place.path().join("supervisor-log")).unwrap();
        lines.add(&LogEntry::own("y", Opening(1)));
        lines.write();
        lines.add(&LogEntry::own("z", Opening(1)));
        lines.write();
        let found = read(&path, &LogQuery::default(), 10).unwrap();
        let found: Vec<_> = found.entries.iter().map(|entry| (entry.what.as_str(), entry.missed)).collect();
        assert_eq!(found, [("missed", 3), ("y", 0), ("z", 0)]);
    }

    #[test]
    fn a_writer_that_fell_behind_says_how_much_is_missing() {
        let place = tempfile::tempdir().unwrap();
        let mut lines = lines(file(place.path()));
        lines.take(&LogItem::Missed(5));
        lines.write();
        let found = read(&file(place.path()), &LogQuery::default(), 10).unwrap();
        assert_eq!((found.entries[0].what.as_str(), found.entries[0].missed), ("missed", 5));
    }
}
