//! Events as they pass.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use headworks_actors::{Payload, Redaction, Tap, TapEvent, TapItem, TapOptions, TenantId};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Admin, Problem};
use crate::config::{Running, TapConfig};

/// How many may look on at once: each costs the stream something.
pub(super) const MOST: usize = 16;
/// Events a second at the most, where the request does not say; and how many it may say.
const RATE: u32 = 100;
pub(super) const MOST_A_SECOND: u32 = 10_000;
/// About so much is answered at once.
const PIECE: usize = 64 << 10;

/// What is asked of `/v1/tap`: the query of the URL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TapRequest {
    /// Events of this tenant, which need not be known yet; else of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// After so many events it is over; else it goes on until the daemon ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How many events a second at the most, from 1 to 10000; 100 if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// The fields that are not told, beside those of the configuration, with commas between them: see [`Redaction`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redact: Option<String>,
}

impl TapRequest {
    fn fields(&self) -> impl Iterator<Item = &str> {
        self.redact.iter().flat_map(|fields| fields.split(',')).map(str::trim).filter(|field| !field.is_empty())
    }

    /// What is kept back of events, by the configuration and by the request.
    fn redaction(&self, config: &TapConfig) -> Result<Redaction, String> {
        Redaction::new(config.redact.iter().map(String::as_str).chain(self.fields()))
    }
}

