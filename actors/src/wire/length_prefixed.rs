use super::Frame;
use super::framing::{oversized, truncated};
use super::partial::Partial;

const PREFIX: usize = size_of::<u32>();

/// Frames that follow their length, a `u32` in big-endian order.
#[derive(Debug)]
pub(super) struct LengthPrefixed {
    max_bytes: usize,
    prefix: [u8; PREFIX],
    /// How many bytes of the prefix came.
    prefix_bytes: usize,
    begun: Partial,
}

impl LengthPrefixed {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, prefix: [0; PREFIX], prefix_bytes: 0, begun: Partial::default() }
    }

    #[inline]
    pub(super) fn next<'a>(&'a mut self, input: &'a [u8], position: &mut usize) -> Option<Frame<'a>> {
        self.begun.take_back();
        let rest = input.get(*position..).unwrap_or_default();
        if self.prefix_bytes == 0
            && let Some((prefix, after)) = rest.split_first_chunk()
            && let announced = u32::from_be_bytes(*prefix) as usize
            && announced <= self.max_bytes
            && let Some(frame) = after.get(..announced)
        {
            *position += PREFIX + announced;
            return Some(Frame::Complete(frame));
        }
        self.next_in_parts(input, position)
    }

    /// The frame that does not lie whole in the input, or is oversized.
    fn next_in_parts(&mut self, input: &[u8], position: &mut usize) -> Option<Frame<'_>> {
        let prefix = take(input, position, (PREFIX - self.prefix_bytes) as u64);
        self.prefix[self.prefix_bytes..][..prefix.len()].copy_from_slice(prefix);
        self.prefix_bytes += prefix.len();
        if self.prefix_bytes < PREFIX {
            return None;
        }
        let announced = self.announced();
        let more = take(input, position, announced - self.begun.bytes());
        // Nothing is reserved for what was only announced: memory follows the bytes that really come.
        self.begun.push(more, if self.is_oversized() { 0 } else { self.max_bytes });
        if self.begun.bytes() < announced {
            return None;
        }
        self.prefix_bytes = 0;
        Some(if self.is_oversized() {
            let detail = self.oversized_detail();
            oversized(self.begun.lend(), announced, detail)
        } else {
            Frame::Complete(self.begun.lend())
        })
    }

    pub(super) fn finish(&mut self) -> Option<Frame<'_>> {
        self.begun.take_back();
        match std::mem::take(&mut self.prefix_bytes) {
            0 => None,
            PREFIX => {
                let (bytes, announced) = (self.begun.bytes(), self.announced());
                let oversize = self.is_oversized().then(|| self.oversized_detail());
                let kept = self.begun.lend();
                Some(match oversize {
                    Some(detail) => oversized(kept, bytes, format!("{detail}, and the input ended after {bytes}")),
                    None => truncated(kept, format!("the input ended after {bytes} of a frame's {announced} bytes")),
                })
            }
            some => {
                let detail = format!("the input ended after {some} of the {PREFIX} bytes of a frame's length");
                Some(truncated(&self.prefix[..some], detail))
            }
        }
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.prefix_bytes + self.begun.kept_bytes()
    }

    fn announced(&self) -> u64 {
        u32::from_be_bytes(self.prefix).into()
    }

    fn is_oversized(&self) -> bool {
        self.announced() > self.max_bytes as u64
    }

    fn oversized_detail(&self) -> String {
        let mut detail = format!("the frame announces {} bytes; the limit is {}", self.announced(), self.max_bytes);
        // The usual reason for an absurd length is a sender that sends text.
        if let Ok(text) = str::from_utf8(&self.prefix)
            && !text.contains(|c: char| c.is_ascii_control())
        {
            detail.push_str(&format!(" (its length reads as the text {text:?}: does the sender send lines?)"));
        }
        detail
    }
}

/// The next `bytes` of the input, or what there is of them.
fn take<'a>(input: &'a [u8], position: &mut usize, bytes: u64) -> &'a [u8] {
    let rest = input.get(*position..).unwrap_or_default();
    let taken = usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
    *position += taken;
    &rest[..taken]
}
