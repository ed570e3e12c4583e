//! What fails without a word is found from outside: an actor that does not answer, batches that do not move, a thread that hangs.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use headworks_actors::{
    Attempt, Batch, BatchId, Code, Fault, HeartbeatPolicy, LogItem, MemoryStore, Policy, RestartPolicy, Role, Status,
    Storage, StorageError, Subscription, SupervisorEvent, System, Undo, What, WindowPolicy,
};

use crate::rig::{
    ModelJournal, Rig, World, event, events, lines, millis, pass, secs, tenant, until, virtual_time, windows_of,
};

fn attempts(log: &[Arc<SupervisorEvent>]) -> Vec<u32> {
    log.iter().map(|event| event.attempt.unwrap()).collect()
}

fn codes(log: &[Arc<SupervisorEvent>]) -> Vec<Code> {
    log.iter().map(|event| event.cause.as_ref().unwrap().code).collect()
}

#[test]
fn a_tenant_that_answers_no_heartbeat_is_restarted_and_goes_on_where_it_was() {
    virtual_time(async {
        let rig = Rig::new(windows_of(10));
        let ingress = rig.ingress().await;
        ingress.feed(lines(events("a", 0..3).into_iter().chain(events("b", 0..3)))).await.unwrap();
        // Nobody is there before there is something to do.
        rig.tenant("a").flush();
        until("the flush", || rig.stored("a").len() == 3).await;
        rig.tenant("a").inject_hang();
        ingress.feed(lines(events("a", 3..13))).await.unwrap();
        pass(secs(25)).await;
        assert_eq!(attempts(&rig.logged("a", What::MissedHeartbeat)), [1]);
        assert_eq!((rig.stored("a").len(), rig.snapshot("a").status), (3, Status::Active));
        pass(secs(20)).await;
        assert_eq!(rig.stored("a"), events("a", 0..13));
        assert_eq!(attempts(&rig.logged("a", What::MissedHeartbeat)), [1, 2, 3]);
        let failed = rig.logged("a", What::Failed);
        assert_eq!((failed.len(), failed[0].actor, codes(&failed)), (1, Role::Tenant, vec![Code::Hung]));
        assert!(failed[0].cause.as_ref().unwrap().detail.contains("the last 3 heartbeats, one every 10s"));
        assert_eq!(rig.logged("a", What::Restarted)[0].epoch, 1);
        pass(secs(600)).await;
        assert_eq!(rig.logged("a", What::MissedHeartbeat).len(), 3, "the fresh one answers");
        assert!(rig.logged("b", What::MissedHeartbeat).is_empty());
        rig.drained().await;
    });
}

#[test]
fn a_tenant_that_hangs_again_and_again_ends_in_quarantine() {
    virtual_time(async {
        let restart = RestartPolicy { intensity: 2, period: secs(600), ..RestartPolicy::default() };
        let rig = Rig::new(Policy { restart, ..windows_of(10) });
        let a = rig.system.spawn(tenant("a")).await.unwrap();
        for failures in 1..=3 {
            a.inject_hang();
            until("it is found", || rig.logged("a", What::Failed).len() == failures).await;
            pass(secs(1)).await;
        }
        let quarantined = rig.logged("a", What::Quarantined);
        assert_eq!((quarantined.len(), quarantined[0].actor), (1, Role::Tenant));
        assert_eq!(codes(&quarantined), [Code::Hung]);
        rig.drained().await;
    });
}

#[test]
fn an_actor_that_may_not_run_misses_no_heartbeat() {
    virtual_time(async {
        let restart =
            RestartPolicy { base: secs(600), cap: secs(600), intensity: 1, quarantine: secs(600), period: secs(6000) };
        let rig = Rig::new(Policy { restart, ..windows_of(1) });
        let a = rig.system.spawn(tenant("a")).await.unwrap();
        a.inject_panic();
        pass(secs(300)).await;
        assert_eq!(a.snapshot().status, Status::Restarting);
        a.offer([event("a", 0)]).await.unwrap();
        pass(secs(400)).await;
        until("stored", || rig.stored("a").len() == 1).await;
        a.inject_panic();
        pass(secs(300)).await;
        a.stop();
        a.offer([event("a", 1)]).await.unwrap();
        pass(secs(3600)).await;
        assert_eq!(a.snapshot().status, Status::Stopped);
        for what in [What::MissedHeartbeat, What::Stalled] {
            assert!(rig.logged("a", what).is_empty(), "{what:?}");
        }
        a.resume();
        until("stored", || rig.stored("a").len() == 2).await;
        rig.drained().await;
    });
}

