use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

#[cfg(feature = "sqlite")]
use headworks_actors::fault_point::fault_point;
use headworks_actors::{Attempt, BatchId, Cause, Code, StorageError, TenantId, UnixMillis};
use tokio::sync::{mpsc, oneshot};

use super::rotation::Rotation;
#[cfg(feature = "sqlite")]
use super::shelf::Step;
use super::shelf::{Begun, Shelf, Store, Writing};
#[cfg(feature = "sqlite")]
use crate::retention::Pruned;

pub(super) type Outcome = Result<(), StorageError>;

/// What the thread is asked for.
pub(super) enum Job {
    Store(Store, oneshot::Sender<Outcome>),
    Rollback(BatchId, Attempt, oneshot::Sender<Outcome>),
    Count(TenantId, oneshot::Sender<Option<u64>>),
    #[cfg(feature = "sqlite")]
    Prune(TenantId, Step, oneshot::Sender<Result<Pruned, StorageError>>),
    #[cfg(feature = "sqlite")]
    MarkErasure(TenantId, oneshot::Sender<Result<Option<u32>, StorageError>>),
    #[cfg(feature = "sqlite")]
    Erase(TenantId, u32, oneshot::Sender<Result<u64, StorageError>>),
    Close(oneshot::Sender<Outcome>),
}

/// So many batches are written side by side at most: each has two files open.
const MAX_GROUP: usize = 64;

/// The one thread that writes.
///
/// It takes the batches that wait, one a tenant, as a group: first the lines of all are written, then all are synced, then
/// all are recorded, then the records are synced. The first sync of a group makes the file system write what the others
/// wait for as well, so that a group costs less than its batches one by one. It never waits for more to come.
pub(super) struct Writer {
    pub(super) root: PathBuf,
    pub(super) shelves: HashMap<TenantId, Shelf>,
    pub(super) group_max_bytes: usize,
    pub(super) rotation: Rotation,
    /// Held for as long as this writer writes.
    pub(super) _lock: File,
}

type Group = Vec<(Store, oneshot::Sender<Outcome>)>;

impl Writer {
    /// Serves until it is told to close or every handle is gone and nothing waits any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = jobs.blocking_recv();
        while let Some(job) = next.take() {
            match job {
                Job::Store(store, reply) => {
                    let mut group = vec![(store, reply)];
                    gather(&mut jobs, &mut next, &mut group, self.group_max_bytes);
                    // The caller of a store that was dropped will ask again or roll back: either is right without it.
                    group.retain(|(_, reply)| !reply.is_closed());
                    let (stores, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
                    for (reply, outcome) in replies.into_iter().zip(self.store(&stores)) {
                        // Who no longer waits has decided to ask again.
                        let _ = reply.send(outcome);
                    }
                }
                Job::Rollback(id, attempt, reply) => {
                    let _ = reply.send(self.roll_back(&id, attempt));
                }
                Job::Count(tenant, reply) => {
                    let counted = catch_unwind(AssertUnwindSafe(|| self.shelf(&tenant).count().ok()));
                    let _ = reply.send(counted.unwrap_or_default());
                }
                #[cfg(feature = "sqlite")]
                Job::Prune(tenant, step, reply) => {
                    let _ = reply.send(self.prune(&tenant, &step));
                }
                #[cfg(feature = "sqlite")]
                Job::MarkErasure(tenant, reply) => {
                    let _ = reply.send(self.guarded(&tenant, |shelf| shelf.mark_erasure(UnixMillis::now())));
                }
                #[cfg(feature = "sqlite")]
                Job::Erase(tenant, through, reply) => {
                    fault_point("in-erase");
                    let _ = reply.send(self.guarded(&tenant, |shelf| shelf.erase(through)));
                }
                Job::Close(reply) => {
                    jobs.close();
                    drop(self);
                    let _ = reply.send(Ok(()));
                    return;
                }
            }
            if next.is_none() {
                next = jobs.blocking_recv();
            }
        }
    }

