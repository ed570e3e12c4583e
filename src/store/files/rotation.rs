use std::time::Duration;

/// When the next events file is begun. It is decided when a batch comes: nothing is done about a tenant that is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rotation {
    /// Above so many bytes; 0 for never.
    pub(super) bytes: u64,
    /// So long after the first batch in it was stored.
    pub(super) every: Option<Duration>,
}

impl Rotation {
    pub(super) fn is_too_large(&self, bytes: u64) -> bool {
        self.bytes > 0 && bytes > self.bytes
    }

    /// Of a file whose first batch was stored at `since`. A clock that was set back makes none old.
    pub(super) fn is_too_old(&self, since: i64, now: i64) -> bool {
        self.every
            .is_some_and(|every| u128::try_from(now.saturating_sub(since)).is_ok_and(|age| age >= every.as_millis()))
    }
}

/// The name of an events file. The first one has no number, as those of versions that had but one.
pub(super) fn name(file: u32) -> String {
    if file == 0 { "events.ndjson".into() } else { format!("events.{file:06}.ndjson") }
}

/// The number in the name of an events file.
pub(super) fn number(name: &str) -> Option<u32> {
    let middle = name.strip_prefix("events.")?;
    let number = if middle == "ndjson" { 0 } else { middle.strip_suffix(".ndjson")?.parse().ok()? };
    (self::name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_number_and_no_other_name_does() {
        for file in [0, 1, 42, 999_999, 1_000_000, u32::MAX] {
            assert_eq!(number(&name(file)), Some(file));
        }
        assert_eq!((name(0), name(7)), ("events.ndjson".to_owned(), "events.000007.ndjson".to_owned()));
        for other in [
            "batches.ndjson",
            "events",
            "events.7.ndjson",
            "events.000000.ndjson",
            "events.x.ndjson",
            "events.+00001.ndjson",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_is_too_old_once_its_first_batch_is_and_never_where_the_clock_was_set_back() {
        let rotation = Rotation { bytes: 0, every: Some(Duration::from_millis(10)) };
        assert_eq!([0, 9, 10, -5].map(|later| rotation.is_too_old(100, 100 + later)), [false, false, true, false]);
        assert!(!Rotation::default().is_too_old(0, i64::MAX) && !rotation.is_too_large(u64::MAX));
    }
}
