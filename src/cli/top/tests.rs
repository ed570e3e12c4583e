use headworks::UnixMillis;
use headworks::supervisor_log::{LogCause, LogEntry};

use super::state::{Live, Look, Row};
use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn row(tenant: &str, status: &str, received: u64) -> Row {
    let live = Live {
        status: status.to_owned(),
        received,
        stored: received / 2,
        in_flight: received - received / 2,
        ..Live::default()
    };
    Row { tenant: Some(tenant.to_owned()), live: Some(live) }
}

fn look(second: u64, tenants: Vec<Row>) -> Result<Look, String> {
    let cause = LogCause { code: "store_refused".to_owned(), detail: "no such table".to_owned() };
    let entry = LogEntry {
        at: NOW,
        tenant: Some("bolt".to_owned()),
        actor: "writer".to_owned(),
        what: "failed".to_owned(),
        cause: Some(cause),
        ..LogEntry::default()
    };
    Ok(Look { at: NOW, since: Duration::from_secs(second), tenants, log: vec![entry], explained: None })
}

/// Two looks, two seconds apart.
fn seen() -> State {
    let mut state = State::new(false);
    state.told(look(0, vec![row("acme", "active", 100), row("bolt", "retrying", 10), row("calm", "silent", 4)]));
    state.told(look(2, vec![row("acme", "active", 300), row("bolt", "retrying", 12), row("calm", "silent", 4)]));
    state
}

fn tenants(state: &State) -> Vec<&str> {
    state.lines().iter().map(|line| line.tenant.as_str()).collect()
}

fn press(state: &mut State, keys: &str) -> Next {
    keys.chars().map(|key| state.press(Key::Char(key))).last().unwrap()
}

#[test]
fn a_frame_of_80_by_24_shows_totals_tenants_log_and_keys() {
    let frame = text(&seen(), 80, 24);
    assert_eq!((frame.lines().count(), frame.lines().all(|line| line.chars().count() <= 80)), (24, true));
    let lines: Vec<_> = frame.lines().collect();
    assert!(lines[0].starts_with("headworks up  in 101/s  stored 50/s  in flight 158"), "{frame}");
    let line = |cells: [&str; 7]| {
        let [tenant, status, received, stored, in_flight, dead, failed] = cells;
        format!("{tenant:<19} {status:<12} {received:>8} {stored:>9} {in_flight:>10} {dead:>8} {failed:>8}")
    };
    assert_eq!(lines[4], line(["tenant*", "state", "in/s", "stored/s", "in flight", "dead", "failed"]), "{frame}");
    assert_eq!(lines[5], line(["acme", "active", "100", "50", "150", "0", "0"]), "{frame}");
    assert_eq!(lines[6], line(["bolt", "retrying", "1", "0", "6", "0", "0"]), "{frame}");
    assert_eq!(lines[7], line(["calm", "silent", "0", "0", "2", "0", "0"]), "{frame}");
    assert!(frame.contains("bolt: 22:13:20") && frame.contains("no such table"), "{frame}");
    assert!(lines[23].starts_with("? help"), "{frame}");
}

#[test]
fn tenants_are_sorted_by_column_turned_round_and_filtered() {
    let mut state = seen();
    press(&mut state, "ss");
    assert_eq!((state.sort, tenants(&state)), (Some(state::Column::In), vec!["acme", "bolt", "calm"]));
    press(&mut state, "r");
    assert_eq!(tenants(&state), ["calm", "bolt", "acme"]);
    press(&mut state, "/sil");
    assert_eq!(tenants(&state), ["calm"], "by state too");
    assert!(text(&state, 80, 24).contains("1 tenants with /sil_"));
    state.press(Key::Enter);
    assert_eq!(press(&mut state, "q"), Next::Quit);
    state.press(Key::Escape);
    assert_eq!(tenants(&state).len(), 3);
}

#[test]
fn a_letter_that_is_typed_into_a_filter_is_no_command() {
    let mut state = seen();
    assert_eq!(press(&mut state, "/q?s"), Next::Draw);
    assert_eq!((state.filter.as_str(), state.has_help, state.sort), ("q?s", false, None));
    assert!(tenants(&state).is_empty());
    assert_eq!(state.press(Key::Move(1)), Next::Draw, "nobody is there to select");
}

#[test]
fn enter_opens_the_selected_tenant_and_escape_leads_back() {
    let mut state = seen();
    state.press(Key::Move(1));
    assert_eq!((state.press(Key::Enter), state.opened()), (Next::Ask, Some("bolt")));
    assert!(text(&state, 80, 24).contains("asking"));
    let Ok(mut look) = look(3, vec![]) else { unreachable!() };
    look.explained = Some(headworks::admin::Explanation {
        tenant: "bolt".to_owned(),
        at: NOW,
        is_live: true,
        status: "retrying".to_owned(),
        ..headworks::admin::Explanation::default()
    });
    state.told(Ok(look));
    assert!(text(&state, 80, 24).contains("bolt: retrying, its store failed and is tried again"));
    assert_eq!((state.press(Key::Escape), state.opened()), (Next::Ask, None));
}

#[test]
fn a_daemon_that_is_gone_is_told_of_and_what_it_said_last_stays() {
    let mut state = seen();
    state.told(Err("no daemon runs on x\u{1b}[2J".to_owned()));
    let frame = text(&state, 80, 24);
    assert!(frame.starts_with("headworks GONE") && frame.contains("acme"), "{frame}");
    assert!(frame.contains("no daemon runs on x\\u{1b}[2J (trying again)"), "{frame}");
    state.told(look(100, vec![row("acme", "active", 0)]));
    let frame = text(&state, 80, 24);
    assert!(frame.starts_with("headworks up  in 0/s"), "a daemon that began anew has no rate yet: {frame}");
}

#[test]
fn help_is_shown_until_the_next_key() {
    let mut state = seen();
    press(&mut state, "?");
    assert!(text(&state, 80, 24).contains("sort by the next column"));
    press(&mut state, "j");
    assert!(!text(&state, 80, 24).contains("sort by the next column"));
}

#[test]
fn a_frame_of_any_size_is_drawn() {
    let mut state = seen();
    for keys in ["", "?", "x/ab"] {
        if !keys.is_empty() {
            press(&mut state, keys);
        }
        for (width, height) in [(1, 1), (3, 40), (20, 5), (80, 9), (300, 100)] {
            assert_eq!(text(&state, width, height).lines().count(), usize::from(height));
        }
    }
}

#[test]
fn as_json_it_is_what_the_frame_shows() {
    let document = serde_json::to_value(seen().document()).unwrap();
    assert_eq!(
        (&document["tenants"][0]["tenant"], &document["totals"]["received_per_second"]),
        (&"acme".into(), &101.into())
    );
    assert_eq!(document["tenants"][2]["status"], "silent");
}
