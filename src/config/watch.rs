//! Whether the file was changed, by looking at it now and then.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Looks at a file by its name, so that another that is renamed over it, or that a symbolic link leads to, is a change as one that
/// is written in place.
///
/// Looking costs a system call or two, works on every file system, and misses nothing that lasts.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    /// As it was when it was last said to be changed, and when it was last looked at.
    told: Option<Identity>,
    seen: Option<Identity>,
    was_empty: bool,
}

/// What of a file is another once it was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    inode: (u64, u64),
    modified: Option<SystemTime>,
    changed: (i64, i64),
    len: u64,
}

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).ok()?;
        let (inode, changed) = ((meta.dev(), meta.ino()), (meta.ctime(), meta.ctime_nsec()));
        Some(Self { inode, modified: meta.modified().ok(), changed, len: meta.len() })
    }

    #[cfg(not(unix))]
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { inode: (0, 0), modified: meta.modified().ok(), changed: (0, 0), len: meta.len() })
    }
}

impl FileWatch {
    /// Begins with the file as it is.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let seen = Identity::of(path);
        let was_empty = seen.as_ref().is_none_or(|seen| seen.len == 0);
        Self { path: path.to_owned(), told: seen.clone(), seen, was_empty }
    }

    /// It is read now, for another reason: a change that is there already is none to be told.
    pub fn is_read(&mut self) {
        self.seen = Identity::of(&self.path);
        self.told.clone_from(&self.seen);
        self.was_empty = self.seen.as_ref().is_none_or(|seen| seen.len == 0);
    }

    /// Whether the file is another than when this last said so, and has been as it is since the look before: one that is being
    /// written is waited for. So is one that is not there, or that was emptied: it is about to be written.
    pub fn look(&mut self) -> bool {
        let now = Identity::of(&self.path);
        let is_at_rest = now == self.seen;
        self.seen = now;
        if !is_at_rest || self.seen == self.told {
            return false;
        }
        let Some(now) = &self.seen else { return false };
        if now.len == 0 && !self.was_empty {
            return false;
        }
        self.was_empty = now.len == 0;
        self.told = self.seen.clone();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{remove_file, rename, write};

    use super::*;

    /// What each of some looks says.
    fn looks(watch: &mut FileWatch, times: usize) -> Vec<bool> {
        (0..times).map(|_| watch.look()).collect()
    }

    #[test]
    fn a_change_that_was_read_on_a_signal_is_not_told_again_and_the_next_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        write(&path, "half of").unwrap();
        watch.is_read();
        assert_eq!(looks(&mut watch, 3), [false, false, false]);
        write(&path, "half of a file").unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
    }

    #[test]
    fn a_change_is_told_once_when_the_file_is_at_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        assert_eq!(looks(&mut watch, 2), [false, false]);
        write(&path, "ab").unwrap();
        assert_eq!(looks(&mut watch, 1), [false]);
        write(&path, "abc").unwrap();
        assert_eq!(looks(&mut watch, 4), [false, true, false, false], "while it is written, it is waited for");
    }

    #[test]
    fn a_file_of_the_same_size_that_is_renamed_over_it_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("my.toml"), folder.path().join("other"));
        write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        write(&other, "b").unwrap();
        rename(&other, &path).unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
    }

    #[test]
    #[cfg(unix)]
    fn where_a_symbolic_link_leads_counts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["1", "2"] {
            write(at(name), "a").unwrap();
        }
        std::os::unix::fs::symlink(at("1"), at("my.toml")).unwrap();
        let mut watch = FileWatch::new(&at("my.toml"));
        std::os::unix::fs::symlink(at("2"), at("new")).unwrap();
        rename(at("new"), at("my.toml")).unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
    }

    #[test]
    fn a_file_that_is_gone_or_was_emptied_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        write(&path, "").unwrap();
        assert_eq!(looks(&mut watch, 3), [false; 3]);
        remove_file(&path).unwrap();
        assert_eq!(looks(&mut watch, 3), [false; 3]);
        write(&path, "b").unwrap();
        assert_eq!(looks(&mut watch, 3), [false, true, false]);
    }
}
