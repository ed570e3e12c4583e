use super::KEPT_OF_OVERSIZED;

/// How much memory an idle connection may go on holding for its next unfinished frame.
const RETAINED: usize = 8 << 10;

/// The beginning of a frame whose end has not come yet, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The frame so far, or only its beginning once it is known to be oversized.
    kept: Vec<u8>,
    /// How many bytes of it came.
    bytes: u64,
    /// Whether it was handed out: its memory is lent until the next call.
    lent: bool,
}

impl Partial {
    /// How many bytes of it came, kept or not.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many bytes of it are kept.
    pub(super) fn kept_bytes(&self) -> usize {
        if self.lent { 0 } else { self.kept.len() }
    }

    /// Adds what came. All of it is kept while the frame has at most `whole_up_to` bytes, else its beginning.
    pub(super) fn push(&mut self, more: &[u8], whole_up_to: usize) {
        self.bytes += more.len() as u64;
        let room = if self.bytes > whole_up_to as u64 { KEPT_OF_OVERSIZED } else { whole_up_to };
        if self.kept.len() > room {
            self.kept.truncate(room);
            self.kept.shrink_to(room);
        }
        let taken = more.len().min(room - self.kept.len());
        self.kept.extend_from_slice(&more[..taken]);
    }

    /// Hands out what is kept: the frame is over.
    pub(super) fn lend(&mut self) -> &[u8] {
        self.lent = true;
        &self.kept
    }

    /// Takes back what was handed out. Every call of a framer begins with this.
    #[inline]
    pub(super) fn take_back(&mut self) {
        if self.lent {
            self.kept.clear();
            self.kept.shrink_to(RETAINED);
            self.bytes = 0;
            self.lent = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_large_frame_is_given_back_once_it_is_read() {
        let mut partial = Partial::default();
        partial.push(&vec![b'x'; 1 << 20], 1 << 20);
        assert_eq!(partial.lend().len(), 1 << 20);
        partial.take_back();
        assert!(partial.kept.capacity() <= RETAINED, "{}", partial.kept.capacity());
    }

    #[test]
    fn a_frame_that_outgrows_its_limit_shrinks_to_its_beginning() {
        let mut partial = Partial::default();
        partial.push(&vec![b'a'; 1 << 20], 1 << 20);
        for _ in 0..100 {
            partial.push(&[b'b'; 1000], 1 << 20);
        }
        assert_eq!(partial.bytes(), (1 << 20) + 100_000);
        assert!(partial.kept.capacity() <= 2 * KEPT_OF_OVERSIZED, "{}", partial.kept.capacity());
        assert_eq!(partial.lend(), vec![b'a'; KEPT_OF_OVERSIZED]);
    }

    #[test]
    fn small_unfinished_frames_use_the_same_memory_over_and_over() {
        let mut partial = Partial::default();
        partial.push(&[b'x'; 1000], 1 << 20);
        let memory = partial.kept.as_ptr();
        for _ in 0..100 {
            partial.lend();
            partial.take_back();
            partial.push(&[b'y'; 1000], 1 << 20);
            assert_eq!(partial.kept.as_ptr(), memory);
        }
    }
}
