//! Senders that number their frames are told what became of each, when it is true and not before.

use headworks_actors::{
    AckLevel, Answer, Code, Entry, Error, Fault, Framing, Hooks, IngressSpec, Json, OverflowPolicy, Policy, Position,
    Seq, StreamId, TenantSpec, ThrottlePolicy, WhenFull,
};

use crate::rig::{Conn, Rig, World, event, events, lines, millis, pass, secs, tenant, virtual_time, windows_of};

const LEVELS: [AckLevel; 3] = AckLevel::ALL;

impl Conn {
    async fn feed(&self, events: impl IntoIterator<Item = String>) {
        self.ingress.feed(lines(events)).await.unwrap();
    }

    /// A read in the background.
    fn feeding(&self, events: Vec<String>) -> tokio::task::JoinHandle<Result<(), Error>> {
        let ingress = self.ingress.clone();
        tokio::task::spawn_local(async move { ingress.feed(lines(events)).await.map(drop) })
    }
}

fn all(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

fn stored(world: &World, name: &str) -> Vec<String> {
    world.kept.bodies(&tenant(name)).into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
}

#[test]
fn each_level_is_acknowledged_when_it_is_reached_and_not_before() {
    virtual_time(async {
        for level in LEVELS {
            let world = World::faulty(Fault::Stall.always());
            let rig = world.start(windows_of(2));
            world.journal.hold();
            let mut conn = rig.connect("s", 1, level).await;
            assert_eq!(conn.answers.last(), 0);
            conn.feed(events("a", 0..2)).await;
            let received = conn.acks().await;
            world.journal.release();
            let journaled = conn.acks().await;
            world.store.heal();
            let in_store = conn.acks().await;
            let told = [received, journaled, in_store];
            for (nth, told) in told.iter().enumerate() {
                assert_eq!(*told, if LEVELS[nth] == level { vec![1, 2] } else { vec![] }, "{level} {nth}");
            }
            drop(conn);
            world.end(rig).await;
        }
    });
}

#[test]
fn with_a_volatile_journal_journaled_means_received() {
    virtual_time(async {
        let (rig, store) = Rig::faulty(windows_of(2), Fault::Stall.always());
        let mut conn = rig.connect("s", 1, AckLevel::Journaled).await;
        conn.feed(events("a", 0..2)).await;
        assert_eq!(conn.acks().await, [1, 2]);
        store.heal();
        drop(conn);
        rig.drained().await;
    });
}

#[test]
fn the_least_level_of_a_tenant_counts_where_the_connection_asks_for_less() {
    virtual_time(async {
        for level in [AckLevel::Received, AckLevel::Journaled] {
            let world = World::new();
            let own = TenantSpec::from(tenant("careful")).policy(Policy { ack: AckLevel::Stored, ..windows_of(2) });
            let rig = world.start_with(windows_of(2), |builder| builder.tenant(own));
            let mut conn = rig.connect("s", 1, level).await;
            conn.feed([event("careful", 0), event("a", 0)]).await;
            assert_eq!(conn.acks().await, [2], "{level}");
            conn.feed([event("careful", 1)]).await;
            assert_eq!(conn.acks().await, [1, 3], "{level}");
            drop(conn);
            world.end(rig).await;
        }
    });
}

#[test]
fn the_least_level_of_a_tenant_counts_after_a_crash_too() {
    virtual_time(async {
        let mut world = World::new();
        let own = || TenantSpec::from(tenant("careful")).policy(Policy { ack: AckLevel::Stored, ..windows_of(2) });
        let first = world.start_with(windows_of(2), |builder| builder.tenant(own()));
        let conn = first.connect("s", 1, AckLevel::Journaled).await;
        conn.feed([event("careful", 0), event("a", 0)]).await;
        world.crash(first).await;
        let second = world.start_with(windows_of(2), |builder| builder.tenant(own()));
        let mut conn = second.connect("s", 1, AckLevel::Journaled).await;
        assert_eq!((conn.answers.last(), conn.acks().await), (2, vec![2]));
        conn.feed([event("careful", 1)]).await;
        assert_eq!(conn.acks().await, [1, 3]);
        drop(conn);
        world.end(second).await;
    });
}

#[test]
fn what_is_refused_is_told_by_its_reason() {
    virtual_time(async {
        for level in LEVELS {
            let world = World::faulty(Fault::Permanent.of_tenant(tenant("poor")));
            let hooks = Hooks::new().filter(|event| !event.body.ends_with(b":7}")).map(|event| {
                assert!(!event.body.ends_with(b":8}"), "a hook fails");
                event
            });
            let overflow =
                OverflowPolicy { max_in_flight: 1 << 10, when_full: WhenFull::Reject, ..OverflowPolicy::default() };
            let full = TenantSpec::from(tenant("full")).policy(Policy { overflow, ..windows_of(1000) });
            let rig = world.start_with(windows_of(1), |builder| builder.hooks(hooks).tenant(full).max_tenants(4));
            rig.system.mute(&tenant("muted"));
            let mut conn = rig.connect("s", 1, level).await;
            conn.feed(events("full", 100..106)).await;
            drop(conn.told().await);
            let lot = events("full", 200..220);
            let (first, rest) =
                ("no event".to_owned(), [event("muted", 1), event("a", 7), event("a", 8), event("poor", 1)]);
            conn.feed([first].into_iter().chain(rest).chain([event("late", 1)]).chain(lot)).await;
            let (mut acks, nacks) = conn.told().await;
            let mut expected =
                vec![(7, Code::BadJson), (8, Code::Muted), (10, Code::HookPanic), (12, Code::TenantLimit)];
            match level {
                AckLevel::Stored => expected.insert(3, (11, Code::StorePermanent)),
                _ => assert_eq!(acks.pop(), Some(11)),
            }
            expected.extend((13..=32).map(|position| (position, Code::TenantFull)));
            assert_eq!((acks, nacks), (vec![9], expected), "{level}");
            drop(conn);
            world.end(rig).await;
        }
    });
}

#[test]
fn a_reconnect_goes_on_behind_the_last_position_and_is_told_what_it_missed() {
    virtual_time(async {
        for level in LEVELS {
            let world = World::new();
            let rig = world.start(windows_of(2));
            let conn = rig.connect("s", 1, level).await;
            conn.feed(events("a", 0..4)).await;
            pass(secs(1)).await;
            drop(conn);
            let mut conn = rig.connect("s", 3, level).await;
            assert_eq!((conn.answers.last(), conn.acks().await), (4, vec![3, 4]), "{level}");
            conn.feed(events("a", 4..6)).await;
            assert_eq!(conn.acks().await, [5, 6]);
            drop(conn);
            world.end(rig).await;
            assert_eq!(stored(&world, "a"), events("a", 0..6));
        }
    });
}

#[test]
fn a_refusal_that_an_earlier_connection_was_not_told_is_told_once_and_not_as_an_acknowledgement() {
    virtual_time(async {
        for level in LEVELS {
            let world = World::new();
            let rig = world.start(windows_of(1));
            let conn = rig.connect("s", 1, level).await;
            conn.feed([event("a", 0), "no event".to_owned(), event("a", 1)]).await;
            pass(secs(1)).await;
            drop(conn);
            let mut conn = rig.connect("s", 1, level).await;
            assert_eq!(conn.told().await, (vec![1, 3], vec![(2, Code::BadJson)]), "{level}");
            drop(conn);
            world.end(rig).await;
        }
    });
}

#[test]
fn a_refusal_that_was_on_its_way_when_its_connection_broke_is_told_again_and_not_as_an_acknowledgement() {
    virtual_time(async {
        for level in LEVELS {
            let world = World::new();
            let rig = world.start(windows_of(1));
            let mut conn = rig.connect("s", 1, level).await;
            conn.feed([event("a", 0), "no event".to_owned(), event("a", 1)]).await;
            // Taken, and lost with the socket: the sender goes on where it was, behind the first.
            assert_eq!(conn.told().await, (vec![1, 3], vec![(2, Code::BadJson)]), "{level}");
            drop(conn);
            let mut conn = rig.connect("s", 2, level).await;
            assert_eq!(conn.told().await, (vec![3], vec![(2, Code::BadJson)]), "{level}");
            drop(conn);
            // Now it has heard of it.
            let mut conn = rig.connect("s", 3, level).await;
            assert_eq!(conn.told().await, (vec![3], vec![]), "{level}");
            drop(conn);
            world.end(rig).await;
        }
    });
}

#[test]
fn what_was_shed_after_it_was_received_is_not_acknowledged_as_stored_to_a_sender_that_comes_again_for_that() {
    virtual_time(async {
        let overflow =
            OverflowPolicy { max_in_flight: 1 << 10, when_full: WhenFull::DropOldest, ..OverflowPolicy::default() };
        let world = World::new();
        let rig = world.start(Policy { overflow, ..windows_of(1000) });
        let mut conn = rig.connect("s", 1, AckLevel::Received).await;
        for n in 0..40 {
            conn.feed(events("a", n..n + 1)).await;
        }
        let shed = rig.snapshot("a").counters.shed;
        assert!(shed > 0 && shed < 40);
        assert_eq!(conn.acks().await, all(1..=40), "they were received");
        drop(conn);
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        rig.system.tenant(&tenant("a")).unwrap().flush();
        let nacks: Vec<_> = (1..=shed).map(|position| (position, Code::Shed)).collect();
        assert_eq!(conn.told().await, (all(shed + 1..=40), nacks));
        drop(conn);
        world.end(rig).await;
        assert_eq!(stored(&world, "a").len() as u64, 40 - shed);
    });
}

#[test]
fn a_sender_that_begins_later_is_followed() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(1));
        let mut conn = rig.connect("s", 100, AckLevel::Stored).await;
        assert_eq!(conn.answers.last(), 99);
        conn.feed(events("a", 0..2)).await;
        assert_eq!(conn.acks().await, [100, 101]);
        drop(conn);
        world.end(rig).await;
    });
}

