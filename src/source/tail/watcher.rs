use std::collections::{BTreeMap, HashSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use headworks_actors::{IngressSpec, RawLines, StreamId, TenantId, UnixMillis};
use tokio::sync::watch;

use super::TailOptions;
use super::follow::{End, Job, Look, Progress, lock};
use super::pattern::by_place;
use super::positions::{PlaceOnDisk, Positions, Record};

/// Positions are saved at every so many looks.
const SAVE_EVERY: u64 = 4;

/// Files that are known, and are neither found nor open, are looked for at every so many looks.
const SEARCH_EVERY: u64 = 240;

/// So many complaints are remembered, lest they be told again.
const MOST_TOLD: usize = 10_000;

/// So many are named at once.
const MOST_NAMED: usize = 3;

/// Looks after all files of a source: which there are, which are open, and how far each is.
#[derive(Debug)]
pub(super) struct Watcher {
    name: String,
    spec: IngressSpec,
    options: TailOptions,
    positions: Positions,
    open: BTreeMap<PlaceOnDisk, Open>,
    lost: Arc<AtomicU64>,
    told: HashSet<String>,
    /// What keeps it from reading what it is to read, and at which look it last did.
    wrong: BTreeMap<String, u64>,
    /// What was lost since the last look: how many bytes, and why.
    gone: Vec<(u64, String)>,
    looks: u64,
    /// Streams that were named so far.
    streams: u64,
}

/// A file that is followed.
#[derive(Debug)]
struct Open {
    file: Arc<File>,
    look: watch::Sender<Look>,
    progress: Arc<Mutex<Progress>>,
    /// When it last changed.
    changed: u64,
}

/// A file that was found.
#[derive(Debug)]
struct Seen {
    place: PlaceOnDisk,
    path: PathBuf,
    tenant: Option<String>,
    size: u64,
    modified: i64,
}

/// What came of a look.
pub(super) struct Looked {
    /// The files to begin with.
    pub(super) jobs: Vec<Job>,
    /// Why not all is read that is to be, if it is not.
    pub(super) wrong: Option<String>,
    /// What was lost: how many bytes, and why.
    pub(super) gone: Vec<(u64, String)>,
}

impl Seen {
    /// Files of which one took the name of the other: they are read one after the other. A rotated name is the name with a number or a
    /// date behind it.
    fn log(&self) -> (&Path, &[u8]) {
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        let is_added = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
        let added = name.iter().rev().take_while(is_added).count();
        let stem = if added < name.len() { &name[..name.len() - added] } else { name };
        (self.path.parent().unwrap_or(Path::new("")), stem)
    }
}

fn place(of: &Metadata) -> PlaceOnDisk {
    (of.dev(), of.ino())
}

fn modified(of: &Metadata) -> i64 {
    of.mtime().saturating_mul(1_000_000_000).saturating_add(of.mtime_nsec())
}

impl Watcher {
    pub(super) fn new(
        name: String,
        spec: IngressSpec,
        options: TailOptions,
        positions: Positions,
        lost: Arc<AtomicU64>,
    ) -> Self {
        let (open, told) = (BTreeMap::new(), HashSet::new());
        let (wrong, gone) = (BTreeMap::new(), vec![]);
        Self { name, spec, options, positions, open, lost, told, wrong, gone, looks: 0, streams: 0 }
    }

    /// Looks at everything.
    pub(super) fn look(&mut self) -> Looked {
        let mut seen = self.find();
        // Behind that, so that a file which has a successor is seen as it was left.
        self.look_at_open();
        self.search(&mut seen);
        let jobs = self.begin(&seen);
        if self.looks.is_multiple_of(SAVE_EVERY) {
            self.save();
        }
        let looks = self.looks;
        // Positions are not saved at each look.
        self.wrong.retain(|_, last| *last + SAVE_EVERY >= looks);
        self.looks += 1;
        Looked { jobs, wrong: self.why(), gone: std::mem::take(&mut self.gone) }
    }

    /// What is wrong, in one line.
    fn why(&self) -> Option<String> {
        let first: Vec<_> = self.wrong.keys().take(MOST_NAMED).map(String::as_str).collect();
        let more = match self.wrong.len() - first.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        (!first.is_empty()).then(|| first.join("; ") + &more)
    }

    /// The last look.
    pub(super) fn end(&mut self) -> Looked {
        self.look_at_open();
        self.save();
        Looked { jobs: vec![], wrong: self.why(), gone: std::mem::take(&mut self.gone) }
    }

    fn save(&mut self) -> bool {
        let saved = self.positions.save();
        if let Err(why) = &saved {
            self.fails(format!("cannot keep the positions of files: {why}"));
        }
        saved.is_ok()
    }

    /// It is so at this look.
    fn fails(&mut self, what: String) {
        if self.wrong.len() < MOST_TOLD {
            self.wrong.insert(what, self.looks);
        }
    }

    /// Says it once.
    fn tell(&mut self, what: String) {
        if self.told.len() < MOST_TOLD && self.told.insert(what.clone()) {
            tracing::warn!(target: "headworks", source = self.name, "{what}");
        }
    }

    /// What the pattern finds, older files before newer ones.
    fn find(&mut self) -> Vec<Seen> {
        let mut refused = vec![];
        let found =
            self.options.pattern.find(|path, why| refused.push(format!("cannot read {}: {why}", path.display())));
        refused.into_iter().for_each(|what| self.fails(what));
        let mut places = HashSet::new();
        let mut seen = vec![];
        for found in found {
            // Renamed or deleted meanwhile, it is found at the next look, or was not to be.
            let Ok(of) = std::fs::metadata(&found.path) else { continue };
            if places.insert(place(&of)) {
                let (place, size, modified) = (place(&of), of.size(), modified(&of));
                seen.push(Seen { place, path: found.path, tenant: found.tenant, size, modified });
            }
        }
        // Where the clock is too coarse, `app.log.2` is older than `app.log.1`, and that than `app.log`.
        seen.sort_by(|a, b| a.modified.cmp(&b.modified).then_with(|| b.path.cmp(&a.path)));
        seen
    }

    /// Takes note of how far the open ones are, and tells them what became of their files.
    fn look_at_open(&mut self) {
        let mut ended = vec![];
        for (place, open) in &mut self.open {
            let mut progress = lock(&open.progress);
            let record = self.positions.records.get_mut(place);
            let of = open.file.metadata().ok();
            if let Some(record) = record {
                if let Some((lines, bytes, recent)) = progress.settled.take() {
                    (record.lines, record.bytes, record.recent) = (lines, bytes, recent);
                }
                if let Some(of) = &of {
                    (record.size, record.modified) = (of.size(), modified(of));
                }
            }
            if let Some(end) = progress.end.take() {
                ended.push((*place, end));
            }
            drop(progress);
            let Some(of) = of else { continue };
            let looks = self.looks;
            open.look.send_if_modified(|look| {
                let now = Look {
                    size: of.size(),
                    modified: modified(&of),
                    is_unlinked: of.nlink() == 0,
                    release: look.release,
                };
                let is_other = now != *look;
                if is_other {
                    (*look, open.changed) = (now, looks);
                }
                is_other
            });
        }
        for (place, end) in ended {
            self.open.remove(&place);
            self.ended(place, end);
        }
    }

    fn ended(&mut self, place: PlaceOnDisk, end: End) {
        let path = self.positions.records.get(&place).map(|record| record.path.clone()).unwrap_or_default();
        match end {
            End::Closing | End::Released => {}
            End::Gone => drop(self.positions.records.remove(&place)),
            End::Cut(bytes) => {
                self.positions.records.remove(&place);
                self.lose(&path, bytes, "was cut or written anew in its place");
            }
            End::Left(bytes) => {
                self.positions.records.remove(&place);
                self.lose(&path, bytes, "was deleted just before the stop");
            }
            End::Failed(why) => self.fails(format!("{} is opened anew: {why}", path.display())),
        }
    }

    fn lose(&mut self, path: &Path, bytes: u64, what: &str) {
        self.lost.fetch_add(bytes, Ordering::Relaxed);
        self.gone.push((bytes, format!("{} {what}: at least so many bytes of it were not read", path.display())));
    }

    /// Looks for files that are known and that the pattern does not find any more: renamed while nobody looked.
    fn search(&mut self, seen: &mut Vec<Seen>) {
        if !self.looks.is_multiple_of(SEARCH_EVERY) {
            return;
        }
        let places: HashSet<_> = seen.iter().map(|seen| seen.place).collect();
        let is_missing = |place: &&PlaceOnDisk| !places.contains(*place) && !self.open.contains_key(*place);
        let missing: Vec<_> = self.positions.records.keys().filter(is_missing).copied().collect();
        for missing in missing {
            let Some(record) = self.positions.records.get(&missing).cloned() else { continue };
            let path = by_place(record.path.parent().unwrap_or(Path::new(".")), missing);
            match path.and_then(|path| Some((std::fs::metadata(&path).ok()?, path))) {
                Some((of, path)) => {
                    let (size, modified, tenant) = (of.size(), modified(&of), record.tenant);
                    seen.push(Seen { place: missing, path, tenant, size, modified });
                }
                None => {
                    self.positions.records.remove(&missing);
                    let unread = record.size.saturating_sub(record.bytes);
                    if unread > 0 {
                        self.lose(&record.path, unread, "was deleted");
                    }
                }
            }
        }
        seen.sort_by(|a, b| a.modified.cmp(&b.modified).then_with(|| b.path.cmp(&a.path)));
    }

    /// Opens what is not open and has something to read.
    fn begin(&mut self, seen: &[Seen]) -> Vec<Job> {
        let mut jobs = vec![];
        // Logs of which a file is not read to its end yet: the next of them waits.
        let mut unread = HashSet::new();
        let (mut waiting, mut is_new) = (0, false);
        for seen in seen {
            let log = seen.log();
            if let Some(open) = self.open.get(&seen.place) {
                if lock(&open.progress).at_end < open.look.borrow().size {
                    unread.insert(log);
                }
                if let Some(record) = self.positions.records.get_mut(&seen.place) {
                    record.path.clone_from(&seen.path);
                }
                continue;
            }
            let known = self.positions.records.get(&seen.place);
            let is_read = known.map_or(seen.size == 0, |known| {
                known.bytes == seen.size && (known.size, known.modified) == (seen.size, seen.modified)
            });
            if is_read {
                continue;
            }
            if unread.contains(&log) {
                continue;
            }
            if self.open.len() >= self.options.max_files {
                waiting += 1;
                unread.insert(log);
                continue;
            }
            match self.open_one(seen) {
                Ok(job) => {
                    unread.insert(log);
                    is_new |= !self.positions.is_saved(&seen.place, job.stream.as_str());
                    jobs.push(job);
                }
                // It is another one by now.
                Err(None) => drop(unread.insert(log)),
                Err(Some(why)) => self.fails(why),
            }
        }
        // Which stream a file is must be known before any of its lines is taken in.
        if is_new && !self.save() {
            for job in jobs.drain(..) {
                self.open.retain(|_, open| !Arc::ptr_eq(&open.file, &job.file));
            }
        }
        self.make_room(waiting);
        jobs
    }

    /// Lets those go that have been quiet for longest.
    fn make_room(&mut self, waiting: usize) {
        if waiting == 0 {
            return;
        }
        let most = self.options.max_files;
        self.tell(format!(
            "there are more files than may be open at once, {most}: the rest wait until others are read to their end"
        ));
        let mut quiet: Vec<_> = self.open.values().filter(|open| open.changed + 2 < self.looks).collect();
        quiet.sort_by_key(|open| open.changed);
        for open in quiet.into_iter().take(waiting) {
            open.look.send_modify(|look| look.release = true);
        }
    }

    /// Opens a file, as what it is known as, or as a new one. Without a reason where it is not the one that was seen.
    fn open_one(&mut self, seen: &Seen) -> Result<Job, Option<String>> {
        let path = seen.path.display();
        let refused = |why: std::io::Error| Some(format!("cannot read {path}: {why}"));
        let spec = match &seen.tenant {
            None => self.spec.clone(),
            Some(tenant) => {
                let tenant = TenantId::new(tenant).map_err(|why| Some(format!("{path} is not read: {why}")))?;
                IngressSpec::new(&self.name, self.spec.framing().clone(), RawLines::new(tenant))
            }
        };
        let file = File::open(&seen.path)
            .map_err(|why| (why.kind() != std::io::ErrorKind::NotFound).then(|| refused(why)).flatten())?;
        let of = file.metadata().map_err(refused)?;
        if place(&of) != seen.place {
            return Err(None);
        }
        let known = self.positions.records.get(&seen.place).cloned();
        let recent = match &known {
            Some(known) => known.recent_of(&file).map_err(refused)?,
            None => None,
        };
        let (mut record, recent) = match (known, recent) {
            (Some(known), Some(recent)) => (known, recent),
            (known, _) => {
                if let Some(known) = known {
                    self.lose(
                        &seen.path,
                        known.size.saturating_sub(known.bytes),
                        "was cut, or is another under an old number",
                    );
                }
                // No other file had this name for its stream, nor will have.
                self.streams += 1;
                let stream =
                    format!("tail:{}:{:x}:{:x}-{:x}", self.name, seen.place.1, UnixMillis::now().0, self.streams);
                let record = Record::new(stream, &seen.path, seen.tenant.clone(), &file).map_err(refused)?;
                (record, vec![])
            }
        };
        record.path.clone_from(&seen.path);
        (record.size, record.modified) = (of.size(), modified(&of));
        let stream = StreamId::new(&record.stream).map_err(|why| Some(format!("{path}: {why}")))?;
        let file = Arc::new(file);
        let (look, looks) = watch::channel(Look { size: of.size(), modified: modified(&of), ..Look::default() });
        let progress = Arc::<Mutex<Progress>>::default();
        let (lines, bytes) = (record.lines, record.bytes);
        self.positions.records.insert(seen.place, record);
        let open = Open { file: file.clone(), look, progress: progress.clone(), changed: self.looks };
        self.open.insert(seen.place, open);
        Ok(Job { file, spec, stream, lines, bytes, recent, look: looks, progress })
    }
}