#[test]
fn a_writer_that_makes_no_step_is_restarted_and_loses_nothing() {
    virtual_time(async {
        let rig = Rig::new(windows_of(1));
        let ingress = rig.ingress().await;
        ingress.feed(lines([event("a", 0)])).await.unwrap();
        until("stored", || rig.stored("a").len() == 1).await;
        rig.tenant("a").inject_writer_hang();
        pass(millis(1)).await;
        ingress.feed(lines(events("a", 1..4))).await.unwrap();
        pass(secs(60)).await;
        assert!(rig.logged("a", What::Stalled).is_empty());
        pass(secs(11)).await;
        assert_eq!(rig.stored("a"), events("a", 0..4));
        let stalled = rig.logged("a", What::Stalled);
        assert_eq!((stalled[0].actor, stalled[0].events_kept, codes(&stalled)), (Role::Writer, 3, vec![Code::Hung]));
        let detail = &stalled[0].cause.as_ref().unwrap().detail;
        assert!(detail.contains("3 batches wait, and nothing has moved for 1m"), "{detail}");
        let failed = rig.logged("a", What::Failed);
        assert_eq!((failed.len(), failed[0].actor, codes(&failed)), (1, Role::Writer, vec![Code::Hung]));
        pass(secs(11)).await;
        assert_eq!(rig.logged("a", What::Unstalled).len(), 1);
        assert_eq!(rig.snapshot("a").counters.restarts, 1);
        rig.drained().await;
    });
}

#[test]
fn a_store_that_never_answers_is_no_stall_since_its_attempts_end() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Stall.always());
        rig.ingress().await.feed(lines(events("a", 0..100))).await.unwrap();
        pass(secs(1200)).await;
        assert!(store.calls() > 20);
        assert!(rig.logged("a", What::Stalled).is_empty());
        store.heal();
        rig.drained().await;
    });
}

#[test]
fn an_outage_that_lasts_is_told_as_a_stall_and_nobody_is_restarted_for_it() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(1), Fault::Unavailable.always());
        rig.ingress().await.feed(lines(events("a", 0..3))).await.unwrap();
        pass(secs(1200)).await;
        let stalled = rig.logged("a", What::Stalled);
        assert_eq!(codes(&stalled), [Code::StoreUnavailable], "once");
        let snapshot = rig.snapshot("a");
        assert_eq!((snapshot.status, snapshot.counters.restarts), (Status::Parked, 0));
        store.heal();
        until("the lane moves", || !rig.logged("a", What::Unstalled).is_empty()).await;
        rig.drained().await;
        assert_eq!(rig.stored("a").len(), 3);
    });
}

#[test]
fn a_journal_that_records_nothing_is_told_as_a_stall_of_which_it_is_the_cause() {
    virtual_time(async {
        let journal = ModelJournal::new();
        let kept = journal.clone();
        let rig = Rig::with(windows_of(1), |builder| builder.journal(kept));
        let ingress = rig.ingress().await;
        journal.hold();
        ingress.feed(lines(events("a", 0..3))).await.unwrap();
        pass(secs(90)).await;
        assert_eq!(codes(&rig.logged("a", What::Stalled)), [Code::JournalUnavailable]);
        let snapshot = rig.snapshot("a");
        assert_eq!((snapshot.status, snapshot.counters.restarts), (Status::Stalled, 0));
        journal.release();
        pass(millis(10)).await;
        assert_eq!((rig.stored("a").len(), rig.snapshot("a").status), (3, Status::Idle));
        pass(secs(11)).await;
        assert_eq!(rig.logged("a", What::Unstalled).len(), 1);
        rig.drained().await;
    });
}

