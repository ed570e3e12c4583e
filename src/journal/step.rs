//! The steps that the promise hangs on, by name, so that a test can leave each one out and see that it is noticed.

/// A step that must not be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Syncs a segment before its group counts as committed.
    Sync,
    /// Syncs the directory when a name came or went.
    SyncDir,
    /// Says that something is committed after it is.
    CommitFirst,
    /// Writes a checkpoint before the segments that it replaces are removed.
    CheckpointFirst,
    /// Compares the checksum of an entry.
    Check,
    /// Cuts off a torn end, and knows of every segment where it ends.
    CutTornTail,
    /// Leaves a file alone after a sync of it failed.
    Seal,
    /// Knows of an attempt to store a batch before the attempt begins.
    Intent,
}

/// Whether the step is taken: always.
#[cfg(not(test))]
pub(super) const fn does(_: Step) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Step>> = const { std::cell::Cell::new(None) };
}

/// Whether the step is taken: unless a test of this thread leaves it out.
#[cfg(test)]
pub(super) fn does(step: Step) -> bool {
    LEFT_OUT.get() != Some(step)
}

#[cfg(test)]
pub(super) fn leave_out(step: Option<Step>) {
    LEFT_OUT.set(step);
}
