//! Files of JSON lines that stay below a size: the oldest lines go.
//!
//! ```text
//! log.jsonl  log.jsonl.1  log.jsonl.2      newest to oldest
//! ```
//!
//! What is written is with the operating system once the call returns: it survives the process, not the machine. A crash may
//! leave half a line; the next process ends it, and readers pass it by.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that is appended to, and set aside for a new one when it is full.
#[derive(Debug)]
pub struct RotatedFile {
    path: PathBuf,
    max_bytes: u64,
    files: u32,
    max_age: Option<Duration>,
    /// None until the first append, and after one that failed.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
}

impl RotatedFile {
    /// The file at `path`, of up to `max_bytes`, the newest of up to `files`. Nothing is made before the first append.
    #[must_use]
    pub fn new(path: PathBuf, max_bytes: u64, files: u32) -> Self {
        Self { path, max_bytes, files: files.max(1), max_age: None, open: None }
    }

    /// Lets a file go once what was appended to it last is so old. That is looked for by [`expire`](Self::expire).
    #[must_use]
    pub fn max_age(self, max_age: Option<Duration>) -> Self {
        Self { max_age, ..self }
    }

    /// Other bounds from now on: those of [`new`](Self::new) and [`max_age`](Self::max_age). A file that is larger is set aside with the
    /// next append; those that are too many go at once.
    ///
    /// # Errors
    /// One that is too many cannot be removed; the others are gone.
    pub fn bound(&mut self, max_bytes: u64, files: u32, max_age: Option<Duration>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.files, files.max(1));
        (self.max_bytes, self.max_age) = (max_bytes, max_age);
        let mut result = Ok(());
        for number in self.files..before {
            match std::fs::remove_file(numbered(&self.path, number)) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => result = Err(why),
                _ => {}
            }
        }
        result
    }

    /// Lets go of what is too old at `now`. Where there may be three files or more, one is set aside once it is half as old, so that
    /// its oldest lines do not stay for as long as new ones come.
    ///
    /// # Errors
    /// A file cannot be set aside or removed; the others are gone.
    pub fn expire(&mut self, now: SystemTime) -> io::Result<()> {
        let Some(max_age) = self.max_age else { return Ok(()) };
        let is_before = |at: io::Result<SystemTime>, age| {
            at.is_ok_and(|at| now.duration_since(at).is_ok_and(|passed| passed >= age))
        };
        let current = std::fs::metadata(&self.path).ok().filter(|meta| meta.len() > 0);
        let begun = current.as_ref().map(std::fs::Metadata::created);
        if self.files >= 3 && begun.is_some_and(|begun| is_before(begun, max_age / 2)) {
            self.open = None;
            self.set_aside()?;
        }
        let mut result = Ok(());
        for number in 0..self.files {
            let path = numbered(&self.path, number);
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            if is_before(meta.modified(), max_age) {
                if number == 0 {
                    self.open = None;
                }
                result = std::fs::remove_file(&path).and(result);
            }
        }
        result
    }

    /// Appends whole lines, with their newlines, in one write. Where they do not fit any more, a new file is begun for them; one that
    /// is larger than a file has a file of its own.
    ///
    /// # Errors
    /// Nothing of them is there, as far as the file system allows; the next call begins afresh.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_last()?,
        };
        if open.len > 0 && open.len + lines.len() as u64 > self.max_bytes {
            drop(open);
            self.set_aside()?;
            open = self.open_last()?;
        }
        let written = open.file.write_all(lines);
        match written {
            Ok(()) => {
                open.len += lines.len() as u64;
                self.open = Some(open);
                Ok(())
            }
            Err(why) => {
                // Half a line is no line. Where it cannot be cut off either, the next process ends it.
                let _ = open.file.set_len(open.len);
                Err(why)
            }
        }
    }

    fn open_last(&self) -> io::Result<Open> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(&self.path)?;
        let mut len = file.metadata()?.len();
        if len > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                len += 1;
            }
        }
        Ok(Open { file, len })
    }

    fn set_aside(&self) -> io::Result<()> {
        for number in (1..self.files).rev() {
            match std::fs::rename(numbered(&self.path, number - 1), numbered(&self.path, number)) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                _ => {}
            }
        }
        match std::fs::remove_file(&self.path) {
            Err(why) if self.files == 1 && why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }
}

/// The name of the file that has been set aside so many times.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The files of `path` that are there, newest first, each opened: what is written or set aside meanwhile does not change which
/// lines are seen, but for more at the end of the newest.
///
/// # Errors
/// One is there and cannot be opened.
pub fn opened(path: &Path) -> io::Result<Vec<File>> {
    let (mut files, mut seen) = (vec![], vec![]);
    // One more than one gap: a file may be set aside between two looks.
    let mut missing = 0;
    for number in 0.. {
        match File::open(numbered(path, number)) {
            Ok(file) => {
                missing = 0;
                // Seen under its last name already, where it was set aside between two looks.
                let identity = identity(&file)?;
                if identity.is_none() || !seen.contains(&identity) {
                    seen.push(identity);
                    files.push(file);
                }
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound && missing < 2 => missing += 1,
            Err(why) if why.kind() == io::ErrorKind::NotFound => break,
            Err(why) => return Err(why),
        }
    }
    Ok(files)
}

#[cfg(unix)]
fn identity(file: &File) -> io::Result<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    file.metadata().map(|meta| Some((meta.dev(), meta.ino())))
}

