//! One bad tenant does not slow, stop or leak into another.

use std::collections::BTreeMap;
use std::time::Duration;

use headworks_actors::{
    Cause, Code, Decoded, Decoder, Fault, Faulty, Framing, IngressHandle, IngressSpec, Json, MemoryStore,
    OverflowPolicy, Policy, Role, Status, TenantSpec, What, WhenFull,
};
use tokio::time::Instant;

use crate::rig::{Call, Recorder, Rig, Store, event, events, lines, millis, pass, secs, tenant, until, virtual_time};

/// JSON, by a decoder that panics on the frames of one tenant.
struct PanicsOn(&'static str);

impl Decoder for PanicsOn {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        static JSON: std::sync::LazyLock<Json> = std::sync::LazyLock::new(Json::new);
        let decoded = JSON.decode(frame)?;
        assert!(decoded.tenant != self.0, "the decoder panics on {}", self.0);
        Ok(decoded)
    }
}

const TENANTS: [&str; 4] = ["panics", "hangs", "garbles", "well"];

struct Town {
    rig: Rig,
    stores: BTreeMap<&'static str, Store>,
}

/// Four tenants with a store each: one panics at every third write, one hangs.
fn town(policy: &Policy) -> Town {
    let store = |fault: Fault, nth| Recorder::new(Faulty::new(MemoryStore::new(), fault.every(nth)));
    let stores = BTreeMap::from([
        ("panics", store(Fault::PanicBefore, 3)),
        ("hangs", store(Fault::Stall, 1)),
        ("garbles", store(Fault::None, 1)),
        ("well", store(Fault::None, 1)),
    ]);
    let rig = Rig::with(policy.clone(), |builder| {
        stores
            .iter()
            .fold(builder, |builder, (name, store)| builder.tenant(TenantSpec::from(tenant(name)).store(store.clone())))
    });
    Town { rig, stores }
}

impl Town {
    async fn connection(&self) -> IngressHandle {
        let spec = IngressSpec::new("test", Framing::lines(), PanicsOn("garbles"));
        self.rig.system.ingress(spec).await.unwrap()
    }

    fn stored(&self, name: &str) -> Vec<String> {
        let bodies = self.stores[name].inner().bodies(&tenant(name));
        bodies.into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
    }

    /// The longest that an event of `name` was on its way, given when each was sent.
    fn slowest(&self, name: &str, sent: &BTreeMap<String, Instant>) -> Duration {
        let record = self.stores[name].record();
        let stored = record.iter().filter_map(|call| match call {
            Call::Stored { bodies, at } => Some(bodies.iter().map(|body| (String::from_utf8_lossy(body), *at))),
            _ => None,
        });
        stored.flatten().map(|(body, at)| at - sent[&*body]).max().unwrap()
    }
}

#[test]
fn a_store_that_panics_one_that_hangs_and_a_decoder_that_panics_do_not_delay_a_fourth_tenant() {
    virtual_time(async {
        let town = town(&Policy::default());
        let ingress = town.connection().await;
        let (mut sent, mut all) = (BTreeMap::new(), BTreeMap::<&str, Vec<String>>::new());
        for n in 0..300 {
            for name in TENANTS {
                sent.insert(event(name, n), Instant::now());
                all.entry(name).or_default().push(event(name, n));
            }
            ingress.feed(lines(TENANTS.map(|name| event(name, n)))).await.unwrap();
            pass(millis(100)).await;
        }
        until("the last window of the healthy tenant", || town.stored("well").len() == 300).await;
        assert!(town.slowest("well", &sent) <= secs(1) + millis(20), "{:?}", town.slowest("well", &sent));
        assert!(town.stored("hangs").is_empty(), "its store hangs: else this test shows nothing");

        let (failed, restarted) = (town.rig.logged("panics", What::Failed), town.rig.logged("panics", What::Restarted));
        let panicked = |cause: &Option<Cause>| cause.as_ref().is_some_and(|cause| cause.code == Code::StorePanic);
        let deaths: Vec<_> = failed.iter().filter(|event| event.events_kept > 0 && panicked(&event.cause)).collect();
        assert!(restarted.len() >= 10, "a panic at every third write of 30 seconds: {}", restarted.len());
        assert_eq!(deaths.len(), restarted.len(), "each death once");
        assert!(restarted.iter().all(|event| event.actor == Role::Writer && event.attempt == Some(1)));
        let epochs: Vec<_> = restarted.iter().map(|event| event.epoch).collect();
        assert_eq!(epochs, (1..=restarted.len() as u64).collect::<Vec<_>>());
        assert!(town.rig.log_of("well").iter().all(|event| event.what == What::Started), "nothing happened to it");

        for store in town.stores.values() {
            store.heal();
        }
        town.rig.drained().await;
        for name in ["panics", "hangs", "well"] {
            assert_eq!(town.stored(name), all[name], "{name}: everything once, in order");
        }
        assert!(town.stored("garbles").is_empty());
        let letters = town.rig.letters.all();
        assert!(letters.iter().all(|letter| letter.cause.code == Code::DecoderPanic));
        assert_eq!(town.rig.dead(), all["garbles"]);
    });
}

