use headworks_actors::{
    Batch, Event, Fault, Faulty, MemoryDeadLetters, MemoryStore, Placement, Policy, RetryPolicy, System, WindowPolicy,
};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::*;

/// The spans of windows of four events, each tenant with one, in a store that fails by this script.
async fn spans(
    one_in: u32,
    room: usize,
    tenants: &[&str],
    script: impl Fn(&Batch, u64) -> Fault + Send + Sync + 'static,
) -> (Vec<Span>, Exported) {
    let (tell, mut queue) = mpsc::channel(room);
    let exported = Exported::default();
    let window = WindowPolicy { max_events: 4, ..WindowPolicy::default() };
    let retry = RetryPolicy { attempts: 2, ..RetryPolicy::default() };
    let system = System::builder()
        .store(Faulty::new(MemoryStore::default(), script))
        .policy(Policy { window, retry, ..Policy::default() })
        .dead_letters(MemoryDeadLetters::default())
        .observer(Tracer::new(one_in, tell, exported.clone()))
        .placement(Placement::Inline)
        .start()
        .unwrap();
    for &tenant in tenants {
        let tenant = TenantId::new(tenant).unwrap();
        let events = (0..4).map(|n| Event::new(tenant.clone(), None, format!("{n}"))).collect();
        system.send(events).await.unwrap().settled().await;
    }
    let mut spans = vec![];
    while let Ok(told) = queue.try_recv() {
        spans.push(told.span());
    }
    (spans, exported)
}

fn virtual_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    format!("{:?}", found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()))
}

fn of_batches(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|span| span.name == "process").collect()
}

#[test]
fn a_batch_that_goes_well_is_a_span_with_one_child() {
    let (spans, exported) = virtual_time(spans(1, 100, &["a"], |_, _| Fault::None));
    let [attempt, batch] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((attempt.name.as_str(), batch.name.as_str()), ("store store", "process"));
    assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&batch.trace_id, &batch.span_id));
    assert_eq!((batch.trace_id.len(), batch.span_id.len(), batch.parent_span_id.len()), (16, 8, 0));
    assert!(batch.start_time_unix_nano > 0 && batch.end_time_unix_nano >= batch.start_time_unix_nano);
    assert_eq!(exported.all_dropped(), 0);
}

#[test]
fn of_batches_that_go_well_some_are_chosen_and_of_others_all_are() {
    let names: Vec<_> = (0..300).map(|n| format!("t{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let fails = |batch: &Batch, _| if batch.tenant().as_str() == "t7" { Fault::Permanent } else { Fault::None };
    let (spans, _) = virtual_time(spans(10, 10_000, &names, fails));
    let of_t7 = |span: &&Span| attribute(span, "headworks.tenant").contains("\"t7\"");
    let well = of_batches(&spans).into_iter().filter(|span| !of_t7(span)).count();
    assert!((10..60).contains(&well), "{well} of 299");
    assert!(of_batches(&spans).iter().any(of_t7));
    let ids: Vec<_> = of_batches(&spans).iter().map(|span| span.span_id.clone()).collect();
    let attempts = spans.iter().filter(|span| span.name != "process");
    for attempt in attempts {
        assert!(ids.contains(&attempt.parent_span_id), "its batch has a span too: {attempt:?}");
    }
}

#[test]
fn the_pieces_of_a_batch_that_was_split_are_in_its_trace_under_what_they_are_pieces_of() {
    let refuses = |batch: &Batch, _| {
        if batch.events().any(|event| event.body == b"2") { Fault::Permanent } else { Fault::None }
    };
    let (spans, _) = virtual_time(spans(1_000_000, 100, &["a"], refuses));
    let batches = of_batches(&spans);
    let told: Vec<_> = batches
        .iter()
        .map(|span| {
            let word = |key: &str| attribute(span, key).replace("Some(StringValue(\"", "").replace("\"))", "");
            let id = word("headworks.batch.id");
            format!("{} {} {}", id.split_once('/').unwrap().1, word("headworks.outcome"), span.events.len())
        })
        .collect();
    // What went well after that is a piece of no trouble of its own, and one in a million.
    assert_eq!(told[..3], ["a/1 split 3", "a/1.2 split 3", "a/1.2.1 dead_lettered 2"], "{told:?}");
    let [whole, half, event] = batches[..3] else { panic!("{batches:?}") };
    assert!(batches.iter().all(|span| span.trace_id == whole.trace_id));
    assert_eq!((&half.parent_span_id, &event.parent_span_id), (&whole.span_id, &half.span_id));
    assert!(whole.parent_span_id.is_empty());
    assert_eq!(event.status.as_ref().unwrap().message, "store_permanent");
    assert!(whole.start_time_unix_nano > 0, "{whole:?}");
}

#[test]
fn what_does_not_fit_is_dropped_and_counted_and_no_trouble_is_left() {
    let (tell, _queue) = mpsc::channel(1);
    let exported = Exported::default();
    let tracer = Tracer::new(1, tell, exported.clone());
    let batch: BatchId = "5f0c9b1e2d3a4f60/acme/42".parse().unwrap();
    for _ in 0..3 {
        tracer.trouble(&batch);
        let events = tracer.end_of_trouble(&batch).unwrap();
        tracer.tell(Told::Split(batch.clone(), events));
    }
    assert_eq!(exported.all_dropped(), 2);
    assert_eq!((tracer.any.load(Ordering::Acquire), tracer.troubled().len()), (0, 0));
    for seq in 0..MOST_TROUBLED as u64 + 10 {
        let batch = BatchId::new(batch.opening, batch.tenant.clone(), headworks_actors::Seq(seq));
        tracer.trouble(&batch);
    }
    assert_eq!(tracer.troubled().len(), MOST_TROUBLED);
    let mut erased = SupervisorEvent::new(Some(batch.tenant.clone()), headworks_actors::Role::Tenant, What::Erased);
    erased.cursor = 1;
    tracer.supervised(&erased);
    assert_eq!(tracer.any.load(Ordering::Acquire), 0);
}
