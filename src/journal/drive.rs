//! The driver: takes what was appended, commits it in groups, tries again where the disk fails, and gives space back.
//!
//! It is a loop of short turns, which a thread runs, or a task.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headworks_actors::{Entry, Health, Histogram, JournalError, Opening, UnixMillis};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::log::{Group, Log};
use super::step::{Step, does};

/// So much is committed without waiting for more, in bytes.
const EAGER: usize = 1 << 20;
/// The waits after a failure of the disk.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What the journal's callers and its driver share.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    notify: Notify,
    committed: AtomicU64,
    /// Counts what callers may wait for.
    pub(super) changed: Notify,
    health: Mutex<Health>,
    pub(super) uncommitted: AtomicUsize,
    pub(super) disk_bytes: AtomicU64,
    pub(super) is_failing: AtomicBool,
    pub(super) commit_times: Histogram,
}

#[derive(Debug, Default)]
struct Inbox {
    group: Group,
    bytes: usize,
    appended: u64,
    opening: Option<(Opening, UnixMillis)>,
    closing: Option<oneshot::Sender<Result<(), JournalError>>>,
    /// Nobody holds the journal any more.
    is_dropped: bool,
    /// Nobody takes anything out any more.
    is_over: bool,
    rest: Rest,
}

/// What the driver is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Rest {
    #[default]
    Awake,
    /// Until something comes.
    Asleep,
    /// For a while, or until much has come.
    Paced,
    /// Until the disk may be back.
    Waiting,
}

impl Shared {
    pub(super) fn new(log: &Log) -> Self {
        let shared = Self {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            notify: Notify::new(),
            committed: AtomicU64::new(0),
            changed: Notify::new(),
            health: Mutex::default(),
            uncommitted: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            commit_times: Histogram::of_times(),
        };
        shared.tell(log, None);
        shared
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    pub(super) fn append(&self, entries: &mut Vec<Entry>) -> u64 {
        let bytes = entries.iter().map(weight).sum();
        let mut inbox = self.inbox();
        inbox.appended += 1;
        let position = inbox.appended;
        if inbox.is_over {
            entries.clear();
            return position;
        }
        inbox.group.push(entries);
        inbox.bytes += bytes;
        self.uncommitted.fetch_add(bytes, Ordering::Relaxed);
        let wakes = match inbox.rest {
            Rest::Asleep => true,
            Rest::Paced => inbox.bytes >= EAGER,
            Rest::Awake | Rest::Waiting => false,
        };
        self.rouse(inbox, wakes);
        position
    }

    fn rouse(&self, mut inbox: MutexGuard<'_, Inbox>, wakes: bool) {
        if wakes {
            inbox.rest = Rest::Awake;
            drop(inbox);
            self.wake.notify_one();
            self.notify.notify_one();
        }
    }

    pub(super) fn begin(&self, opening: Opening, now: UnixMillis) {
        self.inbox().opening = Some((opening, now));
    }

    /// Asks for the end; the answer comes when it is reached. `None` where it was before.
    pub(super) fn close(&self) -> Option<oneshot::Receiver<Result<(), JournalError>>> {
        let (answer, receiver) = oneshot::channel();
        let mut inbox = self.inbox();
        if inbox.is_over {
            return None;
        }
        inbox.closing = Some(answer);
        self.rouse(inbox, true);
        Some(receiver)
    }

    /// Nobody holds the journal any more.
    pub(super) fn dropped(&self) {
        let mut inbox = self.inbox();
        inbox.is_dropped = true;
        self.rouse(inbox, true);
    }

    /// How the log is doing, for whoever asks.
    fn tell(&self, log: &Log, failing: Option<&JournalError>) {
        let mut health = self.health();
        health.failing = failing.map(|why| why.0.clone());
        health.disk_bytes = log.disk_bytes();
        health.live_bytes = log.ledger().live_bytes();
        health.commits = log.commits;
        health.written_bytes = log.written_bytes;
        self.disk_bytes.store(health.disk_bytes, Ordering::Relaxed);
        self.is_failing.store(failing.is_some(), Ordering::Relaxed);
        drop(health);
        self.changed.notify_waiters();
    }

    /// The driver is gone for a reason of its own.
    pub(super) fn broken(&self, why: &JournalError) {
        self.health().failing = Some(why.0.clone());
        self.is_failing.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Waits until roused, on a thread.
    pub(super) fn sleep(&self, longest: Option<Duration>) {
        let mut inbox = self.inbox();
        let began = std::time::Instant::now();
        while inbox.rest != Rest::Awake {
            inbox = match longest.map(|longest| longest.checked_sub(began.elapsed())) {
                None => self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(Some(left)) => self.wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0,
                Some(None) => break,
            };
        }
    }

    /// Waits until roused, on a task.
    pub(super) async fn rest(&self, longest: Option<Duration>) {
        match longest {
            None => self.notify.notified().await,
            // Whichever comes first.
            Some(longest) => drop(tokio::time::timeout(longest, self.notify.notified()).await),
        }
    }
}

/// About what an entry takes on disk, in bytes.
fn weight(entry: &Entry) -> usize {
    match entry {
        Entry::Chunk { chunk, .. } | Entry::Made { chunk, .. } => chunk.body_bytes() + chunk.len() * 3 + 64,
        Entry::Undo { step, .. } => step.name.len() + step.data.len() + 64,
        Entry::GivenUp { cause, .. } => cause.detail.len() + 64,
        _ => 64,
    }
}

/// What follows a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another one, at once.
    Again,
    /// Another one when roused, or after this time.
    Rest(Option<Duration>),
    /// The end.
    Over,
}

pub(super) struct Driver {
    log: Option<Log>,
    pub(super) shared: Arc<Shared>,
    group: Group,
    /// The last append that was taken, and the bytes of what was.
    taken: (u64, usize),
    /// Until when more is waited for.
    paced: Option<Instant>,
    /// When the disk is tried again, and after how long it will be after that.
    retry: Option<(Instant, Duration)>,
    failing: Option<JournalError>,
    may_reclaim: bool,
}

impl Driver {
    pub(super) fn new(log: Log, shared: Arc<Shared>) -> Self {
        let group = Group::default();
        let log = Some(log);
        Self { log, shared, group, taken: (0, 0), paced: None, retry: None, failing: None, may_reclaim: true }
    }

