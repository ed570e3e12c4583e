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

/// A file that is appended to, and set aside for a new one when it is full.
#[derive(Debug)]
pub struct RotatedFile {
    path: PathBuf,
    max_bytes: u64,
    files: u32,
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
        Self { path, max_bytes, files: files.max(1), open: None }
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
