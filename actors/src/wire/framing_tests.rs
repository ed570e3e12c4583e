use proptest::prelude::*;

use super::{Frame, Framer, Framing, KEPT_OF_OVERSIZED};
use crate::model::Code;

/// What came out, in a form that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Complete(Vec<u8>),
    Rejected { code: Code, kept: Vec<u8>, original_bytes: u64 },
}

impl From<Frame<'_>> for Out {
    fn from(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Complete(bytes) => Self::Complete(bytes.to_vec()),
            Frame::Rejected(rejected) => Self::Rejected {
                code: rejected.cause.code,
                kept: rejected.kept.to_vec(),
                original_bytes: rejected.original_bytes,
            },
        }
    }
}

fn whole(bytes: &[u8]) -> Out {
    Out::Complete(bytes.to_vec())
}

fn oversized(bytes: &[u8]) -> Out {
    let kept = bytes[..bytes.len().min(KEPT_OF_OVERSIZED)].to_vec();
    Out::Rejected { code: Code::Oversized, kept, original_bytes: bytes.len() as u64 }
}

fn truncated(bytes: &[u8]) -> Out {
    Out::Rejected { code: Code::Truncated, kept: bytes.to_vec(), original_bytes: bytes.len() as u64 }
}

/// Feeds the reads, and checks on the way what holds for every read.
fn feed<'r>(framer: &mut Framer, reads: impl IntoIterator<Item = &'r [u8]>) -> Vec<Out> {
    let mut out = Vec::new();
    for read in reads {
        let mut position = 0;
        loop {
            let before = position;
            let mut behind = position;
            let common = framer.whole(read, &mut behind).map(|frame| (Out::Complete(frame.to_vec()), behind));
            let frame = framer.next(read, &mut position).map(Out::from);
            match common {
                Some(common) => assert_eq!(Some(common), frame.clone().map(|frame| (frame, position))),
                None => assert_eq!(behind, before, "what is not given is not taken"),
            }
            assert!(before <= position && position <= read.len());
            match frame {
                Some(frame) => out.push(frame),
                None => break,
            }
        }
        assert_eq!(position, read.len());
    }
    out
}

fn run<'r>(framing: &Framing, reads: impl IntoIterator<Item = &'r [u8]>, clean: bool) -> Vec<Out> {
    let mut framer = Framer::new(framing);
    let mut out = feed(&mut framer, reads);
    out.extend(framer.finish(clean).map(Out::from));
    assert_eq!(framer.finish(clean), None, "the end comes once");
    assert_eq!(framer.pending_bytes(), 0);
    out
}

/// Cuts `bytes` into reads of the given sizes, over and over.
fn split<'b>(mut bytes: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let mut sizes = sizes.iter().cycle();
    let mut reads = Vec::new();
    while !bytes.is_empty() {
        let (read, rest) = bytes.split_at(bytes.len().min(*sizes.next().unwrap()));
        reads.push(read);
        bytes = rest;
    }
    reads
}

fn line(line: &[u8], max_bytes: usize) -> Out {
    let stripped = line.strip_suffix(b"\r").unwrap_or(line);
    if stripped.len() > max_bytes { oversized(line) } else { whole(stripped) }
}

/// The simple model of lines: all bytes at once.
fn lines_of(bytes: &[u8], max_bytes: usize, clean: bool) -> Vec<Out> {
    let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().unwrap();
    let mut out: Vec<_> = lines.into_iter().map(|bytes| line(bytes, max_bytes)).collect();
    match last {
        [] => {}
        last if clean || last.len() > max_bytes + 1 => out.push(line(last, max_bytes)),
        last => out.push(truncated(last)),
    }
    out
}

/// The simple model of length-prefixed frames.
fn prefixed_of(mut bytes: &[u8], max_bytes: usize) -> Vec<Out> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let Some((prefix, rest)) = bytes.split_first_chunk() else {
            out.push(truncated(bytes));
            break;
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        let body = &rest[..length.min(rest.len())];
        out.push(match body {
            body if length > max_bytes => oversized(body),
            body if body.len() < length => truncated(body),
            body => whole(body),
        });
        bytes = &rest[body.len()..];
    }
    out
}

