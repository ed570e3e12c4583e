//! What others plug in: stores, dead letters, sources. The memory versions stand beside their traits.

#[cfg(feature = "testing")]
pub mod conformance;
mod dead_letters;
#[cfg(feature = "testing")]
mod faulty;
mod memory;
mod storage;

pub use dead_letters::{DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, DynDeadLetters};
#[cfg(feature = "testing")]
pub use faulty::{Fault, Faulty};
pub use memory::{MemoryDeadLetters, MemoryStore, NullStore};
pub use storage::{BoxStorage, DynStorage, Storage, StorageError, StorageExt, Undo, UndoStep};
