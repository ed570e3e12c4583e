use proptest::prelude::*;

use super::*;

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn events(stored: u64, dead_lettered: u64, in_flight: u64) -> Events {
    let accepted = stored + dead_lettered + in_flight;
    Events { accepted, stored, dead_lettered, in_flight, ..Events::default() }
}

fn books(events: Events) -> Books {
    Books { frames: None, events }
}

fn there(rows: u64, dead_letters: u64) -> Held {
    Held { events: rows, rows, dead_letters, purged: 0, damaged: 0 }
}

fn of(scope: Scope, account: Account, held: Held) -> Audit {
    let holdings = Holdings { tenants: [(acme(), held)].into(), ..Holdings::default() };
    audit(scope, Some(vec![account]), None, &holdings)
}

fn at_rest(events: Events, held: Held) -> Audit {
    of(Scope::Journal, Account::at_rest(acme(), books(events)), held)
}

fn moving(before: Events, after: Events, held: Held) -> Audit {
    of(Scope::Run, Account { tenant: acme(), before: books(before), after: books(after) }, held)
}

/// The one difference there is.
#[track_caller]
fn only(audit: &Audit) -> &Difference {
    assert!(!audit.holds && !audit.all.holds);
    assert_eq!(audit.differences.len(), 1, "{:?}", audit.differences);
    &audit.differences[0]
}

#[track_caller]
fn assert_only(audit: &Audit, check: Check, difference: i64, meaning: &str) {
    let found = only(audit);
    assert_eq!((found.check, found.difference, &*found.meaning), (check, difference, meaning));
}

#[test]
fn what_adds_up_holds() {
    let audit = at_rest(events(97, 3, 0), there(97, 3));
    assert!(audit.holds && audit.tenants[0].holds, "{audit:?}");
    assert_eq!((audit.all.events, audit.all.held), (Some(events(97, 3, 0)), there(97, 3)));
}

#[test]
fn rows_that_were_deleted_by_hand_are_missed_and_told_from_deleted_batches() {
    let audit = at_rest(events(100, 0, 0), Held { events: 100, rows: 97, dead_letters: 0, purged: 0, damaged: 0 });
    let says = "the store holds 3 events fewer than the journal says were stored: 3 rows were deleted from its batches";
    assert_only(&audit, Check::Stored, -3, says);
    assert_eq!((only(&audit).expected, only(&audit).found), (100, 97));
    let audit = at_rest(events(100, 0, 0), there(99, 0));
    let says = "the store holds 1 event fewer than the journal says were stored: whole batches were deleted, or the \
                database was replaced by an older one";
    assert_only(&audit, Check::Stored, -1, says);
}

#[test]
fn dead_letters_that_were_deleted_by_hand_are_missed() {
    let audit = at_rest(events(0, 5, 0), there(0, 3));
    let says = "the dead letters hold 2 events fewer than the journal says were dead-lettered: rows were deleted and not purged, or the \
                database was replaced by an older one";
    assert_only(&audit, Check::DeadLettered, -2, says);
}

#[test]
fn events_that_the_journal_knows_nothing_of_are_told() {
    let holdings = Holdings { tenants: [(acme(), there(4, 0))].into(), ..Holdings::default() };
    let audit = audit(Scope::Journal, Some(vec![]), None, &holdings);
    let says = "the store holds 4 events more than the journal says were stored: they were stored without this \
                journal, before it was begun or after it was removed or replaced";
    assert_only(&audit, Check::Stored, 4, says);
    assert_eq!(audit.tenants[0].events, Some(Events::default()));
}

#[test]
fn an_event_without_an_outcome_is_lost_and_one_with_two_is_told() {
    let lost = Events { accepted: 10, ..events(9, 0, 0) };
    let says = "1 event more accepted than have an outcome or are in flight: lost";
    assert_only(&at_rest(lost, there(9, 0)), Check::Events, -1, says);
    let doubled = Events { accepted: 8, ..events(9, 0, 0) };
    let says = "1 event more with an outcome or in flight than were accepted";
    assert_only(&at_rest(doubled, there(9, 0)), Check::Events, 1, says);
}

#[test]
fn what_is_in_flight_may_be_stored_or_dead_lettered_already_but_not_both() {
    for held in [there(10, 0), there(14, 0), there(10, 4), there(12, 2)] {
        assert!(at_rest(events(10, 0, 4), held).holds, "{held:?}");
    }
    assert_eq!(only(&at_rest(events(10, 0, 4), there(15, 0))).check, Check::Stored);
    assert_eq!(only(&at_rest(events(10, 0, 4), there(10, 5))).check, Check::DeadLettered);
    let both = "store and dead letters hold 2 events more together than can be there: some are in both";
    assert_only(&at_rest(events(10, 0, 4), there(13, 3)), Check::Settled, 2, both);
}

#[test]
fn while_events_move_the_store_lies_between_what_was_and_what_may_be() {
    let (before, after) = (events(10, 0, 5), events(14, 0, 3));
    for rows in 10..=17 {
        assert!(moving(before, after, there(rows, 0)).holds, "{rows}");
    }
    assert_eq!(only(&moving(before, after, there(9, 0))).difference, -1);
    assert_eq!(only(&moving(before, after, there(18, 0))).difference, 1);
}

#[test]
fn a_gap_in_a_batch_that_other_rows_make_up_for_is_found_all_the_same() {
    let audit = at_rest(events(10, 0, 4), Held { events: 14, rows: 12, dead_letters: 0, purged: 0, damaged: 0 });
    assert_only(&audit, Check::Rows, -2, "the store holds 2 events fewer than its own batches say: rows were deleted");
}

