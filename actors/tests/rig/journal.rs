//! A journal that lasts as long as its test, and loses at a crash what a disk may lose.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use headworks_actors::{
    Chunk, Entry, Health, Journal, JournalError, Opening, Position, Recovered, RecoveredChunk, TenantId, UnixMillis,
};
use tokio::sync::Notify;

use super::replay::{Replay, without_passing_origin};

/// Keeps every appended block. Clones share it.
#[derive(Clone)]
pub(crate) struct ModelJournal(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

/// When a block is committed.
#[derive(Clone, Copy)]
enum Commits {
    AtOnce,
    After(Duration),
    ByHand,
}

struct State {
    blocks: Vec<Vec<Entry>>,
    /// How many of them.
    committed: usize,
    commits: Commits,
    has_room: bool,
    /// Reads that fail before one works again.
    failing_reads: u32,
    holds_reads: bool,
    /// Chunks that can never be read.
    damaged: HashSet<(u64, u64)>,
    is_begun: bool,
    /// The process is gone: nothing reaches the disk any more.
    is_dead: bool,
}

impl ModelJournal {
    pub(crate) fn new() -> Self {
        Self::of(vec![])
    }

    fn of(blocks: Vec<Vec<Entry>>) -> Self {
        let state = State {
            committed: blocks.len(),
            blocks,
            commits: Commits::AtOnce,
            has_room: true,
            failing_reads: 0,
            holds_reads: false,
            damaged: HashSet::new(),
            is_begun: false,
            is_dead: false,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), changed: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.0.changed.notify_waiters();
        changed
    }

    /// From now on only what the test commits is committed.
    pub(crate) fn hold(&self) {
        self.lock().commits = Commits::ByHand;
    }

    /// From now on each block is committed so much later.
    pub(crate) fn delay(&self, by: Duration) {
        self.lock().commits = Commits::After(by);
    }

    /// Everything is committed, and what comes from now on at once.
    pub(crate) fn release(&self) {
        self.lock().commits = Commits::AtOnce;
        self.commit_all();
    }

    pub(crate) fn commit_all(&self) {
        self.commit_up_to(Position(u64::MAX));
    }

    pub(crate) fn commit_up_to(&self, position: Position) {
        let upto = usize::try_from(position.0).unwrap_or(usize::MAX);
        self.change(|state| {
            if !state.is_dead {
                state.committed = state.committed.max(upto.min(state.blocks.len()));
            }
        });
    }

    pub(crate) fn set_room(&self, has_room: bool) {
        self.change(|state| state.has_room = has_room);
    }

    /// The next `reads` fail.
    pub(crate) fn fail_reads(&self, reads: u32) {
        self.lock().failing_reads = reads;
    }

    /// Whether reads wait.
    pub(crate) fn hold_reads(&self, hold: bool) {
        self.change(|state| state.holds_reads = hold);
    }

    /// The entries for which `is_hit` cannot be read any more. They hold a chunk.
    pub(crate) fn damage(&self, is_hit: impl Fn(&Entry) -> bool) {
        let mut state = self.lock();
        let State { blocks, damaged, .. } = &mut *state;
        let hits = blocks.iter().enumerate().flat_map(|(block, entries)| {
            let hits = entries.iter().enumerate().filter(|(_, entry)| is_hit(entry));
            hits.map(move |(entry, _)| (block as u64, entry as u64))
        });
        let before = damaged.len();
        damaged.extend(hits);
        assert!(damaged.len() > before, "there is something to damage");
    }

    /// Everything appended so far, committed or not.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().blocks.concat()
    }

    /// What the committed blocks say.
    pub(crate) fn on_disk(&self) -> Replay {
        let state = self.lock();
        Replay::of(&state.blocks[..state.committed])
    }

    /// The process is killed. What its successor finds: the committed blocks, and up to `more` that reached the disk without
    /// anybody having been told.
    pub(crate) fn crash(&self, more: usize) -> Self {
        self.change(|state| {
            state.is_dead = true;
            let kept = state.blocks.len().min(state.committed + more);
            let next = Self::of(state.blocks[..kept].to_vec());
            next.lock().damaged = state.damaged.iter().copied().filter(|at| at.0 < kept as u64).collect();
            next
        })
    }

    /// Panics where the record makes no sense.
    pub(crate) fn check(&self) -> Replay {
        Replay::of(&self.lock().blocks)
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool + Send) {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.lock();
                if !state.is_dead && is_so(&state) {
                    return;
                }
            }
            changed.await;
        }
    }
}

fn covers(state: &State, position: Position) -> bool {
    position.0 <= state.committed as u64
}

impl Journal for ModelJournal {
    fn is_durable(&self) -> bool {
        true
    }

    fn begin(&self, _: Opening, _: UnixMillis) -> Result<Recovered, JournalError> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_begun, true) {
            return Err(JournalError::new("it was begun before"));
        }
        Ok(Replay::of(&state.blocks).recovered())
    }

    fn append(&self, entries: &mut Vec<Entry>) -> Position {
        let entries = std::mem::take(entries);
        let mut state = self.lock();
        assert!(state.is_begun, "nothing is appended before the journal is begun");
        if state.is_dead {
            return Position(u64::MAX);
        }
        state.blocks.push(entries);
        let position = Position(state.blocks.len() as u64);
        let commits = state.commits;
        drop(state);
        match commits {
            Commits::AtOnce => self.commit_up_to(position),
            Commits::ByHand => {}
            Commits::After(by) => {
                let journal = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(by).await;
                    journal.commit_up_to(position);
                });
            }
        }
        position
    }

    fn is_committed(&self, position: Position) -> bool {
        let state = self.lock();
        !state.is_dead && covers(&state, position)
    }

    async fn committed(&self, position: Position) {
        self.until(|state| covers(state, position)).await;
    }

    fn has_room(&self, _: usize) -> bool {
        self.lock().has_room
    }

    async fn room(&self) {
        self.until(|state| state.has_room).await;
    }

    fn chunks(&self, tenant: &TenantId, seq: u64, bytes: usize) -> Vec<RecoveredChunk> {
        self.on_disk().chunks(tenant, seq, bytes)
    }

    async fn read(&self, tenant: &TenantId, chunk: &RecoveredChunk) -> Result<Chunk, JournalError> {
        self.until(|state| !state.holds_reads).await;
        let mut state = self.lock();
        if state.failing_reads > 0 {
            state.failing_reads -= 1;
            return Err(JournalError::new("a read fails"));
        }
        if state.damaged.contains(&chunk.place) {
            return Err(JournalError::new("it is damaged"));
        }
        let (block, entry) = chunk.place;
        match &state.blocks[usize::try_from(block).unwrap()][usize::try_from(entry).unwrap()] {
            Entry::Chunk { chunk, .. } | Entry::Made { chunk, .. } if chunk.tenant() == tenant => {
                Ok(without_passing_origin(chunk))
            }
            other => panic!("asked for {chunk:?} of {tenant}, but there is {other:?}"),
        }
    }

    fn health(&self) -> Health {
        Health { is_full: !self.lock().has_room, quota_bytes: 4_096, ..Health::default() }
    }

    async fn close(&self) -> Result<(), JournalError> {
        self.commit_all();
        Ok(())
    }
}