#[test]
fn positions_that_are_left_out_are_passed_over_and_the_rest_keep_theirs() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(1));
        let mut conn = first.connect("s", 1, AckLevel::Stored).await;
        conn.feed(events("a", 0..2)).await;
        conn.ingress.skip_to(10).unwrap();
        conn.ingress.skip_to(5).unwrap();
        conn.feed(events("a", 2..4)).await;
        assert_eq!(conn.acks().await, [1, 2, 10, 11]);
        drop(conn);
        world.crash(first).await;
        let second = world.start(windows_of(1));
        let earlier = second.connect("s", 1, AckLevel::Stored).await;
        assert_eq!(earlier.answers.last(), 11);
        let mut conn = second.connect("s", 12, AckLevel::Stored).await;
        assert!(matches!(earlier.ingress.skip_to(99), Err(Error::TakenOver)));
        conn.feed(events("a", 4..5)).await;
        assert_eq!(conn.acks().await, [12]);
        drop((earlier, conn));
        world.end(second).await;
        assert_eq!(stored(&world, "a"), events("a", 0..5));
    });
}

#[test]
fn a_position_that_no_sender_reaches_does_no_harm() {
    virtual_time(async {
        for next in [0, u64::MAX - 1, u64::MAX] {
            let world = World::new();
            let rig = world.start(windows_of(1));
            let mut conn = rig.connect("s", next, AckLevel::Received).await;
            conn.feed(events("a", 0..3)).await;
            let acks = conn.acks().await;
            assert_eq!(acks.len(), 3, "{next}");
            drop(conn);
            let mut conn = rig.connect("s", 0, AckLevel::Received).await;
            assert!(
                !conn
                    .answers
                    .next()
                    .await
                    .unwrap()
                    .iter()
                    .any(|answer| matches!(answer, Answer::Ack(r) if *r.start() == 0))
            );
            conn.feed(events("a", 3..4)).await;
            drop(conn);
            world.end(rig).await;
            assert_eq!(stored(&world, "a"), events("a", 0..4));
        }
    });
}