#[test]
fn without_a_journal_the_store_is_checked_against_itself_and_the_rest_is_said_to_be_unchecked() {
    let mut holdings = Holdings { tenants: [(acme(), there(9, 2))].into(), malformed: 7, ..Holdings::default() };
    let whole = audit(Scope::Store, None, None, &holdings);
    assert!(whole.holds && whole.all.events.is_none() && whole.malformed.counted.is_none());
    assert!(whole.unchecked[0].contains("no record is left of what was accepted"), "{:?}", whole.unchecked);
    holdings.tenants.insert(acme(), Held { events: 9, rows: 8, dead_letters: 2, purged: 0, damaged: 0 });
    assert_eq!(only(&audit(Scope::Store, None, None, &holdings)).check, Check::Rows);
}

fn sources(received: u64, accepted: u64, malformed: u64, letters_pending: u64) -> Sources {
    let frames = Frames { received, accepted, malformed, ..Frames::default() };
    Sources { before: frames, after: frames, letters_pending, waiting: 0 }
}

#[test]
fn malformed_frames_of_an_earlier_start_are_told_as_not_checked() {
    let holdings = Holdings { malformed: 4, malformed_before: 3, ..Holdings::default() };
    let found = audit(Scope::Journal, Some(vec![]), Some(sources(4, 0, 4, 0)), &holdings);
    assert!(found.holds, "{found:?}");
    assert!(found.unchecked.iter().any(|why| why.contains("before this start of the daemon, 3 of which")), "{found:?}");
    let holdings = Holdings { at_door_before: 5, at_door_missing: 2, ..holdings };
    let missing = audit(Scope::Journal, Some(vec![]), Some(sources(4, 0, 4, 0)), &holdings);
    let found = only(&missing);
    assert_eq!((found.check, found.expected, found.found, found.difference), (Check::Numbered, 5, 3, -2));
    assert!(found.meaning.starts_with("2 dead letters made at the door by earlier starts are neither"), "{found:?}");
    let holdings = Holdings { malformed: 4, ..Holdings::default() };
    assert!(audit(Scope::Journal, Some(vec![]), Some(sources(4, 0, 4, 0)), &holdings).unchecked.is_empty());
}

#[test]
fn every_malformed_frame_is_a_dead_letter_once_none_is_pending() {
    let with = |pending, kept| {
        let holdings = Holdings { malformed: kept, ..Holdings::default() };
        audit(Scope::Run, Some(vec![]), Some(sources(5, 0, 5, pending)), &holdings)
    };
    assert!(with(0, 5).holds && with(2, 3).holds);
    assert_only(
        &with(0, 3),
        Check::Malformed,
        -2,
        "2 frames were counted as malformed that are neither among the dead letters nor purged",
    );
    assert_only(&with(2, 6), Check::Malformed, 1, "the dead letters hold 1 frame more than were counted as malformed");
}

#[test]
fn a_frame_may_wait_at_the_door_while_something_is_in_flight_and_not_at_rest() {
    let frames = Frames { received: 12, accepted: 10, ..Frames::default() };
    let with = |events| {
        let account = Account::at_rest(acme(), Books { frames: Some(frames), events });
        of(Scope::Run, account, there(events.stored, 0))
    };
    assert!(with(events(6, 0, 4)).holds);
    assert_only(&with(events(10, 0, 0)), Check::Frames, -2, "2 frames were received without an answer");
}

proptest! {
    /// Every number of a system at rest is one that only one value fits.
    #[test]
    fn at_rest_no_number_can_be_another_unseen(
        stored in 0..50u64, dead_lettered in 0..50u64, shed in 0..50u64, discarded in 0..50u64,
        which in 0..8usize, by in 1..20u64, up: bool,
    ) {
        let accepted = stored + dead_lettered + shed + discarded;
        let mut numbers = [accepted, stored, dead_lettered, shed, discarded, stored, stored, dead_lettered];
        let run = |[accepted, stored, dead_lettered, shed, discarded, events, rows, dead_letters]: [u64; 8]| {
            let events_said = Events { accepted, stored, dead_lettered, shed, discarded, in_flight: 0 };
            at_rest(events_said, Held { events, rows, dead_letters, purged: 0, damaged: 0 })
        };
        prop_assert!(run(numbers).holds);
        numbers[which] = if up { numbers[which] + by } else { numbers[which].saturating_sub(by) };
        let changed = up || numbers != [accepted, stored, dead_lettered, shed, discarded, stored, stored, dead_lettered];
        prop_assert_eq!(run(numbers).holds, !changed);
    }
}

#[test]
fn what_lies_damaged_in_the_store_is_called_so_and_not_deleted() {
    let found = |rows, damaged| {
        let held = Held { events: 10, rows, dead_letters: 0, purged: 0, damaged };
        let mut holdings = Holdings { damage: vec!["segment 1, bytes 28 to 99".into()], ..Holdings::default() };
        holdings.tenants.insert(acme(), held);
        let audit =
            audit(Scope::Journal, Some(vec![Account::at_rest(acme(), books(events(10, 0, 0)))]), None, &holdings);
        assert_eq!(audit.damage, holdings.damage);
        audit.differences[0].meaning.clone()
    };
    assert!(found(7, 3).ends_with(": 3 events in damaged batches, which cannot be read"), "{}", found(7, 3));
    assert!(found(6, 3).ends_with("which cannot be read, and 1 row was deleted from its batches"), "{}", found(6, 3));
    assert!(found(7, 0).ends_with(": 3 rows were deleted from its batches"), "{}", found(7, 0));
}
