//! The durable journal.

mod checkpoint;
mod disk;
mod drive;
mod durable;
mod entry;
mod format;
mod ledger;
mod log;
#[cfg(any(test, feature = "testing"))]
mod memory_disk;
mod mend;
mod options;
mod reclaim;
mod recover;
mod scan;
mod step;
#[cfg(test)]
mod tests;
mod wire;

pub use disk::{Disk, DiskFile, FsDisk, Lock};
pub use durable::DurableJournal;
#[cfg(any(test, feature = "testing"))]
pub use memory_disk::MemoryDisk;
pub use options::JournalOptions;
