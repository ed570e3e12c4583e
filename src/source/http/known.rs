use headworks_actors::{Frame, Framer, Framing};

/// The frames at the beginning of a body that the server has, from an earlier request of the same key.
#[derive(Debug)]
pub(super) struct Known {
    framer: Framer,
    frames: u64,
    passed: u64,
}

impl Known {
    pub(super) fn new(max_frame: usize, frames: u64) -> Self {
        Self { framer: Framer::new(&Framing::Lines { max_bytes: max_frame }), frames, passed: 0 }
    }

    /// Takes them out of what was read.
    pub(super) fn pass(&mut self, bytes: &mut Vec<u8>) {
        let mut position = 0;
        while self.passed < self.frames {
            match self.framer.next(bytes, &mut position) {
                Some(_) => self.passed += 1,
                None => break,
            }
        }
        bytes.drain(..position);
    }

    /// The body has ended. How many fewer frames it had than the server has.
    pub(super) fn missing(&mut self) -> u64 {
        let is_last = self.passed < self.frames
            && matches!(self.framer.finish(true), Some(Frame::Complete(_) | Frame::Rejected(_)));
        self.passed += u64::from(is_last);
        self.frames - self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(known: u64, pieces: &[&str]) -> (String, u64) {
        let mut known = Known::new(100, known);
        let mut fed = vec![];
        for piece in pieces {
            let mut bytes = piece.as_bytes().to_vec();
            known.pass(&mut bytes);
            fed.extend(bytes);
        }
        (String::from_utf8(fed).unwrap(), known.missing())
    }

    #[test]
    fn what_the_server_has_is_passed_over_in_whatever_cut_and_the_last_line_needs_no_end() {
        assert_eq!(left(0, &["a\nb"]), ("a\nb".into(), 0));
        assert_eq!(left(1, &["a", "\nb\nc"]), ("b\nc".into(), 0));
        assert_eq!(left(3, &["a\nb", "\nc"]), (String::new(), 0));
        assert_eq!(left(3, &["a\nb\n"]), (String::new(), 1), "the body is another one");
    }
}
