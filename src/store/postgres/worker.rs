use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use headworks_actors::{Attempt, BatchId, Cause, Code, StorageError, TenantId};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::PostgresOptions;
use super::connect::Target;
use super::error::{Class, Failure};
use super::partition::Partitions;
use super::schema;
use super::write::{Outcome, Statements, Store};

/// What the store is asked for.
pub(super) enum Job {
    Store(Box<Store>, oneshot::Sender<Outcome>),
    Rollback(BatchId, Attempt, oneshot::Sender<Outcome>),
    Count(TenantId, oneshot::Sender<Option<u64>>),
    /// Anything else that needs a connection.
    Ask(Box<dyn Ask>),
    Close(oneshot::Sender<()>),
}

/// A question of whoever has a handle to the store, with the way to answer it.
pub(super) trait Ask: Send {
    fn ask<'w>(
        self: Box<Self>,
        workers: &'w Workers,
        queue: &'w Mutex<Queue>,
        session: &'w mut Option<Session>,
    ) -> LocalBoxFuture<'w, ()>;

    /// Answers it without a connection.
    fn refuse(self: Box<Self>, why: StorageError);
}

/// Work on a connection.
pub(super) struct Work<W, T> {
    pub(super) what: &'static str,
    pub(super) work: W,
    pub(super) reply: oneshot::Sender<Result<T, StorageError>>,
}

impl<W, T> Ask for Work<W, T>
where
    W: AsyncFnOnce(&mut Session) -> Result<T, Failure> + Send + 'static,
    T: Send + 'static,
{
    fn ask<'w>(
        self: Box<Self>,
        workers: &'w Workers,
        queue: &'w Mutex<Queue>,
        session: &'w mut Option<Session>,
    ) -> LocalBoxFuture<'w, ()> {
        let Self { what, work, reply } = *self;
        async move {
            // Whoever dropped the call wants nothing any more.
            if reply.is_closed() {
                return;
            }
            let done = workers.guarded(session, work).await;
            let answer = done.map_err(|why| workers.told(&why, what));
            workers.spare(queue, answer.as_ref().err()).await;
            let _ = reply.send(answer);
        }
        .boxed_local()
    }

    fn refuse(self: Box<Self>, why: StorageError) {
        let _ = self.reply.send(Err(why));
    }
}

/// A connection with what is prepared on it.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) target: Arc<Target>,
    statements: Statements,
    partitions: Partitions,
    driver: JoinHandle<()>,
}

impl Session {
    /// Connects, and sees to it that the tables are there.
    pub(super) async fn open(target: &Arc<Target>) -> Result<Self, Failure> {
        let (mut client, driver) = target.connect().await?;
        let ready = async {
            schema::settle(&client, &target.options).await?;
            schema::ready(&mut client, target).await?;
            if target.counts.pruned().is_none() {
                let sql = "SELECT coalesce(sum(events), 0)::int8 FROM @.pruned";
                let row = client.query_one(&schema::in_namespace(sql, &target.options), &[]).await?;
                target.counts.know_pruned(row.try_get::<_, i64>(0)?.cast_unsigned());
            }
            Statements::prepare(&client, target).await
        };
        let statements = tokio::time::timeout(target.patience(), ready).await.unwrap_or(Err(Failure::Silent))?;
        Ok(Self { client, target: target.clone(), statements, partitions: Partitions::default(), driver })
    }

    pub(super) fn options(&self) -> &PostgresOptions {
        &self.target.options
    }

    /// Says goodbye to the server.
    async fn close(self) {
        const WITHIN: Duration = Duration::from_secs(1);
        drop((self.statements, self.client));
        let _ = tokio::time::timeout(WITHIN, self.driver).await;
    }
}

/// What waits for a connection.
pub(super) struct Queue {
    jobs: mpsc::Receiver<Job>,
    /// What did not fit the group that was taken last.
    held: VecDeque<Job>,
    closing: Vec<oneshot::Sender<()>>,
}

type Group = Vec<(Box<Store>, oneshot::Sender<Outcome>)>;