#[cfg(not(unix))]
fn identity(_: &File) -> io::Result<Option<(u64, u64)>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(path: &Path) -> Vec<String> {
        opened(path).unwrap().into_iter().map(|file| io::read_to_string(file).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_newest_lines_are_there_in_order_and_the_files_stay_below_their_size(
            lengths in prop::collection::vec(1..40usize, 1..60), max in 20..200u64, files in 1..5u32, reopened: bool,
        ) {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("x.jsonl");
            let mut file = RotatedFile::new(path.clone(), max, files);
            let mut all = String::new();
            for (n, len) in lengths.iter().enumerate() {
                let line = format!("{n}:{}\n", "x".repeat(*len));
                file.append(line.as_bytes()).unwrap();
                all.push_str(&line);
                if reopened {
                    file = RotatedFile::new(path.clone(), max, files);
                }
            }
            let found = texts(&path);
            prop_assert!(found.len() <= files as usize);
            for text in &found {
                prop_assert!(text.len() as u64 <= max || text.lines().count() == 1, "{text:?}");
            }
            let together: String = found.iter().rev().map(String::as_str).collect();
            prop_assert!(!together.is_empty() && all.ends_with(&together));
            prop_assert!(found.len() == files as usize || together == all, "nothing goes before the last file is full");
        }
    }

    #[test]
    fn a_file_goes_once_its_last_line_is_too_old_and_a_new_one_is_begun_each_half_of_that() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.jsonl");
        let hour = Duration::from_secs(3600);
        let mut file = RotatedFile::new(path.clone(), 1_000, 3).max_age(Some(2 * hour));
        file.append(b"old\n").unwrap();
        let began = SystemTime::now();
        file.expire(began).unwrap();
        assert_eq!(texts(&path), ["old\n"]);
        // The files of a test cannot be made old; the time that is asked about can be later.
        file.expire(began + hour).unwrap();
        file.append(b"new\n").unwrap();
        assert_eq!(texts(&path), ["new\n", "old\n"]);
        file.expire(began + 3 * hour).unwrap();
        assert_eq!(texts(&path), [""; 0]);
        file.append(b"newest\n").unwrap();
        assert_eq!(texts(&path), ["newest\n"]);
        let mut only = RotatedFile::new(place.path().join("y.jsonl"), 1_000, 1).max_age(Some(2 * hour));
        only.append(b"a\n").unwrap();
        only.expire(began + hour).unwrap();
        assert_eq!(texts(&place.path().join("y.jsonl")), ["a\n"], "nothing young goes where there is one file alone");
    }

    #[test]
    fn other_bounds_hold_at_once_and_what_is_too_much_goes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.jsonl");
        let mut file = RotatedFile::new(path.clone(), 4, 4);
        for line in [b"1\n2\n", b"3\n4\n", b"5\n6\n"] {
            file.append(line).unwrap();
        }
        file.bound(6, 2, None).unwrap();
        assert_eq!(texts(&path), ["5\n6\n", "3\n4\n"]);
        file.append(b"7\n").unwrap();
        assert_eq!(texts(&path), ["5\n6\n7\n", "3\n4\n"]);
        file.bound(2, 3, Some(Duration::from_secs(60))).unwrap();
        file.append(b"8\n").unwrap();
        assert_eq!(texts(&path), ["8\n", "5\n6\n7\n", "3\n4\n"]);
        file.expire(SystemTime::now() + Duration::from_secs(61)).unwrap();
        assert_eq!(texts(&path), [""; 0]);
    }

    #[test]
    fn a_line_that_a_crash_tore_is_ended_by_the_next_process() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.jsonl");
        std::fs::write(&path, "whole\nto").unwrap();
        RotatedFile::new(path.clone(), 1_000, 2).append(b"next\n").unwrap();
        assert_eq!(texts(&path), ["whole\nto\nnext\n"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_and_no_panic_and_it_goes_on_once_it_is() {
        let place = tempfile::tempdir().unwrap();
        let mut file = RotatedFile::new(place.path().join("later/x.jsonl"), 1_000, 2);
        assert!(file.append(b"a\n").is_err());
        std::fs::create_dir(place.path().join("later")).unwrap();
        file.append(b"b\n").unwrap();
        assert_eq!(texts(&place.path().join("later/x.jsonl")), ["b\n"]);
    }
}
