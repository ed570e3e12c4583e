use super::Frame;
use super::framing::{oversized, truncated};
use super::partial::Partial;

/// Frames that end at `\n` or `\r\n`.
#[derive(Debug)]
pub(super) struct Lines {
    max_bytes: usize,
    begun: Partial,
}

impl Lines {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, begun: Partial::default() }
    }

    #[inline]
    pub(super) fn next<'a>(&'a mut self, input: &'a [u8], position: &mut usize) -> Option<Frame<'a>> {
        self.begun.take_back();
        let rest = input.get(*position..).unwrap_or_default();
        match memchr::memchr(b'\n', rest) {
            Some(end) => {
                *position += end + 1;
                let line = &rest[..end];
                if self.begun.bytes() == 0 {
                    return Some(judge(line, line.len() as u64, self.max_bytes));
                }
                self.begun.push(line, longest_whole(self.max_bytes));
                Some(self.ended())
            }
            None => {
                *position = input.len();
                self.begun.push(rest, longest_whole(self.max_bytes));
                None
            }
        }
    }

    #[inline]
    pub(super) fn whole<'a>(&self, input: &'a [u8], position: &mut usize) -> Option<&'a [u8]> {
        if self.begun.bytes() > 0 {
            return None;
        }
        let rest = input.get(*position..)?;
        let line = rest.get(..memchr::memchr(b'\n', rest)?).filter(|line| line.len() <= self.max_bytes)?;
        *position += line.len() + 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    pub(super) fn finish(&mut self, clean: bool) -> Option<Frame<'_>> {
        self.begun.take_back();
        let bytes = self.begun.bytes();
        if bytes == 0 {
            return None;
        }
        if clean || bytes > longest_whole(self.max_bytes) as u64 {
            return Some(self.ended());
        }
        let detail = format!("the input was cut off after {bytes} bytes of a line, before its end");
        Some(truncated(self.begun.lend(), detail))
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.begun.kept_bytes()
    }

    fn ended(&mut self) -> Frame<'_> {
        let bytes = self.begun.bytes();
        judge(self.begun.lend(), bytes, self.max_bytes)
    }
}

/// A line of this length may still be within the limit: its last byte may be the `\r` of its end.
#[inline]
fn longest_whole(max_bytes: usize) -> usize {
    max_bytes.saturating_add(1)
}

/// The frame that a line of `bytes` makes; `line` is all of it, unless it is oversized anyway.
#[inline]
fn judge(line: &[u8], bytes: u64, max_bytes: usize) -> Frame<'_> {
    let frame = line.strip_suffix(b"\r").unwrap_or(line);
    if frame.len() <= max_bytes && bytes <= longest_whole(max_bytes) as u64 {
        return Frame::Complete(frame);
    }
    oversized(line, bytes, format!("the line has {bytes} bytes; the limit is {max_bytes}"))
}
