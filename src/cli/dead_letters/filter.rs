use std::time::{Duration, SystemTime};

use headworks::admin::{LetterFilter, reason};
use headworks::{Code, TenantId, UnixMillis};

/// Which dead letters.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Filter {
    /// Only those of this tenant
    #[arg(long, value_name = "T")]
    tenant: Option<TenantId>,
    /// Only those given up for this reason: a code such as bad_json or store_permanent
    #[arg(long, value_name = "CODE", value_parser = reason)]
    reason: Option<Code>,
    /// Only those given up then or later: 2024-11-22T08:00:00Z, or so long ago, as in 2h
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<UnixMillis>,
    /// Only those given up before then
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<UnixMillis>,
}

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { tenant, reason, since, until } = self;
        tenant.is_none() && reason.is_none() && since.is_none() && until.is_none()
    }

    /// The same, of these letters alone if there are any.
    pub(crate) fn of(&self, ids: &[String]) -> LetterFilter {
        LetterFilter {
            ids: ids.to_vec(),
            tenant: self.tenant.clone(),
            reason: self.reason.map(|code| code.as_str().to_owned()),
            since: self.since.map(|at| at.0),
            until: self.until.map(|at| at.0),
            ..LetterFilter::default()
        }
    }
}

/// Some dead letters, or all of them, by somebody's word: nobody changes all by forgetting to say which.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Choice {
    /// Only these, by the ids that `list` prints
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All there are
    #[arg(long, conflicts_with_all = ["ids", "tenant", "reason", "since", "until"])]
    all: bool,
}

impl Choice {
    pub(crate) fn filter(&self) -> Result<LetterFilter, String> {
        if !self.all && self.ids.is_empty() && self.filter.is_empty() {
            return Err("say which dead letters: their ids, --tenant, --reason, --since, --until, or --all".to_owned());
        }
        Ok(self.filter.of(&self.ids))
    }
}

/// A time, or so long ago.
fn moment(text: &str) -> Result<UnixMillis, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH).into());
    }
    let time = humantime::parse_rfc3339_weak(text).map(UnixMillis::from);
    time.map_err(|_| format!("{text:?} is no time; write 2024-11-22T08:00:00Z, or so long ago: 30m, 2h, 1day"))
}

/// How long ago it was, short: 5s, 3m, 2h, 9d.
pub(super) fn age(now: UnixMillis, then: UnixMillis) -> String {
    let seconds = Duration::from_millis(u64::try_from(now.0.saturating_sub(then.0)).unwrap_or(0)).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_point_or_so_long_ago() {
        assert_eq!(moment("2024-11-22T00:00:00Z"), Ok(UnixMillis(1_732_233_600_000)));
        let hour_ago = moment("1h").unwrap();
        let age = UnixMillis::now().0 - hour_ago.0;
        assert!((3_600_000..3_700_000).contains(&age), "{age}");
        assert!(moment("yesterday").unwrap_err().contains("30m, 2h, 1day"));
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        for (seconds, told) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (7_200, "2h"), (90_000, "1d"), (-5, "0s")]
        {
            assert_eq!(age(UnixMillis(seconds * 1_000), UnixMillis(0)), told);
        }
    }

    #[test]
    fn whoever_says_nothing_does_not_mean_all() {
        assert!(Choice::default().filter().unwrap_err().contains("--all"));
        assert_eq!(Choice { all: true, ..Choice::default() }.filter(), Ok(LetterFilter::default()));
        let ids = vec!["one".to_owned()];
        assert_eq!(Choice { ids: ids.clone(), ..Choice::default() }.filter().unwrap().ids, ids);
    }
}
