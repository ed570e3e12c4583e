//! What every source must do, as tests that any implementation can run.
//!
//! The suite is one async function that panics with a sentence where the source breaks its contract. What it needs to speak to the
//! source, as its clients do, is a [`SourceTester`]; what a kind of source has none of, like acknowledgements, its
//! [`Traits`] say, and is not asked of it. The clients of a source that listens connect to it; those of a source that takes from a
//! broker connect to the broker, and publish.
//!
//! ```no_run
//! use headworks_actors::source_conformance::{self, SourceTester};
//!
//! async fn my_source_keeps_the_contract(mut tester: impl SourceTester) {
//!     source_conformance::source(&mut tester).await;
//! }
//! ```

use std::cell::Cell;
use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, join, join_all, select};

use super::{Source, SourceHandle, System};
use crate::model::TenantId;
use crate::observe::{Tap, TapItem, TapOptions};
use crate::policy::{AckLevel, Policy};
use crate::port::{Fault, Faulty, MemoryStore};

/// What is to be expected of a kind of source.
#[derive(Debug, Clone)]
pub struct Traits {
    /// Whom it tells what becomes of each frame, at the level that it was made with.
    pub acknowledges: Acknowledges,
    /// A client that sends more than can be taken in has to wait, as on a TCP connection, and not on a file, with datagrams, or where
    /// a broker keeps what it sends.
    pub holds_back: bool,
    /// A frame that is no event, where there is such a thing.
    pub malformed: Option<Vec<u8>>,
    /// The longest frame that it takes, in bytes, from 10,000 to 1 MiB.
    pub max_frame: usize,
}

/// Whom a source tells what becomes of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledges {
    /// Nobody.
    No,
    /// The client: whether a frame is acknowledged or refused.
    Client,
    /// The broker that it has the frames from. One that is refused is acknowledged as well, since it is not to come again.
    Broker {
        /// It acknowledges frames in the order in which they came, as MQTT has it, so that one which is not safe yet holds back
        /// those behind it.
        in_order: bool,
    },
}

impl Acknowledges {
    /// What is told of so many frames, of which some are refused.
    fn told(self, frames: u64, refused: u64) -> Told {
        match self {
            Self::No => Told::default(),
            Self::Client => Told { acknowledged: frames - refused, refused },
            Self::Broker { .. } => Told { acknowledged: frames, refused: 0 },
        }
    }
}

/// What a client, or its broker, was told of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// How many have reached the level.
    pub acknowledged: u64,
    /// How many are refused.
    pub refused: u64,
}

/// A kind of source, and its clients. A failure on their way is a panic.
#[expect(async_fn_in_trait, reason = "the suite runs it where it is, and sends it nowhere")]
pub trait SourceTester {
    /// One connection, to the source or to its broker, or one file.
    type Connection;

    /// What is to be expected.
    fn traits(&self) -> Traits;

    /// A fresh source, which acknowledges at `level`, if it does. Connections from now on are to this one; earlier sources and their
    /// connections go on.
    async fn source(&mut self, level: AckLevel) -> Box<dyn Source>;

    /// A connection to it, of a name that no other connection to it has. Of a source that takes from a broker: to the broker, once
    /// that keeps what is published for the source.
    async fn connect(&self, name: &str) -> Self::Connection;

    /// The frame of an event of this tenant: `text` and, for a length, dots. Without what ends or counts it.
    fn event(&self, tenant: &str, text: &str) -> Vec<u8> {
        format!("{{\"tenant\":\"{tenant}\",\"text\":\"{text}\"}}").into_bytes()
    }