#[test]
fn a_second_connection_takes_over_and_the_first_is_told_so() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(1));
        let mut one = rig.connect("s", 1, AckLevel::Stored).await;
        one.feed(events("a", 0..1)).await;
        assert_eq!(one.acks().await, [1]);
        let mut other = rig.connect("s", 2, AckLevel::Stored).await;
        assert!(one.answers.next().await.is_none());
        assert!(matches!(one.ingress.feed(lines(events("a", 7..8))).await, Err(Error::TakenOver)));
        assert!(matches!(one.ingress.finish(true).await, Err(Error::TakenOver)));
        other.feed(events("a", 1..2)).await;
        assert_eq!(other.acks().await, [2]);
        drop((one, other));
        world.end(rig).await;
        assert_eq!(stored(&world, "a"), events("a", 0..2));
    });
}

#[test]
fn a_takeover_waits_for_the_read_that_is_under_way_and_gets_its_answers() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        let one = rig.connect("s", 1, AckLevel::Journaled).await;
        world.journal.set_room(false);
        let read = one.feeding(events("a", 0..2));
        pass(secs(1)).await;
        let other = rig.connect("s", 1, AckLevel::Journaled);
        let free = async {
            pass(secs(5)).await;
            world.journal.set_room(true);
        };
        let (mut other, ()) = futures::join!(other, free);
        assert_eq!((other.answers.last(), other.acks().await), (2, vec![1, 2]));
        read.await.unwrap().unwrap();
        drop((one, other));
        world.end(rig).await;
        assert_eq!(stored(&world, "a"), events("a", 0..2));
    });
}

