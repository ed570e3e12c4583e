//! Whatever happens, every accepted event is in exactly one batch of its own tenant, in order.

use std::collections::{BTreeMap, BTreeSet};

use headworks_actors::{
    DeadLetterKind, Fault, HeartbeatPolicy, OverflowPolicy, Policy, RetryPolicy, WhenFull, WindowPolicy,
};
use proptest::prelude::*;

use crate::rig::{Rig, Store, event, millis, pass, secs, tenant, virtual_time};

const TENANTS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Op {
    /// Lines of these tenants, or no event where the place is beyond them; the last `held` bytes stay back for the next.
    Feed {
        tenants: Vec<usize>,
        held: usize,
    },
    Advance(u64),
    Flush(usize),
    Panic(usize),
    Restart(usize),
    Resume(usize),
    /// For so long, in milliseconds.
    Passivate(usize, u64),
    /// The fault, in each `nth` call, of one tenant or of all.
    Fault(Fault, u64, Option<usize>),
    Heal,
}

fn op() -> impl Strategy<Value = Op> {
    let whose = 0..TENANTS.len();
    let fault = prop_oneof![
        Just(Fault::Transient),
        Just(Fault::Permanent),
        Just(Fault::Unavailable),
        Just(Fault::Stall),
        Just(Fault::PanicBefore),
        Just(Fault::PanicAfter),
        Just(Fault::LostReply),
    ];
    prop_oneof![
        8 => (prop::collection::vec(0..=TENANTS.len(), 1..20), 0..60usize)
            .prop_map(|(tenants, held)| Op::Feed { tenants, held }),
        4 => prop_oneof![1..50u64, 1..2_000u64, 1..120_000u64].prop_map(Op::Advance),
        1 => whose.clone().prop_map(Op::Flush),
        2 => whose.clone().prop_map(Op::Panic),
        1 => whose.clone().prop_map(Op::Restart),
        1 => whose.clone().prop_map(Op::Resume),
        1 => (whose.clone(), 0..2_000u64).prop_map(|(whose, within)| Op::Passivate(whose, within)),
        4 => (fault, 1..4u64, prop::option::of(whose)).prop_map(|(fault, nth, of)| Op::Fault(fault, nth, of)),
        1 => Just(Op::Heal),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let budget = prop_oneof![Just(1 << 10), Just(8 << 20)];
    let idle = prop::option::of((100..1_000u64, 10..3_000u64));
    (1..8usize, 20..400usize, 1..2_000u64, 1..4u32, budget, idle).prop_map(
        |(max_events, max_bytes, age, attempts, budget, idle)| {
            // Those that are passivated by themselves are so every other moment.
            let heartbeat = idle.map_or_else(HeartbeatPolicy::default, |(every, after)| HeartbeatPolicy {
                every: millis(every),
                passivate_after: Some(millis(after)),
                ..HeartbeatPolicy::default()
            });
            Policy {
                window: WindowPolicy { max_events, max_bytes, max_age: millis(age) },
                retry: RetryPolicy { attempts, ..RetryPolicy::default() },
                // No event is refused, so that what was sent is what was accepted.
                overflow: OverflowPolicy {
                    max_in_flight: budget,
                    block_for: secs(86_400),
                    ..OverflowPolicy::default()
                },
                heartbeat,
                ..Policy::default()
            }
        },
    )
}

/// What was sent so far.
#[derive(Default)]
struct Sent {
    events: BTreeMap<&'static str, Vec<String>>,
    garbage: Vec<String>,
    /// Not fed yet.
    held: Vec<u8>,
}

impl Sent {
    fn write(&mut self, whose: usize) {
        let n = self.events.values().map(Vec::len).sum::<usize>() + self.garbage.len();
        let line = match TENANTS.get(whose) {
            Some(name) => {
                let event = event(name, n);
                self.events.entry(name).or_default().push(event.clone());
                event
            }
            None => {
                self.garbage.push(format!("no event {n}"));
                format!("no event {n}")
            }
        };
        self.held.extend_from_slice(line.as_bytes());
        self.held.push(b'\n');
    }
}

async fn feed(ingress: &headworks_actors::IngressHandle, store: &Store, bytes: Vec<u8>) {
    let mut feeding = std::pin::pin!(ingress.feed(bytes));
    // A store that stays away holds the feed for as long as it takes.
    if tokio::time::timeout(secs(600), &mut feeding).await.is_err() {
        store.heal();
        feeding.await.unwrap();
    }
}

async fn run(policy: Policy, ops: Vec<Op>, system_budget: usize) {
    let max_events = policy.window.max_events;
    let (rig, store) =
        Rig::faulty_with(policy, Fault::None.always(), |builder| builder.max_in_flight_bytes(system_budget));
    let ingress = rig.ingress().await;
    let mut sent = Sent::default();
    for op in ops {
        let handle = |whose: usize| rig.system.tenant(&tenant(TENANTS[whose]));
        match op {
            Op::Feed { tenants, held } => {
                tenants.into_iter().for_each(|whose| sent.write(whose));
                let held = sent.held.split_off(sent.held.len().saturating_sub(held));
                let now = std::mem::replace(&mut sent.held, held);
                feed(&ingress, &store, now).await;
            }
            Op::Advance(by) => pass(millis(by)).await,
            Op::Flush(whose) => handle(whose).iter().for_each(|tenant| tenant.flush()),
            Op::Panic(whose) => handle(whose).iter().for_each(|tenant| tenant.inject_panic()),
            Op::Restart(whose) => handle(whose).iter().for_each(|tenant| tenant.restart()),
            Op::Resume(whose) => handle(whose).iter().for_each(|tenant| tenant.resume()),
            Op::Passivate(whose, within) => {
                if let Some(tenant) = handle(whose) {
                    drop(tokio::time::timeout(millis(within), tenant.passivate()).await);
                }
            }
            Op::Fault(fault, nth, of) => store.script(move |batch, call| {
                let hit = of.is_none_or(|whose| batch.tenant().as_str() == TENANTS[whose]);
                if hit && call % nth == 0 { fault } else { Fault::None }
            }),
            Op::Heal => store.heal(),
        }
        for snapshot in rig.system.tenants() {
            assert!(snapshot.events_add_up(), "{snapshot:?}");
        }
    }
    feed(&ingress, &store, std::mem::take(&mut sent.held)).await;
    store.heal();
    ingress.finish(true).await.unwrap();
    rig.drained().await;
    check(&rig, &sent, max_events);
}

/// Each batch is stored or given up, whole; put in order, the batches are what was sent.
fn check(rig: &Rig, sent: &Sent, max_events: usize) {
    let letters = rig.letters.all();
    let of_kind = |kind| letters.iter().filter(move |letter| letter.kind == kind);
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    let garbage: Vec<_> = of_kind(DeadLetterKind::Frame).map(|letter| text(&letter.body)).collect();
    assert_eq!(garbage, sent.garbage);
    for name in TENANTS {
        let mut batches: BTreeMap<_, Vec<String>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for batch in rig.store.batches(&tenant(name)) {
            assert!(ids.insert(batch.id().clone()), "{} is stored twice", batch.id());
            assert_eq!(batch.id().tenant.as_str(), name);
            batches.insert(batch.id().place(), batch.events().map(|event| text(event.body)).collect());
        }
        let stored_in_order = rig.store.batches(&tenant(name)).is_sorted_by_key(|batch| batch.id().place());
        assert!(stored_in_order, "batches of {name} are stored out of order");
        for letter in of_kind(DeadLetterKind::Event).filter(|letter| letter.tenant == Some(tenant(name))) {
            let (id, index) = letter.batch.clone().unwrap();
            assert!(!ids.contains(&id), "{id} is stored and given up");
            let batch = batches.entry(id.place()).or_default();
            assert_eq!(batch.len(), index as usize);
            batch.push(text(&letter.body));
        }
        assert!(batches.values().all(|batch| (1..=max_events).contains(&batch.len())));
        let all: Vec<_> = batches.into_values().flatten().collect();
        assert_eq!(all, sent.events.get(name).cloned().unwrap_or_default());
    }
}

proptest! {
    #[test]
    fn every_accepted_event_is_in_exactly_one_batch_of_its_own_tenant_in_order(
        policy in policy(),
        ops in prop::collection::vec(op(), 1..60),
        system_budget in prop_oneof![Just(2 << 10), Just(64 << 20)],
    ) {
        virtual_time(run(policy, ops, system_budget));
    }
}

/// Where windows are cut, said event by event: `arrivals` are events with their time.
fn cuts(policy: &WindowPolicy, arrivals: impl Iterator<Item = (u64, String)>) -> Vec<Vec<String>> {
    let age = u64::try_from(policy.max_age.as_millis()).unwrap();
    let (mut cuts, mut open, mut opened): (Vec<Vec<String>>, Vec<String>, u64) = (vec![], vec![], 0);
    for (at, event) in arrivals {
        let bytes: usize = open.iter().map(String::len).sum();
        if !open.is_empty() && (at >= opened + age || bytes + event.len() > policy.max_bytes) {
            cuts.push(std::mem::take(&mut open));
        }
        if open.is_empty() {
            opened = at;
        }
        open.push(event);
        if open.len() == policy.max_events {
            cuts.push(std::mem::take(&mut open));
        }
    }
    cuts.extend((!open.is_empty()).then_some(open));
    cuts
}

proptest! {
    #[test]
    fn windows_are_cut_where_single_events_would_be_however_they_come(
        (max_events, max_bytes, age) in (2..60usize, 40..2_000usize, 5..400u64),
        feeds in prop::collection::vec((0..200u64, 1..12usize), 1..40),
        is_late in any::<bool>(),
    ) {
        let window = WindowPolicy { max_events, max_bytes, max_age: millis(age) };
        // While the store is away, what could be shed is not cut: windows are late then, and several are due at once.
        let when_full = if is_late { WhenFull::DropOldest } else { WhenFull::Block };
        let overflow = OverflowPolicy { when_full, ..OverflowPolicy::default() };
        let policy = Policy { window: window.clone(), overflow, ..Policy::default() };
        virtual_time(async {
            let (rig, store) = Rig::faulty(policy, Fault::None.always());
            if is_late {
                store.script(|_, call| if call <= 3 { Fault::Unavailable } else { Fault::None });
            }
            let ingress = rig.ingress().await;
            let (mut sent, mut now) = (vec![], 0);
            for (gap, events) in feeds {
                pass(millis(gap)).await;
                now += gap;
                let lines: Vec<_> = (0..events).map(|n| event("a", sent.len() + n)).collect();
                ingress.feed(crate::rig::lines(lines.clone())).await.unwrap();
                sent.extend(lines.into_iter().map(|event| (now, event)));
            }
            pass(secs(600)).await;
            let batches = rig.store.batches(&tenant("a")).into_iter().map(|batch| {
                batch.events().map(|event| String::from_utf8(event.body.to_vec()).unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(batches.collect::<Vec<_>>(), cuts(&window, sent.into_iter()));
            assert_eq!(rig.system.in_flight_bytes(), 0);
        });
    }
}
