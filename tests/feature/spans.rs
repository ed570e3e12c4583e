//! What is logged while a batch is stored or rolled back says whose and which, by the spans around it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use headworks::{
    Attempt, Batch, BatchId, Event, MemoryDeadLetters, Placement, Policy, Storage, StorageError, System, TenantId,
    Undo, WindowPolicy,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A store that says a word and refuses.
struct Sighs;

impl Storage for Sighs {
    async fn store(&self, _: &Batch, _: &Undo) -> Result<(), StorageError> {
        tracing::info!(target: "sighs", "store");
        Err(StorageError::Permanent { detail: "no".into() })
    }

    async fn rollback(&self, _: &BatchId, _: Attempt) -> Result<(), StorageError> {
        tracing::info!(target: "sighs", "rollback");
        Ok(())
    }
}

/// The names and fields of the spans around each event of the store.
#[derive(Clone, Default)]
struct Around(Arc<Mutex<BTreeSet<String>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Around {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(span.metadata().name().to_owned());
        span.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "sighs" {
            let told = context
                .event_scope(event)
                .into_iter()
                .flatten()
                .filter_map(|span| span.extensions().get::<Fields>().map(|fields| fields.0.clone()));
            self.0.lock().unwrap().extend(told);
        }
    }
}

#[test]
fn a_span_around_the_store_and_one_around_the_rollback_carry_tenant_batch_and_attempt() {
    let around = Around::default();
    let subscriber = tracing_subscriber::registry().with(around.clone());
    let batch = tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let window = WindowPolicy { max_events: 1, ..WindowPolicy::default() };
            let system = System::builder()
                .store(Sighs)
                .policy(Policy { window, ..Policy::default() })
                .dead_letters(MemoryDeadLetters::default())
                .placement(Placement::Inline)
                .start()
                .unwrap();
            let acme = TenantId::new("acme").unwrap();
            let mut receipt = system.send(vec![Event::new(acme, None, "x")]).await.unwrap();
            assert_eq!(receipt.settled().await.stored, 0);
            format!("{}/acme/1", system.opening())
        })
    });
    let told = around.0.lock().unwrap().clone();
    for name in ["store", "compensate"] {
        let expected = format!("{name} tenant=acme batch={batch} attempt=1");
        assert!(told.iter().any(|span| span.starts_with(&expected)), "{expected} is not among {told:?}");
    }
}