#[test]
fn of_three_connections_the_last_has_the_stream() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        let one = rig.connect("s", 1, AckLevel::Received).await;
        world.journal.set_room(false);
        let read = one.feeding(events("a", 0..2));
        pass(secs(1)).await;
        let second = rig.try_connect("s", 1, AckLevel::Received);
        let third = async {
            pass(secs(1)).await;
            rig.try_connect("s", 1, AckLevel::Received).await
        };
        let free = async {
            pass(secs(5)).await;
            world.journal.set_room(true);
        };
        let (second, third, ()) = futures::join!(second, third, free);
        assert!(matches!(second, Err(Error::TakenOver)));
        let third = third.unwrap();
        assert_eq!(third.answers.last(), 2);
        third.feed(events("a", 2..4)).await;
        read.await.unwrap().unwrap();
        drop((one, third));
        world.end(rig).await;
        assert_eq!(stored(&world, "a"), events("a", 0..4));
    });
}

#[test]
fn a_read_whose_caller_has_gone_is_taken_in_whole() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        let one = rig.connect("s", 1, AckLevel::Stored).await;
        world.journal.set_room(false);
        let read = one.feeding(events("a", 0..2));
        pass(secs(1)).await;
        read.abort();
        drop(one);
        pass(secs(1)).await;
        world.journal.set_room(true);
        let mut other = rig.connect("s", 1, AckLevel::Stored).await;
        assert_eq!((other.answers.last(), other.acks().await), (2, vec![1, 2]));
        drop(other);
        world.end(rig).await;
        assert_eq!(stored(&world, "a"), events("a", 0..2));
    });
}

#[test]
fn what_was_not_committed_before_a_crash_is_sent_again_and_not_doubled() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(2));
        let mut conn = first.connect("s", 1, AckLevel::Journaled).await;
        conn.feed(events("a", 0..2)).await;
        assert_eq!(conn.acks().await, [1, 2]);
        world.journal.hold();
        conn.feed(events("a", 2..5)).await;
        assert!(conn.acks().await.is_empty());
        world.crash(first).await;
        let second = world.start(windows_of(2));
        let mut conn = second.connect("s", 3, AckLevel::Journaled).await;
        assert_eq!((conn.answers.last(), conn.acks().await), (2, vec![]));
        conn.feed(events("a", 2..5)).await;
        assert_eq!(conn.acks().await, [3, 4, 5]);
        drop(conn);
        world.end(second).await;
        assert_eq!(stored(&world, "a"), events("a", 0..5));
    });
}