#[test]
fn a_stall_is_not_called_one_before_an_attempt_may_have_ended() {
    let heartbeat = HeartbeatPolicy { stall_after: secs(10), ..HeartbeatPolicy::default() };
    let refused = Policy { heartbeat, ..Policy::default() }.check().unwrap_err();
    assert_eq!(
        refused,
        "heartbeat.stall_after is 10s, but must be more than retry.attempt_timeout, 10s: an attempt may take that long"
    );
}

/// Holds the thread in its first call, until the test lets go.
struct Blocking {
    inner: MemoryStore,
    release: Mutex<Option<Receiver<()>>>,
}

impl Blocking {
    fn new(inner: MemoryStore) -> (Self, Sender<()>) {
        let (release, released) = channel();
        (Self { inner, release: Mutex::new(Some(released)) }, release)
    }
}

impl Storage for Blocking {
    async fn store(&self, batch: &Batch, undo: &Undo) -> Result<(), StorageError> {
        let release = self.release.lock().unwrap().take();
        if let Some(release) = release {
            let _ = release.recv();
        }
        self.inner.store(batch, undo).await
    }

    async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), StorageError> {
        self.inner.rollback(id, attempt).await
    }
}

/// Waits for an entry of the tenant; others there may be on a machine that is slow enough.
fn logged(log: &mut Subscription, name: &str, what: What) -> Arc<SupervisorEvent> {
    block_on(async {
        loop {
            match log.next().await {
                LogItem::Event(event) if event.what == what && event.tenant == Some(tenant(name)) => return event,
                _ => {}
            }
        }
    })
}

#[test]
fn code_that_holds_the_thread_is_named_until_it_lets_go() {
    let stored = MemoryStore::new();
    let (blocking, release) = Blocking::new(stored.clone());
    let window = WindowPolicy { max_events: 1, ..WindowPolicy::default() };
    let system = System::builder()
        .policy(Policy { window, ..Policy::default() })
        .store(blocking)
        .hang_after(Duration::from_millis(200))
        .start()
        .unwrap();
    let mut log = system.log().subscribe();
    let acme = block_on(system.spawn(tenant("acme"))).unwrap();
    block_on(acme.offer(["one"])).unwrap();

    let told = logged(&mut log, "acme", What::Hung);
    assert_eq!(told.actor, Role::Writer);
    let cause = told.cause.as_ref().unwrap();
    assert_eq!(cause.code, Code::Hung);
    assert!(cause.detail.starts_with("the writer of tenant acme has held the system's thread for "), "{cause}");
    let health = system.health();
    let hung = health.hung.clone().expect("it is told by whoever asks, too");
    assert_eq!((hung.actor, hung.tenant), (Some(Role::Writer), Some(tenant("acme"))));
    assert!(hung.lasting >= Duration::from_millis(200) && !health.is_healthy());

    drop(release);
    logged(&mut log, "acme", What::Unhung);
    assert_ne!(system.health().hung.and_then(|hung| hung.tenant), Some(tenant("acme")));
    assert!(block_on(system.drain(Duration::from_secs(60))).complete);
    assert_eq!(stored.bodies(&tenant("acme")), [b"one"]);
}

#[test]
fn a_journal_that_stays_full_is_told_once_and_so_is_that_it_has_room_again() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(10));
        let told = || {
            let log = rig.system.log().last(usize::MAX);
            let of_it = log.iter().filter(|event| matches!(event.what, What::JournalFull | What::JournalHasRoom));
            of_it.map(|event| (event.what, event.cause.as_ref().map(|cause| cause.detail.clone()))).collect::<Vec<_>>()
        };
        for _ in 0..10 {
            // As full as what is in flight: now and then.
            world.journal.set_room(false);
            pass(millis(900)).await;
            world.journal.set_room(true);
            pass(millis(900)).await;
        }
        assert_eq!(told(), []);
        world.journal.set_room(false);
        pass(secs(60)).await;
        let full = (What::JournalFull, Some("its quota of 4096 bytes is reached".into()));
        assert_eq!(told(), std::slice::from_ref(&full));
        world.journal.set_room(true);
        pass(secs(60)).await;
        assert_eq!(told(), [full, (What::JournalHasRoom, None)]);
        world.end(rig).await;
    });
}