    fn shelf(&mut self, tenant: &TenantId) -> &mut Shelf {
        self.shelves.entry(tenant.clone()).or_insert_with(|| Shelf::new(&self.root, tenant.clone()))
    }

    /// Stores batches of different tenants: an outcome for each.
    pub(super) fn store(&mut self, group: &[Store]) -> Vec<Outcome> {
        let stored = catch_unwind(AssertUnwindSafe(|| self.store_side_by_side(group)));
        stored.unwrap_or_else(|panic| {
            group.iter().for_each(|store| self.shelf(store.batch.tenant()).forget());
            vec![Err(self.panicked(&*panic)); group.len()]
        })
    }

    fn store_side_by_side(&mut self, group: &[Store]) -> Vec<Outcome> {
        let (rotation, now) = (self.rotation, UnixMillis::now());
        let begin = |store: &Store| self.shelf(store.batch.tenant()).begin(store, &rotation, now);
        let mut writings: Vec<_> = group.iter().map(begin).collect();
        for step in [Writing::sync_events, Writing::write_index, Writing::sync_index] {
            for begun in &mut writings {
                if let Ok(Begun::Writing(writing)) = begun
                    && let Err(error) = step(writing)
                {
                    *begun = Err(error);
                }
            }
        }
        let finish = |(store, begun): (&Store, Result<Begun, StorageError>)| {
            let shelf = self.shelf(store.batch.tenant());
            let finished = match begun {
                Ok(Begun::Done(outcome)) => return outcome,
                Ok(Begun::Writing(writing)) => shelf.finish(&writing),
                Err(error) => Err(error),
            };
            finished.inspect_err(|_| shelf.forget())
        };
        group.iter().zip(writings).map(finish).collect()
    }

    pub(super) fn roll_back(&mut self, id: &BatchId, attempt: Attempt) -> Outcome {
        self.guarded(&id.tenant, |shelf| shelf.roll_back(id, attempt))
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn prune(&mut self, tenant: &TenantId, step: &Step) -> Result<Pruned, StorageError> {
        self.guarded(tenant, |shelf| shelf.prune(step, UnixMillis::now()))
    }

    fn guarded<T>(
        &mut self,
        tenant: &TenantId,
        work: impl FnOnce(&mut Shelf) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let shelf = self.shelf(tenant);
        match catch_unwind(AssertUnwindSafe(|| work(shelf))) {
            Ok(outcome) => outcome.inspect_err(|_| shelf.forget()),
            Err(panic) => {
                shelf.forget();
                Err(self.panicked(&*panic))
            }
        }
    }

    /// Spends an attempt, so that a batch that brings this about is given up in the end.
    fn panicked(&self, panic: &(dyn std::any::Any + Send)) -> StorageError {
        let cause = Cause::from_panic(Code::StorePanic, panic);
        StorageError::transient(format!("the writer of {} panicked: {}", self.root.display(), cause.detail))
    }
}

/// Adds the stores that wait to the group, until it is full, or `next` is something else or of a tenant that is in it.
fn gather(jobs: &mut mpsc::Receiver<Job>, next: &mut Option<Job>, group: &mut Group, max_bytes: usize) {
    let mut tenants: HashSet<_> = group.iter().map(|(store, _)| store.batch.tenant().clone()).collect();
    let mut bytes: usize = group.iter().map(|(store, _)| store.batch.body_bytes()).sum();
    while bytes < max_bytes && group.len() < MAX_GROUP {
        match jobs.try_recv() {
            Ok(Job::Store(store, reply)) if tenants.insert(store.batch.tenant().clone()) => {
                bytes += store.batch.body_bytes();
                group.push((store, reply));
            }
            Ok(other) => {
                *next = Some(other);
                return;
            }
            Err(_) => return,
        }
    }
}
