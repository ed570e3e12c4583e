use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headworks_actors::UnixMillis;
use tokio_postgres::Client;

use super::connect::Target;
use super::error::Failure;
use super::schema::{LOCK, in_namespace};
use super::{Partition, PostgresOptions, SchemaMode};

/// The days of 400 years.
const ERA: i64 = 146_097;

/// A day of the calendar of UTC, from which a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Day {
    year: i64,
    month: i64,
    day: i64,
}

impl Day {
    /// By the proleptic Gregorian calendar, in eras of 400 years that begin with March.
    fn of(at: UnixMillis) -> Self {
        let days = at.0.div_euclid(86_400_000) + 719_468;
        let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = (year + era * 400, month + 3);
        if month > 12 { Self { year: year + 1, month: month - 12, day } } else { Self { year, month, day } }
    }

    /// Its first moment; the day may be one behind the last of its month.
    fn begins(self) -> UnixMillis {
        let (year, month) = if self.month > 2 { (self.year, self.month - 3) } else { (self.year - 1, self.month + 9) };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * month + 2) / 5 + self.day - 1;
        let days = era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        UnixMillis(days * 86_400_000)
    }
}

/// The partitions that a connection knows to be there.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    known: BTreeSet<Day>,
    /// How many this process had dropped by then.
    dropped: u64,
}

impl Partitions {
    /// Makes those that events of these times go to, in a transaction of its own: others write to the table meanwhile.
    pub(super) async fn ready(
        &mut self,
        client: &mut Client,
        target: &Target,
        arrived: impl Iterator<Item = UnixMillis>,
    ) -> Result<(), Failure> {
        let options = &target.options;
        if options.partition == Partition::None || options.schema == SchemaMode::Check {
            return Ok(());
        }
        let dropped = target.dropped.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.dropped, dropped) != dropped {
            self.known.clear();
        }
        let mut last = None;
        let mut missing = BTreeSet::new();
        for at in arrived.filter(|at| last.replace(*at) != Some(*at)) {
            let day = Day::of(at);
            let begin = if options.partition == Partition::Month { Day { day: 1, ..day } } else { day };
            if !self.known.contains(&begin) {
                missing.insert(begin);
            }
        }
        for begin in missing {
            let transaction = client.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            transaction.batch_execute(&in_namespace(&made(begin, options.partition), options)).await?;
            transaction.commit().await?;
            self.known.insert(begin);
        }
        Ok(())
    }
}

/// The partitions that end an hour ago or earlier, and where they do, oldest first; where it is this store that makes them.
pub(super) async fn past(
    client: &Client,
    options: &PostgresOptions,
    now: UnixMillis,
) -> Result<Vec<(String, UnixMillis)>, Failure> {
    const LATE: Duration = Duration::from_secs(3600);
    if options.partition == Partition::None || options.schema == SchemaMode::Check {
        return Ok(vec![]);
    }
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = to_regclass($1::text) AND c.relnamespace = to_regnamespace($2::text)";
    let (events, namespace) = (in_namespace("@.events", options), in_namespace("@", options));
    let rows = client.query(sql, &[&events, &namespace]).await?;
    let mut past = vec![];
    for row in &rows {
        let name: String = row.try_get(0)?;
        past.extend(end_of(&name, options.partition).filter(|end| *end <= now.minus(LATE)).map(|end| (name, end)));
    }
    past.sort_by_key(|(_, end)| *end);
    Ok(past)
}

/// Where the partition of this name ends; none where this store has none such.
fn end_of(name: &str, by: Partition) -> Option<UnixMillis> {
    let numbers: Vec<i64> =
        name.strip_prefix("events_")?.split('_').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (begin, end) = match (by, numbers.as_slice()) {
        (Partition::Day, &[year, month, day]) => (Day { year, month, day }, Day { year, month, day: day + 1 }),
        (Partition::Month, &[year, 12]) => (Day { year, month: 12, day: 1 }, Day { year: year + 1, month: 1, day: 1 }),
        (Partition::Month, &[year, month]) => (Day { year, month, day: 1 }, Day { year, month: month + 1, day: 1 }),
        _ => return None,
    };
    let is_day = (1..=12).contains(&begin.month) && (1..=31).contains(&begin.day) && (1..=9999).contains(&begin.year);
    (is_day && named(begin, by) == name).then(|| end.begins())
}

fn named(Day { year, month, day }: Day, by: Partition) -> String {
    match by {
        Partition::Month => format!("events_{year:04}_{month:02}"),
        _ => format!("events_{year:04}_{month:02}_{day:02}"),
    }
}

fn made(begin: Day, by: Partition) -> String {
    let length = if by == Partition::Month { "1 month" } else { "1 day" };
    let (name, Day { year, month, day }) = (named(begin, by), begin);
    let begin = format!("timestamp '{year:04}-{month:02}-{day:02}'");
    format!(
        "CREATE TABLE IF NOT EXISTS @.{name} PARTITION OF @.events
         FOR VALUES FROM ({begin} AT TIME ZONE 'UTC') TO (({begin} + interval '{length}') AT TIME ZONE 'UTC')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_on_its_day_of_the_calendar() {
        let day = |millis| {
            let Day { year, month, day } = Day::of(UnixMillis(millis));
            format!("{year}-{month}-{day}")
        };
        for (millis, expected) in [
            (0, "1970-1-1"),
            (-1, "1969-12-31"),
            (951_782_400_000, "2000-2-29"),
            (951_868_800_000, "2000-3-1"),
            (1_732_233_600_007, "2024-11-22"),
            (1_735_689_599_999, "2024-12-31"),
            (1_735_689_600_000, "2025-1-1"),
            (4_107_542_399_999, "2100-2-28"),
            (4_107_542_400_000, "2100-3-1"),
        ] {
            assert_eq!(day(millis), expected);
        }
    }

    #[test]
    fn a_partition_ends_where_the_next_one_begins_and_what_has_another_name_is_none_of_ours() {
        for (name, by, end) in [
            ("events_2024_11_22", Partition::Day, Some(1_732_320_000_000)),
            ("events_2024_12_31", Partition::Day, Some(1_735_689_600_000)),
            ("events_2000_02_28", Partition::Day, Some(951_782_400_000)),
            ("events_2000_02_29", Partition::Day, Some(951_868_800_000)),
            ("events_1970_01", Partition::Month, Some(31 * 86_400_000)),
            ("events_2024_12", Partition::Month, Some(1_735_689_600_000)),
            ("events_2024_11_22", Partition::Month, None),
            ("events_2024_11", Partition::Day, None),
            ("events_2024_13", Partition::Month, None),
            ("events_2024_1_22", Partition::Day, None),
            ("events_old", Partition::Month, None),
            ("tenth", Partition::Day, None),
        ] {
            assert_eq!(end_of(name, by), end.map(UnixMillis), "{name}");
        }
        for millis in (-800_000..1_000_000).step_by(17).map(|day| day * 86_400_000) {
            assert_eq!(Day::of(UnixMillis(millis)).begins(), UnixMillis(millis));
        }
    }
}