    pub(super) fn turn(&mut self, now: Instant) -> Next {
        let shared = self.shared.clone();
        let Some(log) = &mut self.log else { return Next::Over };
        let mut inbox = shared.inbox();
        inbox.rest = Rest::Awake;
        if let Some((opening, at)) = inbox.opening.take() {
            log.begin(opening, at);
        }
        let is_ending = inbox.closing.is_some() || inbox.is_dropped;
        if let Some((at, _)) = self.retry
            && now < at
            && !is_ending
        {
            inbox.rest = Rest::Waiting;
            return Next::Rest(Some(at - now));
        }
        let has_work = log.has_pending() || !inbox.group.is_empty();
        if !has_work {
            if is_ending {
                drop(inbox);
                return self.end(Ok(()));
            }
            if !self.may_reclaim {
                inbox.rest = Rest::Asleep;
                return Next::Rest(None);
            }
            drop(inbox);
            return self.reclaim(now);
        }
        if let Some(at) = self.paced
            && now < at
            && !is_ending
            && !log.has_pending()
            && inbox.bytes < EAGER
        {
            inbox.rest = Rest::Paced;
            return Next::Rest(Some(at - now));
        }
        if !log.has_pending() {
            mem::swap(&mut inbox.group, &mut self.group);
            self.taken = (inbox.appended, mem::take(&mut inbox.bytes));
        }
        drop(inbox);
        self.commit(now, is_ending)
    }

    fn commit(&mut self, now: Instant, is_ending: bool) -> Next {
        let Some(log) = &mut self.log else { return Next::Over };
        let (position, bytes) = self.taken;
        if !does(Step::CommitFirst) {
            self.shared.committed.fetch_max(position, Ordering::Release);
        }
        let began = Instant::now();
        let done = if log.has_pending() { log.retry() } else { log.commit(&mut self.group) };
        if let Err(why) = done {
            return if is_ending { self.end(Err(cannot_write(&why))) } else { self.failed(now, cannot_write(&why)) };
        }
        self.shared.commit_times.took(began.elapsed());
        if position > self.shared.committed() || !does(Step::CommitFirst) {
            self.shared.committed.store(position, Ordering::Release);
            self.shared.uncommitted.fetch_sub(bytes, Ordering::Relaxed);
            self.taken.1 = 0;
        }
        let more = !self.shared.inbox().group.is_empty();
        self.paced = more.then(|| now + log.options.commit_every);
        if is_ending {
            self.works();
            return Next::Again;
        }
        // It works again once space can be given back as well: it is not told in turns.
        self.retry = None;
        self.shared.tell(log, self.failing.as_ref());
        self.reclaim(now)
    }

    fn reclaim(&mut self, now: Instant) -> Next {
        let Some(log) = &mut self.log else { return Next::Over };
        match log.reclaim() {
            Ok(more) => {
                self.may_reclaim = more;
                self.works();
                Next::Again
            }
            Err(why) => {
                // Even if nothing else is to be written: while this fails nothing is accepted.
                self.may_reclaim = true;
                self.failed(now, JournalError::new(format!("space cannot be given back: {why}")))
            }
        }
    }

    /// The disk did what it was asked to.
    fn works(&mut self) {
        self.retry = None;
        if self.failing.take().is_some() {
            tracing::info!(target: "headworks::journal", "the journal can be written again, and takes events");
        }
        if let Some(log) = &self.log {
            self.shared.tell(log, None);
        }
    }

    fn failed(&mut self, now: Instant, why: JournalError) -> Next {
        let after = self.retry.map_or(FIRST_RETRY, |(_, after)| (after * 2).min(LAST_RETRY));
        if self.failing.is_none() {
            tracing::error!(target: "headworks::journal", %why, "the journal fails; it takes no events until it can be written");
        }
        self.retry = Some((now + after, after));
        if let Some(log) = &self.log {
            self.shared.tell(log, Some(&why));
        }
        self.failing = Some(why);
        Next::Again
    }

    /// The last turn: closes the log if it was asked to, and answers.
    fn end(&mut self, so_far: Result<(), JournalError>) -> Next {
        let answer = self.shared.inbox().closing.take();
        let mut result = so_far;
        if let Some(mut log) = self.log.take()
            && answer.is_some()
        {
            result = result.and_then(|()| log.checkpoint(true).map_err(|why| cannot_write(&why)));
        }
        self.shared.inbox().is_over = true;
        if let Some(answer) = answer {
            // Whoever asked may be gone.
            let _ = answer.send(result);
        }
        Next::Over
    }
}

fn cannot_write(why: &std::io::Error) -> JournalError {
    JournalError::new(format!("it cannot be written: {why}"))
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The lock goes before the answer does.
        self.log = None;
        let mut inbox = self.shared.inbox();
        inbox.is_over = true;
        inbox.closing = None;
    }
}
