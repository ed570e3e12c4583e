//! What others plug in: stores, dead letters, hooks, the clock. The memory versions stand beside their traits.

#[cfg(feature = "testing")]
pub mod conformance;
mod dead_letters;
#[cfg(feature = "testing")]
mod faulty;
mod hooks;
pub(crate) mod journal;
mod memory;
mod seam;
mod storage;

pub use dead_letters::{DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, DynDeadLetters};
#[cfg(feature = "testing")]
pub use faulty::{Fault, Faulty};
pub use hooks::Hooks;
pub use memory::{MemoryDeadLetters, MemoryStore, NullStore};
pub use seam::Seam;
pub(crate) use seam::spawn;
pub use storage::{BoxStorage, DynStorage, Storage, StorageError, StorageExt, Undo, UndoStep};