    /// The text of such an event as it is stored.
    fn text(&self, body: &[u8]) -> String {
        let event: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        event.and_then(|event| event["text"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Sends frames, each to its end; waits where the source holds it back, and until a broker has them. To a source that has ended,
    /// as the system did, nothing is sent, and that is no failure.
    async fn send(&self, connection: &mut Self::Connection, frames: &[Vec<u8>]);

    /// Waits until so many more frames of the connection have their answers, or the broker has been told so much of them. Called of a
    /// source that acknowledges alone.
    async fn answers(&self, _connection: &mut Self::Connection, _frames: u64) -> Told {
        Told::default()
    }

    /// Ends the connection as a client does that is done.
    async fn close(&self, connection: Self::Connection);

    /// Sends the beginning of a frame, and ends the connection without another word.
    async fn cut(&self, connection: Self::Connection, beginning: &[u8]);

    /// Breaks the connection that the source itself has to its broker, in the middle of whatever is on it; a new one is not kept from
    /// it. Called of a source that takes from a broker alone.
    async fn sever(&self) {}
}

/// Checks a [`Source`]: frames out, each with one outcome; order; refusals that cost the neighbours nothing; acknowledgements at
/// their level; backpressure; a broker that is lost and found again; an end within ten seconds.
///
/// It runs for some seconds, in real time, in a `tokio` runtime with its timers and sockets.
///
/// # Panics
/// Where the source breaks its contract, or does not come to an end; the message says how.
pub async fn source<T: SourceTester>(tester: &mut T) {
    takes_in_every_event_once_and_in_order(tester).await;
    refuses_bad_frames_and_keeps_their_neighbours(tester).await;
    outlives_connections_that_are_cut(tester).await;
    if matches!(tester.traits().acknowledges, Acknowledges::Broker { .. }) {
        goes_on_after_it_lost_its_broker(tester).await;
    }
    if tester.traits().acknowledges != Acknowledges::No {
        acknowledges_at_its_level_and_not_before(tester).await;
    }
    reads_no_more_than_fits(tester).await;
    ends_with_the_system_while_clients_are_there(tester).await;
    ends_with_the_system_while_nothing_can_be_stored(tester).await;
}

/// Longer than anything takes on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(100);

/// So long may a source take to end once the system closes, and its clients to notice.
const END: Duration = Duration::from_secs(10);

async fn within<T>(what: &str, does: impl Future<Output = T>) -> T {
    by(DEADLINE, what, does).await
}

async fn by<T>(limit: Duration, what: &str, does: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(limit, does).await;
    done.unwrap_or_else(|_| panic!("{} s have gone by, and not yet: {what}", limit.as_secs()))
}

/// A system with one source.
struct Bench {
    system: System,
    source: SourceHandle,
    store: Faulty<MemoryStore>,
    /// Tells of what is accepted.
    tap: Tap,
    /// So much it told of.
    told: u64,
}

impl Bench {
    #[expect(clippy::expect_used, reason = "the settings are the suite's own")]
    async fn new<T: SourceTester>(tester: &mut T, level: AckLevel, max_in_flight: usize) -> Self {
        let mut policy = Policy::default();
        policy.window.max_events = 100;
        policy.window.max_age = Duration::from_millis(20);
        policy.retry.attempt_timeout = DEADLINE;
        policy.heartbeat.stall_after = 2 * DEADLINE;
        let store = Faulty::new(MemoryStore::new(), Fault::None.always());
        let builder = System::builder().policy(policy).store(store.clone()).max_in_flight_bytes(max_in_flight);
        let system = builder.start().expect("the system starts");
        // It is to tell how many events are accepted, and to keep none.
        let all = TapOptions { tenant: None, events_per_second: u32::MAX, max_waiting_bytes: 0 };
        let tap = system.tap(all);
        let source = tester.source(level).await;
        let source = system.add_source(source).await.expect("the source is added");
        Self { system, source, store, tap, told: 0 }
    }

    fn accepted(&self) -> u64 {
        self.system.sources().iter().map(|(_, counters)| counters.accepted).sum()
    }

    /// Waits until so many events are accepted.
    async fn until_accepted(&mut self, events: u64) {
        let all = async {
            while self.told < events {
                self.told += match self.tap.next().await {
                    TapItem::Event(_) => 1,
                    TapItem::Missed(events) => events,
                };
            }
        };
        within(&format!("{events} events of whole frames must be accepted"), all).await;
    }

    /// What is stored of a tenant, in order.
    fn texts<T: SourceTester>(&self, tester: &T, tenant: &str) -> Vec<String> {
        let tenant = TenantId::new(tenant);
        let bodies = tenant.map(|tenant| self.store.inner().bodies(&tenant)).unwrap_or_default();
        bodies.iter().map(|body| tester.text(body)).collect()
    }

    /// Drains the system, whose source is to end by that.
    async fn drained(&self) {
        let report = within("the system must drain", self.system.drain(END)).await;
        let end = self.source.end();
        assert_eq!(end, Some(Ok(())), "a source must end, and well, when the system closes");
        assert!(report.complete, "what was accepted must be stored by the end, but: {report}");
        self.adds_up();
    }

    fn adds_up(&self) {
        for (name, counters) in self.system.sources() {
            assert!(counters.adds_up(), "every frame of {name} must have its one outcome: {counters:?}");
        }
        for tenant in self.system.tenants() {
            assert!(tenant.adds_up(), "every event must have its one outcome: {tenant:?}");
        }
    }

    fn malformed(&self) -> u64 {
        self.system.sources().iter().map(|(_, counters)| counters.malformed).sum()
    }
}

const ROOM: usize = 64 << 20;
const TENANTS: [&str; 3] = ["acme", "umbrella", "zen"];

async fn takes_in_every_event_once_and_in_order<T: SourceTester>(tester: &mut T) {
    const CONNECTIONS: usize = 20;
    const EVENTS: usize = 300;
    let mut bench = Bench::new(tester, AckLevel::Received, ROOM).await;
    let (tester, acknowledges) = (&*tester, tester.traits().acknowledges);
    let send = |id: usize| async move {
        let mut connection = tester.connect(&format!("conn-{id}")).await;
        let frames: Vec<_> = (0..EVENTS).map(|n| tester.event(TENANTS[n % 3], &format!("{id} {n}"))).collect();
        // In pieces of one, two, three frames.
        let (mut rest, mut piece) = (&frames[..], 1);
        while !rest.is_empty() {
            let (some, more) = rest.split_at(piece.min(rest.len()));
            tester.send(&mut connection, some).await;
            (rest, piece) = (more, piece % 20 + 1);
        }
        if acknowledges != Acknowledges::No {
            let told = tester.answers(&mut connection, EVENTS as u64).await;
            assert_eq!(told, acknowledges.told(EVENTS as u64, 0), "every event must be acknowledged once");
        }
        tester.close(connection).await;
    };
    within("the connections must come to their end", join_all((0..CONNECTIONS).map(send))).await;
    bench.until_accepted((CONNECTIONS * EVENTS) as u64).await;
    bench.drained().await;
    assert_eq!(bench.accepted(), (CONNECTIONS * EVENTS) as u64, "an event must be accepted once");
    for (place, tenant) in TENANTS.into_iter().enumerate() {
        let texts = bench.texts(tester, tenant);
        for id in 0..CONNECTIONS {
            let begins = format!("{id} ");
            let own: Vec<_> = texts.iter().filter(|text| text.starts_with(&begins)).cloned().collect();
            let expected: Vec<_> = (place..EVENTS).step_by(3).map(|n| format!("{id} {n}")).collect();
            assert_eq!(own, expected, "the events of a connection must be stored once and in order");
        }
        assert_eq!(texts.len(), CONNECTIONS * EVENTS / 3, "{tenant} must have its own events and no other");
    }
}

async fn refuses_bad_frames_and_keeps_their_neighbours<T: SourceTester>(tester: &mut T) {
    let Traits { acknowledges, malformed, max_frame, .. } = tester.traits();
    let mut bench = Bench::new(tester, AckLevel::Received, ROOM).await;
    let good = |text: &str| tester.event("acme", text);
    let long = tester.event("acme", &".".repeat(max_frame + 1));
    let bad: Vec<_> = malformed.into_iter().chain([long]).collect();
    let mut connection = tester.connect("bad").await;
    for (n, frame) in bad.iter().enumerate() {
        let frames = [good(&format!("{n} before")), frame.clone(), good(&format!("{n} after"))];
        within("bad frames must be read", tester.send(&mut connection, &frames)).await;
    }
    if acknowledges != Acknowledges::No {
        let all = 3 * bad.len() as u64;
        let told = within("bad frames must be answered", tester.answers(&mut connection, all)).await;
        let expected = acknowledges.told(all, bad.len() as u64);
        assert_eq!(told, expected, "a bad frame must be refused, and its neighbours be acknowledged");
    }
    bench.until_accepted(2 * bad.len() as u64).await;
    tester.close(connection).await;
    bench.drained().await;
    assert_eq!(
        bench.malformed(),
        bad.len() as u64,
        "a frame that is no event, or too long, must be counted as malformed"
    );
    let expected: Vec<_> = (0..bad.len()).flat_map(|n| [format!("{n} before"), format!("{n} after")]).collect();
    assert_eq!(bench.texts(tester, "acme"), expected, "the neighbours of a bad frame must be kept");
}

async fn outlives_connections_that_are_cut<T: SourceTester>(tester: &mut T) {
    const CUTS: usize = 10;
    let mut bench = Bench::new(tester, AckLevel::Received, ROOM).await;
    let mut steady = tester.connect("steady").await;
    for n in 0..CUTS {
        let mut connection = tester.connect(&format!("cut-{n}")).await;
        tester.send(&mut connection, &[tester.event("cut", &n.to_string())]).await;
        bench.until_accepted(2 * n as u64 + 1).await;
        let frame = tester.event("cut", "never whole");
        tester.cut(connection, &frame[..frame.len() / 2]).await;
        tester.send(&mut steady, &[tester.event("acme", &n.to_string())]).await;
        bench.until_accepted(2 * n as u64 + 2).await;
    }
    tester.close(steady).await;
    bench.drained().await;
    let expected: Vec<_> = (0..CUTS).map(|n| n.to_string()).collect();
    assert_eq!(bench.texts(tester, "acme"), expected, "a connection that is cut must cost another one nothing");
    assert_eq!(bench.texts(tester, "cut"), expected, "whole frames must be kept, and halves of them be no events");
}

/// What the broker was not told of comes again, so that an event may be stored twice.
async fn goes_on_after_it_lost_its_broker<T: SourceTester>(tester: &mut T) {
    const EVENTS: usize = 300;
    let mut bench = Bench::new(tester, AckLevel::Received, 64 << 10).await;
    // Some are taken in, and there is no room for all.
    bench.store.script(Fault::Stall.always());
    let mut connection = tester.connect("broken").await;
    let text = |n: usize| format!("{n} {}", ".".repeat(1_000));
    let frames: Vec<_> = (0..EVENTS).map(|n| tester.event("acme", &text(n))).collect();
    for frames in frames.chunks(10) {
        tester.send(&mut connection, frames).await;
    }
    bench.until_accepted(1).await;
    tester.sever().await;
    bench.store.heal();
    let answers = tester.answers(&mut connection, EVENTS as u64);
    let told =
        within("what was on its way when the connection to the broker broke must be acknowledged", answers).await;
    assert_eq!(told, Told { acknowledged: EVENTS as u64, refused: 0 }, "every event must be acknowledged");
    tester.close(connection).await;
    bench.drained().await;
    let (mut texts, mut known) = (bench.texts(tester, "acme"), HashSet::new());
    texts.retain(|text| known.insert(text.clone()));
    let differs = texts.iter().enumerate().find(|(n, found)| **found != text(*n));
    assert!(differs.is_none(), "what comes again from the broker must be stored in order: {differs:?}");
    assert_eq!(texts.len(), EVENTS, "what was acknowledged to the broker must be stored");
}

async fn acknowledges_at_its_level_and_not_before<T: SourceTester>(tester: &mut T) {
    let in_order = tester.traits().acknowledges == Acknowledges::Broker { in_order: true };
    for level in [AckLevel::Received, AckLevel::Stored] {
        let mut bench = Bench::new(tester, level, ROOM).await;
        if let Ok(held) = TenantId::new("held") {
            bench.store.script(Fault::Stall.of_tenant(held));
        }
        let (mut held, mut free) = (tester.connect("held").await, tester.connect("free").await);
        let one = Told { acknowledged: 1, refused: 0 };
        tester.send(&mut held, &[tester.event("held", "one")]).await;
        bench.until_accepted(1).await;
        let mut answer = Box::pin(tester.answers(&mut held, 1));
        if level == AckLevel::Received {
            let told = within("what is accepted must be acknowledged while the store is away", answer).await;
            assert_eq!(told, one, "an accepted event must be acknowledged");
        } else {
            // Another one, sent and answered meanwhile, has gone the same way; in order, sent and given to the store.
            for n in 0..3 {
                tester.send(&mut free, &[tester.event("free", &n.to_string())]).await;
                if in_order {
                    within("what is accepted must be stored", bench.store.until_calls(n + 2)).await;
                } else {
                    let told = within("what is stored must be acknowledged", tester.answers(&mut free, 1)).await;
                    assert_eq!(told, one, "a stored event must be acknowledged");
                    let stored = bench.texts(tester, "free").len() as u64;
                    assert_eq!(stored, n + 1, "what is acknowledged as stored must be there");
                }
                let early = futures::poll!(&mut answer);
                assert!(early.is_pending(), "what is not stored must not be acknowledged as stored: {early:?}");
            }
            bench.store.heal();
            assert_eq!(within("what is stored at last must be acknowledged", answer).await, one, "a late answer");
            assert_eq!(bench.texts(tester, "held"), ["one"], "what is acknowledged as stored must be there");
            if in_order {
                let told = within("what waited behind it must be acknowledged", tester.answers(&mut free, 3)).await;
                assert_eq!(told, Told { acknowledged: 3, refused: 0 }, "a stored event must be acknowledged");
                assert_eq!(bench.texts(tester, "free").len(), 3, "what is acknowledged as stored must be there");
            }
        }
        bench.store.heal();
        tester.close(held).await;
        tester.close(free).await;
        bench.drained().await;
    }
}

async fn reads_no_more_than_fits<T: SourceTester>(tester: &mut T) {
    const LIMIT: usize = 1 << 20;
    // More than the operating system keeps of a connection.
    const EVENTS: usize = 5_000;
    const AT_ONCE: usize = 8;
    let Traits { acknowledges, holds_back, .. } = tester.traits();
    let mut full = Bench::new(tester, AckLevel::Received, LIMIT).await;
    full.store.script(Fault::Stall.always());
    let connection = tester.connect("many").await;
    // Another one of its kind, with room, says how long it takes.
    let mut free = Bench::new(tester, AckLevel::Received, ROOM).await;
    let other = tester.connect("many").await;
    let (tester, sent) = (&*tester, Cell::new(0));
    let text = |n: usize| format!("{n} {}", ".".repeat(4_000));
    let send = async |mut connection: T::Connection, sent: &Cell<usize>| {
        for n in (0..EVENTS).step_by(AT_ONCE) {
            let frames: Vec<_> = (n..n + AT_ONCE).map(|n| tester.event("acme", &text(n))).collect();
            tester.send(&mut connection, &frames).await;
            sent.set(n + AT_ONCE);
        }
        if acknowledges != Acknowledges::No {
            let told = tester.answers(&mut connection, EVENTS as u64).await;
            let all = acknowledges.told(EVENTS as u64, 0);
            assert_eq!(told, all, "whoever waited for room must be acknowledged like anybody");
        }
        connection
    };
    let watching = async {
        full.until_accepted(1).await;
        tester.close(send(other, &Cell::new(0)).await).await;
        free.until_accepted(EVENTS as u64).await;
        let used = full.system.in_flight_bytes();
        assert!(used < 2 * LIMIT, "with {LIMIT} bytes of room there must not be {used} in flight");
        let accepted = full.accepted();
        assert!(
            accepted < EVENTS as u64,
            "nothing is stored, and there is room for some events only: not for {accepted}"
        );
        let sent = sent.get();
        assert!(!holds_back || sent < EVENTS, "a sender must wait while nothing can be taken in");
        full.store.heal();
    };
    let both = join(send(connection, &sent), watching);
    let (connection, ()) = within("a store that is back must let a sender go on", both).await;
    full.until_accepted(EVENTS as u64).await;
    tester.close(connection).await;
    full.drained().await;
    free.drained().await;
    let texts = full.texts(tester, "acme");
    let differs = texts.iter().enumerate().find(|(n, found)| **found != text(*n));
    assert!(differs.is_none(), "whatever waited must be stored in order: {differs:?}");
    assert_eq!(texts.len(), EVENTS, "whatever waited must be stored once");
}

async fn ends_with_the_system_while_clients_are_there<T: SourceTester>(tester: &mut T) {
    let mut bench = Bench::new(tester, AckLevel::Received, ROOM).await;
    let mut connections = vec![];
    for n in 0..10 {
        let mut connection = tester.connect(&format!("idle-{n}")).await;
        tester.send(&mut connection, &[tester.event("acme", &n.to_string())]).await;
        bench.until_accepted(n + 1).await;
        connections.push(connection);
    }
    bench.drained().await;
    let expected: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(bench.texts(tester, "acme"), expected, "what came before the end must be stored");
    drop(connections);
}

async fn ends_with_the_system_while_nothing_can_be_stored<T: SourceTester>(tester: &mut T) {
    let mut bench = Bench::new(tester, AckLevel::Stored, 64 << 10).await;
    bench.store.script(Fault::Stall.always());
    let mut connection = tester.connect("full").await;
    let frames: Vec<_> = (0..100).map(|n| tester.event("acme", &format!("{n} {}", ".".repeat(4_000)))).collect();
    let sending = async {
        for frames in frames.chunks(10) {
            tester.send(&mut connection, frames).await;
        }
    };
    let draining = async {
        bench.until_accepted(1).await;
        let drain = bench.system.drain(Duration::from_millis(500));
        by(END, "a source that waits for room must not hold up the end: a drain must end at its deadline", drain).await
    };
    let report = match select(pin!(draining), pin!(sending)).await {
        Either::Left((report, sending)) => {
            by(END, "a client that waits for room must be let go when the source ends", sending).await;
            report
        }
        Either::Right(((), draining)) => draining.await,
    };
    let in_flight: u64 = report.tenants.iter().map(|tenant| tenant.end.in_flight).sum();
    assert!(
        !report.complete && in_flight == bench.accepted(),
        "what was accepted and is not stored is in flight: {report}"
    );
    // Frames that waited for room when the system was stopped have no outcome, and no answer; an event has.
    for tenant in bench.system.tenants() {
        assert!(tenant.events_add_up(), "every event must have its one outcome: {tenant:?}");
    }
}
