//! A disk in memory that fails on demand, and that forgets in a crash whatever was not synced.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{DAMAGED, Disk, DiskFile, Lock};

/// How much reaches the disk at once, in bytes: a write that was not synced may be there in some sectors and not in others.
const SECTOR: usize = 512;

/// A [`Disk`] in memory, for tests and simulations. Clones are the same disk.
///
/// It is as mean as POSIX allows: a crash keeps what was synced and a random part of the rest, by the sector and by the name; and
/// after a failed sync the data counts as clean although it may not be there.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    files: BTreeMap<u64, Inode>,
    next: u64,
    names: BTreeMap<String, u64>,
    /// The names as they are on disk, and the changes to them that are not.
    kept: BTreeMap<String, u64>,
    changes: Vec<Vec<(String, Option<u64>)>>,
    steps: u64,
    faults: Vec<(std::ops::Range<u64>, ErrorKind)>,
    max_write: Option<usize>,
    lock: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    data: Vec<u8>,
    kept: Vec<u8>,
    /// Up to where the system believes the data to be on disk.
    clean: usize,
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a disk in memory")
    }
}

impl MemoryDisk {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes were asked of it so far: writes, syncs, names made, changed and removed.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Lets the changes of these numbers, from 0, fail.
    pub fn fail(&self, steps: std::ops::Range<u64>, kind: ErrorKind) {
        self.state().faults.push((steps, kind));
    }

    /// Lets no change fail any more.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Takes at most so many bytes in one write.
    pub fn write_at_most(&self, bytes: usize) {
        self.state().max_write = Some(bytes);
    }

    /// What is on the disk when the power comes back, by chance: `random` gives numbers. No faults, and nobody's lock.
    #[must_use]
    pub fn crash(&self, random: &mut dyn FnMut() -> u64) -> Self {
        let mut state = self.state().clone();
        for inode in state.files.values_mut() {
            let Inode { data, kept, clean } = inode;
            if data.len() > *clean && random().is_multiple_of(2) {
                let mut now = std::mem::take(kept);
                now.resize(*clean, 0);
                let len = *clean + (random() as usize) % (data.len() - *clean + 1);
                now.resize(len, 0);
                let mut at = *clean;
                while at < len {
                    let end = (at / SECTOR * SECTOR + SECTOR).min(len);
                    if !random().is_multiple_of(4) {
                        now[at..end].copy_from_slice(&data[at..end]);
                    }
                    at = end;
                }
                *kept = now;
            }
            data.clone_from(kept);
            *clean = data.len();
        }
        let mut names = state.kept.clone();
        for change in std::mem::take(&mut state.changes) {
            if random().is_multiple_of(2) {
                rename(&mut names, change);
            }
        }
        state.kept = names.clone();
        state.names = names;
        state.faults.clear();
        state.max_write = None;
        state.lock = Arc::default();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The bytes of a file.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files.get(state.names.get(name)?)?.data.clone())
    }

    /// Puts a file there, synced and all.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = Inode { data: bytes.clone(), clean: bytes.len(), kept: bytes };
        let number = state.inode(inode);
        state.names.insert(name.to_owned(), number);
        state.kept.insert(name.to_owned(), number);
    }

    /// The names of all files, with those that were set aside.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// Another disk with the same on it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut state = self.state().clone();
        state.lock = Arc::default();
        state.faults.clear();
        Self(Arc::new(Mutex::new(state)))
    }
}

fn rename(names: &mut BTreeMap<String, u64>, change: Vec<(String, Option<u64>)>) {
    for (name, inode) in change {
        match inode {
            Some(inode) => names.insert(name, inode),
            None => names.remove(&name),
        };
    }
}

impl State {
    fn inode(&mut self, inode: Inode) -> u64 {
        self.next += 1;
        self.files.insert(self.next, inode);
        self.next
    }

    fn step(&mut self) -> io::Result<()> {
        let step = self.steps;
        self.steps += 1;
        match self.faults.iter().find(|(steps, _)| steps.contains(&step)) {
            Some((_, kind)) => Err(io::Error::new(*kind, format!("injected at step {step}"))),
            None => Ok(()),
        }
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Vec<(String, Option<u64>)>) {
        rename(&mut self.names, change.clone());
        self.changes.push(change);
    }
}

impl Disk for MemoryDisk {
    fn lock(&self) -> io::Result<Result<Lock, String>> {
        let lock = self.state().lock.clone();
        if lock.swap(true, Ordering::SeqCst) {
            return Ok(Err("another journal".to_owned()));
        }
        Ok(Ok(Box::new(Unlock(lock))))
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let here = state.names.iter().filter(|(name, _)| !name.contains('/'));
        let size = |inode| state.files.get(inode).map_or(0, |inode| inode.data.len() as u64);
        Ok(here.map(|(name, inode)| (name.clone(), size(inode))).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(Inode::default());
        state.change(vec![(name.to_owned(), Some(inode))]);
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.state().find(name)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.find(name)?;
        if let Some(inode) = state.files.get_mut(&inode) {
            inode.data.truncate(len as usize);
            inode.kept.clone_from(&inode.data);
            inode.clean = inode.data.len();
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.find(from)?;
        state.change(vec![(to.to_owned(), Some(inode)), (from.to_owned(), None)]);
        Ok(())
    }

    fn set_aside(&self, name: &str) -> io::Result<String> {
        let free = |n: u64| format!("{DAMAGED}/{name}{}", if n == 0 { String::new() } else { format!("-{n}") });
        let taken = self.names();
        let to = (0..).map(free).find(|to| !taken.contains(to)).unwrap_or_default();
        self.rename(name, &to)?;
        Ok(to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.find(name)?;
        state.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.changes.clear();
        state.kept = state.names.clone();
        Ok(())
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
}

impl DiskFile for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.step()?;
        let len = state.max_write.map_or(bytes.len(), |most| bytes.len().min(most));
        let inode = state.files.get_mut(&self.inode).ok_or(ErrorKind::NotFound)?;
        inode.data.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let done = state.step();
        let inode = state.files.get_mut(&self.inode).ok_or(ErrorKind::NotFound)?;
        let Inode { data, kept, clean } = inode;
        if done.is_ok() {
            kept.resize(*clean, 0);
            kept.extend_from_slice(&data[*clean..]);
        } else {
            kept.resize(data.len(), 0);
        }
        *clean = data.len();
        done
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let data = &state.files.get(&self.inode).ok_or(ErrorKind::NotFound)?.data;
        let rest = data.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}
