//! What others plug in: stores, dead letters, hooks, the clock. The memory versions stand beside their traits.

mod dead_letters;
mod hooks;
pub(crate) mod journal;
mod memory;
mod seam;
mod storage;

pub use dead_letters::{DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, DynDeadLetters};
pub use hooks::Hooks;
pub use memory::{MemoryDeadLetters, MemoryStore, NullStore};
pub use seam::Seam;
pub(crate) use seam::spawn;
pub use storage::{BoxStorage, DynStorage, Storage, StorageError, StorageExt, Undo, UndoStep};