fn limits() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0usize..12, 1 => Just(KEPT_OF_OVERSIZED), 1 => Just(KEPT_OF_OVERSIZED + 9)]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![8 => 1usize..16, 1 => 1usize..100_000], 1..8)
}

/// A few bytes, mostly; now and then as many as stand around what is kept of an oversized frame.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let large = KEPT_OF_OVERSIZED - 3..KEPT_OF_OVERSIZED + 13;
    prop_oneof![
        12 => prop::collection::vec(prop_oneof![2 => Just(b'\r'), 6 => any::<u8>()], 0..16),
        1 => (any::<u8>(), large).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

proptest! {
    #[test]
    fn lines_come_out_the_same_whatever_reads_they_come_in(
        bodies in prop::collection::vec(body(), 0..12),
        ends in prop::collection::vec(prop::sample::select(vec![&b"\n"[..], b"\r\n", b"\n\n"]), 12),
        open_end in any::<bool>(),
        max_bytes in limits(), sizes in sizes(), clean in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for (index, body) in bodies.iter().enumerate() {
            bytes.extend_from_slice(body);
            if !open_end || index + 1 < bodies.len() {
                bytes.extend_from_slice(ends[index]);
            }
        }
        let framing = Framing::Lines { max_bytes };
        prop_assert_eq!(run(&framing, split(&bytes, &sizes), clean), lines_of(&bytes, max_bytes, clean));
    }

    #[test]
    fn length_prefixed_frames_come_out_the_same_whatever_reads_they_come_in(
        bodies in prop::collection::vec(body(), 0..12), cut in 0usize..20,
        max_bytes in limits(), sizes in sizes(), clean in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for body in &bodies {
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let framing = Framing::LengthPrefixed { max_bytes };
        prop_assert_eq!(run(&framing, split(&bytes, &sizes), clean), prefixed_of(&bytes, max_bytes));
    }

    #[test]
    fn arbitrary_bytes_are_frames_by_the_same_rules(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        max_bytes in limits(), sizes in sizes(), clean in any::<bool>(),
    ) {
        let lines = run(&Framing::Lines { max_bytes }, split(&bytes, &sizes), clean);
        prop_assert_eq!(lines, lines_of(&bytes, max_bytes, clean));
        let prefixed = run(&Framing::LengthPrefixed { max_bytes }, split(&bytes, &sizes), clean);
        prop_assert_eq!(prefixed, prefixed_of(&bytes, max_bytes));
    }
}

#[test]
fn a_frame_that_lies_whole_in_a_read_is_a_slice_of_the_read() {
    for (framing, read) in
        [(Framing::lines(), &b"abc\ndef\r\n"[..]), (Framing::length_prefixed(), b"\0\0\0\x01a\0\0\0\0")]
    {
        let (mut framer, mut position) = (Framer::new(&framing), 0);
        for _ in 0..2 {
            let Some(Frame::Complete(frame)) = framer.next(read, &mut position) else { panic!("two frames") };
            assert!(read.as_ptr_range().contains(&frame.as_ptr()) || frame.as_ptr() == read.as_ptr_range().end);
        }
        assert_eq!(position, read.len());
    }
}

#[test]
fn a_line_above_the_limit_is_rejected_and_the_next_one_is_kept() {
    let mut long = vec![b'x'; 10 << 20];
    long.extend_from_slice(b"\nnext\n");
    let out = run(&Framing::lines(), split(&long, &[65_536]), true);
    assert_eq!(out, [oversized(&long[..10 << 20]), whole(b"next")]);
}

#[test]
fn a_line_without_an_end_never_takes_more_memory_than_the_limit() {
    let mut framer = Framer::new(&Framing::lines());
    for _ in 0..100 {
        assert!(feed(&mut framer, [&[b'x'; 65_536][..]]).is_empty());
        assert!(framer.pending_bytes() <= super::DEFAULT_MAX_FRAME_BYTES + 1);
    }
    assert_eq!(framer.pending_bytes(), KEPT_OF_OVERSIZED);
}

#[test]
fn the_carriage_return_of_a_line_end_does_not_count_against_the_limit() {
    let lines = Framing::Lines { max_bytes: 3 };
    for sizes in [&[100][..], &[4], &[3], &[1]] {
        let out = run(&lines, split(b"abc\r\nabcd\r\nabc\r", sizes), true);
        assert_eq!(out, [whole(b"abc"), oversized(b"abcd\r"), whole(b"abc")]);
    }
}

#[test]
fn a_length_of_four_gigabytes_is_skipped_without_memory_for_it() {
    let mut framer = Framer::new(&Framing::length_prefixed());
    assert!(feed(&mut framer, [&b"\xff\xff\xff\xff"[..]]).is_empty());
    for _ in 0..64 {
        assert!(feed(&mut framer, [&vec![0; 1 << 20][..]]).is_empty());
        assert!(framer.pending_bytes() <= KEPT_OF_OVERSIZED + 4);
    }
    let Some(Frame::Rejected(rejected)) = framer.finish(true) else { panic!("a rejected frame") };
    assert_eq!((rejected.cause.code, rejected.original_bytes), (Code::Oversized, 64 << 20));
}

#[test]
fn an_oversized_length_that_reads_as_text_hints_at_the_wrong_framing() {
    let mut framer = Framer::new(&Framing::length_prefixed());
    assert!(feed(&mut framer, [&b"GET / HTTP/1.1\r\n"[..]]).is_empty());
    let Some(Frame::Rejected(rejected)) = framer.finish(true) else { panic!("a rejected frame") };
    assert_eq!(
        &*rejected.cause.detail,
        "the frame announces 1195725856 bytes; the limit is 1048576 (its length reads as the text \"GET \": \
         does the sender send lines?), and the input ended after 12"
    );
}

#[test]
fn empty_frames_are_frames() {
    assert_eq!(run(&Framing::lines(), [&b"\n\r\n"[..]], true), [whole(b""), whole(b"")]);
    assert_eq!(run(&Framing::length_prefixed(), [&[0; 8][..]], true), [whole(b""), whole(b"")]);
}

#[test]
fn a_cut_connection_makes_no_event_of_half_a_line() {
    assert_eq!(run(&Framing::lines(), [&b"one\ntw"[..]], false), [whole(b"one"), truncated(b"tw")]);
    assert_eq!(run(&Framing::lines(), [&b"one\ntw"[..]], true), [whole(b"one"), whole(b"tw")]);
}

#[test]
fn after_the_end_a_framer_begins_anew() {
    for (framing, input) in [
        (Framing::lines(), &b"abc"[..]),
        (Framing::length_prefixed(), b"\0\0"),
        (Framing::length_prefixed(), b"\0\0\0\x09a"),
    ] {
        let mut framer = Framer::new(&framing);
        for _ in 0..2 {
            assert!(feed(&mut framer, [input]).is_empty());
            assert_eq!(framer.pending_bytes(), input.len());
            assert!(framer.finish(true).is_some());
        }
    }
}

#[test]
fn a_position_behind_the_end_is_the_end() {
    for framing in [Framing::lines(), Framing::length_prefixed()] {
        assert_eq!(Framer::new(&framing).next(b"abc", &mut 99), None);
    }
}

#[test]
fn a_line_that_lies_whole_in_a_read_is_given_as_one_of_the_common_kind() {
    let (framer, mut position) = (Framer::new(&Framing::lines()), 0);
    let read = &b"one\r\n\nthr"[..];
    assert_eq!(framer.whole(read, &mut position), Some(&b"one"[..]));
    assert_eq!(framer.whole(read, &mut position), Some(&b""[..]));
    assert_eq!((framer.whole(read, &mut position), position), (None, 6));
}
