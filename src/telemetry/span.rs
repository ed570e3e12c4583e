//! What was told as spans of OTLP, by the semantic conventions for messaging.
//!
//! A batch is one trace, whatever process works on it: its ids are made of the batch's. Its span lasts from the cut to the outcome;
//! the span of a piece that a store's refusal made is a child of what it is a piece of, and each attempt is a child of its batch.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headworks_actors::{Attempted, BatchId, Outcome, Piece, Settled, SupervisorEvent, UnixMillis};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};

use super::tracer::{Told, number_of};
use crate::metrics::otlp::text;

/// The conventions that the attributes are named by.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

fn whole(key: &str, value: u64) -> KeyValue {
    let value = any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Nanoseconds since 1970, until 2554.
pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn nanos_of(at: UnixMillis) -> u64 {
    u64::try_from(at.0).unwrap_or(0).saturating_mul(1_000_000)
}

/// The trace of a batch and of all its pieces.
fn trace_id(batch: &BatchId) -> Vec<u8> {
    // All zeros would be none.
    [batch.opening.0.to_be_bytes(), (number_of(batch) | 1).to_be_bytes()].concat()
}

/// The span of that within the trace.
fn span_id(batch: &BatchId, of: impl Hash) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (number_of(batch), of).hash(&mut hasher);
    (hasher.finish() | 1).to_be_bytes().into()
}

fn piece_id(batch: &BatchId, piece: Piece) -> Vec<u8> {
    span_id(batch, ("piece", piece.number()))
}

/// A failure, and what it is called.
fn failed(code: &str) -> Option<Status> {
    Some(Status { code: StatusCode::Error.into(), message: code.to_owned() })
}

impl Told {
    /// It as a span.
    pub(super) fn span(&self) -> Span {
        match self {
            Self::Attempted(attempted, at) => of_attempt(attempted, *at),
            Self::Settled(settled, at, events) => of_batch(settled, *at, events),
            Self::Split(batch, events) => of_split(batch, events),
        }
    }
}

fn of_attempt(attempted: &Attempted, at: SystemTime) -> Span {
    let Attempted { batch, store, attempt, took, failed: code, .. } = attempted;
    let attributes = [
        text("messaging.system", "headworks"),
        text("messaging.operation.name", "store"),
        text("messaging.operation.type", "send"),
        text("messaging.destination.name", store.as_str()),
        text("headworks.batch.id", batch.to_string()),
        text("headworks.tenant", batch.tenant.as_str()),
        whole("headworks.attempt", u64::from(attempt.0)),
    ];
    let error = code.map(|code| text("error.type", code.as_str()));
    Span {
        trace_id: trace_id(batch),
        span_id: span_id(batch, ("attempt", batch.piece.number(), store.as_str(), attempt.0, nanos(at))),
        parent_span_id: piece_id(batch, batch.piece),
        name: format!("store {store}"),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(at.checked_sub(*took).unwrap_or(at)),
        end_time_unix_nano: nanos(at),
        attributes: attributes.into_iter().chain(error).collect(),
        status: code.and_then(|code| failed(code.as_str())),
        ..Span::default()
    }
}

/// What all spans of whole batches and of pieces have in common.
fn of_piece(batch: &BatchId, outcome: &str, events: &[SupervisorEvent]) -> Span {
    let parent = (!batch.piece.is_whole()).then(|| Piece::of_number(batch.piece.number() / 2)).flatten();
    Span {
        trace_id: trace_id(batch),
        span_id: piece_id(batch, batch.piece),
        parent_span_id: parent.map(|parent| piece_id(batch, parent)).unwrap_or_default(),
        // Without its destination, of which there are as many as tenants.
        name: "process".into(),
        kind: SpanKind::Consumer.into(),
        attributes: vec![
            text("messaging.system", "headworks"),
            text("messaging.operation.name", "process"),
            text("messaging.operation.type", "process"),
            text("messaging.destination.name", batch.tenant.as_str()),
            text("headworks.batch.id", batch.to_string()),
            text("headworks.tenant", batch.tenant.as_str()),
            text("headworks.outcome", outcome),
        ],
        events: events.iter().map(befell).collect(),
        ..Span::default()
    }
}

fn of_batch(settled: &Settled, at: SystemTime, events: &[SupervisorEvent]) -> Span {
    let outcome = match settled.outcome {
        Outcome::Stored => "stored",
        Outcome::DeadLettered => "dead_lettered",
        Outcome::Discarded => "discarded",
        _ => "other",
    };
    let mut span = of_piece(&settled.batch, outcome, events);
    span.start_time_unix_nano = nanos(at.checked_sub(settled.since_cut).unwrap_or(at));
    span.end_time_unix_nano = nanos(at);
    span.attributes.push(whole("messaging.batch.message_count", settled.events as u64));
    span.attributes.push(whole("headworks.attempts", u64::from(settled.attempts)));
    // What a rule of the embedder dropped has not failed.
    if let Some(code) = settled.given_up.filter(|_| settled.outcome != Outcome::Stored) {
        span.attributes.push(text("error.type", code.as_str()));
        span.status = failed(code.as_str());
    }
    span
}

/// It lasted as long as is known: from the first thing that befell it.
fn of_split(batch: &BatchId, events: &[SupervisorEvent]) -> Span {
    let at = |event: Option<&SupervisorEvent>| event.map_or(0, |event| nanos_of(event.at));
    let mut span = of_piece(batch, "split", events);
    (span.start_time_unix_nano, span.end_time_unix_nano) = (at(events.first()), at(events.last()));
    if let Some(last) = events.last() {
        span.attributes.push(whole("messaging.batch.message_count", last.batch_events));
    }
    span
}

/// Something that befell a batch, in the words of the supervisor log.
fn befell(event: &SupervisorEvent) -> Event {
    let cause = event.cause.iter();
    let cause = cause
        .flat_map(|cause| [text("error.type", cause.code.as_str()), text("headworks.cause", cause.detail.to_string())]);
    let store = event.store.iter().map(|store| text("headworks.store", store.as_str()));
    let attempt = event.attempt.iter().map(|attempt| whole("headworks.attempt", u64::from(*attempt)));
    let counts = [
        ("headworks.compensations_run", event.compensations_run),
        ("headworks.compensations_failed", event.compensations_failed),
    ];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0).map(|(key, count)| whole(key, u64::from(count)));
    let next = event.next_attempt_at.map(|next| text("headworks.next_attempt_at", next.to_string()));
    Event {
        time_unix_nano: nanos_of(event.at),
        name: event.what.as_str().to_owned(),
        attributes: store.chain(attempt).chain(counts).chain(next).chain(cause).collect(),
        dropped_attributes_count: 0,
    }
}