pub(super) async fn show(
    State(admin): State<Admin>,
    request: Result<Query<TapRequest>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(request) = request?;
    let rate = request.rate.unwrap_or(RATE);
    if !(1..=MOST_A_SECOND).contains(&rate) {
        return Err(Problem::bad_request(format!("rate is {rate}; it must be from 1 to {MOST_A_SECOND}")));
    }
    let mut running = admin.running.clone();
    let config = running.as_mut().map(|running| running.borrow_and_update().config.tap.clone()).unwrap_or_default();
    if !config.enabled {
        let why = "events are not shown as they pass: tap.enabled is false in the daemon's configuration";
        return Err(Problem::new(StatusCode::FORBIDDEN, why));
    }
    let redaction = request.redaction(&config).map_err(|why| Problem::bad_request(format!("redact: {why}")))?;
    let place = admin.tapping.clone().try_acquire_owned().map_err(|_| {
        let why = format!("{MOST} taps are open, and more there may not be: end one and try again");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)
    })?;
    let tap = admin.system.tap(TapOptions {
        tenant: request.tenant.clone(),
        events_per_second: rate,
        ..TapOptions::default()
    });
    let tenant = request.tenant.as_ref().map(TenantId::as_str);
    tracing::info!(target: "headworks", tenant, rate, "somebody looks at events as they pass: a tap was opened");
    let left = request.limit.unwrap_or(u64::MAX);
    let state = Looking { admin, request, running, redaction, tap, left, _place: place };
    let lines = futures::stream::unfold(state, async |mut state| {
        Some((Ok::<_, std::convert::Infallible>(state.next().await?), state))
    });
    // What is live is never to be kept for later.
    let kind = [(header::CONTENT_TYPE, "application/jsonl"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// Somebody who looks on.
struct Looking {
    admin: Admin,
    request: TapRequest,
    running: Option<watch::Receiver<Arc<Running>>>,
    redaction: Redaction,
    tap: Tap,
    left: u64,
    _place: OwnedSemaphorePermit,
}

impl Looking {
    /// The next lines; `None` once all that was asked for was told, the daemon ends, or its configuration does not allow it any more.
    async fn next(&mut self) -> Option<Bytes> {
        while self.left > 0 {
            // First what may be told, then what is.
            let first = tokio::select! {
                biased;
                () = self.admin.ends() => return None,
                () = changed(&mut self.running) => None,
                item = self.tap.next() => Some(item),
            };
            let Some(first) = first else {
                let running = self.running.as_mut()?.borrow_and_update().clone();
                let config = Some(&running.config.tap).filter(|config| config.enabled)?;
                self.redaction = self.request.redaction(config).ok()?;
                continue;
            };
            let (mut lines, mut next) = (String::new(), Some(first));
            while let Some(item) = next {
                self.left -= u64::from(matches!(item, TapItem::Event(_)));
                line(&mut lines, &item, &self.redaction);
                let goes_on = self.left > 0 && lines.len() < PIECE;
                next = if goes_on { self.tap.try_next() } else { None };
            }
            return Some(lines.into());
        }
        None
    }
}

/// Waits for another configuration.
async fn changed(running: &mut Option<watch::Receiver<Arc<Running>>>) {
    if let Some(running) = running
        && running.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The fields of a line that are known of every event.
#[derive(Serialize)]
struct Told<'a> {
    tenant: &'a TenantId,
    seq: u64,
    place: usize,
    arrived: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    skipped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Writes the item as a line of JSON, without what may not be told and without what a terminal would obey.
fn line(lines: &mut String, item: &TapItem, redaction: &Redaction) {
    let TapEvent { tenant, seq, place, time, arrived, body, skipped } = match item {
        TapItem::Event(event) => event,
        TapItem::Missed(missed) => {
            let _ = writeln!(lines, "{{\"missed\":{missed}}}");
            return;
        }
    };
    let time = time.map(|time| time.to_string());
    let told = Told { tenant, seq: *seq, place: *place, arrived: arrived.to_string(), time, skipped: *skipped };
    // Words and numbers, and text: there is nothing in it that JSON cannot say.
    let head = serde_json::to_string(&told).unwrap_or_default();
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let (name, value) = match redaction.payload(body) {
        Payload::Json(json) => ("payload", json),
        Payload::Text(text) => ("payload_text", quoted(&text)),
        Payload::Bytes(bytes) => ("payload_hex", quoted(&hex(&bytes))),
        Payload::Withheld => ("withheld", quoted("it is no JSON object in which fields could be redacted")),
    };
    let line = format!("{},\"{name}\":{value}}}", head.trim_end_matches('}'));
    for c in line.chars() {
        // Of these JSON has none but in strings.
        if crate::text::is_hostile(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(lines, "\\u{unit:04x}");
            }
        } else {
            lines.push(c);
        }
    }
    lines.push('\n');
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use headworks_actors::UnixMillis;

    use super::*;

    fn told(body: &'static [u8], redact: &[&str]) -> String {
        let event = TapEvent {
            tenant: "acme".parse().unwrap(),
            seq: 7,
            place: 0,
            time: None,
            arrived: UnixMillis(1_700_000_000_000),
            body: Bytes::from_static(body),
            skipped: 0,
        };
        let mut lines = String::new();
        line(&mut lines, &TapItem::Event(event), &Redaction::new(redact.iter().copied()).unwrap());
        let told = lines.strip_prefix(r#"{"tenant":"acme","seq":7,"place":0,"arrived":"2023-11-14T22:13:20.000Z","#);
        told.unwrap_or_else(|| panic!("{lines}")).to_owned()
    }

    #[test]
    fn a_line_has_the_payload_as_it_may_be_told() {
        assert_eq!(told(b"{\"n\": {}}", &[]), "\"payload\":{\"n\":{}}}\n");
        assert_eq!(told(b"{\"n\": 1, \"key\":2}", &["key"]), "\"payload\":{\"n\":1,\"key\":\"[redacted]\"}}\n");
        assert_eq!(told(b"a \"b\"\n", &[]), "\"payload_text\":\"a \\\"b\\\"\\n\"}\n");
        assert_eq!(told(b"\xff\x00", &[]), "\"payload_hex\":\"ff00\"}\n");
        let why = "\"withheld\":\"it is no JSON object in which fields could be redacted\"}\n";
        assert_eq!(told(b"no JSON", &["key"]), why);
    }

    #[test]
    fn a_line_holds_nothing_that_a_terminal_would_obey_and_means_the_same() {
        let body = "{\"t\u{9b}\":\"\u{7f}\u{202e}\u{e0041}\u{e4}\"}";
        let line = told(body.as_bytes(), &[]);
        assert!(!line.trim_end().contains(crate::text::is_hostile), "{line}");
        let value: serde_json::Value = serde_json::from_str(&format!("{{{line}")).unwrap();
        assert_eq!(value["payload"], serde_json::from_str::<serde_json::Value>(body).unwrap());
    }
}
