//! What the connections of a thread read into, in turn.
//!
//! Who waits for something to come has no buffer. A large read makes each event cheaper, for what is paid once a chunk is paid for
//! more events: so whoever has much to say is read in large pieces, as long as there are few of them, and all in equal ones. And they
//! take turns: what was read is looked at before the next one reads, while it is still near.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

/// The most bytes of one read.
const MOST: usize = 2 << 20;

/// As many are read of everybody, and a read of no more is copied, so that it holds no memory that it does not need while it waits.
const LEAST: usize = 64 << 10;

/// What all large reads of a thread may take together.
const ALL: usize = 32 << 20;

/// How many buffers a thread keeps.
const KEPT: usize = 4;

thread_local! {
    static ROOM: RefCell<Room> = const { RefCell::new(Room { free: Vec::new(), busy: 0 }) };
    /// Whose turn it is to read, of those that are busy.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

struct Room {
    /// The one that was used last is used next.
    free: Vec<Vec<u8>>,
    /// How many connections there are whose last read was a large one.
    busy: usize,
}

impl Room {
    /// How many bytes each may read at once.
    fn share(&self) -> usize {
        let share = (ALL / self.busy.max(1)).clamp(LEAST, MOST);
        // One of few sizes, so that a buffer is right for long.
        1 << share.ilog2()
    }

    fn take(&mut self) -> Vec<u8> {
        let share = self.share();
        self.free.retain(|buffer| is_right(buffer, share));
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(share))
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        // What was made of a read may have taken less memory, or more.
        if self.free.len() < KEPT && is_right(&buffer, self.share()) {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

fn is_right(buffer: &Vec<u8>, share: usize) -> bool {
    (share..=share + share / 8).contains(&buffer.capacity())
}

/// The reads of one connection, all on one thread.
#[derive(Debug, Default)]
pub(super) struct Reads {
    is_busy: bool,
    turn: Option<OwnedSemaphorePermit>,
    on_one_thread: PhantomData<*const ()>,
}

impl Reads {
    /// What comes next from `input`; nothing at its end. Give it back when it is done with.
    ///
    /// # Cancel safety
    /// Nothing was read if the future is dropped.
    pub(super) async fn next(&mut self, input: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
        self.turn = None;
        if self.is_busy {
            // The semaphore is never closed.
            self.turn = TURN.with(Arc::clone).acquire_owned().await.ok();
        }
        poll_fn(|cx| {
            let mut buffer = ROOM.with_borrow_mut(Room::take);
            let read = pin!(input.read_buf(&mut buffer)).poll(cx);
            self.is_busy(buffer.len() > LEAST);
            if self.is_busy {
                return Poll::Ready(Ok(buffer));
            }
            self.turn = None;
            let short = buffer.as_slice().to_vec();
            self.give_back(buffer);
            read.map_ok(|_| short)
        })
        .await
    }

    /// Has what was read dealt with. This connection's turn is over when that is done, or found to take longer.
    pub(super) async fn dealt_with<T>(&mut self, dealing: impl Future<Output = T>) -> T {
        let Some(turn) = self.turn.take() else { return dealing.await };
        let longer = async {
            // All that are ready go first, and who deals with it among them.
            yield_now().await;
            drop(turn);
            pending().await
        };
        tokio::select! {
            biased;
            done = dealing => done,
            never = longer => never,
        }
    }

    /// A buffer that is not used any more.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        ROOM.with_borrow_mut(|room| room.give_back(buffer));
    }

    fn is_busy(&mut self, is_busy: bool) {
        if self.is_busy != is_busy {
            self.is_busy = is_busy;
            // A thread that ends may have no room any more.
            let _ = ROOM.try_with(|room| {
                let busy = &mut room.borrow_mut().busy;
                *busy = if is_busy { *busy + 1 } else { *busy - 1 };
            });
        }
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.is_busy(false);
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::io::Cursor;

    use super::*;

    fn busy() -> usize {
        ROOM.with_borrow(|room| room.busy)
    }

    fn kept() -> usize {
        ROOM.with_borrow(|room| room.free.iter().map(Vec::capacity).sum())
    }

    #[tokio::test]
    async fn what_is_read_is_what_there_was_in_pieces_that_are_the_smaller_the_more_are_busy() {
        let all: Vec<u8> = (0..3 * MOST).map(|n| n as u8).collect();
        for (others, piece) in [(0, MOST), (15, MOST), (17, MOST / 2), (64, MOST / 4), (1_000, LEAST)] {
            let mut reading = Vec::new();
            for _ in 0..others {
                let mut reads = Reads::default();
                reads.is_busy(true);
                reading.push(reads);
            }
            let (mut reads, mut input, mut read) = (Reads::default(), Cursor::new(&all), vec![]);
            loop {
                let bytes = reads.next(&mut input).await.unwrap();
                if bytes.is_empty() {
                    break;
                }
                assert!(bytes.len() <= piece && bytes.capacity() <= piece + piece / 8, "{others}: {}", bytes.len());
                assert_eq!(busy(), others + usize::from(bytes.len() > LEAST));
                read.extend_from_slice(&bytes);
                reads.give_back(bytes);
            }
            assert!(read == all, "{others}");
            drop((reads, reading));
            assert_eq!(busy(), 0);
        }
    }

    #[tokio::test]
    async fn who_waits_has_no_buffer_and_a_short_read_no_more_than_it_needs() {
        let (mut at, mut to) = tokio::io::duplex(1 << 20);
        let mut reads = Reads::default();
        assert!(futures::poll!(pin!(reads.next(&mut to))).is_pending());
        assert_eq!(kept(), MOST, "one that was lent, and came back");
        tokio::io::AsyncWriteExt::write_all(&mut at, b"a line\n").await.unwrap();
        let line = reads.next(&mut to).await.unwrap();
        assert_eq!((line.as_slice(), line.capacity(), kept(), busy()), (&b"a line\n"[..], 7, MOST, 0));
        reads.give_back(line);
        assert_eq!(kept(), MOST);
    }

    #[tokio::test]
    async fn those_that_are_busy_take_turns_and_what_takes_long_to_deal_with_holds_up_nobody() {
        let input = || Cursor::new(vec![0; 4 * MOST]);
        let ((mut a, mut of_a), (mut b, mut of_b)) = ((Reads::default(), input()), (Reads::default(), input()));
        a.next(&mut of_a).await.unwrap();
        b.next(&mut of_b).await.unwrap();
        a.next(&mut of_a).await.unwrap();
        assert!(futures::poll!(pin!(b.next(&mut of_b))).is_pending(), "what came of a is not dealt with yet");
        a.dealt_with(ready(())).await;
        b.next(&mut of_b).await.unwrap();
        {
            let mut for_ever = pin!(b.dealt_with(pending::<()>()));
            assert!(futures::poll!(&mut for_ever).is_pending());
            assert!(futures::poll!(pin!(a.next(&mut of_a))).is_pending(), "it is still the turn of b");
            yield_now().await;
            assert!(futures::poll!(&mut for_ever).is_pending());
            a.next(&mut of_a).await.unwrap();
        }
        // Whoever goes leaves its turn to others.
        drop(a);
        b.next(&mut of_b).await.unwrap();
    }

    #[tokio::test]
    async fn only_a_few_buffers_are_kept() {
        let (mut reads, mut lent) = (Reads::default(), vec![]);
        for _ in 0..3 * KEPT {
            lent.push(reads.next(&mut Cursor::new(vec![0; MOST])).await.unwrap());
        }
        lent.into_iter().for_each(|buffer| reads.give_back(buffer));
        assert_eq!(kept(), KEPT * MOST);
    }
}
