//! What an answer means.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;

/// The longest time that a server is left alone for at its word.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    /// It will never take this.
    Refused,
    /// An operator can put it right.
    Outage,
    /// Another attempt may fare better.
    Passing,
    /// Nothing of this tenant is to be sent for so long.
    TenantLater(Duration),
    /// Nothing at all is.
    Later(Duration),
}

/// Without a word on when, a server that is asked too much is left alone for so long.
const SHORTLY: Duration = Duration::from_secs(1);

pub(super) fn verdict(status: StatusCode, retry_after: Option<Duration>) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Done,
        300..=399 | 401 | 403..=405 | 407 | 410 => Verdict::Outage,
        408 | 425 => Verdict::Passing,
        429 => Verdict::TenantLater(retry_after.unwrap_or(SHORTLY)),
        400..=499 => Verdict::Refused,
        503 => retry_after.map_or(Verdict::Passing, Verdict::Later),
        _ => Verdict::Passing,
    }
}

/// In seconds, or as a date.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST))
}

/// What is right for an operator to hear of it.
pub(super) fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => "; redirects are not followed: set url, or rollback_url, to where it leads",
        401 | 403 | 407 => "; check the secret in secret_file, and what the server expects",
        404 | 405 | 410 => "; check url, or rollback_url",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_data_are_is_refused_what_an_operator_can_put_right_is_waited_for_and_what_may_pass_is_tried_again() {
        let states = |verdict: Verdict| match verdict {
            Verdict::Done => "200 201 202 204",
            Verdict::Refused => "400 402 406 409 411 412 413 414 415 422 451",
            Verdict::Outage => "301 302 307 308 401 403 404 405 407 410",
            Verdict::Passing => "408 425 500 501 502 503 504 599",
            Verdict::TenantLater(_) => "429",
            Verdict::Later(_) => "",
        };
        for expected in
            [Verdict::Done, Verdict::Refused, Verdict::Outage, Verdict::Passing, Verdict::TenantLater(SHORTLY)]
        {
            for status in states(expected).split(' ') {
                assert_eq!(verdict(status.parse().unwrap(), None), expected, "{status}");
            }
        }
        let after = Duration::from_secs(7);
        assert_eq!(verdict(StatusCode::TOO_MANY_REQUESTS, Some(after)), Verdict::TenantLater(after));
        assert_eq!(verdict(StatusCode::SERVICE_UNAVAILABLE, Some(after)), Verdict::Later(after));
        assert_eq!(verdict(StatusCode::BAD_GATEWAY, Some(after)), Verdict::Passing);
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date_and_at_most_an_hour() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, expected) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:00 GMT", Some(3600)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
