use std::fmt;
use std::future::pending;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::client::{Client, Failed, Signal};
use super::span::{SCHEMA, nanos};
use super::tracer::Told;
use crate::metrics::{Beside, Exported, Metrics};

/// So many spans go in one message at the most.
const MOST: usize = 512;

/// So long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// So long an export may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The waits between exports of the same spans: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What exports, on a thread of its own.
pub(super) struct Exporter {
    pub(super) client: Client,
    pub(super) resource: Resource,
    pub(super) queue: mpsc::Receiver<Told>,
    pub(super) numbers: Numbers,
    pub(super) exported: Exported,
}

/// The metrics, and how often they are exported.
pub(super) struct Numbers {
    pub(super) metrics: Metrics,
    pub(super) data_dir: PathBuf,
    pub(super) every: Option<Duration>,
    pub(super) began: SystemTime,
}

/// One of the signals: whether it comes through.
#[derive(Debug)]
struct Way {
    signal: Signal,
    /// Since when it does not, and how many spans had been dropped before.
    failing: Option<(Instant, u64)>,
}

impl Way {
    fn new(signal: Signal) -> Self {
        Self { signal, failing: None }
    }

    /// One word at the beginning of an outage.
    fn failed(&mut self, why: &str, exported: &Exported) {
        exported.failed();
        if self.failing.is_none() {
            let signal = tracing::field::display(self.signal);
            tracing::warn!(target: "headworks", signal, why, "telemetry does not reach its collector (telemetry.endpoint); it is tried again, and what does not fit the queue until then is dropped and counted");
            self.failing = Some((Instant::now(), exported.all_dropped()));
        }
    }