/// A process that dies in the middle of a read: what came of `well` was accepted, and what came of `full` waited.
async fn broken_off(world: &mut World, level: AckLevel, script: Fault) {
    let overflow = OverflowPolicy { max_in_flight: 1 << 10, ..OverflowPolicy::default() };
    let full = TenantSpec::from(tenant("full")).policy(Policy { overflow, ..windows_of(100) });
    world.store.script(script.always());
    let first = world.start_with(windows_of(2), |builder| builder.tenant(full));
    let conn = first.connect("s", 1, level).await;
    conn.feed(events("full", 0..20)).await;
    let mixed = (20..30).flat_map(|n| [event("full", n), event("well", n)]);
    let read = conn.feeding(mixed.collect());
    pass(millis(10)).await;
    assert!(!read.is_finished());
    world.crash(first).await;
    world.store.script(script.always());
}

#[test]
fn a_crash_in_the_middle_of_a_read_takes_the_share_that_was_accepted_once() {
    virtual_time(async {
        for level in LEVELS {
            let mut world = World::new();
            broken_off(&mut world, level, Fault::Unavailable).await;
            world.store.heal();
            let second = world.start(windows_of(2));
            let mut conn = second.connect("s", 1, level).await;
            assert_eq!(conn.answers.last(), 20, "{level}");
            let mixed = (20..30).flat_map(|n| [event("full", n), event("well", n)]);
            conn.feed(mixed).await;
            assert_eq!(second.source("stream").duplicate, 10);
            second.tenant("full").flush();
            assert_eq!(conn.acks().await, all(1..=40), "{level}");
            conn.feed(events("well", 30..32)).await;
            assert_eq!(conn.acks().await, [41, 42], "{level}");
            drop(conn);
            world.end(second).await;
            assert_eq!(
                (stored(&world, "full"), stored(&world, "well")),
                (events("full", 0..30), events("well", 20..32))
            );
        }
    });
}

#[test]
fn a_frame_that_was_accepted_before_a_crash_is_acknowledged_as_stored_once_it_is() {
    virtual_time(async {
        let mut world = World::new();
        broken_off(&mut world, AckLevel::Stored, Fault::Unavailable).await;
        let second = world.start(windows_of(2));
        let mut conn = second.connect("s", 21, AckLevel::Stored).await;
        let mixed = (20..30).flat_map(|n| [event("full", n), event("well", n)]);
        conn.feed(mixed).await;
        assert!(conn.acks().await.is_empty(), "nothing is stored yet");
        world.store.heal();
        second.tenant("full").flush();
        pass(secs(60)).await;
        assert_eq!(conn.acks().await, all(21..=40));
        drop(conn);
        world.end(second).await;
    });
}

#[test]
fn nothing_is_acknowledged_as_stored_before_it_is_read_back_and_stored() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.of_tenant(tenant("a")));
        let first = world.start(windows_of(1));
        let conn = first.connect("s", 1, AckLevel::Stored).await;
        conn.feed([event("a", 0), event("b", 0), event("a", 1)]).await;
        pass(secs(1)).await;
        world.crash(first).await;
        world.journal.hold_reads(true);
        let second = world.start(windows_of(1));
        let mut conn = second.connect("s", 1, AckLevel::Stored).await;
        assert_eq!((conn.answers.last(), conn.acks().await), (3, vec![]), "it is not known yet which are settled");
        world.journal.hold_reads(false);
        assert_eq!(conn.acks().await, [2], "it was stored by the first process");
        world.store.heal();
        pass(secs(60)).await;
        assert_eq!(conn.acks().await, [1, 3]);
        drop(conn);
        world.end(second).await;
    });
}

