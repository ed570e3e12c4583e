//! Each step that the promise hangs on is left out in turn: the random lives must notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::super::step::{Step, leave_out};
use super::life::{events, live};

/// In how many lives of `lives` a promise is broken, with the step left out; up to three.
fn broken(step: Option<Step>, lives: u64) -> (u64, u64) {
    let mut runner = TestRunner::deterministic();
    let mut found = 0;
    for seed in 0..lives {
        let events = events().new_tree(&mut runner).unwrap().current();
        leave_out(step);
        let lived = catch_unwind(AssertUnwindSafe(|| live(&events, seed)));
        leave_out(None);
        if !matches!(lived, Ok(Ok(()))) {
            if step.is_none() {
                panic!("life {seed} is broken: {lived:?} {events:?}");
            }
            found += 1;
            if found == 3 {
                return (found, seed + 1);
            }
        }
    }
    (found, lives)
}

#[test]
fn nothing_is_noticed_where_nothing_is_left_out() {
    assert_eq!(broken(None, 300).0, 0);
}

#[test]
fn a_journal_that_does_not_sync_is_noticed() {
    assert_eq!(broken(Some(Step::Sync), 600).0, 3);
}

#[test]
fn a_journal_that_does_not_sync_its_directory_is_noticed() {
    assert_eq!(broken(Some(Step::SyncDir), 600).0, 3);
}

#[test]
fn a_journal_that_removes_segments_before_the_checkpoint_is_noticed() {
    assert_eq!(broken(Some(Step::CheckpointFirst), 600).0, 3);
}

#[test]
fn a_journal_that_believes_torn_bytes_is_noticed() {
    assert_eq!(broken(Some(Step::Check), 600).0, 3);
}

#[test]
fn a_journal_that_keeps_a_torn_end_is_noticed() {
    assert_eq!(broken(Some(Step::CutTornTail), 600).0, 3);
}

#[test]
fn a_journal_that_goes_on_in_a_file_whose_sync_failed_is_noticed() {
    assert_eq!(broken(Some(Step::Seal), 600).0, 3);
}
