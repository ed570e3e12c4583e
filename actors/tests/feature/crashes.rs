//! Whatever is killed and whenever: every event of a sender that numbers its frames ends once, in order, in both stores of its
//! saga or in the dead letters, and what it was told was true when it was told.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use headworks_actors::{
    AckLevel, Answer, Code, DeadLetterKind, Error, Fault, HeartbeatPolicy, OverflowPolicy, Policy, RetryPolicy,
    StreamId, TenantSpec, WhenFull, WindowPolicy,
};
use proptest::prelude::*;

use super::combinations;
use crate::rig::{Conn, Pair, Rig, Store, World, event, millis, number, pass, secs, tenant, virtual_time};

const TENANTS: [&str; 3] = ["a", "b", "careful"];

#[derive(Debug, Clone)]
enum Op {
    /// Lines of these tenants, or no event where the place is beyond them; the last `held` bytes stay back for the next.
    Feed {
        tenants: Vec<usize>,
        held: usize,
    },
    Advance(u64),
    /// The fault, in each `nth` call of a store, of one tenant or of all.
    Fault(usize, Fault, u64, Option<usize>),
    /// The fault, in each `nth` rollback of a store.
    Rollbacks(usize, Fault, u64),
    Heal,
    /// Commits stop, or take so long.
    Hold,
    Delay(u64),
    Commit,
    Room(bool),
    /// Other rules, of one tenant.
    Policy(usize, Box<Policy>),
    Reconnect(AckLevel),
    /// The process dies; so many uncommitted blocks are on the disk all the same. The next one may be slow to read.
    Crash {
        more: usize,
        is_slow: bool,
    },
}

fn level() -> impl Strategy<Value = AckLevel> {
    prop_oneof![Just(AckLevel::Received), Just(AckLevel::Journaled), Just(AckLevel::Stored)]
}

fn op() -> impl Strategy<Value = Op> {
    let fault = || {
        prop_oneof![
            Just(Fault::Transient),
            Just(Fault::Permanent),
            Just(Fault::Unavailable),
            Just(Fault::Stall),
            Just(Fault::PanicAfter),
            Just(Fault::LostReply),
        ]
    };
    prop_oneof![
        8 => (prop::collection::vec(0..=TENANTS.len(), 1..20), 0..60usize)
            .prop_map(|(tenants, held)| Op::Feed { tenants, held }),
        4 => prop_oneof![1..50u64, 1..2_000u64, 1..60_000u64].prop_map(Op::Advance),
        4 => (0..2usize, fault(), 1..4u64, prop::option::of(0..TENANTS.len()))
            .prop_map(|(store, fault, nth, of)| Op::Fault(store, fault, nth, of)),
        2 => (0..2usize, fault(), 1..4u64).prop_map(|(store, fault, nth)| Op::Rollbacks(store, fault, nth)),
        1 => Just(Op::Heal),
        1 => Just(Op::Hold),
        1 => (1..3_000u64).prop_map(Op::Delay),
        2 => Just(Op::Commit),
        1 => any::<bool>().prop_map(Op::Room),
        2 => level().prop_map(Op::Reconnect),
        4 => (0..6usize, any::<bool>()).prop_map(|(more, is_slow)| Op::Crash { more, is_slow }),
    ]
}

/// Also with rules by which events are refused and shed, and changes of them.
fn op_of_any_rules() -> impl Strategy<Value = Op> {
    let policies =
        (0..TENANTS.len(), combinations::policy()).prop_map(|(whose, policy)| Op::Policy(whose, policy.into()));
    prop_oneof![8 => op(), 1 => policies]
}