#[test]
fn what_is_settled_of_a_chunk_that_is_not_settled_as_a_whole_is_acknowledged_after_a_crash() {
    virtual_time(async {
        let mut world = World::new();
        let first = world.start(windows_of(2));
        let conn = first.connect("s", 1, AckLevel::Stored).await;
        conn.feed(events("a", 0..3)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        let second = world.start(windows_of(2));
        let mut conn = second.connect("s", 1, AckLevel::Stored).await;
        assert_eq!(conn.acks().await, [1, 2]);
        second.tenant("a").flush();
        assert_eq!(conn.acks().await, [3]);
        drop(conn);
        world.end(second).await;
    });
}

#[test]
fn a_dead_letter_of_an_earlier_process_is_told_as_one() {
    virtual_time(async {
        let mut world = World::faulty(Fault::Unavailable.always());
        let first = world.start(windows_of(1));
        let conn = first.connect("s", 1, AckLevel::Stored).await;
        conn.feed(events("a", 0..1)).await;
        pass(secs(1)).await;
        world.crash(first).await;
        world.store.script(Fault::Permanent.always());
        let second = world.start(windows_of(1));
        let mut conn = second.connect("s", 1, AckLevel::Stored).await;
        assert_eq!(conn.told().await, (vec![], vec![(1, Code::StorePermanent)]));
        drop(conn);
        world.end(second).await;
    });
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_line_sends_that_line_again() {
    virtual_time(async {
        for is_clean_cut in [false, true] {
            let world = World::new();
            let rig = world.start(windows_of(1));
            let conn = rig.connect("s", 1, AckLevel::Stored).await;
            let mut bytes = lines(events("a", 0..2));
            bytes.truncate(bytes.len() - 5);
            conn.ingress.feed(bytes).await.unwrap();
            if is_clean_cut {
                conn.ingress.finish(false).await.unwrap();
            }
            drop(conn);
            let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
            assert_eq!(conn.answers.last(), 1);
            conn.feed(events("a", 1..2)).await;
            assert_eq!(conn.told().await, (vec![1, 2], vec![]));
            drop(conn);
            world.end(rig).await;
            assert_eq!(stored(&world, "a"), events("a", 0..2));
            assert!(world.letters.all().is_empty());
        }
    });
}

#[test]
fn a_last_line_without_an_end_counts_where_the_sender_is_done() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(1));
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        conn.ingress.feed(event("a", 0)).await.unwrap();
        conn.ingress.finish(true).await.unwrap();
        assert_eq!(conn.answers.next().await, Some(vec![Answer::Ack(1..=1)]));
        assert_eq!(conn.answers.next().await, None, "all is answered");
        drop(conn);
        world.end(rig).await;
    });
}

#[test]
fn answers_coalesce() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(10));
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        for n in 0..10 {
            conn.feed((0..10).map(|m| event(["a", "b"][m % 2], n * 10 + m))).await;
        }
        pass(secs(1)).await;
        assert_eq!(conn.answers.next().await, Some(vec![Answer::Ack(1..=100)]));
        drop(conn);
        world.end(rig).await;
    });
}

#[test]
fn a_sender_that_does_not_take_its_answers_is_not_read_from_for_ever() {
    virtual_time(async {
        for level in LEVELS {
            let world = World::new();
            let rig = world.start(windows_of(500));
            rig.system.mute(&tenant("muted"));
            let mut conn = rig.connect("s", 1, level).await;
            let ingress = conn.ingress.clone();
            let sending = tokio::task::spawn_local(async move {
                // Answers that do not coalesce.
                let read = lines((0..1_000).map(|n| event(["a", "muted"][n % 2], n)));
                for _ in 0..100 {
                    ingress.feed(read.clone()).await.unwrap();
                }
            });
            pass(secs(3600)).await;
            assert!(!sending.is_finished(), "{level}");
            let sent = rig.source("stream").received;
            assert!((60_000..70_000).contains(&sent), "{level} {sent}");
            let (mut acks, mut nacks) = (0, 0);
            while !sending.is_finished() {
                let (more_acks, more_nacks) = conn.told().await;
                acks += more_acks.len();
                nacks += more_nacks.len();
            }
            assert_eq!((acks, nacks), (50_000, 50_000), "{level}");
            drop(conn);
        }
    });
}

#[test]
fn acknowledgements_that_nobody_takes_are_bounded_too() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(1));
        let conn = rig.connect("s", 1, AckLevel::Journaled).await;
        let ingress = conn.ingress.clone();
        let sending = tokio::task::spawn_local(async move {
            // Two tenants by turns: the positions of each share make no run.
            let read = lines((0..1_000).map(|n| event(["a", "b"][n % 2], n)));
            for _ in 0..200 {
                ingress.feed(read.clone()).await.unwrap();
            }
        });
        pass(secs(60)).await;
        assert!(!sending.is_finished() && rig.source("stream").received < 70_000);
        drop(conn);
    });
}

