//! Each step that the promise hangs on is left out in turn: the random lives must notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::super::step::{Step, leave_out};
use super::life::{events, live};

/// The first of many lives in which a promise is broken, with the step left out.
fn first_broken(step: Option<Step>, lives: u64) -> Option<(u64, String)> {
    let mut runner = TestRunner::deterministic();
    (0..lives).find_map(|seed| {
        let events = events().new_tree(&mut runner).unwrap().current();
        leave_out(step);
        let lived = catch_unwind(AssertUnwindSafe(|| live(&events, seed)));
        leave_out(None);
        match lived {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some((seed, why)),
            Err(_) => Some((seed, "a panic".to_owned())),
        }
    })
}

#[test]
fn nothing_is_noticed_where_nothing_is_left_out() {
    assert_eq!(first_broken(None, 300), None);
}

#[test]
fn a_journal_that_does_not_sync_is_noticed() {
    assert!(first_broken(Some(Step::Sync), 2000).is_some());
}

#[test]
fn a_journal_that_does_not_sync_its_directory_is_noticed() {
    assert!(first_broken(Some(Step::SyncDir), 2000).is_some());
}

#[test]
fn a_journal_that_removes_segments_before_the_checkpoint_is_noticed() {
    assert!(first_broken(Some(Step::CheckpointFirst), 2000).is_some());
}

#[test]
fn a_journal_that_believes_torn_bytes_is_noticed() {
    assert!(first_broken(Some(Step::Check), 2000).is_some());
}

#[test]
fn a_journal_that_keeps_a_torn_end_is_noticed() {
    assert!(first_broken(Some(Step::CutTornTail), 2000).is_some());
}

#[test]
fn a_journal_that_goes_on_in_a_file_whose_sync_failed_is_noticed() {
    assert!(first_broken(Some(Step::Seal), 2000).is_some());
}

#[test]
fn a_journal_that_skips_the_intent_is_noticed() {
    assert!(first_broken(Some(Step::Intent), 2000).is_some());
}
