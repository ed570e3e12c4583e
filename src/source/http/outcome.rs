//! What became of the events of a request, and what it is answered. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use headworks_actors::{Answer, Code};
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

/// How many refused lines an answer names.
const MOST_NAMED: u64 = 1_000;

/// What is known of the lines of a body so far.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    accepted: u64,
    rejected: BTreeMap<Code, u64>,
    named: BTreeMap<u64, Code>,
    retry_after: Option<Duration>,
}

/// How the taking in of a body ended.
#[derive(Debug)]
pub(super) enum End {
    /// All of it was taken in and answered for.
    Whole,
    /// It is wrong in itself, or stopped coming, for this reason.
    Cut(StatusCode, String),
    /// There was no room, or the events are not as safe as was asked for, in the time there is.
    Late(String),
    /// The system closes.
    Closing,
}

impl Outcome {
    pub(super) fn add(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Ack(range) => self.accepted += range.end() - range.start() + 1,
                Answer::Nack(range, code, retry_after) => {
                    *self.rejected.entry(code).or_default() += range.end() - range.start() + 1;
                    self.retry_after = self.retry_after.max(retry_after);
                    let room = MOST_NAMED.saturating_sub(self.named.len() as u64);
                    self.named.extend(range.take(usize::try_from(room).unwrap_or(0)).map(|line| (line, code)));
                }
            }
        }
    }

    /// The status, and what it is for where that is a refusal.
    fn verdict(&self, end: &End) -> (StatusCode, Option<String>) {
        let passing = |code: &Code| matches!(code, Code::Throttled | Code::TenantFull | Code::SpawnRate);
        match end {
            End::Cut(status, why) => (*status, Some(why.clone())),
            End::Late(why) => (StatusCode::TOO_MANY_REQUESTS, Some(why.clone())),
            End::Closing => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("the server stops, and takes in no more for now".to_owned()))
            }
            End::Whole if self.accepted > 0 || self.rejected.is_empty() => (StatusCode::OK, None),
            End::Whole if self.rejected.keys().any(passing) => (
                StatusCode::TOO_MANY_REQUESTS,
                Some("no event was accepted; the like of some may pass later".to_owned()),
            ),
            End::Whole if self.rejected.keys().all(|code| *code == Code::TenantNotAllowed) => {
                (StatusCode::FORBIDDEN, Some("the sender may not speak for the tenants of these events".to_owned()))
            }
            End::Whole => (StatusCode::BAD_REQUEST, Some("no event was accepted: each line is refused".to_owned())),
        }
    }

    /// The answer to the request.
    pub(super) fn response(&self, end: &End) -> Response<Full<Bytes>> {
        let (status, why) = self.verdict(end);
        let all = self.rejected.values().sum::<u64>();
        let rejected: Vec<_> = self
            .named
            .iter()
            .map(|(line, code)| json!({ "line": line, "reason": code.as_str(), "detail": detail(*code) }))
            .collect();
        let mut answer = json!({ "accepted": self.accepted, "rejected": rejected, "rejected_count": all });
        if let Some(why) = &why {
            problem_in(&mut answer, status, why);
        }
        let mut response = body(status, &answer, why.is_some());
        let wait = match end {
            End::Whole => self.retry_after.or((status == StatusCode::TOO_MANY_REQUESTS).then_some(Duration::ZERO)),
            End::Late(_) | End::Closing => Some(Duration::ZERO),
            End::Cut(..) => None,
        };
        if let Some(wait) = wait {
            // In whole seconds, and never at once.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if !matches!(end, End::Whole | End::Late(_)) {
            // What is left of the body is not read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn problem_in(answer: &mut serde_json::Value, status: StatusCode, why: &str) {
    answer["type"] = "about:blank".into();
    answer["title"] = status.canonical_reason().unwrap_or("error").into();
    answer["status"] = status.as_u16().into();
    answer["detail"] = why.into();
}

fn body(status: StatusCode, answer: &serde_json::Value, is_problem: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = status;
    let kind = if is_problem { "application/problem+json" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answer to a request of which nothing was taken in, as RFC 9457 has it.
pub(crate) fn refusal(status: StatusCode, why: &str, reason: Option<Code>) -> Response<Full<Bytes>> {
    let mut answer = json!({});
    problem_in(&mut answer, status, why);
    if let Some(reason) = reason {
        answer["reason"] = reason.as_str().into();
    }
    let mut response = body(status, &answer, true);
    let more = match status {
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, HeaderValue::from_static("POST"))),
        StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
        _ => None,
    };
    response.headers_mut().extend(more);
    response
}

/// What a refusal means to whoever sent the line.
fn detail(code: Code) -> &'static str {
    match code {
        Code::Empty => "the line is empty",
        Code::Oversized => "the line is longer than the source takes (max_frame)",
        Code::BadUtf8 => "the line is not UTF-8",
        Code::BadJson => "the line is not JSON",
        Code::TooDeep => "the JSON is nested too deep",
        Code::NoTenant => "the event does not say whose it is",
        Code::BadTenant => "the event's tenant is no tenant id",
        Code::BadEvent => "the line is no JSON object",
        Code::TenantNotAllowed => "the sender may not speak for this tenant",
        Code::TenantLimit => "the tenant is unknown, and no more may come up",
        Code::UnknownTenant => "the tenant is unknown, and events of unknown tenants are refused",
        Code::SpawnRate => "the tenant is unknown, and too many new ones have come up lately",
        Code::Muted => "the tenant is muted",
        Code::Throttled => "the tenant is above its rate: send it again later, under another Idempotency-Key",
        Code::TenantFull => "the tenant is full: send it again later, under another Idempotency-Key",
        Code::Shed => "the tenant was full and gave it up to make room",
        Code::StorePermanent => "the store refused it for good; it is kept as a dead letter",
        _ => "it was given up; the server's log says why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(answers: Vec<Answer>, end: &End) -> (u16, Option<String>) {
        let mut outcome = Outcome::default();
        outcome.add(answers);
        let response = outcome.response(end);
        let wait = response.headers().get(header::RETRY_AFTER).map(|wait| wait.to_str().unwrap().to_owned());
        (response.status().as_u16(), wait)
    }

    #[test]
    fn the_status_says_whether_anything_was_accepted_and_whether_to_come_again() {
        let nack = |code, after| Answer::Nack(1..=2, code, after);
        let later = Some(Duration::from_millis(1_500));
        for (answers, end, expected) in [
            (vec![Answer::Ack(1..=2)], End::Whole, (200, None)),
            (vec![], End::Whole, (200, None)),
            (vec![nack(Code::BadJson, None)], End::Whole, (400, None)),
            (vec![nack(Code::BadJson, None), Answer::Ack(3..=3)], End::Whole, (200, None)),
            (vec![nack(Code::TenantNotAllowed, None)], End::Whole, (403, None)),
            (vec![nack(Code::Throttled, later)], End::Whole, (429, Some("2"))),
            (vec![nack(Code::TenantFull, None)], End::Whole, (429, Some("1"))),
            (vec![Answer::Ack(3..=3), nack(Code::Throttled, later)], End::Whole, (200, Some("2"))),
            (vec![Answer::Ack(1..=1)], End::Late("late".into()), (429, Some("1"))),
            (vec![], End::Closing, (503, Some("1"))),
            (vec![], End::Cut(StatusCode::PAYLOAD_TOO_LARGE, "x".into()), (413, None)),
        ] {
            assert_eq!(told(answers, &end), (expected.0, expected.1.map(str::to_owned)), "{end:?}");
        }
    }

    #[test]
    fn no_more_refused_lines_are_named_than_fit_and_all_are_counted() {
        let mut outcome = Outcome::default();
        outcome.add(vec![
            Answer::Nack(1..=1_000_000, Code::BadJson, None),
            Answer::Nack(2_000_000..=2_000_001, Code::Empty, None),
        ]);
        assert_eq!(outcome.named.len(), 1_000);
        assert_eq!(outcome.rejected.values().sum::<u64>(), 1_000_002);
    }
}
