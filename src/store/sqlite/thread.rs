use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use headworks_actors::{Cause, Code, StorageError};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error;
use super::segment::Segments;
use super::write::{Refusal, Write};
use crate::store::Layout;

pub(super) type Outcome = Result<(), StorageError>;

/// What the thread is asked for.
pub(super) enum Job {
    Write(Write, oneshot::Sender<Outcome>),
    Read(Box<dyn FnOnce(&Connection) + Send>),
    Close(oneshot::Sender<Outcome>),
}

/// The one thread that writes.
///
/// It takes what is waiting, up to a limit of bytes, as one group: one transaction, one sync of the disk. It never waits
/// for more to come: while one group commits, the next one gathers. A write that is refused is undone alone; where
/// SQLite fails as a whole, everything that waits is answered with that at once.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    pub(super) file: super::file::Identity,
    pub(super) group_max_bytes: usize,
    pub(super) quota: super::quota::Quota,
    /// Those of the database, if it has any.
    pub(super) segments: Option<Segments>,
    /// Where new batches go.
    pub(super) layout: Layout,
}

type Group = Vec<(Write, oneshot::Sender<Outcome>)>;

impl Writer {
    /// Serves until it is told to close or every handle is gone and nothing waits any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = jobs.blocking_recv();
        while let Some(job) = next.take() {
            match job {
                Job::Write(write, reply) => {
                    let mut group = vec![(write, reply)];
                    gather(&mut jobs, &mut next, &mut group, self.group_max_bytes);
                    match self.serve(&group) {
                        Ok(outcomes) => answer(group, outcomes),
                        Err(failure) => {
                            if matches!(failure, StorageError::Unavailable { .. }) {
                                // Nobody shall wait for the same failure again, one group after the other. And before
                                // the first answer: what is asked after it must meet the store as it is then.
                                gather(&mut jobs, &mut next, &mut group, usize::MAX);
                            }
                            let outcomes = vec![Err(failure); group.len()];
                            answer(group, outcomes);
                        }
                    }
                    if let Some(segments) = &mut self.segments {
                        segments.sweep(&self.conn);
                    }
                }
                Job::Read(read) => {
                    // Its answer is dropped with it, which its caller notices.
                    let _ = catch_unwind(AssertUnwindSafe(|| read(&self.conn)));
                }
                Job::Close(reply) => {
                    jobs.close();
                    let _ = reply.send(self.close());
                    return;
                }
            }
            if next.is_none() {
                next = jobs.blocking_recv();
            }
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the database was not closed cleanly; nothing stored is lost");
        }
    }

    /// Commits the group: an outcome for each write, or one failure for all of them.
    fn serve(&mut self, group: &Group) -> Result<Vec<Outcome>, StorageError> {
        let committed = catch_unwind(AssertUnwindSafe(|| self.commit(group))).unwrap_or_else(|panic| {
            let cause = Cause::from_panic(Code::StorePanic, &*panic);
            let detail = format!("the writer of {} panicked: {}", self.path.display(), cause.detail);
            // Spends an attempt, so that a batch that brings this about is given up in the end.
            Err(StorageError::transient(detail))
        });
        if committed.is_err() && !self.conn.is_autocommit() {
            // Where this fails as well, so will the next BEGIN, and say so.
            let _ = self.execute("ROLLBACK");
        }
        committed
    }

    fn commit(&mut self, group: &Group) -> Result<Vec<Outcome>, StorageError> {
        self.file.check(&self.path)?;
        if let Some(outcomes) = self.transact(group, false)? {
            return Ok(outcomes);
        }
        self.execute("ROLLBACK").map_err(|error| self.failed("commit", &error))?;
        Ok(self.transact(group, true)?.unwrap_or_default())
    }

    /// One transaction for the group. A savepoint for each write costs a quarter of the time, and it is needed only where
    /// SQLite refuses one: without them, `None` says that this has happened and the group must be done again, with them.
    fn transact(&mut self, group: &Group, savepoints: bool) -> Result<Option<Vec<Outcome>>, StorageError> {
        let Self { conn, path, quota, segments, layout, .. } = self;
        let mut segments = segments.as_mut().filter(|_| *layout == Layout::Index);
        let failed = |what: &str, error: &rusqlite::Error| error::storage_error(what, path, error);
        let execute = |sql| execute(conn, sql).map_err(|error| failed("commit", &error));
        execute("BEGIN IMMEDIATE")?;
        if let Some(segments) = &mut segments {
            segments.begin(group.iter().map(|(write, _)| write.segment_bytes()).sum());
        }
        let mut outcomes = Vec::with_capacity(group.len());
        for (write, reply) in group {
            // The caller of a store that was dropped will ask again or roll back: either is right without it.
            if matches!(write, Write::Store(_)) && reply.is_closed() {
                outcomes.push(Ok(()));
                continue;
            }
            if savepoints {
                execute("SAVEPOINT one")?;
            }
            let outcome = match write.apply(conn, quota, segments.as_deref_mut()) {
                Ok(()) => Ok(()),
                Err(Refusal::Rule(error)) => Err(error),
                Err(Refusal::Sqlite(error)) => {
                    let failure = failed(&write.describe(), &error);
                    if error::is_outage(&error) || conn.is_autocommit() {
                        return Err(failure);
                    }
                    if !savepoints {
                        return Ok(None);
                    }
                    execute("ROLLBACK TO one")?;
                    Err(failure)
                }
            };
            if savepoints {
                execute("RELEASE one")?;
            }
            outcomes.push(outcome);
        }
        // What a row points to is on the disk before the row is.
        if let Some(segments) = &mut segments {
            segments.flush()?;
        }
        execute("COMMIT")?;
        if let Some(segments) = &mut self.segments
            && group.iter().any(|(write, _)| write.may_remove())
        {
            segments.look_again();
        }
        Ok(Some(outcomes))
    }

    fn failed(&self, what: &str, error: &rusqlite::Error) -> StorageError {
        error::storage_error(what, &self.path, error)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        execute(&self.conn, sql)
    }

    /// Brings the log home and closes the file. What was stored is safe whether or not this works.
    fn close(self) -> Outcome {
        let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
        self.conn.query_row(checkpoint, [], |_| Ok(())).map_err(|error| self.failed("copy the log", &error))?;
        self.conn.close().map_err(|(_, error)| error::storage_error("close the database", &self.path, &error))
    }
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

fn answer(group: Group, outcomes: Vec<Outcome>) {
    for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
        // Who no longer waits has decided to ask again.
        let _ = reply.send(outcome);
    }
}

/// Adds the writes that wait to the group, until it holds `max_bytes` or `next` is something else.
fn gather(jobs: &mut mpsc::Receiver<Job>, next: &mut Option<Job>, group: &mut Group, max_bytes: usize) {
    let mut bytes: usize = group.iter().map(|(write, _)| write.bytes()).sum();
    while bytes < max_bytes && next.is_none() {
        match jobs.try_recv() {
            Ok(Job::Write(write, reply)) => {
                bytes += write.bytes();
                group.push((write, reply));
            }
            Ok(other) => *next = Some(other),
            Err(_) => break,
        }
    }
}
