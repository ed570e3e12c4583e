use std::io::{self, ErrorKind, Read};

use tokio::sync::mpsc;

use super::window::Frames;

/// How much is read at once, in bytes.
const BLOCK: usize = 256 << 10;

/// The longest line, in bytes: no server takes a longer one.
const LONGEST: usize = 1 << 30;

/// Cuts an input into whole lines. The last one gets the newline that it may lack: a server takes in what is ended.
pub(super) struct Lines<R> {
    input: R,
    begun: Vec<u8>,
    block: Vec<u8>,
    is_over: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, begun: vec![], block: vec![0; BLOCK], is_over: false }
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = io::Result<Frames>;

    fn next(&mut self) -> Option<io::Result<Frames>> {
        while !self.is_over {
            let read = match self.input.read(&mut self.block) {
                Ok(read) => read,
                Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                Err(why) => {
                    self.is_over = true;
                    return Some(Err(why));
                }
            };
            let read = if read > 0 {
                &self.block[..read]
            } else {
                self.is_over = true;
                if self.begun.is_empty() { &[] } else { &b"\n"[..] }
            };
            if let Some(end) = memchr::memrchr(b'\n', read) {
                let mut bytes = std::mem::take(&mut self.begun);
                bytes.reserve_exact(end + 1);
                bytes.extend_from_slice(&read[..=end]);
                self.begun.extend_from_slice(&read[end + 1..]);
                let ends = memchr::memchr_iter(b'\n', &bytes).map(|end| end + 1).collect();
                return Some(Ok(Frames { bytes, ends }));
            }
            self.begun.extend_from_slice(read);
            if self.begun.len() > LONGEST {
                self.is_over = true;
                return Some(Err(io::Error::other("a line is longer than 1 GiB")));
            }
        }
        None
    }
}

/// Reads the input on a thread of its own, a block ahead of who receives: a read may block for ever, as on a terminal.
///
/// # Errors
/// No thread is to be had.
pub(super) fn read(input: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<io::Result<Frames>>> {
    let (send, receive) = mpsc::channel(1);
    std::thread::Builder::new().name("read".to_owned()).spawn(move || {
        // Whoever is gone wants no more.
        Lines::new(input).try_for_each(|frames| send.blocking_send(frames))
    })?;
    Ok(receive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives what it has in small reads.
    struct Cuts<'a>(&'a [u8], usize);

    impl Read for Cuts<'_> {
        fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(block.len());
            self.0.read(&mut block[..most])
        }
    }

    proptest! {
        #[test]
        fn lines_are_cut_whole_whatever_the_reads(text in "[ab\n]{0,60}", cut in 1..20_usize) {
            let mut lines = vec![];
            for frames in Lines::new(Cuts(text.as_bytes(), cut)) {
                let Frames { bytes, ends } = frames.unwrap();
                prop_assert_eq!(ends.last(), Some(&bytes.len()));
                let starts = std::iter::once(0).chain(ends.iter().copied());
                lines.extend(starts.zip(&ends).map(|(start, end)| String::from_utf8(bytes[start..*end].to_vec()).unwrap()));
            }
            let expected: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
