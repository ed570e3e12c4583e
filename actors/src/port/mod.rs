//! What others plug in: the journal, stores, dead letters, hooks, the clock. The memory versions stand beside their traits.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
mod conformance_journal;
#[cfg(feature = "testing")]
mod conformance_letters;
mod dead_letters;
pub mod fault_point;
#[cfg(feature = "testing")]
mod faulty;
mod hooks;
mod journal;
pub(crate) mod lane;
mod memory;
mod memory_letters;
pub mod panic_point;
mod progress;
mod saga;
mod seam;
pub(crate) mod silences;
mod storage;
pub(crate) mod work;

pub use dead_letters::{
    DeadLetter, DeadLetterKind, DeadLetterPage, DeadLetterQuery, DeadLetters, DynDeadLetters, Edit, EditAnswer,
    ReplayAnswer,
};
pub use fault_point::FAULT_VARIABLE;
#[cfg(feature = "testing")]
pub use faulty::{Fault, Faulty};
pub use hooks::Hooks;
pub use journal::{
    BatchTotals, ChunkPlace, DoorTotals, DynJournal, Entry, Health, Journal, JournalError, MOST_REFUSED, MemoryJournal,
    Position, Recovered, RecoveredChunk, RecoveredCut, RecoveredStream, RecoveredTenant,
};
pub use memory::{MemoryStore, NullStore};
pub use memory_letters::MemoryDeadLetters;
#[cfg(feature = "testing")]
pub use panic_point::PanicAt;
pub(crate) use panic_point::PanicPoints;
pub use progress::{Begun, Compensation, Progress, StepState, Uncompensated};
pub use saga::Saga;
pub(crate) use saga::Stores;
pub use seam::Seam;
pub(crate) use seam::spawn;
pub use storage::{BoxStorage, DynStorage, Storage, StorageError, StorageExt, Undo, UndoStep};
