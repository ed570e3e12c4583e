use std::collections::BTreeSet;

use headworks_actors::UnixMillis;
use tokio_postgres::Client;

use super::error::Failure;
use super::schema::{LOCK, in_namespace};
use super::{Partition, PostgresOptions, SchemaMode};

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
        const ERA: i64 = 146_097;
        let days = at.0.div_euclid(86_400_000) + 719_468;
        let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = (year + era * 400, month + 3);
        if month > 12 { Self { year: year + 1, month: month - 12, day } } else { Self { year, month, day } }
    }
}

/// The partitions that a connection knows to be there.
#[derive(Debug, Default)]
pub(super) struct Partitions(BTreeSet<Day>);

impl Partitions {
    /// Makes those that events of these times go to, in a transaction of its own: others write to the table meanwhile.
    pub(super) async fn ready(
        &mut self,
        client: &mut Client,
        options: &PostgresOptions,
        arrived: impl Iterator<Item = UnixMillis>,
    ) -> Result<(), Failure> {
        if options.partition == Partition::None || options.schema == SchemaMode::Check {
            return Ok(());
        }
        let mut last = None;
        let mut missing = BTreeSet::new();
        for at in arrived.filter(|at| last.replace(*at) != Some(*at)) {
            let day = Day::of(at);
            let begin = if options.partition == Partition::Month { Day { day: 1, ..day } } else { day };
            if !self.0.contains(&begin) {
                missing.insert(begin);
            }
        }
        for begin in missing {
            let transaction = client.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            transaction.batch_execute(&in_namespace(&made(begin, options.partition), options)).await?;
            transaction.commit().await?;
            self.0.insert(begin);
        }
        Ok(())
    }
}

fn made(Day { year, month, day }: Day, by: Partition) -> String {
    let (name, length) = match by {
        Partition::Month => (format!("events_{year:04}_{month:02}"), "1 month"),
        _ => (format!("events_{year:04}_{month:02}_{day:02}"), "1 day"),
    };
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
}
