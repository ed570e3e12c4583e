use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headworks_actors::{AckLevel, Answer, Answers, Error, IngressHandle, IngressSpec, Intake, PositionSet, StreamId};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::sync::watch;

use super::positions::{RECENT, hash};

/// How much is read at once, in bytes.
const BLOCK: usize = 256 << 10;

/// A file that has no name any more may still be written to for so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A file as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Look {
    pub(super) size: u64,
    pub(super) modified: i64,
    pub(super) is_unlinked: bool,
    /// It is to be let go, once it is read to its end.
    pub(super) release: bool,
}

/// How far a file is, for whoever looks after all of them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The end of the file as it was when all before it was taken in.
    pub(super) at_end: u64,
    /// Lines, bytes, and the hash of the last of them, that are settled.
    pub(super) settled: Option<(u64, u64, u64)>,
    pub(super) end: Option<End>,
}

/// Why a file is not read any more.
#[derive(Debug)]
pub(super) enum End {
    /// The system closes.
    Closing,
    /// It was let go, read to its end.
    Released,
    /// It has no name any more, and was read to its end.
    Gone,
    /// What was read of it is not there any more: so many bytes of it were not taken in.
    Cut(u64),
    /// It has no name any more, the system closes, and so many bytes of it were not read.
    Left(u64),
    /// It is to be opened anew.
    Failed(String),
}

/// One file to follow.
pub(super) struct Job {
    pub(super) file: Arc<File>,
    pub(super) spec: IngressSpec,
    pub(super) stream: StreamId,
    pub(super) lines: u64,
    pub(super) bytes: u64,
    /// The last bytes before that.
    pub(super) recent: Vec<u8>,
    pub(super) look: watch::Receiver<Look>,
    pub(super) progress: Arc<Mutex<Progress>>,
}

pub(super) fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in a file, as it grows. Its end stands in its progress.
pub(super) async fn follow(intake: &Intake, job: Job) {
    let progress = job.progress.clone();
    let end = follow_to_end(intake, job).await;
    lock(&progress).end = Some(end);
}

async fn follow_to_end(intake: &Intake, job: Job) -> End {
    let Job { file, spec, stream, lines, bytes, recent, look, progress } = job;
    let opened = tokio::select! {
        biased;
        () = intake.closing() => return End::Closing,
        // What is stored is told, and kept as settled: of what lies between, the journal knows how many lines it has.
        opened = intake.open_stream(spec, stream, lines + 1, AckLevel::Stored) => opened,
    };
    let (ingress, answers) = match opened {
        Ok(opened) => opened,
        Err(Error::Closed) => return End::Closing,
        Err(why) => return End::Failed(why.to_string()),
    };
    let marks = Mutex::new(Marks { settled: lines, ..Marks::default() });
    let skip = answers.last().saturating_sub(lines);
    let mut settling = std::pin::pin!(settle(answers, &marks, &progress));
    let mut reader =
        Reader { file, offset: bytes, lines, unfinished: 0, recent, skip, look, progress: &progress, marks: &marks };
    let end = tokio::select! {
        biased;
        end = reader.take_in(&ingress, intake) => end,
        () = &mut settling => return End::Failed("another reader took its stream over".to_owned()),
    };
    if let (End::Closing, Some(left)) = (&end, reader.left()) {
        // Nobody will end its last line. What was not read of it cannot be taken in any more.
        let _ = ingress.finish(true).await;
        return if left == 0 { End::Gone } else { End::Left(left) };
    }
    let finished = ingress.finish(false).await;
    if finished.is_ok() && !matches!(end, End::Closing | End::Failed(_)) {
        tokio::select! {
            biased;
            () = settling => {}
            () = intake.closing() => {}
        }
    }
    end
}

/// Ends of lines that were taken in and are not settled.
#[derive(Default)]
struct Marks {
    /// All lines up to this one are settled.
    settled: u64,
    beyond: PositionSet,
    /// How many lines, and bytes, and the hash of the last of them.
    ends: VecDeque<(u64, u64, u64)>,
}

/// Hears what becomes of the lines. A line that was refused is settled: it is a dead letter, or counted.
async fn settle(mut answers: Answers, marks: &Mutex<Marks>, progress: &Mutex<Progress>) {
    while let Some(heard) = answers.next().await {
        let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
        for answer in heard {
            let (Answer::Ack(range) | Answer::Nack(range, ..)) = answer;
            marks.beyond.insert(range);
        }
        if let Some(last) = marks.beyond.run_from(marks.settled + 1) {
            marks.settled = last;
            marks.beyond.remove(0..=last);
        }
        let mut settled = None;
        while marks.ends.front().is_some_and(|(lines, ..)| *lines <= marks.settled) {
            settled = marks.ends.pop_front();
        }
        if settled.is_some() {
            lock(progress).settled = settled;
        }
    }
}