fn policy() -> impl Strategy<Value = Policy> {
    let day = secs(86_400);
    let overflow = prop_oneof![
        Just(OverflowPolicy { max_in_flight: 1 << 10, when_full: WhenFull::Block, ..OverflowPolicy::default() }),
        Just(OverflowPolicy::default()),
        // All that does not fit is spilled, or as much as the quota lets.
        Just(OverflowPolicy { max_in_flight: 1 << 10, when_full: WhenFull::Spill, ..OverflowPolicy::default() }),
        Just(OverflowPolicy { when_full: WhenFull::Spill, ..OverflowPolicy::default() }),
        Just(OverflowPolicy {
            max_in_flight: 1 << 10,
            when_full: WhenFull::Spill,
            max_spilled: 2 << 10,
            block_for: day
        }),
    ];
    let overflow = overflow.prop_map(move |overflow| OverflowPolicy { block_for: day, ..overflow });
    let poison = prop_oneof![Just(0), Just(2), Just(100)];
    let forgets = prop::option::of(10..2_000u64);
    (1..8usize, 1..2_000u64, 1..4u32, overflow, poison, forgets).prop_map(
        |(max_events, age, attempts, overflow, max_poison, forgets)| {
            let heartbeat = forgets.map_or_else(HeartbeatPolicy::default, |after| HeartbeatPolicy {
                every: millis(100),
                passivate_after: Some(millis(after)),
                ..HeartbeatPolicy::default()
            });
            Policy {
                window: WindowPolicy { max_events, max_bytes: 1 << 20, max_age: millis(age) },
                retry: RetryPolicy { attempts, max_poison, ..RetryPolicy::default() },
                // No event is refused at the door, so that what was sent is what was accepted.
                overflow,
                heartbeat,
                ..Policy::default()
            }
        },
    )
}

/// A sender that keeps what it was not told about.
struct Sender {
    /// Each frame sent, by its position less one: whose, and what.
    frames: Vec<(Option<&'static str>, String)>,
    /// What it was told, by any connection.
    told: BTreeMap<u64, Option<Code>>,
    /// What this connection was told.
    told_here: BTreeSet<u64>,
    /// Frames that were lost with a process, after it had said that they were received.
    lost: BTreeSet<u64>,
    /// Frames that were refused, and in which process the last time.
    refused: BTreeMap<u64, usize>,
    level: AckLevel,
    /// How many frames were written to this connection.
    written: usize,
    /// The end of them, not sent yet.
    held: Vec<u8>,
    /// A read that is under way.
    pending: Option<tokio::task::JoinHandle<Result<(), Error>>>,
}

struct Run {
    world: World,
    pair: Pair,
    policy: Policy,
    budget: usize,
    rig: Rig,
    conn: Conn,
    sender: Sender,
    crashes: usize,
    /// Whether the rules may refuse events, and shed them.
    may_refuse: bool,
}

fn careful(policy: &Policy) -> Policy {
    Policy { ack: AckLevel::Stored, ..policy.clone() }
}

fn start(world: &World, pair: &Pair, policy: &Policy, budget: usize) -> Rig {
    let careful = TenantSpec::from(tenant("careful")).policy(careful(policy));
    let rig = world
        .start_with(policy.clone(), |builder| builder.saga(pair.saga()).max_in_flight_bytes(budget).tenant(careful));
    Rig { store: pair.first.inner().clone(), ..rig }
}

impl Sender {
    fn write(&mut self, whose: usize) {
        let n = self.frames.len();
        let name = TENANTS.get(whose).copied();
        self.frames.push((name, name.map_or_else(|| format!("no event {n}"), |name| event(name, n))));
    }

    /// The first position it was not told about.
    fn next(&self) -> u64 {
        (1..).find(|position| !self.told.contains_key(position)).unwrap()
    }

    fn frame(&self, position: u64) -> &(Option<&'static str>, String) {
        &self.frames[usize::try_from(position).unwrap() - 1]
    }

    /// How safe an event of this tenant is when it is acknowledged.
    fn level_of(&self, name: &str) -> AckLevel {
        if name == "careful" { AckLevel::Stored } else { self.level }
    }
}

impl Run {
    /// Whatever is in the way of progress is lifted.
    fn lift(&self) {
        self.pair.heal();
        self.world.journal.release();
        self.world.journal.set_room(true);
        self.world.journal.hold_reads(false);
    }

    /// Waits for the read that is under way; for long, and then with help.
    async fn settle_down(&mut self) {
        let Some(mut pending) = self.sender.pending.take() else { return };
        if tokio::time::timeout(secs(60), &mut pending).await.is_err() {
            self.lift();
            pending.await.unwrap().unwrap();
        } else {
            self.sender.pending = None;
        }
    }

    async fn feed(&mut self, held: usize) {
        self.settle_down().await;
        let sender = &mut self.sender;
        for (_, body) in &sender.frames[sender.written..] {
            sender.held.extend_from_slice(body.as_bytes());
            sender.held.push(b'\n');
        }
        sender.written = sender.frames.len();
        let held = sender.held.split_off(sender.held.len().saturating_sub(held));
        let now = std::mem::replace(&mut sender.held, held);
        let ingress = self.conn.ingress.clone();
        sender.pending = Some(tokio::task::spawn_local(async move { ingress.feed(now).await.map(drop) }));
        pass(millis(1)).await;
    }

