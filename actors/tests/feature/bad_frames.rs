//! A bad frame costs itself and nothing else.

use std::time::Duration;

use headworks_actors::{Code, DeadLetterKind, Framing, IngressSpec, Json, KEPT_OF_OVERSIZED, Policy, SourceCounters};

use crate::rig::{FaultyLetters, Mood, Rig, event, lines, millis, pass, secs, tenant, until, virtual_time};

const MAX_BYTES: usize = 250_000;

/// Every way of being no event, with the code it is refused by.
fn bad() -> Vec<(Code, Vec<u8>)> {
    let nested = format!(r#"{{"tenant":"a","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long = format!(r#"{{"tenant":"a","x":"{}"}}"#, "x".repeat(MAX_BYTES));
    vec![
        (Code::BadJson, br#"{"tenant":"a","n":}"#.to_vec()),
        (Code::BadJson, br#"{"tenant":"a""#.to_vec()),
        (Code::BadJson, b"GET / HTTP/1.1".to_vec()),
        (Code::BadEvent, b"[1,2]".to_vec()),
        (Code::NoTenant, br#"{"n":1}"#.to_vec()),
        (Code::BadTenant, br#"{"tenant":7}"#.to_vec()),
        (Code::BadTenant, br#"{"tenant":null}"#.to_vec()),
        (Code::BadTenant, br#"{"tenant":"../etc/passwd"}"#.to_vec()),
        (Code::BadTenant, br#"{"tenant":""}"#.to_vec()),
        (Code::Empty, Vec::new()),
        (Code::Empty, b"   ".to_vec()),
        (Code::Oversized, long.into_bytes()),
        (Code::BadUtf8, b"{\"tenant\":\"a\",\"x\":\"\xff\xfe\"}".to_vec()),
        (Code::BadJson, b"{\"tenant\":\"a\",\"x\":\"\0\"}".to_vec()),
        (Code::BadJson, b"\0\0\0\0\0\0\0\0".to_vec()),
        (Code::TooDeep, nested.into_bytes()),
    ]
}

struct Stream {
    good: Vec<String>,
    bad: Vec<(Code, Vec<u8>)>,
    /// All of them, in order.
    frames: Vec<Vec<u8>>,
}

/// Nine good frames, then a bad one, for each way of being bad.
fn stream() -> Stream {
    let (mut good, mut frames) = (vec![], vec![]);
    let bad = bad();
    for (_, bad) in &bad {
        for _ in 0..9 {
            good.push(event("a", good.len()));
            frames.push(good[good.len() - 1].clone().into_bytes());
        }
        frames.push(bad.clone());
    }
    Stream { good, bad, frames }
}

async fn every_good_frame_is_stored_and_every_bad_one_kept(framing: Framing, bytes: Vec<u8>, read: usize) {
    let Stream { good, bad, .. } = stream();
    let rig = Rig::new(Policy::default());
    let ingress = rig.system.ingress(IngressSpec::new("test", framing, Json::new())).await.unwrap();
    for read in bytes.chunks(read) {
        ingress.feed(read).await.unwrap();
    }
    ingress.finish(true).await.unwrap();
    rig.drained().await;

    assert_eq!(rig.stored("a"), good);
    let letters = rig.letters.all();
    assert_eq!(letters.len(), bad.len());
    for (letter, (code, frame)) in letters.iter().zip(&bad) {
        let start = String::from_utf8_lossy(&frame[..frame.len().min(40)]).into_owned();
        assert_eq!((letter.kind, letter.cause.code), (DeadLetterKind::Frame, *code), "{start}: {}", letter.cause);
        assert_eq!((letter.original_bytes, letter.attempts), (frame.len() as u64, 0), "{start}");
        assert_eq!(letter.source.as_deref(), Some("test"));
        let kept = if *code == Code::Oversized { KEPT_OF_OVERSIZED } else { frame.len() };
        assert_eq!(letter.body, frame[..kept], "{start}: the bytes as they came");
    }
    let (events, malformed) = (good.len() as u64, bad.len() as u64);
    let expected = SourceCounters {
        received: events + malformed,
        accepted: events,
        malformed,
        bytes: bytes.len() as u64,
        ..SourceCounters::default()
    };
    assert_eq!(rig.source("test"), expected);
    assert_eq!(rig.system.tenants().len(), 1, "no bad frame made a tenant");
}

#[test]
fn every_good_line_is_stored_and_every_bad_one_is_a_dead_letter_with_its_reason_and_bytes() {
    let bytes: Vec<u8> = stream().frames.into_iter().flat_map(|frame| [frame, b"\n".to_vec()].concat()).collect();
    for read in [777, 64 << 10, bytes.len()] {
        let framing = Framing::Lines { max_bytes: MAX_BYTES };
        virtual_time(every_good_frame_is_stored_and_every_bad_one_kept(framing, bytes.clone(), read));
    }
}

#[test]
fn length_prefixed_frames_are_judged_alike() {
    let length = |frame: &[u8]| (frame.len() as u32).to_be_bytes().to_vec();
    let bytes: Vec<u8> = stream().frames.into_iter().flat_map(|frame| [length(&frame), frame].concat()).collect();
    for read in [777, 64 << 10, bytes.len()] {
        let framing = Framing::LengthPrefixed { max_bytes: MAX_BYTES };
        virtual_time(every_good_frame_is_stored_and_every_bad_one_kept(framing, bytes.clone(), read));
    }
}

#[test]
fn an_unfinished_line_is_an_event_at_a_clean_end_and_truncated_where_the_input_was_cut_off() {
    virtual_time(async {
        for clean in [true, false] {
            let rig = Rig::new(Policy::default());
            let ingress = rig.ingress().await;
            ingress.feed(lines([event("a", 1)])).await.unwrap();
            ingress.feed(event("a", 2)).await.unwrap();
            ingress.finish(clean).await.unwrap();
            rig.drained().await;
            assert_eq!(rig.stored("a").len(), if clean { 2 } else { 1 });
            let letters = rig.letters.all();
            assert_eq!(letters.len(), if clean { 0 } else { 1 });
            if let Some(letter) = letters.first() {
                assert_eq!((letter.kind, letter.cause.code), (DeadLetterKind::Frame, Code::Truncated));
                assert_eq!(letter.body, event("a", 2));
            }
        }
    });
}

#[test]
fn an_unfinished_length_prefixed_frame_is_truncated_however_the_input_ended() {
    virtual_time(async {
        for clean in [true, false] {
            let rig = Rig::new(Policy::default());
            let spec = IngressSpec::new("test", Framing::length_prefixed(), Json::new());
            let ingress = rig.system.ingress(spec).await.unwrap();
            let frame = event("a", 1);
            ingress.feed([&(frame.len() as u32).to_be_bytes(), &frame.as_bytes()[..10]].concat()).await.unwrap();
            ingress.finish(clean).await.unwrap();
            rig.drained().await;
            assert_eq!(rig.letters.all()[0].cause.code, Code::Truncated);
            assert_eq!(rig.dead(), [&frame[..10]]);
            assert_eq!(rig.source("test").malformed, 1);
        }
    });
}

#[test]
fn a_flood_of_garbage_waits_for_its_dead_letters_while_another_connection_goes_on() {
    virtual_time(async {
        let letters = FaultyLetters::new(Mood::Hangs);
        let rig = Rig::with(Policy::default(), |builder| {
            builder.dead_letters(letters.clone()).max_dead_letter_queue_bytes(64 << 10)
        });
        let (bad, good) = (rig.ingress_of("bad").await, rig.ingress_of("good").await);
        let flood = lines((0..10_000).map(|n| format!("{n:0>500}")));
        let flooding = tokio::task::spawn_local(async move { bad.feed(flood).await });

        pass(secs(60)).await;
        assert!(!flooding.is_finished(), "there is no room for ten thousand letters");
        let taken = rig.source("bad").malformed;
        assert!(taken * 500 < 400 << 10, "{taken} frames of 500 bytes lie in memory; the queue holds 64 KiB");
        for n in 0..10 {
            let fed = tokio::time::timeout(millis(1), good.feed(lines([event("a", n)]))).await;
            fed.expect("good frames do not wait for bad ones").unwrap();
            pass(secs(2)).await;
            assert_eq!(rig.stored("a").len(), n + 1);
        }
        assert!(letters.kept.all().is_empty());

        letters.turn(Mood::Works);
        flooding.await.unwrap().unwrap();
        rig.drained().await;
        assert_eq!(letters.kept.all().len(), 10_000, "none is lost, none is kept twice");
        assert_eq!(rig.source("bad").malformed, 10_000);
    });
}

#[test]
fn good_frames_beside_garbage_are_stored_while_the_garbage_waits() {
    virtual_time(async {
        let letters = FaultyLetters::new(Mood::Hangs);
        let rig = Rig::with(Policy::default(), |builder| {
            builder.dead_letters(letters.clone()).max_dead_letter_queue_bytes(1)
        });
        let ingress = rig.ingress().await;
        ingress.feed("garbage\n").await.unwrap();
        let mixed = lines([event("a", 1), "more garbage".to_owned(), event("a", 2)]);
        let waiting = tokio::task::spawn_local(async move { ingress.feed(mixed).await });
        pass(secs(2)).await;
        assert_eq!(rig.stored("a").len(), 2);
        assert!(!waiting.is_finished(), "its garbage is not kept yet");
        letters.turn(Mood::Works);
        waiting.await.unwrap().unwrap();
        rig.drained().await;
    });
}

#[test]
fn frames_wait_for_their_dead_letters_however_these_fail() {
    virtual_time(async {
        for mood in [Mood::Fails, Mood::Panics, Mood::PanicsAtOnce, Mood::Hangs] {
            let letters = FaultyLetters::new(mood);
            let rig = Rig::with(Policy::default(), |builder| builder.dead_letters(letters.clone()));
            let ingress = rig.ingress().await;
            ingress.feed("garbage\n").await.unwrap();
            pass(secs(60)).await;
            assert!(letters.kept.all().is_empty());
            let report = rig.system.report();
            assert!(report.entries.iter().any(|entry| entry.code == Code::DeadLetterFailed), "{mood:?}: {report}");
            letters.turn(Mood::Works);
            until("the letter is kept", || letters.kept.all().len() == 1).await;
            rig.drained().await;
        }
    });
}

#[test]
fn failures_are_counted_by_code_in_the_report() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let ingress = rig.ingress().await;
        ingress.feed("no json\nno json\n{}\n").await.unwrap();
        ingress.feed("no json\n").await.unwrap();
        let report = rig.system.report();
        let count = |code| report.entries.iter().find(|entry| entry.code == code).map(|entry| entry.events);
        assert_eq!((count(Code::BadJson), count(Code::NoTenant)), (Some(3), Some(1)));
        rig.drained().await;
    });
}

#[test]
fn a_drain_waits_for_the_letters_and_says_so_where_they_cannot_be_kept() {
    virtual_time(async {
        let letters = FaultyLetters::new(Mood::Hangs);
        let rig = Rig::with(Policy::default(), |builder| builder.dead_letters(letters.clone()));
        let ingress = rig.ingress().await;
        ingress.feed(lines(["garbage".to_owned(), event("a", 1)])).await.unwrap();
        let begun = tokio::time::Instant::now();
        let report = rig.system.drain(Duration::from_secs(30)).await;
        assert!(!report.complete, "a letter is not kept");
        assert_eq!(begun.elapsed().as_secs(), 30);
        assert_eq!(report.of(&tenant("a")).unwrap().end.counters.stored, 1);
    });
}
