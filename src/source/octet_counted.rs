/// The longest number of bytes that a counted message may say it has, in digits.
const MOST_DIGITS: usize = 10;

/// Messages of a TCP connection, as RFC 6587 has them, made frames that follow their length. Each message says by its first byte which
/// way it is framed: by a digit that it is counted, by anything else that it ends with a newline.
///
/// What is too large is handed on as such, as far as it goes, for the ingress to refuse it with its beginning.
#[derive(Debug)]
pub(in crate::source) struct Reframer {
    max_bytes: usize,
    /// The beginning of a message whose end has not come.
    kept: Vec<u8>,
    /// So many bytes more of a counted message are passed on.
    counted: usize,
    /// The rest of a line that was too long is passed over.
    skips_line: bool,
}

impl Reframer {
    pub(in crate::source) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, kept: vec![], counted: 0, skips_line: false }
    }

    /// What was read becomes what is to be fed.
    pub(in crate::source) fn reframe(&mut self, bytes: &mut Vec<u8>) {
        let read = std::mem::take(bytes);
        // A line is a few bytes longer where it follows its length.
        bytes.reserve(read.len() + read.len() / 16);
        let mut rest = &read[..];
        if !self.kept.is_empty() && self.counted == 0 && !self.skips_line {
            // At most one message that is not ended, and what was read.
            self.kept.extend_from_slice(rest);
            let kept = std::mem::take(&mut self.kept);
            self.all(&kept, bytes);
            return;
        }
        self.all(std::mem::take(&mut rest), bytes);
    }

    /// The end of the connection: what was begun and never ended. A line is a message without its newline; of a counted message the
    /// rest is missing, and the ingress is to be told that it is cut.
    pub(in crate::source) fn finish(&mut self) -> Vec<u8> {
        let kept = std::mem::take(&mut self.kept);
        let mut out = vec![];
        if !kept.is_empty() {
            frame(&kept, &mut out);
        }
        out
    }

    fn all(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        loop {
            if self.counted > 0 {
                let now = self.counted.min(input.len());
                out.extend_from_slice(&input[..now]);
                (self.counted, input) = (self.counted - now, &input[now..]);
            }
            if self.skips_line {
                match memchr::memchr(b'\n', input) {
                    Some(at) => (self.skips_line, input) = (false, &input[at + 1..]),
                    None => return,
                }
            }
            if input.is_empty() {
                return;
            }
            match count(input) {
                Count::Of(length, digits) => {
                    out.extend_from_slice(&length.to_be_bytes());
                    (self.counted, input) = (length as usize, &input[digits..]);
                }
                Count::Unfinished => return self.kept.extend_from_slice(input),
                Count::None => match memchr::memchr(b'\n', input) {
                    Some(at) => {
                        let line = &input[..at];
                        frame(line.strip_suffix(b"\r").unwrap_or(line), out);
                        input = &input[at + 1..];
                    }
                    None if input.len() > self.max_bytes.saturating_add(1) => {
                        // More than is allowed: that it is refused is all that is still to be said of it.
                        frame(input, out);
                        self.skips_line = true;
                        return;
                    }
                    None => return self.kept.extend_from_slice(input),
                },
            }
        }
    }
}

enum Count {
    /// So many bytes, behind so many that said so.
    Of(u32, usize),
    Unfinished,
    None,
}

/// The count at the beginning of a message, if it is counted: a number without a leading zero, and a space.
fn count(input: &[u8]) -> Count {
    let digits = input.iter().take(MOST_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || input[0] == b'0' {
        return Count::None;
    }
    match input.get(digits) {
        None => Count::Unfinished,
        Some(b' ') => {
            let number = std::str::from_utf8(&input[..digits]).ok().and_then(|number| number.parse().ok());
            number.map_or(Count::None, |length| Count::Of(length, digits + 1))
        }
        Some(_) => Count::None,
    }
}

/// A message behind its length.
pub(in crate::source) fn frame(message: &[u8], out: &mut Vec<u8>) {
    // No buffer is as large as that.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Frame, Framer, Framing};
    use proptest::prelude::*;

    use super::*;

    /// Messages, and how many were refused.
    fn messages(reads: &[Vec<u8>], max_bytes: usize) -> (Vec<Vec<u8>>, usize) {
        let mut reframer = Reframer::new(max_bytes);
        let mut framer = Framer::new(&Framing::LengthPrefixed { max_bytes });
        let (mut messages, mut refused) = (vec![], 0);
        let mut fed: Vec<_> = reads.to_vec();
        fed.iter_mut().for_each(|read| reframer.reframe(read));
        fed.push(reframer.finish());
        for bytes in fed {
            let mut position = 0;
            while let Some(frame) = framer.next(&bytes, &mut position) {
                match frame {
                    Frame::Complete(message) => messages.push(message.to_vec()),
                    Frame::Rejected(_) => refused += 1,
                }
            }
        }
        refused += usize::from(framer.finish(false).is_some());
        (messages, refused)
    }

    #[test]
    fn each_message_says_how_it_is_framed() {
        let bytes = b"5 <1>ab<2>line\r\n6 <3>c\nd<4>last".to_vec();
        let expected = [&b"<1>ab"[..], b"<2>line", b"<3>c\nd", b"<4>last"].map(<[u8]>::to_vec).to_vec();
        assert_eq!(messages(&[bytes], 100), (expected, 0));
    }

    #[test]
    fn what_is_too_large_is_refused_and_the_next_one_is_kept() {
        let long = [&b"<1>"[..], &[b'x'; 50], b"\n<2>ok\n20 <3>aaaaaaaaaaaaaaaaa5 <4>ok"].concat();
        let one_by_one: Vec<_> = long.iter().map(|byte| vec![*byte]).collect();
        let expected = [&b"<2>ok"[..], b"<4>ok"].map(<[u8]>::to_vec).to_vec();
        assert_eq!(messages(&one_by_one, 10), (expected, 2));
    }

    #[test]
    fn a_counted_message_that_is_cut_is_refused() {
        assert_eq!(messages(&[b"10 <1>ab".to_vec()], 100), (vec![], 1));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_whatever_the_reads(
            parts in prop::collection::vec(("<[0-9]{1,3}>[a-z 0-9]{0,30}", any::<bool>()), 0..20),
            cut in 1_usize..40,
        ) {
            let mut bytes = vec![];
            for (text, counted) in &parts {
                match counted {
                    true => bytes.extend_from_slice(format!("{} {text}", text.len()).as_bytes()),
                    false => bytes.extend_from_slice(format!("{text}\n").as_bytes()),
                }
            }
            let reads: Vec<_> = bytes.chunks(cut).map(<[u8]>::to_vec).collect();
            let expected: Vec<_> = parts.iter().map(|(text, _)| text.as_bytes().to_vec()).collect();
            prop_assert_eq!(messages(&reads, 1_000), (expected, 0));
        }

        #[test]
        fn any_bytes_do_no_harm(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
            messages(&reads, 20);
        }
    }
}