impl Queue {
    /// The next job; none once the store is closed and nothing waits.
    async fn next(&mut self) -> Option<Job> {
        match self.held.pop_front() {
            Some(job) => Some(job),
            None => self.jobs.recv().await,
        }
    }

    /// Adds the batches that wait to the group, up to `max_bytes`. A batch that is in the group already, asked for by somebody
    /// who has given up meanwhile, waits for that one's outcome.
    fn gather(&mut self, group: &mut Group, max_bytes: usize) {
        let mut bytes: usize = group.iter().map(|(store, _)| store.bytes()).sum();
        while bytes < max_bytes {
            match self.held.pop_front().map_or_else(|| self.jobs.try_recv().ok(), Some) {
                Some(Job::Store(store, reply)) if group.iter().all(|(other, _)| other.id() != store.id()) => {
                    if !reply.is_closed() {
                        bytes += store.bytes();
                        group.push((store, reply));
                    }
                }
                Some(other) => return self.held.push_front(other),
                None => return,
            }
        }
    }

    /// Everything that waits, and is no call to close.
    fn all(&mut self) -> Vec<Job> {
        let mut all: Vec<_> = self.held.drain(..).collect();
        all.extend(std::iter::from_fn(|| self.jobs.try_recv().ok()));
        let (closing, rest): (Vec<_>, _) = all.into_iter().partition(|job| matches!(job, Job::Close(_)));
        self.held = closing.into();
        rest
    }
}

/// The connections of a store. Each takes what waits, up to a limit of bytes, as one transaction.
pub(super) struct Workers {
    pub(super) target: Arc<Target>,
}

impl Workers {
    /// Serves until the store is closed, or every handle is gone and nothing waits.
    pub(super) async fn run(self, jobs: mpsc::Receiver<Job>, mut first: Option<Session>) {
        let queue = Mutex::new(Queue { jobs, held: VecDeque::new(), closing: vec![] });
        let workers = (0..self.target.options.pool_size.max(1)).map(|_| self.work(&queue, first.take()));
        join_all(workers.collect::<Vec<_>>()).await;
        for closed in queue.into_inner().closing {
            let _ = closed.send(());
        }
    }