    /// Takes what is answered by now, and checks that it is true.
    fn listen(&mut self) {
        while let Some(Some(answers)) = self.conn.answers.next().now_or_never() {
            for answer in answers {
                match answer {
                    Answer::Ack(range) => range.for_each(|position| self.told(position, None)),
                    Answer::Nack(range, code, _) => range.for_each(|position| self.told(position, Some(code))),
                }
            }
        }
    }

    fn told(&mut self, position: u64, nack: Option<Code>) {
        let (world, pair, sender) = (&self.world, &self.pair, &mut self.sender);
        assert!(position >= 1 && position <= sender.frames.len() as u64, "{position} was never sent");
        assert!(sender.told_here.insert(position), "{position} is answered twice");
        let (name, body) = sender.frame(position).clone();
        let was_lost = sender.lost.contains(&position);
        assert!(!was_lost, "{position} is answered, but gone");
        let holds = |store: &Store, name| store.inner().bodies(&tenant(name)).iter().any(|b| *b == body.as_bytes());
        let is_dead = || world.letters.all().iter().any(|letter| letter.body == body);
        match (name, nack) {
            (None, answer) => assert_eq!(answer, Some(Code::BadJson), "{position}"),
            (Some(name), Some(Code::TenantFull | Code::Throttled | Code::Shed)) if self.may_refuse => {
                assert!(!holds(pair.both()[0], name) && !is_dead(), "{position} is refused, and was not");
                let process = if nack == Some(Code::Shed) { usize::MAX } else { self.crashes };
                let last = sender.refused.entry(position).or_insert(process);
                *last = process.max(*last);
            }
            (Some(_), Some(code)) => assert!(is_dead(), "{position} is no dead letter, but {code}"),
            // Only the first answer counts, and some went down with those who gave them.
            (Some(_), None) if self.may_refuse && sender.told.contains_key(&position) => {}
            (Some(name), None) => {
                let is_stored = || pair.both().into_iter().all(|store| holds(store, name));
                let is_true = match sender.level_of(name) {
                    AckLevel::Received => true,
                    AckLevel::Journaled => {
                        let disk = world.journal.on_disk();
                        disk.streams.get(&stream()).is_some_and(|on_disk| on_disk.positions.contains(&position))
                    }
                    AckLevel::Stored => is_stored() || is_dead(),
                };
                assert!(is_true, "{position} of {name} is acknowledged, but not {}", sender.level_of(name));
            }
        }
        sender.told.entry(position).or_insert(nack);
    }

    async fn connect(&mut self, level: AckLevel) {
        self.sender.level = level;
        let next = self.sender.next();
        let connecting = self.rig.connect("s", next, level);
        let mut connecting = std::pin::pin!(connecting);
        let conn = match tokio::time::timeout(secs(60), &mut connecting).await {
            Ok(conn) => conn,
            Err(_) => {
                self.lift();
                connecting.await
            }
        };
        let last = conn.answers.last();
        assert!(last <= self.sender.frames.len() as u64, "frames are on record that were never sent");
        self.conn = conn;
        self.sender.written = usize::try_from(last).unwrap();
        self.sender.held.clear();
        self.sender.told_here.clear();
        // What is not on record and will not be sent again is gone. Only of what was merely received may that be so.
        let on_disk = self.world.journal.check().streams.remove(&stream()).unwrap_or_default();
        for position in 1..=self.conn.answers.last() {
            let sender = &mut self.sender;
            let (Some(name), _) = *sender.frame(position) else { continue };
            let told = sender.told.get(&position);
            let is_on_record = on_disk.positions.contains(&position) || on_disk.refused.contains_key(&position);
            if is_on_record || sender.lost.contains(&position) || matches!(told, Some(Some(_))) {
                continue;
            }
            // It was received by a process that lost it, came again behind another frame that was not answered, and was refused.
            if sender.refused.get(&position) != Some(&self.crashes) {
                assert_eq!((told, name == "careful"), (Some(&None), false), "{position} is lost");
                sender.lost.insert(position);
            }
        }
    }