struct Reader<'r> {
    file: Arc<File>,
    /// What was read so far: bytes, whole lines, and bytes behind the last of them.
    offset: u64,
    lines: u64,
    unfinished: u64,
    /// The last bytes before the offset.
    recent: Vec<u8>,
    /// So many lines more the journal has.
    skip: u64,
    look: watch::Receiver<Look>,
    progress: &'r Mutex<Progress>,
    marks: &'r Mutex<Marks>,
}

impl Reader<'_> {
    async fn take_in(&mut self, ingress: &IngressHandle, intake: &Intake) -> End {
        let mut closing = std::pin::pin!(intake.closing());
        let (mut is_quiet, mut used) = (false, vec![]);
        loop {
            let look = *self.look.borrow_and_update();
            let (file, offset, recent) = (self.file.clone(), self.offset, self.recent.clone());
            let block = std::mem::take(&mut used);
            let reading = tokio::task::spawn_blocking(move || read_behind(&file, offset, &recent, block));
            let read = tokio::select! {
                biased;
                () = &mut closing => return End::Closing,
                read = reading => read,
            };
            let block = match read {
                Ok(Ok(Some(block))) => block,
                Ok(Ok(None)) => return End::Cut(look.size.saturating_sub(self.offset) + self.unfinished),
                Ok(Err(why)) => return End::Failed(format!("reading failed: {why}")),
                Err(why) => return End::Failed(format!("reading failed: {why}")),
            };
            if !block.is_empty() {
                is_quiet = false;
                match self.feed(block, ingress).await {
                    Ok(block) => {
                        used = block;
                        continue;
                    }
                    Err(Error::Closed) => return End::Closing,
                    Err(why) => return End::Failed(why.to_string()),
                }
            }
            if self.skip > 0 {
                // The journal has lines that are not there any more.
                return End::Cut(self.unfinished);
            }
            lock(self.progress).at_end = self.offset;
            if look.release && self.unfinished == 0 {
                return End::Released;
            }
            if look.is_unlinked && is_quiet {
                // Nobody will end its last line.
                return match self.unfinished {
                    0 => End::Gone,
                    _ => self.feed(b"\n".to_vec(), ingress).await.map_or(End::Closing, |_| End::Gone),
                };
            }
            let changed = async {
                match look.is_unlinked {
                    true => tokio::time::timeout(LAST_WORDS, self.look.changed()).await.ok(),
                    false => Some(self.look.changed().await),
                }
            };
            tokio::select! {
                biased;
                () = &mut closing => return End::Closing,
                changed = changed => match changed {
                    None => is_quiet = true,
                    Some(Ok(())) => {}
                    Some(Err(_)) => return End::Closing,
                },
            }
        }
    }

    /// A file that has no name any more is not there for the next process: how many bytes of it were not read, if it is one.
    fn left(&self) -> Option<u64> {
        let of = self.file.metadata().ok().filter(|of| of.nlink() == 0)?;
        Some(of.len().saturating_sub(self.offset))
    }

    /// Takes in what was read, but for lines that the journal has. Gives the memory back.
    async fn feed(&mut self, mut block: Vec<u8>, ingress: &IngressHandle) -> Result<Vec<u8>, Error> {
        let length = block.len() as u64;
        match memchr::memrchr(b'\n', &block) {
            Some(at) => {
                let (lines, unfinished) = block.split_at(at + 1);
                self.lines += memchr::memchr_iter(b'\n', lines).count() as u64;
                self.unfinished = unfinished.len() as u64;
                let recent = hash(&last(&self.recent, lines));
                let end = (self.lines, self.offset + lines.len() as u64, recent);
                self.marks.lock().unwrap_or_else(PoisonError::into_inner).ends.push_back(end);
            }
            None => self.unfinished += length,
        }
        self.recent = last(&self.recent, &block);
        self.offset += length;
        let mut known = 0;
        while self.skip > 0 {
            match memchr::memchr(b'\n', &block[known..]) {
                Some(at) => (known, self.skip) = (known + at + 1, self.skip - 1),
                None => return Ok(block),
            }
        }
        block.drain(..known);
        ingress.feed(block).await
    }
}

/// The last bytes, of what was read before and of what was read now.
fn last(before: &[u8], read: &[u8]) -> Vec<u8> {
    let of_read = read.len().min(RECENT);
    let of_before = before.len().min(RECENT - of_read);
    [&before[before.len() - of_before..], &read[read.len() - of_read..]].concat()
}

/// What is behind the offset, in the memory of `block`; `None` where what was before it has changed: the file was cut, and maybe
/// written again.
fn read_behind(file: &File, offset: u64, recent: &[u8], mut block: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    if file.metadata()?.len() < offset {
        return Ok(None);
    }
    block.clear();
    block.reserve_exact(BLOCK);
    while block.len() < BLOCK {
        let at = offset + block.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut block), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
    // Afterwards: what is there now was there when the block was read.
    let mut before = [0; RECENT];
    let before = &mut before[..recent.len()];
    match file.read_exact_at(before, offset - recent.len() as u64) {
        Ok(()) => Ok((before == recent).then_some(block)),
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(why) => Err(why),
    }
}