    async fn work(&self, queue: &Mutex<Queue>, mut session: Option<Session>) {
        loop {
            let mut waiting = queue.lock().await;
            let Some(job) = waiting.next().await else { break };
            match job {
                // Whoever dropped the call will ask again or roll back: either is right without it.
                Job::Store(_, reply) if reply.is_closed() => {}
                Job::Store(store, reply) => {
                    let mut group = vec![(store, reply)];
                    waiting.gather(&mut group, self.target.options.group_max_bytes);
                    drop(waiting);
                    self.store(queue, &mut session, group).await;
                }
                Job::Rollback(id, attempt, reply) => {
                    drop(waiting);
                    let done = self.guarded(&mut session, async |session| {
                        session.statements.rollback(&mut session.client, &id, attempt).await
                    });
                    let answer = done.await.map_err(|why| self.told(&why, &format!("roll back batch {id}")));
                    self.spare(queue, answer.as_ref().err()).await;
                    let _ = reply.send(answer);
                }
                Job::Count(tenant, reply) => {
                    drop(waiting);
                    let count = schema::in_namespace(
                        "SELECT coalesce(sum(events), 0)::int8 FROM @.batches WHERE tenant = $1 AND stored",
                        &self.target.options,
                    );
                    let counted = self.guarded(&mut session, async |session| {
                        let row = session.client.query_one(&count, &[&tenant.as_str()]).await?;
                        Ok(row.try_get::<_, i64>(0)?)
                    });
                    let _ = reply.send(counted.await.ok().map(i64::cast_unsigned));
                }
                Job::Ask(asked) => {
                    drop(waiting);
                    asked.ask(self, queue, &mut session).await;
                }
                Job::Close(reply) => {
                    waiting.closing.push(reply);
                    waiting.jobs.close();
                }
            }
        }
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// The group in one transaction; where the server refuses that and is well, each of it in one of its own.
    async fn store(&self, queue: &Mutex<Queue>, session: &mut Option<Session>, group: Group) {
        match self.transact(session, &group).await {
            Ok(outcomes) => answer(group, outcomes),
            Err(why) if group.len() > 1 && why.is_of_a_batch() => {
                for one in group {
                    let one = vec![one];
                    match self.transact(session, &one).await {
                        Ok(outcomes) => answer(one, outcomes),
                        Err(why) => self.failed(queue, one, &why).await,
                    }
                }
            }
            Err(why) => self.failed(queue, group, &why).await,
        }
    }

    async fn transact(&self, session: &mut Option<Session>, group: &Group) -> Result<Vec<Outcome>, Fault> {
        let stores: Vec<&Store> = group.iter().map(|(store, _)| &**store).collect();
        self.guarded(session, async |session| {
            let arrived = stores.iter().flat_map(|store| store.batch.events().map(|event| event.arrived));
            session.partitions.ready(&mut session.client, &self.target, arrived).await?;
            session.statements.store(&mut session.client, &stores).await
        })
        .await
    }

    async fn failed(&self, queue: &Mutex<Queue>, group: Group, why: &Fault) {
        let what = match group.as_slice() {
            [(store, _)] => format!("store batch {}", store.id()),
            _ => format!("store {} batches", group.len()),
        };
        let told = self.told(why, &what);
        self.spare(queue, Some(&told)).await;
        let outcomes = vec![Err(told); group.len()];
        answer(group, outcomes);
    }

    /// During an outage nobody shall wait for the same failure, one group after the other. And before the first answer: what is
    /// asked after it must meet the server as it is then.
    async fn spare(&self, queue: &Mutex<Queue>, told: Option<&StorageError>) {
        let Some(told @ StorageError::Unavailable { .. }) = told else { return };
        // Another worker that waits for something to come has it: then there is nothing.
        let Ok(mut waiting) = queue.try_lock() else { return };
        for job in waiting.all() {
            match job {
                Job::Store(_, reply) | Job::Rollback(_, _, reply) => drop(reply.send(Err(told.clone()))),
                Job::Count(_, reply) => drop(reply.send(None)),
                Job::Ask(asked) => asked.refuse(told.clone()),
                Job::Close(_) => {}
            }
        }
    }

    fn told(&self, why: &Fault, what: &str) -> StorageError {
        match why {
            Fault::Failure(why) => why.storage_error(what, &self.target.place),
            // Spends an attempt, so that a batch that brings this about is given up in the end.
            Fault::Panic(why) => {
                StorageError::transient(format!("cannot {what} in {}: the store panicked: {why}", self.target.place))
            }
        }
    }

    /// Does something on the connection, which is made first where there is none; within the patience for a server that is silent.
    async fn guarded<T>(
        &self,
        session: &mut Option<Session>,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Fault> {
        let mut ready = match session.take().filter(|session| !session.client.is_closed()) {
            Some(ready) => ready,
            None => Session::open(&self.target).await.map_err(Fault::Failure)?,
        };
        let work = AssertUnwindSafe(work(&mut ready)).catch_unwind();
        let done = match tokio::time::timeout(self.target.patience(), work).await {
            Ok(Ok(done)) => done,
            Ok(Err(panic)) => {
                return Err(Fault::Panic(Cause::from_panic(Code::StorePanic, &*panic).detail.to_string()));
            }
            Err(_) => Err(Failure::Silent),
        };
        // What is left of a transaction that failed for another reason than its data is undone with its connection.
        let is_sound = match &done {
            Ok(_) => true,
            Err(why) => why.class() == Class::Refusal,
        };
        if is_sound {
            *session = Some(ready);
        }
        done.map_err(Fault::Failure)
    }
}

enum Fault {
    Failure(Failure),
    Panic(String),
}

impl Fault {
    /// Whether another batch may fare better on the same server.
    fn is_of_a_batch(&self) -> bool {
        match self {
            Self::Failure(why) => why.class() != Class::Outage,
            Self::Panic(_) => true,
        }
    }
}

fn answer(group: Group, outcomes: Vec<Outcome>) {
    for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
        // Who no longer waits has decided to ask again.
        let _ = reply.send(outcome);
    }
}
