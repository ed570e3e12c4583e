//! The judge of crash tests, before the court: it finds each kind of violation, and nothing where all is well.

use crate::rig::crash::{Account, Dead, Found, Violation, judge};

/// Two tenants with four events each, of which the first three are acknowledged.
fn account() -> Account {
    let mut account = Account::default();
    for tenant in ["acme", "zen"] {
        for n in 0..4 {
            account.send(tenant, payload(tenant, n));
        }
        account.acknowledge_up_to(tenant, 2);
    }
    account.malformed.push(b"no JSON".to_vec());
    account
}

fn payload(tenant: &str, n: usize) -> String {
    format!("{{\"tenant\":\"{tenant}\",\"n\":{n}}}")
}

/// Events of acme by their numbers, and all that zen was acknowledged.
fn stored(acme: &[usize]) -> Found {
    let bodies = |tenant: &str, numbers: &[usize]| {
        let bodies = numbers.iter().map(|n| payload(tenant, *n).into_bytes()).collect();
        (tenant.to_owned(), bodies)
    };
    Found { stored: [bodies("acme", acme), bodies("zen", &[0, 1, 2])].into(), dead: vec![] }
}

fn dead(tenant: Option<&str>, is_event: bool, body: &str) -> Dead {
    Dead { tenant: tenant.map(str::to_owned), is_event, body: body.as_bytes().to_vec() }
}

fn acme() -> String {
    "acme".to_owned()
}

#[test]
fn nothing_is_wrong_where_what_was_acknowledged_is_there_once_and_in_order() {
    assert_eq!(judge(&account(), &stored(&[0, 1, 2])), []);
    assert_eq!(judge(&account(), &stored(&[0, 1, 2, 3])), [], "what was not acknowledged may be there");
    let mut dead_letter = stored(&[0, 2]);
    dead_letter.dead.push(dead(Some("acme"), true, &payload("acme", 1)));
    assert_eq!(judge(&account(), &dead_letter), [], "a dead letter is an outcome");
    let mut gap = account();
    gap.acknowledged.get_mut("acme").unwrap().remove(&1);
    assert_eq!(judge(&gap, &stored(&[0, 2])), [], "what was not acknowledged may be missing");
    assert_eq!(judge(&Account::default(), &Found::default()), []);
}

#[test]
fn frames_that_were_refused_may_be_there_whole_or_torn() {
    let mut found = stored(&[0, 1, 2]);
    found.dead = vec![dead(None, false, "no JSON"), dead(None, false, &payload("acme", 3)[..9])];
    assert_eq!(judge(&account(), &found), []);
    found.dead = vec![dead(None, true, "no JSON"), dead(Some("acme"), true, &payload("acme", 3)[..9])];
    assert_eq!(judge(&account(), &found).len(), 2, "an event that was accepted is not torn");
}

#[test]
fn an_acknowledged_event_that_is_nowhere_is_lost() {
    for (there, lost) in [(&[0, 1][..], 2), (&[0, 2], 1), (&[1, 2, 3], 0)] {
        assert_eq!(judge(&account(), &stored(there)), [Violation::Lost { tenant: acme(), number: lost }]);
    }
    let mut none = stored(&[]);
    none.stored.clear();
    assert_eq!(judge(&account(), &none).len(), 6, "a store that is empty has lost everything");
    let mut torn = stored(&[0, 1]);
    torn.dead.push(dead(None, false, &payload("acme", 2)[..9]));
    assert_eq!(judge(&account(), &torn), [Violation::Lost { tenant: acme(), number: 2 }], "half of it is not it");
}

#[test]
fn a_frame_that_was_answered_and_is_no_dead_letter_is_lost() {
    let mut account = account();
    account.answered.insert(b"no JSON".to_vec());
    let mut found = stored(&[0, 1, 2]);
    assert_eq!(judge(&account, &found), [Violation::LostFrame { body: "no JSON".to_owned() }]);
    found.dead = vec![dead(None, false, "no JSON"); 2];
    assert_eq!(judge(&account, &found), [], "sent again after a crash it may be there twice");
}

#[test]
fn an_event_with_two_outcomes_is_doubled() {
    let doubled = |number, times| Violation::Doubled { tenant: acme(), number, times };
    assert_eq!(judge(&account(), &stored(&[0, 1, 1, 2])), [doubled(1, 2)]);
    assert_eq!(judge(&account(), &stored(&[0, 1, 2, 3, 3, 3])), [doubled(3, 3)], "acknowledged or not");
    let mut both = stored(&[0, 1, 2]);
    both.dead.push(dead(Some("acme"), true, &payload("acme", 2)));
    assert_eq!(judge(&account(), &both), [doubled(2, 2)]);
    let mut letters = stored(&[0, 1]);
    letters.dead = vec![dead(Some("acme"), true, &payload("acme", 2)); 2];
    assert_eq!(judge(&account(), &letters), [doubled(2, 2)]);
    // A batch that was stored again, as a whole, behind the first.
    let again = judge(&account(), &stored(&[0, 1, 2, 0, 1, 2]));
    assert!([0, 1, 2].iter().all(|number| again.contains(&doubled(*number, 2))), "{again:?}");
}

#[test]
fn an_event_behind_a_later_one_is_out_of_order() {
    let behind = |number, behind| Violation::OutOfOrder { tenant: acme(), number, behind };
    assert_eq!(judge(&account(), &stored(&[0, 2, 1])), [behind(1, 2)]);
    assert_eq!(judge(&account(), &stored(&[2, 0, 1])), [behind(0, 2), behind(1, 2)]);
}

#[test]
fn an_event_with_another_tenant_is_misplaced() {
    let mut found = stored(&[0, 1]);
    found.stored.get_mut("zen").unwrap().push(payload("acme", 2).into_bytes());
    let misplaced = |found_with: Option<&str>| {
        [Violation::Misplaced { tenant: acme(), number: 2, found_with: found_with.map(str::to_owned) }]
    };
    assert_eq!(judge(&account(), &found), misplaced(Some("zen")));
    for tenant in [Some("zen"), None] {
        let mut letter = stored(&[0, 1]);
        letter.dead.push(dead(tenant, true, &payload("acme", 2)));
        assert_eq!(judge(&account(), &letter), misplaced(tenant));
    }
}

#[test]
fn what_nobody_sent_is_told_wherever_it_is() {
    let mut found = stored(&[0, 1, 2]);
    found.stored.get_mut("acme").unwrap().push(b"forged".to_vec());
    found.stored.insert("ghost".to_owned(), vec![payload("acme", 9).into_bytes()]);
    found.dead = vec![dead(None, false, "neither"), dead(Some("acme"), true, "nor")];
    let told: Vec<_> = judge(&account(), &found)
        .into_iter()
        .map(|violation| match violation {
            Violation::NeverSent { tenant, body } => (tenant.unwrap_or_default(), body),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [("acme", "forged"), ("ghost", &payload("acme", 9)), ("", "neither"), ("acme", "nor")];
    assert_eq!(told, expected.map(|(tenant, body)| (tenant.to_owned(), body.to_owned())));
}

#[test]
#[should_panic(expected = "nobody can judge this")]
fn two_events_with_one_payload_cannot_be_judged() {
    let mut account = account();
    account.send("acme", payload("acme", 0));
    judge(&account, &Found::default());
}

#[test]
#[should_panic(expected = "never sent")]
fn an_acknowledgement_of_what_was_never_sent_is_a_mistake_of_the_test() {
    let mut account = account();
    account.acknowledge_up_to("acme", 4);
    judge(&account, &Found::default());
}
