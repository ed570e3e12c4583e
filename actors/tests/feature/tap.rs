//! A tap tells a sample of the events as they are accepted, and holds up nobody.

use headworks_actors::{
    HeartbeatPolicy, Hooks, OverflowPolicy, Policy, Tap, TapEvent, TapItem, TapOptions, ThrottlePolicy, WhenFull,
    WhenOver,
};

use crate::rig::{ModelJournal, Rig, event, events, lines, millis, pass, secs, tenant, virtual_time, windows_of};

/// What is told without waiting for more.
fn told(tap: &mut Tap) -> Vec<TapItem> {
    std::iter::from_fn(|| tap.try_next()).collect()
}

fn one(item: &TapItem) -> &TapEvent {
    match item {
        TapItem::Event(event) => event,
        TapItem::Missed(_) => panic!("nothing may be missed"),
    }
}

fn bodies(items: &[TapItem]) -> Vec<String> {
    items.iter().map(|item| String::from_utf8(one(item).body.to_vec()).unwrap()).collect()
}

fn all() -> TapOptions {
    TapOptions { events_per_second: 1_000_000, ..TapOptions::default() }
}

#[test]
fn events_are_told_as_they_are_accepted_with_their_places() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1_000));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..3))).await.unwrap();
        let mut tap = rig.system.tap(all());
        assert_eq!(told(&mut tap), [], "what came before is not told");
        let waiting = async { tap.next().await };
        let (first, fed) = futures::join!(waiting, ingress.feed(lines([event("a", 3), event("b", 0), event("a", 4)])));
        fed.unwrap();
        let mut items = vec![first];
        items.extend(told(&mut tap));
        assert_eq!(bodies(&items), [event("a", 3), event("a", 4), event("b", 0)]);
        let places: Vec<_> =
            items.iter().map(one).map(|of| (of.tenant.as_str(), of.seq, of.place, of.skipped)).collect();
        assert_eq!(places, [("a", 2, 0, 0), ("a", 2, 1, 0), ("b", 1, 0, 0)]);
        assert_eq!(rig.snapshot("a").in_flight, 5, "they are told before they are stored");
        rig.drained().await;
        assert_eq!(told(&mut tap), [], "and once");
    });
}

#[test]
fn a_tap_of_one_tenant_tells_of_no_other_also_of_one_that_comes_later() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        let mut tap = rig.system.tap(TapOptions { tenant: Some(tenant("b")), ..all() });
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0), event("b", 0), event("bb", 0), event("b", 1)])).await.unwrap();
        assert_eq!(bodies(&told(&mut tap)), [event("b", 0), event("b", 1)]);
        rig.drained().await;
    });
}

#[test]
fn what_is_not_accepted_is_not_told() {
    virtual_time(async {
        let throttle = ThrottlePolicy {
            events_per_second: 1,
            burst_events: 2,
            when_over: WhenOver::Reject,
            ..ThrottlePolicy::default()
        };
        let hooks = Hooks::new().filter(|event| !event.body.ends_with(b"3}"));
        let rig = Rig::with(Policy { throttle, ..windows_of(1) }, |builder| builder.hooks(hooks));
        let mut tap = rig.system.tap(all());
        rig.system.mute(&tenant("mute"));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("mute", 0), "no JSON".to_owned()])).await.unwrap();
        ingress.feed(lines(events("a", 0..6))).await.unwrap();
        let items = told(&mut tap);
        assert_eq!(bodies(&items), events("a", 0..2));
        assert_eq!(rig.snapshot("a").counters.accepted, 3, "two, and the one that is discarded");
        pass(secs(2)).await;
        ingress.feed(lines(events("a", [3, 7]))).await.unwrap();
        assert_eq!(bodies(&told(&mut tap)), [event("a", 7)]);
        rig.drained().await;
    });
}

#[test]
fn the_rate_is_kept_and_what_is_passed_over_is_counted() {
    virtual_time(async {
        let rig = Rig::new(windows_of(100));
        let mut tap = rig.system.tap(TapOptions { events_per_second: 10, ..TapOptions::default() });
        let ingress = rig.ingress().await;
        for _ in 0..50 {
            ingress.feed(lines(events("a", 0..20))).await.unwrap();
            pass(millis(100)).await;
        }
        let items = told(&mut tap);
        // A second's worth at once, and then five seconds of them but for the last step.
        assert_eq!(items.len(), 10 + 49);
        let skipped: u64 = items.iter().map(|item| one(item).skipped).sum();
        assert_eq!(skipped + items.len() as u64 + 19, 1_000, "19 were passed over since the last one");
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 1_000);
    });
}

#[test]
fn a_slow_reader_misses_events_is_told_how_many_and_holds_up_nobody() {
    virtual_time(async {
        let rig = Rig::new(windows_of(100));
        let options = TapOptions { max_waiting_bytes: 2_000, ..all() };
        let (mut slow, mut quick) = (rig.system.tap(options), rig.system.tap(all()));
        let ingress = rig.ingress().await;
        let began = tokio::time::Instant::now();
        ingress.feed(lines(events("a", 0..1_000))).await.unwrap();
        assert_eq!(bodies(&told(&mut quick)), events("a", 0..1_000));
        let items = told(&mut slow);
        let (missed, kept) = items.split_last().unwrap();
        assert!((5..20).contains(&kept.len()), "{}", kept.len());
        assert_eq!(bodies(kept), events("a", 0..kept.len()));
        assert_eq!(*missed, TapItem::Missed(1_000 - kept.len() as u64));
        // It goes on with what comes.
        ingress.feed(lines([event("a", 1_000)])).await.unwrap();
        assert_eq!(bodies(&told(&mut slow)), [event("a", 1_000)]);
        assert_eq!(began.elapsed(), secs(0));
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 1_001);
    });
}

#[test]
fn an_event_that_is_spilled_is_told_when_it_is_accepted_and_not_when_it_is_read_back() {
    virtual_time(async {
        let overflow = OverflowPolicy { max_in_flight: 4_096, when_full: WhenFull::Spill, ..OverflowPolicy::default() };
        let rig = Rig::with(Policy { overflow, ..windows_of(1_000) }, |builder| builder.journal(ModelJournal::new()));
        let mut tap = rig.system.tap(all());
        let ingress = rig.ingress().await;
        for n in 0..200 {
            ingress.feed(lines([event("a", n)])).await.unwrap();
        }
        let items = told(&mut tap);
        assert_eq!(bodies(&items), events("a", 0..200));
        assert!(items.iter().map(one).map(|of| of.seq).eq(1..=200));
        assert!(rig.snapshot("a").counters.spilled > 0, "{:?}", rig.snapshot("a"));
        rig.drained().await;
        assert_eq!((rig.stored("a").len(), told(&mut tap)), (200, vec![]));
    });
}

#[test]
fn the_numbers_of_chunks_go_on_when_a_tenant_comes_back() {
    virtual_time(async {
        let heartbeat = HeartbeatPolicy { passivate_after: Some(secs(20)), ..HeartbeatPolicy::default() };
        let rig = Rig::new(Policy { heartbeat, ..windows_of(1) });
        let mut tap = rig.system.tap(all());
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        pass(secs(600)).await;
        ingress.feed(lines([event("a", 1)])).await.unwrap();
        assert!(told(&mut tap).iter().map(one).map(|of| of.seq).eq([1, 2]));
        rig.drained().await;
    });
}