#[test]
fn of_very_many_tenants_each_has_its_own_events_in_order_and_each_bad_frame_between_them_is_kept() {
    virtual_time(async {
        let rig = Rig::with(Policy::default(), |builder| builder.max_tenants(5_000));
        let spec = IngressSpec::new("test", Framing::lines(), PanicsOn("garbles"));
        let ingress = rig.system.ingress(spec).await.unwrap();
        let (mut good, mut bad) = (BTreeMap::<String, Vec<String>>::new(), vec![]);
        for read in 0..3 {
            let mut frames = vec![];
            for n in 0..3_000 {
                let name = if n % 100 == 99 { "often".to_owned() } else { format!("t{n}") };
                let frame = event(&name, read * 3_000 + n);
                good.entry(name).or_default().push(frame.clone());
                frames.push(frame);
                let another = match n % 17 {
                    3 => event("garbles", n),
                    11 => format!("no event {n}"),
                    _ => continue,
                };
                bad.push(another.clone());
                frames.push(another);
            }
            ingress.feed(lines(frames)).await.unwrap();
        }
        rig.drained().await;
        for (name, events) in good {
            assert_eq!(rig.stored(&name), events, "{name}");
        }
        assert_eq!(rig.dead(), bad);
    });
}

#[test]
fn a_full_tenant_that_rejects_does_not_delay_the_others_of_its_connection() {
    virtual_time(async {
        let overflow =
            OverflowPolicy { max_in_flight: 4 << 10, when_full: WhenFull::Reject, ..OverflowPolicy::default() };
        let town = town(&Policy { overflow, ..Policy::default() });
        let ingress = town.connection().await;
        let mut sent = BTreeMap::new();
        for n in 0..300 {
            sent.insert(event("well", n), Instant::now());
            ingress.feed(lines(["hangs", "well"].map(|name| event(name, n)))).await.unwrap();
            pass(millis(100)).await;
        }
        until("the last window of the healthy tenant", || town.stored("well").len() == 300).await;
        assert!(town.slowest("well", &sent) <= secs(1) + millis(20), "{:?}", town.slowest("well", &sent));
        let full = town.rig.snapshot("hangs");
        assert!(full.counters.rejected > 200, "{full:?}");
        assert!(full.in_flight_bytes <= 4 << 10);
        town.stores["hangs"].heal();
        town.rig.drained().await;
        assert_eq!(town.stored("hangs").len() as u64, full.counters.accepted);
    });
}

#[test]
fn a_tenant_in_quarantine_does_not_delay_the_others() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        ingress.feed(lines(["sick", "well"].map(|name| event(name, 0)))).await.unwrap();
        until("quarantine", || {
            if rig.snapshot("sick").status == Status::Active {
                rig.tenant("sick").inject_panic();
            }
            rig.snapshot("sick").status == Status::Quarantined
        })
        .await;
        let begun = Instant::now();
        ingress.feed(lines(events("sick", 1..50).into_iter().chain(events("well", 1..50)))).await.unwrap();
        until("the other's window", || rig.stored("well").len() == 50).await;
        assert!(begun.elapsed() <= secs(1) + millis(20));
        let snapshot = rig.snapshot("sick");
        assert_eq!((snapshot.status, snapshot.in_flight), (Status::Quarantined, 50 - snapshot.counters.stored));
        assert!(snapshot.in_flight >= 49);
        rig.drained().await;
        assert_eq!(rig.stored("sick"), events("sick", 0..50));
    });
}

#[test]
fn a_hung_store_of_every_tenant_but_one_leaves_the_one_its_pace() {
    virtual_time(async {
        let hung = |batch: &headworks_actors::Batch, _| {
            if batch.tenant().as_str() == "well" { Fault::None } else { Fault::Stall }
        };
        let (rig, store) = Rig::faulty(Policy::default(), hung);
        let ingress = rig.ingress().await;
        for n in 0..20 {
            let sick = (0..50).map(|t| event(&format!("sick{t}"), n));
            ingress.feed(lines(sick.chain([event("well", n)]))).await.unwrap();
            let begun = Instant::now();
            until("the event of the healthy one", || rig.stored("well").len() == n + 1).await;
            assert!(begun.elapsed() <= secs(1) + millis(20));
        }
        store.heal();
        rig.drained().await;
        assert_eq!(rig.store.totals().values().sum::<u64>(), 20 * 51);
    });
}
