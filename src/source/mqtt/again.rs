//! How soon a broker is tried again, and whether somebody else takes its connections away.
//!
//! A broker lets one client with a `client_id` be connected: of two daemons with the same one, each that connects throws the other out. In
//! version 5 the broker says so, in 3.1.1 it just ends the connection. Whom that befalls waits longer each time, lest both do nothing else.

use std::time::Duration;

use headworks_actors::RetryPolicy;

use super::packets::TAKEN_OVER;

/// One that lasted for so long was not taken away: longer than anybody waits.
pub(super) const LASTS: Duration = Duration::from_mins(2);

/// So many in a row that are cut short, each soon after it was there, are no accident.
const CUT_SHORT: u32 = 3;

/// What is done about connections that end.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Attempts to connect that failed, one after the other.
    failures: u32,
    /// Connections that were there and did not last, one after the other.
    cut_short: u32,
    is_contested: bool,
}

impl Again {
    /// There is a connection; whether it is taken for one that stays. One that others were taken away before is so once it has
    /// [lasted](Self::lasted).
    pub(super) fn connected(&mut self) -> bool {
        self.failures = self.cut_short;
        !self.is_contested
    }

    /// It was there for [`LASTS`].
    pub(super) fn lasted(&mut self) {
        *self = Self::default();
    }

    /// It is gone, or did not come to be, for this reason: what is to be told, and how long is to be waited.
    pub(super) fn lost(
        &mut self,
        why: String,
        was_there: bool,
        client_id: &str,
        rng: &mut fastrand::Rng,
    ) -> (String, Duration) {
        self.failures = self.failures.saturating_add(1);
        let is_taken_over = why.contains(TAKEN_OVER);
        let is_cut =
            ["it ended the connection", "reading failed", "writing failed"].iter().any(|cut| why.starts_with(cut));
        if !was_there || !is_cut {
            return (why, soon().wait(self.failures, None, rng));
        }
        self.cut_short = self.cut_short.saturating_add(1);
        self.is_contested |= is_taken_over || self.cut_short >= CUT_SHORT;
        if !self.is_contested {
            return (why, soon().wait(self.failures, None, rng));
        }
        let told = match is_taken_over {
            true => format!("{why} (client_id = {client_id:?})"),
            false => format!(
                "{why}, again and again, soon after it was there: probably another client has the same client_id, {client_id:?}, with which a \
                 broker lets one be connected; each daemon needs one of its own"
            ),
        };
        // Not at once in any case.
        (told, later().wait(self.cut_short, Some(later().bound(self.cut_short) / 2), rng))
    }
}

/// Up to 10 s, of any length within what doubles from 250 ms on.
fn soon() -> RetryPolicy {
    RetryPolicy { base: Duration::from_millis(250), cap: Duration::from_secs(10), ..RetryPolicy::default() }
}

/// Up to a minute, of the upper half of what doubles from a second on.
fn later() -> RetryPolicy {
    RetryPolicy { base: Duration::from_secs(1), cap: Duration::from_mins(1), ..RetryPolicy::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lose(again: &mut Again, why: &str, was_there: bool) -> (String, Duration) {
        again.lost(why.to_owned(), was_there, "one", &mut fastrand::Rng::with_seed(7))
    }

    #[test]
    fn who_is_thrown_out_again_and_again_waits_longer_each_time_and_says_why() {
        for why in ["it ended the connection", "it ended the connection: another client came with the same client_id"] {
            let mut again = Again::default();
            let mut told = String::new();
            let mut waits = vec![];
            for _ in 0..12 {
                again.connected();
                let (says, wait) = lose(&mut again, why, true);
                (told, _) = (says, waits.push(wait.as_millis()));
            }
            assert!(told.contains("client_id") && told.contains("\"one\""), "{told}");
            let lowest = [2_000, 4_000, 8_000, 16_000, 30_000];
            assert!(waits[2..].iter().zip(lowest).all(|(wait, lowest)| *wait >= lowest), "{waits:?}");
            assert!(waits.iter().all(|wait| *wait <= 60_000), "{waits:?}");
            assert!(!again.connected(), "it may be thrown out again");
            again.lasted();
            assert!(again.connected());
            assert!(lose(&mut again, "it ended the connection", true).1 <= Duration::from_millis(250));
        }
    }

    #[test]
    fn a_broker_that_is_away_or_restarted_is_tried_again_soon_and_nobody_is_suspected() {
        let mut again = Again::default();
        for failures in 1..20 {
            let (told, wait) = lose(&mut again, "cannot connect", false);
            assert!(told == "cannot connect" && wait <= soon().bound(failures), "{told} {wait:?}");
        }
        assert!(again.connected());
        let (told, wait) = lose(&mut again, "it ended the connection", true);
        assert!(told == "it ended the connection" && wait <= Duration::from_millis(250), "{told} {wait:?}");
        assert!(again.connected());
        let (told, _) = lose(&mut again, "it gave no sign of life for 45s", true);
        assert_eq!(told, "it gave no sign of life for 45s");
    }
}
