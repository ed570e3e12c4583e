use super::*;
use proptest::prelude::*;

fn frames(texts: &[String]) -> Frames {
    let mut frames = Frames::default();
    for text in texts {
        frames.bytes.extend_from_slice(text.as_bytes());
        frames.ends.push(frames.bytes.len());
    }
    frames
}

/// Frames `from` to `to`, each of its own text and length.
fn numbered(from: u64, to: u64) -> Vec<String> {
    (from..=to).map(|n| format!("{n}{}\n", "x".repeat(n as usize % 5))).collect()
}

/// All that is to be sent, sent.
fn all(window: &mut Window) -> String {
    let mut sent = String::new();
    while let Unsent::Bytes(bytes) = window.unsent() {
        sent.push_str(str::from_utf8(bytes).unwrap());
        let bytes = bytes.len();
        window.sent(bytes);
    }
    sent
}

#[test]
fn after_a_break_what_the_server_does_not_have_is_sent_again_from_the_beginning_of_a_frame() {
    let mut window = Window::new(1 << 20);
    window.push(frames(&numbered(1, 4)));
    window.resume(0, 1);
    window.sent(numbered(1, 3).concat().len() + 1);
    assert_eq!(window.had(), 3);
    window.resume(2, 3);
    assert_eq!(all(&mut window), numbered(3, 4).concat());
}

#[test]
fn what_an_earlier_run_had_answered_is_neither_kept_nor_sent() {
    let mut window = Window::new(1 << 20);
    window.resume(5, 6);
    window.answer(1..=3, None).unwrap();
    window.answer(5..=5, Some("bad_json")).unwrap();
    window.push(frames(&numbered(1, 3)));
    assert_eq!(window.held, 0);
    window.push(frames(&numbered(4, 7)));
    assert_eq!(all(&mut window), numbered(6, 7).concat());
    assert_eq!((window.first_unanswered(), window.answered()), (4, 4));
    let bytes = numbered(1, 3).concat().len() + numbered(5, 5).concat().len();
    assert_eq!(window.answered_bytes(), bytes as u64);
}

#[test]
fn an_answer_to_what_was_not_sent_is_told() {
    let mut window = Window::new(1 << 20);
    window.push(frames(&numbered(1, 4)));
    window.resume(0, 1);
    window.sent(numbered(1, 2).concat().len() + 1);
    assert_eq!(window.answer(1..=3, None), Err(3));
    assert_eq!(window.answer(1..=2, None), Ok(()));
}

#[test]
fn an_answer_to_what_an_earlier_connection_or_an_earlier_process_sent_is_taken() {
    let mut window = Window::new(1 << 20);
    window.push(frames(&numbered(1, 4)));
    window.resume(0, 1);
    window.sent(numbered(1, 4).concat().len());
    // A tenant that was full holds back the first, and the server has the others.
    window.resume(0, 1);
    assert_eq!(window.answer(2..=4, None), Ok(()));
    assert_eq!(all(&mut window), numbered(1, 1).concat());

    let mut fresh = Window::new(1 << 20);
    fresh.resume(2, 3);
    assert_eq!(fresh.answer(5..=5, None), Ok(()));
    fresh.push(frames(&numbered(1, 5)));
    assert_eq!(all(&mut fresh), numbered(3, 4).concat());
}

#[test]
fn the_first_answer_counts_and_refusals_are_named_by_reason_with_their_first_lines() {
    let mut window = Window::new(1 << 20);
    window.push(frames(&numbered(1, 20)));
    window.resume(0, 1);
    all(&mut window);
    window.answer(2..=3, Some("bad_json")).unwrap();
    window.answer(1..=4, None).unwrap();
    window.answer(3..=3, Some("muted")).unwrap();
    window.answer(6..=15, Some("bad_json")).unwrap();
    let refused = Refused { frames: 12, first: vec![2, 3, 6, 7, 8] };
    assert_eq!(window.refused(), &BTreeMap::from([("bad_json".to_owned(), refused)]));
}

