//! A frame, made of the state alone.

use console::truncate_str;
use headworks::supervisor_log::{LogEntry, sentence};
use headworks::text::{ago, inert, moment};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap};

use super::super::explain;
use super::state::{Column, State, Totals};

/// So many lines of the screen are the log's at the least, where there is room for all.
const LOG: u16 = 6;

/// Below this nothing could be told from anything.
const LEAST: (u16, u16) = (32, 8);
/// From here on everything has its place.
const WIDE: u16 = 74;

const HELP: &[&str] = &[
    "",
    "  up, down, j, k   select a tenant; with PgUp, PgDn, Home, End",
    "  Enter            all about the tenant: window, batch, retries",
    "  Esc              back; ends a filter",
    "  /                show only tenants whose id or state has ...",
    "  s, r             sort by the next column; turn the order round",
    "  ?                this help",
    "  q, Ctrl-C        leave",
    "",
];

/// The same where there is little room.
const SHORT_HELP: &[&str] = &[
    "q Ctrl-C  leave",
    "j k       select a tenant",
    "Enter     all about it",
    "Esc       back; ends a filter",
    "/         only tenants with ...",
    "s r       sort; turn it round",
];

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let Rect { width, height, .. } = frame.area();
    if width < LEAST.0 || height < LEAST.1 {
        let words = format!("{width}x{height} is too small: headworks top needs {}x{}", LEAST.0, LEAST.1);
        return frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), frame.area());
    }
    // The tenants come first: the log has what is left.
    let is_low = height < 16;
    let [head, middle, log, foot] = Layout::vertical([
        Constraint::Length(if is_low { 2 } else { 3 }),
        Constraint::Min(5),
        Constraint::Length(match height {
            ..16 => 0,
            16..20 => 4,
            _ => LOG.max(height / 4),
        }),
        // What is wrong may need more.
        Constraint::Length(if !is_low && (state.gone.is_some() || state.trouble.is_some()) { 2 } else { 1 }),
    ])
    .areas(frame.area());
    totals(frame, state, head);
    match state.opened() {
        Some(tenant) => view(frame, state, tenant, middle),
        None => table(frame, state, middle),
    }
    entries(frame, state, log);
    footer(frame, state, foot);
    if state.has_help {
        help(frame, if is_low || width < WIDE { frame.area() } else { middle });
    }
}

fn colour(state: &State, colour: Color) -> Style {
    if state.has_colours { Style::new().fg(colour) } else { Style::new() }
}

fn alarming(state: &State, word: &'static str) -> Span<'static> {
    Span::styled(word, colour(state, Color::Red).add_modifier(Modifier::BOLD))
}

/// The colour of a state, which never says more than its word.
fn of_status(state: &State, status: &str) -> Style {
    let (of, bold) = match status {
        "active" => (Color::Green, false),
        "idle" | "dormant" | "unknown" => (Color::DarkGray, false),
        "retrying" | "parked" | "breaker_open" | "compensating" | "restarting" | "silent" | "muted" => {
            (Color::Yellow, false)
        }
        _ => (Color::Red, true),
    };
    let style = colour(state, of);
    if bold { style.add_modifier(Modifier::BOLD) } else { style }
}

fn totals(frame: &mut Frame<'_>, state: &State, area: Rect) {
    if area.width < WIDE {
        return few_totals(frame, state, area);
    }
    let [words, chart] = Layout::horizontal([Constraint::Min(64), Constraint::Percentage(20)]).areas(area);
    let Totals { received_per_second, stored_per_second, in_flight, stored, dead_lettered, .. } = &state.totals;
    let Totals { malformed, attempts_failed, restarts, uncompensated, oldest_at, .. } = &state.totals;
    let standing = standing(state);
    let first = Text::from(vec![
        "headworks ".into(),
        standing,
        format!("  in {received_per_second}/s  stored {stored_per_second}/s  in flight {in_flight}").into(),
    ]);
    let second = format!("stored {stored}  dead letters {} (malformed {malformed})", dead_lettered + malformed);
    let oldest = oldest_at.map_or(String::new(), |at| format!("  oldest {}", ago(at, state.at)));
    let owed = if *uncompensated > 0 { format!("  NOT UNDONE {uncompensated}") } else { String::new() };
    let third = format!("failed attempts {attempts_failed}  restarts {restarts}{owed}{oldest}");
    frame.render_widget(Paragraph::new(vec![first, second.into(), third.into()]), words);
    // The newest to the right, as many as there is room for.
    let room = usize::from(chart.width);
    let rates: Vec<u64> = state.rates.iter().skip(state.rates.len().saturating_sub(room)).copied().collect();
    frame.render_widget(Sparkline::default().data(&rates).style(colour(state, Color::Cyan)), chart);
}

/// Whether the daemon does its work: what `headworks ready` says.
fn standing(state: &State) -> Span<'static> {
    match &state.gone {
        Some(_) => alarming(state, "GONE"),
        None if state.trouble.is_some() => alarming(state, "NOT READY"),
        None => Span::styled("up", colour(state, Color::Green)),
    }
}

/// What counts most, where there is room for no more.
fn few_totals(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let Totals { received_per_second, stored_per_second, in_flight, dead_lettered, .. } = &state.totals;
    let Totals { malformed, uncompensated, oldest_at, .. } = &state.totals;
    let first = vec![standing(state), format!("  in {received_per_second}/s  stored {stored_per_second}/s").into()];
    let second = format!("in flight {in_flight}  dead letters {}", dead_lettered + malformed);
    let owed = if *uncompensated > 0 { format!("NOT UNDONE {uncompensated}  ") } else { String::new() };
    let third = oldest_at.map_or(owed.clone(), |at| format!("{owed}oldest {}", ago(at, state.at)));
    frame.render_widget(Paragraph::new(vec![first.into(), Text::from(second), third.into()]), area);
}

