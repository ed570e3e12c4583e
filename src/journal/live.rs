//! Looks at the journal that this process writes.

use std::thread;
use std::time::Duration;

use headworks_actors::{Journal, JournalError, TenantId};

use super::DurableJournal;
use super::inspect::{Each, Summary, summarize};
use super::log::lock_of;

/// Segments come and go while they are looked at, and the last one ends in what is being written: what is wrong so many times
/// in a row is wrong.
const TIMES: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(50);

impl DurableJournal {
    /// As [`inspect::summary`](super::inspect::summary), while it is written. Blocks, for as long as it takes to read all of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn summary(&self) -> Result<Summary, JournalError> {
        let look = || summarize(&*self.reader.disk, &mut |_, _| {});
        let mut found = look();
        for _ in 1..TIMES {
            if found.as_ref().is_ok_and(|found| found.damage.is_empty()) {
                break;
            }
            thread::sleep(BETWEEN);
            found = look();
        }
        let failing = self.health().failing.map(|why| why.to_string());
        // What is not whole at the end is on its way to the disk.
        found.map(|found| Summary { torn_bytes: 0, is_closed: false, failing, ..found })
    }

    /// As [`inspect::export`](super::inspect::export), while it is written: what is committed now, without what is settled
    /// meanwhile. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or `each` fails.
    pub fn export(&self, tenant: Option<&TenantId>, each: Each<'_>) -> Result<u64, JournalError> {
        let ledger = || lock_of(&self.reader.ledger);
        let told = ledger().recovered();
        let mut given = 0;
        for told in told.iter().filter(|told| tenant.is_none_or(|tenant| *tenant == told.tenant)) {
            for live in &told.chunks {
                let chunk = match self.reader.read(&told.tenant, live) {
                    Ok(chunk) => chunk,
                    Err(_) if ledger().find(&told.tenant, live).is_none() => continue,
                    Err(why) => return Err(why),
                };
                let unsettled = told.unsettled(live);
                for event in chunk.events().take(unsettled.end).skip(unsettled.start) {
                    each(&told.tenant, &event)
                        .map_err(|why| JournalError::new(format!("an event cannot be written: {why}")))?;
                    given += 1;
                }
            }
        }
        Ok(given)
    }
}