#[test]
fn a_few_frames_that_wait_long_keep_no_room_from_the_others() {
    let mut window = Window::new(50_000);
    let mut next = 1;
    window.resume(0, 1);
    for _ in 0..200 {
        assert!(window.has_room());
        window.push(frames(&numbered(next, next + 999)));
        all(&mut window);
        // All but one are answered.
        window.answer(next..=next + 499, None).unwrap();
        window.answer(next + 501..=next + 999, None).unwrap();
        next += 1_000;
    }
    assert!(!window.is_answered());
    while window.has_room() {
        window.push(frames(&numbered(next, next)));
        next += 1;
    }
}

#[derive(Debug, Clone)]
enum Op {
    Read(u64),
    Send(usize),
    Answer(u64, u64, bool),
    Break { forgets: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..30_u64).prop_map(Op::Read),
        (1..60_usize).prop_map(Op::Send),
        (1..80_u64, 0..20_u64, any::<bool>()).prop_map(|(from, more, ack)| Op::Answer(from, more, ack)),
        prop::bool::weighted(0.2).prop_map(|forgets| Op::Break { forgets }),
    ]
}

/// A server that keeps to the protocol: what it has, the bytes of a frame begun, and where the connection is.
#[derive(Default)]
struct Server {
    last: u64,
    next: u64,
    begun: String,
    got: BTreeMap<u64, Vec<String>>,
}

impl Server {
    fn connect(&mut self, window: &mut Window, start: u64) {
        self.last = self.last.max(start - 1);
        self.next = self.last + 1;
        self.begun.clear();
        window.resume(self.last, self.next);
    }

    fn take(&mut self, bytes: &str) {
        for c in bytes.chars() {
            self.begun.push(c);
            if c == '\n' {
                self.got.entry(self.next).or_default().push(std::mem::take(&mut self.begun));
                self.last = self.next;
                self.next += 1;
            }
        }
    }

    fn send(&mut self, window: &mut Window, most: usize) {
        match window.unsent() {
            Unsent::Bytes(bytes) => {
                let bytes = bytes[..bytes.len().min(most)].to_vec();
                window.sent(bytes.len());
                self.take(str::from_utf8(&bytes).unwrap());
            }
            Unsent::Jump(to) => self.connect(window, to),
            Unsent::Nothing => {}
        }
    }
}

proptest! {
    #[test]
    fn every_frame_arrives_as_it_was_read_and_none_after_its_answer(ops in prop::collection::vec(op(), 1..80)) {
        let (mut window, mut server, mut answered) = (Window::new(400), Server::default(), Ranges::default());
        server.connect(&mut window, 1);
        let mut read = 0;
        for op in ops {
            match op {
                Op::Read(count) => {
                    if window.has_room() {
                        window.push(frames(&numbered(read + 1, read + count)));
                        read += count;
                    }
                }
                Op::Send(most) => server.send(&mut window, most),
                Op::Answer(from, more, ack) => {
                    let to = (from + more).min(server.last);
                    if from <= to {
                        prop_assert_eq!(window.answer(from..=to, (!ack).then_some("muted")), Ok(()));
                        answered.insert(from..=to);
                        for position in from..=to {
                            server.got.entry(position).or_default().push("answered".to_owned());
                        }
                    }
                }
                Op::Break { forgets } => {
                    if forgets {
                        server.last = 0;
                    }
                    let start = window.first_unanswered();
                    server.connect(&mut window, start);
                }
            }
            prop_assert_eq!(window.answered(), answered.len());
            prop_assert_eq!(window.held, window.pieces.iter().map(|piece| piece.frames.cost()).sum::<usize>());
        }
        // In the end the server stays.
        let start = window.first_unanswered();
        server.connect(&mut window, start);
        while window.unsent() != Unsent::Nothing {
            server.send(&mut window, usize::MAX);
        }
        if server.last > 0 {
            prop_assert_eq!(window.answer(1..=server.last, None), Ok(()));
        }
        prop_assert!(window.is_answered());
        prop_assert_eq!(window.held, 0);
        prop_assert_eq!(window.answered_bytes(), numbered(1, read).concat().len() as u64);
        for (position, got) in server.got {
            let text = &numbered(position, position)[0];
            prop_assert!(got.iter().all(|got| got == text || got == "answered"), "{position}: {got:?}");
            let answer = got.iter().position(|got| got == "answered").unwrap_or(got.len());
            prop_assert!(answer > 0, "{position} arrived before it was answered");
            prop_assert!(!got[answer..].contains(text), "{position} arrived again after its answer: {got:?}");
        }
    }
}