    async fn crash(&mut self, more: usize, is_slow: bool) {
        self.listen();
        self.crashes += 1;
        if let Some(pending) = self.sender.pending.take() {
            pending.abort();
        }
        self.world.journal = self.world.journal.crash(more);
        self.world.journal.hold_reads(is_slow);
        let next = start(&self.world, &self.pair, &self.policy, self.budget);
        drop(std::mem::replace(&mut self.rig, next));
        let level = self.sender.level;
        self.connect(level).await;
    }

    async fn op(&mut self, op: Op) {
        match op {
            Op::Feed { tenants, held } => {
                tenants.into_iter().for_each(|whose| self.sender.write(whose));
                self.feed(held).await;
            }
            Op::Advance(by) => pass(millis(by)).await,
            Op::Fault(store, fault, nth, of) => {
                let store = self.pair.both()[store];
                let inner = store.inner().clone();
                store.script(move |batch, call| {
                    let hit = of.is_none_or(|whose| batch.tenant().as_str() == TENANTS[whose]);
                    // No store refuses for good what it holds: after a crash it may be asked for it again, behind what came later.
                    let holds = || inner.batches(batch.tenant()).iter().any(|held| held.id() == batch.id());
                    let is_lawful = fault != Fault::Permanent || !holds();
                    if hit && call % nth == 0 && is_lawful { fault } else { Fault::None }
                });
            }
            Op::Rollbacks(store, fault, nth) => self.pair.both()[store].script_rollback(fault.every(nth)),
            Op::Heal => self.pair.heal(),
            Op::Hold => self.world.journal.hold(),
            Op::Delay(by) => self.world.journal.delay(millis(by)),
            Op::Commit => self.world.journal.commit_all(),
            Op::Room(has_room) => self.world.journal.set_room(has_room),
            Op::Policy(whose, policy) => {
                let policy = if TENANTS[whose] == "careful" { careful(&policy) } else { *policy };
                self.rig.system.set_policy(&tenant(TENANTS[whose]), policy).unwrap();
            }
            Op::Reconnect(level) => {
                self.sender.pending = None;
                self.connect(level).await;
            }
            Op::Crash { more, is_slow } => self.crash(more, is_slow).await,
        }
        self.listen();
        for snapshot in self.rig.system.tenants() {
            assert!(snapshot.events_add_up(), "{snapshot:?}");
        }
    }

    async fn end(mut self) {
        self.lift();
        self.feed(0).await;
        self.settle_down().await;
        self.fresh().await;
        self.conn.ingress.finish(true).await.unwrap();
        let is_owed = |rig: &Rig| rig.system.tenants().iter().any(|tenant| tenant.uncompensated > 0);
        while self.rig.system.in_flight_bytes() > 0 || is_owed(&self.rig) {
            pass(secs(5)).await;
        }
        self.rig.drained().await;
        self.listen();
        let untold = (1..=self.sender.frames.len() as u64).find(|position| !self.sender.told.contains_key(position));
        assert_eq!(untold, None, "each position is answered");
        let replay = self.world.journal.check();
        for name in TENANTS {
            if self.may_refuse {
                self.check_what_was_not_refused(name);
                continue;
            }
            let expected: Vec<_> = (1..)
                .zip(&self.sender.frames)
                .filter(|(position, (whose, _))| *whose == Some(name) && !self.sender.lost.contains(position))
                .map(|(_, (_, body))| body.clone())
                .collect();
            assert_eq!(self.pair.in_order(&self.world.letters, name), expected, "of {name}");
            if let Some(tenant) = replay.tenants.get(&tenant(name)) {
                let counters = self.rig.snapshot(name).counters;
                assert_eq!(counters.accepted, expected.len() as u64);
                assert_eq!(
                    (counters.stored, counters.dead_lettered),
                    (tenant.totals.stored, tenant.totals.dead_lettered)
                );
            }
        }
        let garbage: BTreeSet<_> = self.of_kind(DeadLetterKind::Frame).collect();
        let sent = self.sender.frames.iter().filter(|frame| frame.0.is_none()).map(|frame| frame.1.clone()).collect();
        assert!(garbage.is_subset(&sent) && (self.crashes > 0 || garbage == sent));
    }

