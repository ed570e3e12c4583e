//! In real time, on a thread of the system's own: it embeds in any service.

use std::cell::RefCell;
use std::sync::mpsc;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::LocalBoxFuture;
use headworks_actors::{
    Error, Fault, Faulty, Framing, IngressHandle, IngressSpec, Intake, Json, MemoryStore, Policy, Source, SourceHandle,
    Subscription, SupervisorLog, System, TenantHandle, WindowPolicy,
};

use crate::rig::{events, lines, tenant};

fn system(store: &MemoryStore) -> System {
    System::builder().store(store.clone()).start().unwrap()
}

/// The whole life of a system, from whatever calls this.
async fn live() {
    let store = MemoryStore::new();
    let system = system(&store);
    let ingress = system.ingress(IngressSpec::new("test", Framing::lines(), Json::new())).await.unwrap();
    ingress.feed(lines(events("a", 0..1_000))).await.unwrap();
    let b = system.spawn(tenant("b")).await.unwrap();
    b.offer(events("b", 0..10)).await.unwrap();
    ingress.finish(true).await.unwrap();
    let report = system.drain(Duration::from_secs(60)).await;
    assert!(report.complete, "{report}");
    assert!(report.tenants.iter().all(|tenant| tenant.end.adds_up()));
    assert_eq!((store.bodies(&tenant("a")).len(), store.bodies(&tenant("b")).len()), (1_000, 10));
    assert!(matches!(b.offer(["late"]).await, Err(Error::Closed)));
}

#[test]
fn it_works_inside_a_multi_thread_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::spawn(live()).await.unwrap() });
}

#[test]
fn it_works_inside_a_current_thread_runtime() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(live());
}

#[test]
fn it_works_in_a_plain_main_without_any_runtime() {
    block_on(live());
}

#[test]
fn several_systems_live_in_one_process_and_know_nothing_of_each_other() {
    let stores: Vec<_> = (0..4).map(|_| MemoryStore::new()).collect();
    let systems: Vec<_> = stores.iter().map(system).collect();
    block_on(async {
        for (n, system) in systems.iter().enumerate() {
            let a = system.spawn(tenant("a")).await.unwrap();
            a.offer(events("a", 0..=n)).await.unwrap();
        }
        for system in &systems {
            assert!(system.drain(Duration::from_secs(60)).await.complete);
        }
    });
    assert_eq!(stores.iter().map(|store| store.bodies(&tenant("a")).len()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn handles_go_anywhere() {
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    anywhere::<System>();
    anywhere::<TenantHandle>();
    anywhere::<IngressHandle>();
    anywhere::<SourceHandle>();
    anywhere::<SupervisorLog>();
    anywhere::<Intake>();
    fn sent<T: Send + 'static>() {}
    sent::<Subscription>();
}

/// Tells when the thread that it runs on is over.
struct Witness(mpsc::Sender<()>);

impl Source for Witness {
    fn name(&self) -> &str {
        "witness"
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        struct AtEnd(mpsc::Sender<()>);
        impl Drop for AtEnd {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        thread_local!(static END: RefCell<Option<AtEnd>> = const { RefCell::new(None) });
        END.set(Some(AtEnd(self.0)));
        async move {
            intake.closing().await;
            Ok(())
        }
        .boxed_local()
    }
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let (tell, told) = mpsc::channel();
    let system = system(&MemoryStore::new());
    let source = block_on(system.add_source(Witness(tell))).unwrap();
    let tenant = block_on(system.spawn(tenant("a"))).unwrap();
    let clone = system.clone();
    drop(system);
    drop(clone);
    block_on(tenant.offer(["still there"])).unwrap();
    assert!(told.try_recv().is_err(), "a tenant's handle holds the system");
    drop(tenant);
    told.recv_timeout(Duration::from_secs(60)).expect("the thread is over");
    drop(source);
}

#[test]
fn the_thread_ends_with_a_drain() {
    let (tell, told) = mpsc::channel();
    let system = system(&MemoryStore::new());
    let source = block_on(system.add_source(Witness(tell))).unwrap();
    assert!(block_on(system.drain(Duration::from_secs(60))).complete);
    told.recv_timeout(Duration::from_secs(60)).expect("the thread is over");
    block_on(source.ended()).unwrap();
    assert!(matches!(block_on(system.spawn(tenant("a"))), Err(Error::Closed | Error::Failed(_))));
}

#[test]
fn a_feed_that_is_held_returns_when_a_drain_gives_up() {
    let store = Faulty::new(MemoryStore::new(), Fault::Stall.always());
    let window = WindowPolicy { max_events: 1, ..WindowPolicy::default() };
    let system = System::builder()
        .store(store.clone())
        .policy(Policy { window, ..Policy::default() })
        .max_in_flight_bytes(1 << 10)
        .start()
        .unwrap();
    block_on(async {
        let ingress = system.ingress(IngressSpec::new("test", Framing::lines(), Json::new())).await.unwrap();
        ingress.feed(lines(events("a", 0..100))).await.unwrap();
        store.until_calls(1).await;
        let held = ingress.feed(lines(events("a", 100..200)));
        let (held, report) = futures::join!(held, system.drain(Duration::from_millis(50)));
        assert!(held.is_err(), "it was not accepted");
        assert!(!report.complete);
        assert_eq!(report.of(&tenant("a")).unwrap().end.in_flight, 100);
    });
}
