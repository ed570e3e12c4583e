//! What others plug in: stores, dead letters, sources. The memory versions stand beside their traits.

mod dead_letters;
mod memory;
mod storage;

pub use dead_letters::{DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, DynDeadLetters};
pub use memory::{MemoryDeadLetters, MemoryStore, NullStore};
pub use storage::{BoxStorage, DynStorage, Storage, StorageError, StorageExt, Undo, UndoStep};
