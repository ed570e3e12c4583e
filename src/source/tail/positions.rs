use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// So many bytes before a position tell whether what was read is still there.
pub(super) const RECENT: usize = 64;

/// So many bytes at its beginning tell a file from another that was given its place on the disk.
const HEAD: usize = 256;

/// A file's place on its disk: device and inode.
pub(super) type PlaceOnDisk = (u64, u64);

/// What is known of a file: which stream its lines are, and up to where they are settled. Behind that the journal knows more: how many
/// lines of the stream it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) stream: String,
    pub(super) path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    /// So many lines, and bytes, are settled.
    pub(super) lines: u64,
    pub(super) bytes: u64,
    /// A hash of the last bytes before that.
    pub(super) recent: u64,
    /// How many bytes at the beginning of the file `head` is a hash of.
    pub(super) head_bytes: usize,
    pub(super) head: u64,
    /// As it was last seen.
    pub(super) size: u64,
    pub(super) modified: i64,
}

impl Record {
    /// That of a file that nobody has read yet.
    pub(super) fn new(stream: String, path: &Path, tenant: Option<String>, file: &File) -> io::Result<Self> {
        let head = beginning(file, HEAD)?;
        Ok(Self {
            stream,
            path: path.to_owned(),
            tenant,
            lines: 0,
            bytes: 0,
            recent: hash(&[]),
            head_bytes: head.len(),
            head: hash(&head),
            size: 0,
            modified: 0,
        })
    }

    /// The last bytes that were settled, if this is still the file that they were read from.
    pub(super) fn recent_of(&self, file: &File) -> io::Result<Option<Vec<u8>>> {
        if file.metadata()?.len() < self.bytes || hash(&beginning(file, self.head_bytes)?) != self.head {
            return Ok(None);
        }
        let recent = self.bytes.min(RECENT as u64);
        let mut bytes = vec![0; usize::try_from(recent).unwrap_or(RECENT)];
        file.read_exact_at(&mut bytes, self.bytes - recent)?;
        Ok((hash(&bytes) == self.recent).then_some(bytes))
    }
}

fn beginning(file: &File, most: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut filled) = (vec![0; most], 0);
    while filled < most {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// FNV-1a: it stays the same in every version of everything.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What is known of all files of one source, in a file.
#[derive(Debug)]
pub(super) struct Positions {
    path: PathBuf,
    pub(super) records: BTreeMap<PlaceOnDisk, Record>,
    saved: BTreeMap<PlaceOnDisk, Record>,
}

impl Positions {
    /// Those that are in the file; none where there is no file.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let records = match std::fs::read(&path) {
            Ok(bytes) => {
                let list: Vec<(PlaceOnDisk, Record)> = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
                list.into_iter().collect()
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(why) => return Err(why),
        };
        Ok(Self { path, saved: records.clone(), records })
    }

    /// Whether the next process will know that this file is this stream.
    pub(super) fn is_saved(&self, place: &PlaceOnDisk, stream: &str) -> bool {
        self.saved.get(place).is_some_and(|record| record.stream == stream)
    }

    /// Puts them on the disk, whole or not at all, if they are others than those there.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if self.records == self.saved {
            return Ok(());
        }
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let list: Vec<_> = self.records.iter().collect();
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&list)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        File::open(directory)?.sync_all()?;
        self.saved = self.records.clone();
        Ok(())
    }
}