#[test]
fn a_sender_that_is_held_for_its_answers_is_told_when_another_takes_over() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(500));
        rig.system.mute(&tenant("muted"));
        let one = rig.connect("s", 1, AckLevel::Received).await;
        let ingress = one.ingress.clone();
        let sending = tokio::task::spawn_local(async move {
            let read = lines((0..1_000).map(|n| event(["a", "muted"][n % 2], n)));
            loop {
                if let Err(why) = ingress.feed(read.clone()).await {
                    return why;
                }
            }
        });
        pass(secs(60)).await;
        assert!(!sending.is_finished());
        let other = rig.connect("s", 1, AckLevel::Received).await;
        pass(secs(1)).await;
        assert!(sending.is_finished());
        assert!(matches!(sending.await.unwrap(), Error::TakenOver));
        drop((one, other));
    });
}

#[test]
fn streams_that_nobody_uses_are_forgotten_after_a_week_and_others_are_not() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(1));
        let (day, conn) = (secs(24 * 3600), rig.connect("old", 1, AckLevel::Stored).await);
        conn.feed(events("a", 0..3)).await;
        drop(conn);
        let held = rig.connect("held", 1, AckLevel::Stored).await;
        held.feed(events("a", 3..4)).await;
        world.turn_clock(day * 6);
        drop(rig.connect("fresh", 1, AckLevel::Stored).await);
        let conn = rig.connect("old", 1, AckLevel::Stored).await;
        assert_eq!(conn.answers.last(), 3);
        drop(conn);
        world.turn_clock(day * 8);
        drop(rig.connect("other", 1, AckLevel::Stored).await);
        let forgotten = |entry: &Entry| matches!(entry, Entry::Forget { stream } if stream.as_str() == "old");
        assert!(world.journal.entries().iter().any(forgotten));
        assert!(
            !world.journal.entries().iter().any(|e| matches!(e, Entry::Forget { stream } if stream.as_str() == "held"))
        );
        drop(held);
        assert_eq!(rig.connect("old", 1, AckLevel::Stored).await.answers.last(), 0);
        assert_eq!(rig.connect("held", 1, AckLevel::Stored).await.answers.last(), 1);
        world.end(rig).await;
    });
}

#[test]
fn streams_do_not_know_each_other() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        let (mut one, mut other) =
            (rig.connect("one", 1, AckLevel::Stored).await, rig.connect("other", 1, AckLevel::Stored).await);
        one.feed(events("a", 0..1)).await;
        other.feed(events("a", 1..2)).await;
        assert_eq!((one.acks().await, other.acks().await), (vec![1], vec![1]), "of one batch");
        drop((one, other));
        world.end(rig).await;
    });
}

#[test]
fn a_stream_is_refused_once_the_system_drains() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(2));
        let intake = rig.intake().await;
        world.end(rig).await;
        let spec = IngressSpec::new("stream", Framing::lines(), Json::new());
        let opened = intake.open_stream(spec, StreamId::new("s").unwrap(), 1, AckLevel::Stored).await;
        assert!(opened.is_err());
    });
}

#[test]
fn a_batch_that_the_hooks_dropped_is_acknowledged() {
    virtual_time(async {
        let world = World::new();
        let rig = world
            .start_with(windows_of(2), |builder| builder.hooks(Hooks::new().filter_batch(|b| b.id().seq != Seq(1))));
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        conn.feed(events("a", 0..4)).await;
        assert_eq!(conn.acks().await, [1, 2, 3, 4]);
        drop(conn);
        world.end(rig).await;
        assert_eq!(stored(&world, "a"), events("a", 2..4));
    });
}

#[test]
fn a_commit_answers_what_lies_before_it_and_nothing_behind() {
    virtual_time(async {
        let world = World::new();
        let rig = world.start(windows_of(100));
        world.journal.hold();
        let mut conn = rig.connect("s", 1, AckLevel::Journaled).await;
        for n in 0..3 {
            conn.feed(events("a", n..n + 1)).await;
        }
        for n in 1..=3 {
            world.journal.commit_up_to(Position(n));
            assert_eq!(conn.acks().await, [n]);
        }
        world.journal.release();
        drop(conn);
        world.end(rig).await;
    });
}

