//! The seam to the world: the wall clock, randomness and the spawner. Actors take them from here and from nowhere else,
//! so that a test or a simulation can put its own in their place. The monotonic clock is tokio's, which can be paused.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use tokio::task::JoinHandle;

use crate::model::{Cause, Code, Opening, UnixMillis};

/// The wall clock and the source of randomness of one system.
#[derive(Clone)]
pub struct Seam {
    wall: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    seed: u64,
    drawn: Arc<AtomicU64>,
}

impl std::fmt::Debug for Seam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seam").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Default for Seam {
    /// The operating system's clock and entropy.
    fn default() -> Self {
        Self::new(UnixMillis::now, RandomState::new().hash_one(std::process::id()))
    }
}

impl Seam {
    /// A clock and a seed of your own. Two systems with the same seed draw the same numbers: batch ids too, so that a
    /// fixed seed is for tests only.
    ///
    /// A clock that panics is told as a failure with the code `clock_panic`, once until it works again; meanwhile it is as late as
    /// it last said.
    pub fn new(wall: impl Fn() -> UnixMillis + Send + Sync + 'static, seed: u64) -> Self {
        Self { wall: Arc::new(wall), seed, drawn: Arc::default() }
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        (self.wall)()
    }

    /// A generator of its own for whoever asks.
    #[must_use]
    pub fn rng(&self) -> fastrand::Rng {
        let nth = self.drawn.fetch_add(1, Ordering::Relaxed);
        // Spread, so that neighbours do not draw alike.
        fastrand::Rng::with_seed(self.seed ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The same with a clock that cannot panic: it is asked everywhere, also where nobody could catch that. `began` is the time
    /// until it has told another; `tell` is told of each panic that follows a time that was told.
    pub(crate) fn guarded(self, began: UnixMillis, tell: impl Fn(Cause) + Send + Sync + 'static) -> Self {
        let (wall, last, is_told) = (self.wall, AtomicI64::new(began.0), AtomicBool::new(false));
        let guarded = move || match catch_unwind(AssertUnwindSafe(|| wall())) {
            Ok(now) => {
                last.store(now.0, Ordering::Relaxed);
                // Written only where it changes: the clock is asked often, and by many.
                if is_told.load(Ordering::Relaxed) {
                    is_told.store(false, Ordering::Relaxed);
                }
                now
            }
            Err(panic) => {
                if !is_told.swap(true, Ordering::Relaxed) {
                    tell(Cause::from_panic(Code::ClockPanic, &*panic));
                }
                UnixMillis(last.load(Ordering::Relaxed))
            }
        };
        Self { wall: Arc::new(guarded), ..self }
    }

    /// The id of an opening of the journal.
    pub(crate) fn opening(&self) -> Opening {
        Opening(self.rng().u64(..))
    }
}

/// Runs a task beside the actors, on their thread.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    actix_rt::spawn(future)
}
