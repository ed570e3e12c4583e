//! What somebody is to do about a tenant, if anything: for the operator who has not read the docs.

use super::Explanation;
use crate::text::count;

/// A sentence for each thing, the most pressing first; none where nothing is wrong.
pub(super) fn of(told: &Explanation) -> Vec<String> {
    let tenant = &told.tenant;
    let lately = |code: &str| told.failures.iter().any(|failure| failure.code == code && failure.last_minute > 0);
    let mut advice = vec![];
    let mut say = |is_so: bool, what: String| advice.extend(is_so.then_some(what));
    let status = told.status.as_str();
    say(
        told.journal_trouble.is_some(),
        "mend what the journal lacks (room on the disk, or journal.max_bytes); all tenants go on by themselves then"
            .to_owned(),
    );
    say(status == "stopped", format!("`headworks tenants resume {tenant}` lets it go on"));
    say(
        matches!(status, "quarantined" | "restarting"),
        format!(
            "mend what the last failure names; its actors start again by themselves, or at once with `headworks tenants resume {tenant}`"
        ),
    );
    say(
        status == "parked",
        "bring the store back, as the cause says; it is asked again by itself, and nothing is lost or given up meanwhile".to_owned(),
    );
    say(
        status == "breaker_open",
        "mend the store, as the cause says; it is tried again by itself, and nothing is given up meanwhile".to_owned(),
    );
    say(
        status == "retrying",
        "mend the store, as the cause says, before the attempts are spent; it is tried again by itself".to_owned(),
    );
    say(
        status == "failing" && told.letters_waiting.is_none(),
        format!(
            "mend what its events are given up for: `headworks dead-letters list --tenant {tenant}` says why, and has those that are kept"
        ),
    );
    say(
        matches!(status, "stalled" | "hung"),
        format!("`headworks log --tenant {tenant} --what stalled,hung` says what its batches wait for"),
    );
    say(
        told.is_muted,
        format!("`headworks tenants unmute {tenant}` lets its events in again; those that were dropped are gone"),
    );
    say(
        lately("throttled"),
        format!(
            "it sends more than its rate: have it send less, or `headworks tenants set {tenant} throttle.events_per_second=N`, or `throttle.bytes_per_second`"
        ),
    );
    say(
        lately("tenant_full"),
        "its memory is full and its events are refused: look why its batches wait, or raise overflow.max_in_flight"
            .to_owned(),
    );
    say(
        !told.uncompensated.is_empty(),
        format!(
            "a store may hold events that were given up: `headworks uncompensated --tenant {tenant}` has them; what failed is tried again by itself"
        ),
    );
    if let Some(letters @ 1..) = told.letters_waiting {
        let (letters, them) = (count(letters, "dead letter"), if letters == 1 { "it" } else { "them" });
        say(
            true,
            format!(
                "mend what refused its {letters} (`headworks dead-letters list --tenant {tenant}` says why), then bring {them} back: `headworks dead-letters replay --tenant {tenant}`"
            ),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::super::ExplainedFailure;
    use super::*;

    fn told(status: &str) -> Explanation {
        Explanation { tenant: "acme".into(), status: status.into(), is_live: true, ..Explanation::default() }
    }

    #[test]
    fn nothing_is_to_be_done_about_a_tenant_whose_events_move() {
        for status in ["active", "idle", "dormant", "unknown", "compensating"] {
            assert_eq!(of(&told(status)), [""; 0], "{status}");
        }
        let past = ExplainedFailure { code: "throttled".into(), failures: 9, ..ExplainedFailure::default() };
        assert_eq!(of(&Explanation { failures: vec![past], letters_waiting: Some(0), ..told("active") }), [""; 0]);
    }

    #[test]
    fn what_holds_everybody_up_comes_first() {
        let journal_trouble = Some("it cannot be written: no space".to_owned());
        let advice = of(&Explanation { journal_trouble, is_muted: true, ..told("active") });
        assert!(
            advice.len() == 2 && advice[0].starts_with("mend what the journal lacks (room on the disk"),
            "{advice:?}"
        );
    }

    #[test]
    fn each_trouble_has_its_way_out_of_it() {
        for (status, says) in [
            ("stopped", "`headworks tenants resume acme`"),
            ("quarantined", "or at once with `headworks tenants resume acme`"),
            ("parked", "nothing is lost or given up meanwhile"),
            ("breaker_open", "nothing is given up meanwhile"),
            ("retrying", "before the attempts are spent"),
            ("failing", "`headworks dead-letters list --tenant acme` says why"),
            ("stalled", "`headworks log --tenant acme --what stalled,hung`"),
        ] {
            let advice = of(&told(status));
            assert!(advice.len() == 1 && advice[0].contains(says), "{status}: {advice:?}");
        }
        let letters = of(&Explanation { letters_waiting: Some(1), ..told("active") });
        assert!(
            letters[0].contains("its 1 dead letter (") && letters[0].contains("then bring it back: "),
            "{letters:?}"
        );
        let lately = ExplainedFailure { code: "throttled".into(), last_minute: 1, ..ExplainedFailure::default() };
        let both = of(&Explanation { is_muted: true, failures: vec![lately], ..told("stopped") });
        assert!(both.len() == 3 && both[1].contains("tenants unmute acme") && both[2].contains("its rate"), "{both:?}");
    }
}
