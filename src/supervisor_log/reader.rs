use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use headworks_actors::{TenantId, UnixMillis};

use super::{LIVELY, LogEntry};
use crate::jsonl;

/// Which entries of the supervisor log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Those of one tenant.
    pub tenant: Option<TenantId>,
    /// Those of these kinds; empty for all.
    pub what: Vec<String>,
    /// Those from a time on.
    pub since: Option<UnixMillis>,
    /// Those that say more than that an actor is alive: without [`LIVELY`](super::LIVELY).
    pub is_brief: bool,
}

impl LogQuery {
    /// Whether the entry is one of them.
    #[must_use]
    pub fn matches(&self, entry: &LogEntry) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| entry.is_of(tenant))
            && (self.what.is_empty() || self.what.contains(&entry.what))
            && !(self.is_brief && LIVELY.contains(&entry.what.as_str()))
            && self.since.is_none_or(|since| entry.at >= since)
    }
}

/// What was found in the files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The newest entries that match, oldest first.
    pub entries: Vec<LogEntry>,
    /// Lines that are no entries, among those that were read: a crash tears the last one.
    pub unread: u64,
    /// The last line that has a place: its opening and cursor, whatever was asked for.
    pub last: Option<(String, u64)>,
}

/// Reads the newest `last` entries that match from the file at `path` and those set aside before it; works beside a process that
/// writes them. No file is no entry.
///
/// # Errors
/// A file is there and cannot be read.
pub fn read(path: &Path, query: &LogQuery, last: usize) -> io::Result<Found> {
    let mut found = Found::default();
    let mut newest_first: Vec<VecDeque<LogEntry>> = vec![];
    let mut wanted = last;
    for file in jsonl::opened(path)? {
        let (mut entries, mut place) = (VecDeque::new(), None);
        let (mut reader, mut line) = (BufReader::with_capacity(64 << 10, file), vec![]);
        while reader.read_until(b'\n', &mut line)? > 0 {
            // A line without an end may be one that is being written.
            let is_whole = line.ends_with(b"\n");
            match serde_json::from_slice::<LogEntry>(&line) {
                Ok(entry) if is_whole => {
                    if let Some(cursor) = entry.cursor {
                        place = Some((entry.opening.clone(), cursor));
                    }
                    if query.matches(&entry) {
                        entries.push_back(entry);
                        if entries.len() > wanted {
                            entries.pop_front();
                        }
                    }
                }
                _ => found.unread += u64::from(!line.trim_ascii().is_empty()),
            }
            line.clear();
        }
        found.last = found.last.or(place);
        wanted -= entries.len();
        newest_first.push(entries);
        if wanted == 0 && found.last.is_some() {
            break;
        }
    }
    found.entries = newest_first.into_iter().rev().flatten().collect();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use headworks_actors::Opening;

    use super::*;
    use crate::jsonl::RotatedFile;

    fn written(place: &Path, count: u64) -> std::path::PathBuf {
        let path = place.join("log.jsonl");
        let mut file = RotatedFile::new(path.clone(), 1_000, 3);
        for cursor in 0..count {
            let entry = LogEntry {
                cursor: Some(cursor),
                tenant: Some(["a", "b"][cursor as usize % 2].to_owned()),
                at: UnixMillis(cursor as i64),
                ..LogEntry::own("failed", Opening(1))
            };
            file.append(&[serde_json::to_vec(&entry).unwrap(), b"\n".to_vec()].concat()).unwrap();
        }
        path
    }

    fn cursors(found: &Found) -> Vec<u64> {
        found.entries.iter().filter_map(|entry| entry.cursor).collect()
    }

    #[test]
    fn the_newest_that_match_are_found_across_files_oldest_first() {
        let place = tempfile::tempdir().unwrap();
        let path = written(place.path(), 20);
        assert!(jsonl::opened(&path).unwrap().len() > 1, "more than one file");
        let all = LogQuery::default();
        assert_eq!(cursors(&read(&path, &all, 12).unwrap()), (8..20).collect::<Vec<_>>());
        let of_a = LogQuery { tenant: TenantId::new("a").ok(), ..LogQuery::default() };
        let found = read(&path, &of_a, 3).unwrap();
        assert_eq!((cursors(&found), found.last.unwrap().1), (vec![14, 16, 18], 19));
        let late = LogQuery { since: Some(UnixMillis(18)), ..LogQuery::default() };
        assert_eq!(cursors(&read(&path, &late, 100).unwrap()), [18, 19]);
        let other = LogQuery { what: vec!["parked".into()], ..LogQuery::default() };
        assert_eq!(cursors(&read(&path, &other, 100).unwrap()), [0u64; 0]);
    }

    #[test]
    fn a_torn_line_is_passed_by_and_counted() {
        let place = tempfile::tempdir().unwrap();
        let path = written(place.path(), 3);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.truncate(text.len() - 20);
        std::fs::write(&path, &text).unwrap();
        let found = read(&path, &LogQuery::default(), 10).unwrap();
        assert_eq!((cursors(&found), found.unread), (vec![0, 1], 1));
        // The next process ends it and goes on.
        std::fs::write(&path, text + "\n{\"what\":\"opened\"}\n").unwrap();
        let found = read(&path, &LogQuery::default(), 10).unwrap();
        assert_eq!((found.entries.len(), found.entries[2].what.as_str(), found.unread), (3, "opened", 1));
    }

    #[test]
    fn no_file_is_no_entry() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(read(&place.path().join("none"), &LogQuery::default(), 10).unwrap(), Found::default());
    }
}
