use headworks::UnixMillis;
use headworks::supervisor_log::{LogCause, LogEntry};

use super::state::{Look, Row, Totals};
use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn row(tenant: &str, status: &str, received: u64) -> Row {
    let (stored, none) = (received / 2, 0);
    let row = serde_json::json!([
        tenant,
        status,
        false,
        received,
        received,
        stored,
        none,
        none,
        none,
        received - stored,
        null,
        none,
        none,
        none
    ]);
    serde_json::from_value(row).unwrap()
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
    let sum = |of: fn(&Row) -> u64| tenants.iter().map(of).sum();
    let totals = Totals {
        received: sum(|row| row.received),
        stored: sum(|row| row.stored),
        in_flight: sum(|row| row.in_flight),
        ..Totals::default()
    };
    let (since, log) = (Duration::from_secs(second), vec![entry]);
    Ok(Look { at: NOW, since, opening: "1".to_owned(), trouble: None, totals, tenants, log, explained: None })
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
    assert!(frame.contains("\n22:13:20.000 failed        bolt: ") && frame.contains("no such table"), "{frame}");
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
    assert!(frame.contains("(trying again) no daemon runs on x\\u{1b}[2J"), "{frame}");
    state.told(look(100, vec![row("acme", "active", 5_000)]));
    let frame = text(&state, 80, 24);
    assert!(frame.starts_with("headworks up  in 0/s"), "what came meanwhile came at no rate: {frame}");
}

#[test]
fn a_daemon_that_began_anew_has_no_rate_yet() {
    let mut state = seen();
    let Ok(mut another) = look(3, vec![row("acme", "active", 9_000)]) else { unreachable!() };
    another.opening = "2".to_owned();
    state.told(Ok(another));
    assert!(text(&state, 80, 24).starts_with("headworks up  in 0/s  stored 0/s  in flight 4500"));
    assert_eq!(state.lines()[0].received_per_second, 0);
}

#[test]
fn what_is_wrong_with_the_whole_daemon_is_told_where_it_is_seen() {
    let mut state = seen();
    let Ok(mut bad) = look(3, vec![row("acme", "active", 300)]) else { unreachable!() };
    bad.trouble = Some("the actors are held by tenant/acme".to_owned());
    (bad.totals.uncompensated, bad.totals.oldest_at) = (2, Some(UnixMillis(NOW.0 - 90_000)));
    state.told(Ok(bad));
    let frame = text(&state, 80, 24);
    assert!(frame.starts_with("headworks NOT READY  in 0/s"), "{frame}");
    assert!(frame.contains("oldest 90 s ago") && frame.contains("NOT UNDONE 2"), "{frame}");
    assert!(frame.lines().nth(22).unwrap().starts_with("the actors are held by tenant/acme"), "{frame}");
}

#[test]
fn of_ten_thousand_tenants_the_selected_one_is_in_sight() {
    let mut state = State::new(false);
    state.told(look(0, (0..10_000).map(|n| row(&format!("tenant-{n:05}"), "idle", n)).collect()));
    assert!(text(&state, 80, 24).contains(" 10000 tenants "));
    state.press(Key::Move(isize::MAX));
    let frame = text(&state, 80, 24);
    assert!(frame.contains("tenant-09999") && !frame.contains("tenant-00000"), "{frame}");
    state.press(Key::Move(-5_000));
    assert!(text(&state, 80, 24).contains("tenant-04999"));
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

#[test]
fn a_small_terminal_shows_what_counts_most_and_one_that_is_too_small_says_so() {
    let mut state = seen();
    let frame = text(&state, 40, 10);
    let expected = "\
up  in 101/s  stored 50/s
in flight 158  dead letters 0
 3 tenants ─────────────────────────────
tenant*       state          in/s   dead
acme          active          100      0
bolt          retrying          1      0
calm          silent            0      0


? help  / filter  s sort  q quit
";
    assert_eq!(frame, expected, "{frame}");
    let frame = text(&state, 40, 18);
    assert!(frame.contains(" log ") && frame.contains("acme"), "{frame}");
    press(&mut state, "?");
    let frame = text(&state, 32, 8);
    assert!(frame.contains("q Ctrl-C  leave") && frame.contains("s r       sort; turn it round"), "{frame}");
    press(&mut state, "?");
    for (width, height) in [(31, 24), (80, 7)] {
        let told = text(&state, width, height).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(told, format!("{width}x{height} is too small: headworks top needs 32x8"));
    }
}