    /// Whatever the rules were, a new event of each tenant gets through by plain ones.
    async fn fresh(&mut self) {
        if !self.may_refuse {
            return;
        }
        for (whose, name) in TENANTS.into_iter().enumerate() {
            let policy = Policy::default();
            let policy = if name == "careful" { careful(&policy) } else { policy };
            self.rig.system.set_policy(&tenant(name), policy).unwrap();
            self.sender.write(whose);
        }
        self.feed(0).await;
        self.settle_down().await;
    }

    /// Each event has one outcome, and those that have one in a store or a letter are in order.
    fn check_what_was_not_refused(&self, name: &'static str) {
        let sender = &self.sender;
        let ended = self.pair.in_order(&self.world.letters, name);
        let position = |body: &String| number(body.as_bytes()) as u64 + 1;
        let positions: Vec<_> = ended.iter().map(position).collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "of {name}: {positions:?}");
        let has_ended = |position: &u64| positions.binary_search(position).is_ok();
        for (position, process) in &sender.refused {
            // A refusal is on record with its read: a process that goes down before that forgets it.
            let is_final = *process >= self.crashes;
            assert!(!is_final || !has_ended(position), "{position} is refused, and was not");
        }
        let counters = self.rig.snapshot(name).counters;
        let is_of = |position: &u64| sender.frame(*position).0 == Some(name);
        let acked = (1..=sender.frames.len() as u64).filter(is_of).filter(|position| {
            // What was merely received may be lost with a process, and refused by the next.
            let was_refused = sender.refused.contains_key(position) || sender.lost.contains(position);
            sender.told[position].is_none() && !was_refused
        });
        let missing: Vec<_> = acked.filter(|position| !has_ended(position)).collect();
        assert!(
            missing.len() as u64 <= counters.shed,
            "of {name}: {missing:?} are acknowledged, and gone: {counters:?}"
        );
        assert!(name != "careful" || missing.is_empty(), "{missing:?} are gone");
        let last = (1..=sender.frames.len() as u64).filter(is_of).max().unwrap();
        assert!(has_ended(&last), "the fresh event of {name} is gone: {last} of {positions:?}");
        let replay = self.world.journal.check();
        let totals = &replay.tenants[&tenant(name)].totals;
        assert_eq!(counters.stored + counters.dead_lettered, ended.len() as u64, "of {name}: {counters:?}");
        assert_eq!(
            (totals.accepted, totals.stored, totals.dead_lettered, totals.shed),
            (counters.accepted, counters.stored, counters.dead_lettered, counters.shed)
        );
    }

    fn of_kind(&self, kind: DeadLetterKind) -> impl Iterator<Item = String> {
        let letters = self.world.letters.all().into_iter().filter(move |letter| letter.kind == kind);
        letters.map(|letter| String::from_utf8(letter.body.to_vec()).unwrap())
    }
}

fn stream() -> StreamId {
    StreamId::new("s").unwrap()
}

async fn run(policy: Policy, ops: Vec<Op>, budget: usize, level: AckLevel, may_refuse: bool) {
    let (world, pair) = (World::new(), Pair::new());
    let rig = start(&world, &pair, &policy, budget);
    let conn = rig.connect("s", 1, level).await;
    let sender = Sender {
        frames: vec![],
        told: BTreeMap::new(),
        told_here: BTreeSet::new(),
        lost: BTreeSet::new(),
        refused: BTreeMap::new(),
        level,
        written: 0,
        held: vec![],
        pending: None,
    };
    let mut run = Run { world, pair, policy, budget, rig, conn, sender, crashes: 0, may_refuse };
    for op in ops {
        run.op(op).await;
    }
    run.end().await;
}

/// A case is a whole history of processes.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 80, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_event_of_a_numbered_stream_ends_once_and_every_answer_was_true(
        policy in policy(),
        ops in prop::collection::vec(op(), 1..50),
        budget in prop_oneof![Just(2 << 10), Just(64 << 20)],
        level in level(),
    ) {
        virtual_time(run(policy, ops, budget, level, false));
    }

    #[test]
    fn by_whatever_rules_every_event_of_a_numbered_stream_ends_once_and_none_that_was_refused_is_stored(
        policy in combinations::policy(),
        ops in prop::collection::vec(op_of_any_rules(), 1..50),
        budget in prop_oneof![Just(2 << 10), Just(64 << 20)],
        level in level(),
    ) {
        virtual_time(run(policy, ops, budget, level, true));
    }
}
