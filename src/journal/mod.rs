//! The durable journal.

mod checkpoint;
mod disk;
mod drive;
mod durable;
mod entry;
mod format;
mod ledger;
mod log;
mod mend;
mod options;
mod reclaim;
mod recover;
mod scan;
mod step;
mod wire;

pub use disk::{Disk, DiskFile, FsDisk, Lock};
pub use durable::DurableJournal;
pub use options::JournalOptions;
