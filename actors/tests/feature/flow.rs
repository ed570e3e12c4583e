use std::time::Duration;

use headworks_actors::{FlushReason, Policy, Status, WindowPolicy};

use crate::rig::{Rig, event, lines, tenant, virtual_time};

#[test]
fn every_line_is_stored_for_its_tenant_in_order_and_byte_for_byte() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        let sent: Vec<_> = (0..3_000).map(|n| event(["a", "b", "c"][n % 3], n)).collect();
        for read in lines(sent.clone()).chunks(1_000) {
            ingress.feed(read).await.unwrap();
        }
        ingress.finish(true).await.unwrap();
        rig.drained().await;
        for (offset, name) in ["a", "b", "c"].into_iter().enumerate() {
            let expected: Vec<_> = sent.iter().skip(offset).step_by(3).cloned().collect();
            assert_eq!(rig.stored(name), expected);
            let batches: Vec<_> = rig.store.batches(&tenant(name)).iter().map(|batch| batch.len()).collect();
            assert_eq!(batches, [500, 500], "a window closes at 500 events");
        }
    });
}

#[test]
fn in_a_steady_trickle_no_event_waits_longer_than_the_windows_age() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        for n in 0..40 {
            ingress.feed(lines([event("a", n)])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            let waiting = rig.snapshot("a").in_flight;
            assert!(waiting <= 4, "an event every 300 ms and a window of 1 s, yet {waiting} wait");
        }
        let snapshot = rig.snapshot("a");
        assert_eq!(snapshot.counters.flushes_for(FlushReason::Age), 10, "40 events of 300 ms, 4 a window");
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 40);
    });
}

#[test]
fn an_idle_tenant_is_reported_idle_and_never_flushes_an_empty_window() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        tokio::time::sleep(Duration::from_secs(200)).await;
        let snapshot = rig.snapshot("a");
        assert_eq!(snapshot.status, Status::Idle);
        assert_eq!(snapshot.counters.flushes.iter().sum::<u64>(), 1);
        let told = rig.system.log().last_of(&tenant("a"), 100);
        assert_eq!(told.iter().filter(|event| event.what.as_str() == "idle").count(), 1);
        ingress.feed(lines([event("a", 2)])).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(rig.snapshot("a").status, Status::Active);
        rig.drained().await;
    });
}

#[test]
fn a_drain_flushes_open_windows_and_refuses_new_work() {
    virtual_time(async {
        let slow = WindowPolicy { max_age: Duration::from_secs(3600), ..WindowPolicy::default() };
        let rig = Rig::new(Policy { window: slow, ..Policy::default() });
        let ingress = rig.ingress().await;
        ingress.feed(lines((0..10).map(|n| event("a", n)))).await.unwrap();
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 10);
        assert_eq!(rig.snapshot("a").counters.flushes_for(FlushReason::Drain), 1);
        assert!(ingress.feed(lines([event("a", 11)])).await.is_err());
        assert!(rig.system.spawn(tenant("b")).await.is_err());
    });
}