#[test]
fn what_is_shed_before_its_sender_comes_to_it_again_is_refused_and_not_acknowledged() {
    for (connects_first, again_first) in [(true, true), (true, false), (false, false)] {
        virtual_time(async {
            let rules =
                OverflowPolicy { max_in_flight: 1 << 10, when_full: WhenFull::DropOldest, ..OverflowPolicy::default() };
            let throttle = ThrottlePolicy { events_per_second: 1, burst_events: 1, ..ThrottlePolicy::default() };
            let slow =
                || TenantSpec::from(tenant("slow")).policy(Policy { throttle: throttle.clone(), ..windows_of(100) });
            let policy = Policy { overflow: rules, ..windows_of(100) };
            let start = |world: &World| world.start_with(policy.clone(), |builder| builder.tenant(slow()));
            let large = |n| format!(r#"{{"tenant":"a","n":{n},"pad":"{}"}}"#, "x".repeat(800));
            let read = || vec![event("slow", 1), event("slow", 2), large(3)];
            let mut world = World::new();
            let rig = start(&world);
            let conn = rig.connect("s", 1, AckLevel::Stored).await;
            // The second one waits for its tenant's rate, and the third is on record ahead of it.
            let _feeding = conn.feeding(read());
            pass(millis(10)).await;
            world.crash(rig).await;

            let rig = start(&world);
            pass(millis(10)).await;
            let other = rig.ingress().await;
            let makes_room = async |rig: &Rig| {
                other.feed(lines([large(4)])).await.unwrap();
                assert_eq!(rig.snapshot("a").counters.shed, 1);
            };
            if !connects_first {
                makes_room(&rig).await;
            }
            let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
            if again_first {
                // In the read that brings it again.
                conn.feed([read(), vec![large(4)]].concat()).await;
            } else {
                if connects_first {
                    makes_room(&rig).await;
                }
                conn.feed(read()).await;
            }
            rig.tenant("slow").flush();
            rig.tenant("a").flush();
            let (acks, nacks) = conn.told().await;
            assert_eq!(nacks, [(3, Code::Shed)], "{acks:?}");
            assert_eq!(acks, if again_first { vec![1, 2, 4] } else { vec![1, 2] });
            drop(conn);
            world.end(rig).await;
            assert_eq!(stored(&world, "a"), [large(4)]);
        });
    }
}

#[test]
fn what_was_refused_or_shed_and_not_heard_of_is_refused_by_the_next_process_too_until_it_is() {
    virtual_time(async {
        let rules =
            OverflowPolicy { max_in_flight: 1 << 10, when_full: WhenFull::DropOldest, ..OverflowPolicy::default() };
        let policy = Policy { overflow: rules, ..windows_of(100) };
        let large = |n| format!(r#"{{"tenant":"a","n":{n},"pad":"{}"}}"#, "x".repeat(800));
        let mut world = World::new();
        let rig = world.start(policy.clone());
        let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
        // The second is no event, and the third makes room by giving up the first.
        conn.feed(vec![large(1)]).await;
        conn.feed(vec!["no event".to_owned(), large(3)]).await;
        let refused = vec![(1, Code::Shed), (2, Code::BadJson)];
        assert_eq!(conn.told().await, (vec![], refused.clone()));
        drop(conn);
        world.crash(rig).await;

        // The answers went down with the process, or the next one did before its own were heard.
        for _ in 0..2 {
            let rig = world.start(policy.clone());
            let mut conn = rig.connect("s", 1, AckLevel::Stored).await;
            assert_eq!(conn.answers.last(), 3);
            assert_eq!(conn.told().await, (vec![], refused.clone()));
            drop(conn);
            world.crash(rig).await;
        }

        // It has heard, and says so by where it goes on; that goes on record with what comes next.
        let rig = world.start(policy.clone());
        let mut conn = rig.connect("s", 3, AckLevel::Stored).await;
        conn.feed(vec![event("b", 4)]).await;
        rig.tenant("a").flush();
        rig.tenant("b").flush();
        assert_eq!(conn.acks().await, [3, 4]);
        drop(conn);
        world.end(rig).await;
        assert_eq!(stored(&world, "a"), [large(3)]);
        let left = world.journal.on_disk().streams.into_values().next().unwrap();
        assert_eq!((left.mark, left.refused.len()), (4, 0));
    });
}