fn table(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let lines = state.lines();
    let sort = state.sort.unwrap_or(Column::Tenant);
    let names = ["tenant", "state", "in/s", "stored/s", "in flight", "dead", "failed"];
    // On a narrow screen those that say most.
    let has = |column: &Column| {
        area.width >= WIDE || matches!(column, Column::Tenant | Column::State | Column::In | Column::Dead)
    };
    let header = Column::ALL.iter().zip(names).filter(|(column, _)| has(column)).map(|(column, name)| {
        let mark = match (*column == sort, state.is_reversed) {
            (false, _) => "",
            (true, false) => "*",
            (true, true) => "^",
        };
        let style = if *column == sort { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::BOLD };
        let name = format!("{name}{mark}");
        let text = if matches!(column, Column::Tenant | Column::State) {
            Text::from(name)
        } else {
            Text::from(name).right_aligned()
        };
        Cell::from(text).style(Style::new().add_modifier(style))
    });
    // There may be very many: only those in sight are made, the selected one among them.
    let (selected, room) = (state.selected(&lines), usize::from(area.height.saturating_sub(2)).max(1));
    let from = selected.map_or(0, |selected| (selected + 1).saturating_sub(room));
    let number = |number: u64| Cell::from(Text::from(number.to_string()).right_aligned());
    let rows = lines.iter().skip(from).take(room).map(|line| {
        let cells = [
            Cell::from(inert(&line.tenant).into_owned()),
            Cell::from(line.status.replace('_', " ")).style(of_status(state, &line.status)),
            number(line.received_per_second),
            number(line.stored_per_second),
            number(line.in_flight),
            number(line.dead_lettered),
            number(line.attempts_failed),
        ];
        Row::new(Column::ALL.iter().zip(cells).filter(|(column, _)| has(column)).map(|(_, cell)| cell))
    });
    let widths = [
        Constraint::Min(14),
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let is_narrow = area.width < WIDE;
    let widths = Column::ALL.iter().zip(widths).filter(|(column, _)| has(column)).map(|(column, width)| match column {
        Column::Tenant if is_narrow => Constraint::Min(8),
        Column::In | Column::Dead if is_narrow => Constraint::Length(6),
        _ => width,
    });
    let title = if state.filter.is_empty() && !state.is_typing {
        format!(" {} tenants ", lines.len())
    } else {
        let cursor = if state.is_typing { "_" } else { "" };
        format!(" {} tenants with /{}{cursor} ", lines.len(), inert(&state.filter))
    };
    let mut selected = TableState::new().with_selected(selected.map(|selected| selected - from));
    let table = Table::new(rows, widths)
        .header(Row::new(header))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP).title(title));
    frame.render_stateful_widget(table, area, &mut selected);
}

/// All about one tenant, in the words of `headworks explain`.
fn view(frame: &mut Frame<'_>, state: &State, tenant: &str, area: Rect) {
    let block = Block::new().borders(Borders::TOP).title(format!(" {} (Esc: back) ", inert(tenant)));
    let told = match &state.explained {
        Some(explained) => explain::render(explained, usize::from(area.width)),
        None => "asking ...".to_owned(),
    };
    let lines: Vec<_> = told.lines().map(|line| Text::from(line.to_owned())).collect();
    // The last line stays in sight.
    let scroll = state.scroll.min(u16::try_from(lines.len().saturating_sub(1)).unwrap_or(u16::MAX));
    frame.render_widget(Paragraph::new(lines).scroll((scroll, 0)).block(block), area);
}

/// Of each entry a line: the view of a tenant and `headworks log` have the rest.
fn entries(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let (width, room) = (usize::from(area.width), usize::from(area.height.saturating_sub(1)));
    let of = |entry: &&LogEntry| state.opened().is_none_or(|opened| entry.tenant.as_deref() == Some(opened));
    let line = |entry: &LogEntry| {
        let tenant = entry.tenant.as_deref().filter(|_| state.opened().is_none());
        let tenant = tenant.map_or(String::new(), |tenant| format!("{tenant}: "));
        let (at, what) = (moment(entry.at, state.at), entry.what.replace('_', " "));
        let text = format!("{at:12} {what:13} {tenant}{}", sentence(entry, state.at, None));
        Text::from(truncate_str(&inert(&text), width, "…").into_owned())
    };
    // The newest last.
    let mut newest: Vec<_> = state.log.iter().rev().filter(of).take(room).map(line).collect();
    newest.reverse();
    frame.render_widget(Paragraph::new(newest).block(Block::new().borders(Borders::TOP).title(" log ")), area);
}

fn footer(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let line = match (&state.gone, &state.trouble) {
        (Some(why), _) => Text::styled(format!("(trying again) {}", inert(why)), colour(state, Color::Red)),
        (None, Some(trouble)) => Text::styled(inert(trouble).into_owned(), colour(state, Color::Red)),
        (None, None) if area.width < WIDE => Text::from("? help  / filter  s sort  q quit"),
        (None, None) => Text::from("? help  / filter  s sort  r reverse  Enter one tenant  q quit"),
    };
    frame.render_widget(Paragraph::new(line).wrap(Wrap { trim: true }), area);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let told = if area.width < WIDE { SHORT_HELP } else { HELP };
    let height = u16::try_from(told.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let width = 70.min(area.width);
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y, width, height };
    frame.render_widget(Clear, place);
    let lines: Vec<_> = told.iter().map(|line| Text::from(*line)).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" help ")), place);
}