    /// And one at its end.
    fn went_through(&mut self, exported: &Exported) {
        let Some((since, dropped)) = self.failing.take() else { return };
        let (signal, after) = (
            tracing::field::display(self.signal),
            humantime::format_duration(Duration::from_secs(since.elapsed().as_secs())),
        );
        let spans_dropped = exported.all_dropped().saturating_sub(dropped);
        tracing::info!(target: "headworks", signal, %after, spans_dropped, "telemetry reaches its collector again");
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

/// How far the exporter has come. What is done is done before anything is awaited, so that it may be dropped in any wait.
struct State {
    /// Taken out of the queue and not exported yet, and since when the first of them has waited.
    waiting: Vec<Told>,
    since: Instant,
    /// Spans are not tried before, after so many failures in a row.
    not_before: Instant,
    failures: u32,
    metrics_due: Option<Instant>,
    traces: Way,
    metrics: Way,
}

impl Exporter {
    /// Exports until it is told to stop, and then what is left, until the time that comes with that word; nothing where the sender is
    /// dropped.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Instant>) {
        let now = Instant::now();
        let mut state = State {
            waiting: vec![],
            since: now,
            not_before: now,
            failures: 0,
            metrics_due: self.numbers.every.map(|every| now + every),
            traces: Way::new(Signal::Traces),
            metrics: Way::new(Signal::Metrics),
        };
        let deadline = loop {
            tokio::select! {
                biased;
                deadline = &mut stop => break deadline,
                () = self.turn(&mut state) => {}
            }
        };
        let Ok(deadline) = deadline else { return };
        let in_time = timeout_at(deadline, self.flush(&mut state)).await.is_ok();
        let left = state.waiting.len() + self.queue.len();
        if left > 0 {
            self.exported.dropped(left as u64);
            tracing::warn!(target: "headworks", spans = left, in_time, "not all telemetry could be exported before the end");
        }
    }

    /// Does what is due next.
    async fn turn(&mut self, state: &mut State) {
        let room = MOST - state.waiting.len();
        let spans_due = match room {
            MOST => None,
            0 => Some(state.not_before),
            _ => Some(state.not_before.max(state.since + LINGER)),
        };
        let (metrics_due, first) = (state.metrics_due, room == MOST);
        tokio::select! {
            biased;
            () = at(metrics_due) => {
                state.metrics_due = self.numbers.every.map(|every| Instant::now() + every);
                self.export_metrics(state).await;
            }
            () = at(spans_due) => drop(self.export_spans(state).await),
            taken = self.queue.recv_many(&mut state.waiting, room), if room > 0 => {
                // Where nobody is left to tell, only metrics are.
                if taken == 0 {
                    at(metrics_due).await;
                }
                if first {
                    state.since = Instant::now();
                }
            }
        }
    }

    /// Exports all that is left.
    async fn flush(&mut self, state: &mut State) {
        if self.numbers.every.is_some() {
            self.export_metrics(state).await;
        }
        loop {
            while state.waiting.len() < MOST
                && let Ok(told) = self.queue.try_recv()
            {
                state.waiting.push(told);
            }
            if state.waiting.is_empty() || self.export_spans(state).await.is_err() {
                return;
            }
        }
    }

    /// Tries to export the spans that wait. An error means that they are to be tried again.
    async fn export_spans(&self, state: &mut State) -> Result<(), ()> {
        let spans: Vec<_> = state.waiting.iter().map(Told::span).collect();
        let count = spans.len() as u64;
        let scope_spans = ScopeSpans { scope: Some(scope()), spans, schema_url: SCHEMA.into() };
        let resource = Some(self.resource.clone());
        let message = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans: vec![scope_spans], schema_url: SCHEMA.into() }],
        };
        match self.export(Signal::Traces, message.encode_to_vec()).await {
            Ok(answer) => {
                let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
                let refused =
                    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)).min(count);
                self.exported.spans(count - refused);
                self.exported.dropped(refused);
                state.traces.went_through(&self.exported);
                state.failures = 0;
                state.waiting.clear();
                Ok(())
            }
            Err(failed) => {
                state.traces.failed(&failed.why, &self.exported);
                let Some(after) = failed.again else {
                    self.exported.dropped(count);
                    state.waiting.clear();
                    return Ok(());
                };
                let (first, last) = BACKOFF;
                let wait = first.saturating_mul(1 << state.failures.min(5)).min(last);
                state.failures += 1;
                state.not_before = Instant::now() + wait.max(after.min(Duration::from_secs(300)));
                Err(())
            }
        }
    }

    /// Exports the metrics as they are. Where that fails, the next ones say more.
    async fn export_metrics(&self, state: &mut State) {
        let beside = Beside::of(&self.numbers.data_dir, &self.exported);
        let metrics = self.numbers.metrics.otlp(&beside, nanos(self.numbers.began), nanos(SystemTime::now()));
        let scope_metrics = ScopeMetrics { scope: Some(scope()), metrics, schema_url: SCHEMA.into() };
        let resource = Some(self.resource.clone());
        let message = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource,
                scope_metrics: vec![scope_metrics],
                schema_url: SCHEMA.into(),
            }],
        };
        match self.export(Signal::Metrics, message.encode_to_vec()).await {
            Ok(answer) => {
                let partial =
                    ExportMetricsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
                match partial.filter(|partial| partial.rejected_data_points > 0) {
                    Some(partial) => {
                        let (points, said) = (partial.rejected_data_points, &partial.error_message);
                        state
                            .metrics
                            .failed(&format!("the collector refuses {points} data points: {said}"), &self.exported);
                    }
                    None => state.metrics.went_through(&self.exported),
                }
            }
            Err(failed) => state.metrics.failed(&failed.why, &self.exported),
        }
    }

    async fn export(&self, signal: Signal, message: Vec<u8>) -> Result<Bytes, Failed> {
        let late =
            |_| Failed { why: format!("no answer within {} s", PATIENCE.as_secs()), again: Some(Duration::ZERO) };
        timeout(PATIENCE, self.client.export(signal, message)).await.map_err(late)?
    }
}

/// Who tells all this.
fn scope() -> InstrumentationScope {
    let (name, version) = (env!("CARGO_PKG_NAME").to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
