use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use headworks::UnixMillis;
use headworks::admin::Explanation;
use headworks::supervisor_log::LogEntry;
use serde::{Deserialize, Serialize};

/// So many seconds of rates are kept.
const RATES: usize = 120;

/// A tenant as the daemon tells of it: a list of these, in the order of [`OVERVIEW_COLUMNS`](headworks::admin::OVERVIEW_COLUMNS).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    pub(super) tenant: String,
    pub(super) status: String,
    pub(super) is_muted: bool,
    pub(super) received: u64,
    pub(super) _accepted: u64,
    pub(super) stored: u64,
    pub(super) dead_lettered: u64,
    pub(super) _refused: u64,
    pub(super) _malformed: u64,
    pub(super) in_flight: u64,
    pub(super) _oldest_at: Option<i64>,
    pub(super) attempts_failed: u64,
    pub(super) restarts: u64,
    pub(super) _uncompensated: u64,
}

/// All tenants together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) tenants: u64,
    pub(super) received: u64,
    #[serde(skip_deserializing)]
    pub(super) received_per_second: u64,
    #[serde(skip_deserializing)]
    pub(super) stored_per_second: u64,
    pub(super) in_flight: u64,
    pub(super) stored: u64,
    pub(super) dead_lettered: u64,
    pub(super) attempts_failed: u64,
    pub(super) restarts: u64,
    pub(super) uncompensated: u64,
    /// Frames of all sources that were no events.
    pub(super) malformed: u64,
    /// When the oldest event without an outcome arrived, in milliseconds since 1970.
    pub(super) oldest_at: Option<UnixMillis>,
}

/// The daemon at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) at: UnixMillis,
    /// Since the first question: for rates, which the wall clock is no measure of.
    pub(super) since: Duration,
    /// Which start of the daemon this is: with another, counters may begin anew.
    pub(super) opening: String,
    /// Who holds its thread, or what of it does not run.
    pub(super) trouble: Option<String>,
    pub(super) totals: Totals,
    pub(super) tenants: Vec<Row>,
    pub(super) log: Vec<LogEntry>,
    pub(super) explained: Option<Explanation>,
}

/// A line of the table; rates are per second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) tenant: String,
    /// As the daemon says; a muted one's is `muted`.
    pub(super) status: String,
    pub(super) received_per_second: u64,
    pub(super) stored_per_second: u64,
    pub(super) in_flight: u64,
    pub(super) stored: u64,
    pub(super) dead_lettered: u64,
    pub(super) attempts_failed: u64,
    pub(super) restarts: u64,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    at: String,
    trouble: Option<&'a str>,
    totals: &'a Totals,
    tenants: Vec<&'a Line>,
    log: &'a [LogEntry],
}

/// A column to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Tenant,
    State,
    In,
    Stored,
    InFlight,
    Dead,
    Failed,
}

impl Column {
    pub(super) const ALL: [Self; 7] =
        [Self::Tenant, Self::State, Self::In, Self::Stored, Self::InFlight, Self::Dead, Self::Failed];
}

/// A key, as far as it means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    /// So many lines down.
    Move(isize),
    Enter,
    Escape,
    Backspace,
}

/// What follows from a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Draw,
    /// The daemon is to be asked at once.
    Ask,
    Quit,
}

/// What is known, and what somebody has chosen to see.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) has_colours: bool,
    pub(super) at: UnixMillis,
    since: Option<Duration>,
    opening: String,
    before: HashMap<String, (u64, u64)>,
    lines: Vec<Line>,
    pub(super) totals: Totals,
    pub(super) trouble: Option<String>,
    /// Frames received a second, the newest last.
    pub(super) rates: VecDeque<u64>,
    pub(super) log: Vec<LogEntry>,
    pub(super) explained: Option<Explanation>,
    /// Why nothing is told, where nothing is.
    pub(super) gone: Option<String>,
    pub(super) sort: Option<Column>,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) has_help: bool,
    selected: Option<String>,
    opened: Option<String>,
    /// How far the opened tenant's view is scrolled.
    pub(super) scroll: u16,
}

impl State {
    pub(super) fn new(has_colours: bool) -> Self {
        Self { has_colours, ..Self::default() }
    }

    /// The daemon answered, or did not: then what it said last stays.
    pub(super) fn told(&mut self, told: Result<Look, String>) {
        let look = match told {
            Ok(look) => look,
            Err(why) => {
                // Rates over its absence would say nothing.
                (self.gone, self.since) = (Some(why), None);
                return;
            }
        };
        let since = self.since.filter(|_| self.opening == look.opening);
        let apart = since.and_then(|since| look.since.checked_sub(since)).filter(|apart| !apart.is_zero());
        let rate = |now: u64, then: u64| {
            let millis = apart.map_or(0, |apart| apart.as_millis().max(1));
            let events = u128::from(now.saturating_sub(then)) * 1_000;
            events.checked_div(millis).and_then(|rate| u64::try_from(rate).ok()).unwrap_or(0)
        };
        let mut before = HashMap::with_capacity(look.tenants.len());
        let line = |row: Row| {
            let Row { tenant, status, is_muted, received, stored, in_flight, .. } = row;
            let Row { dead_lettered, attempts_failed, restarts, .. } = row;
            // One that is new has sent all of it since the last look.
            let then = self.before.get(&tenant).copied().unwrap_or_default();
            before.insert(tenant.clone(), (received, stored));
            Line {
                tenant,
                status: if is_muted { "muted".to_owned() } else { status },
                received_per_second: rate(received, then.0),
                stored_per_second: rate(stored, then.1),
                in_flight,
                stored,
                dead_lettered,
                attempts_failed,
                restarts,
            }
        };
        self.lines = look.tenants.into_iter().map(line).collect();
        let (received, stored) = (self.totals.received, self.totals.stored);
        self.totals = Totals {
            received_per_second: rate(look.totals.received, received),
            stored_per_second: rate(look.totals.stored, stored),
            ..look.totals
        };
        if apart.is_some() {
            self.rates.push_back(self.totals.received_per_second);
            self.rates.drain(..self.rates.len().saturating_sub(RATES));
        }
        self.explained = look.explained.filter(|explained| Some(&explained.tenant) == self.opened.as_ref());
        (self.at, self.since, self.before) = (look.at, Some(look.since), before);
        (self.opening, self.trouble) = (look.opening, look.trouble);
        (self.log, self.gone) = (look.log, None);
    }

    /// The lines of the table that are asked for, in order.
    pub(super) fn lines(&self) -> Vec<&Line> {
        let has = |line: &&Line| line.tenant.contains(&self.filter) || line.status.contains(&self.filter);
        let mut lines: Vec<_> = self.lines.iter().filter(has).collect();
        lines.sort_by(|a, b| {
            // Numbers: the largest first.
            let order = match self.sort.unwrap_or(Column::Tenant) {
                Column::Tenant => std::cmp::Ordering::Equal,
                Column::State => a.status.cmp(&b.status),
                Column::In => b.received_per_second.cmp(&a.received_per_second),
                Column::Stored => b.stored_per_second.cmp(&a.stored_per_second),
                Column::InFlight => b.in_flight.cmp(&a.in_flight),
                Column::Dead => b.dead_lettered.cmp(&a.dead_lettered),
                Column::Failed => b.attempts_failed.cmp(&a.attempts_failed),
            };
            order.then_with(|| a.tenant.cmp(&b.tenant))
        });
        if self.is_reversed {
            lines.reverse();
        }
        lines
    }

    /// Which of [`lines`](Self::lines) is selected.
    pub(super) fn selected(&self, lines: &[&Line]) -> Option<usize> {
        let at = lines.iter().position(|line| Some(&line.tenant) == self.selected.as_ref());
        at.or_else(|| (!lines.is_empty()).then_some(0))
    }

    /// The tenant whose view is open.
    pub(super) fn opened(&self) -> Option<&str> {
        self.opened.as_deref()
    }

    pub(super) fn document(&self) -> Document<'_> {
        let (at, trouble) = (self.at.to_string(), self.trouble.as_deref());
        Document { at, trouble, totals: &self.totals, tenants: self.lines(), log: &self.log }
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: Key) -> Next {
        if self.is_typing {
            match key {
                Key::Char(c) => self.filter.push(c),
                Key::Backspace => _ = self.filter.pop(),
                Key::Enter => self.is_typing = false,
                Key::Escape => (self.is_typing, self.filter) = (false, String::new()),
                Key::Move(by) => self.go(by),
            }
            return Next::Draw;
        }
        if self.has_help && key != Key::Char('q') {
            self.has_help = false;
            return Next::Draw;
        }
        match key {
            Key::Char('q') => return Next::Quit,
            Key::Char('?') => self.has_help = true,
            Key::Char('/') if self.opened.is_none() => self.is_typing = true,
            Key::Char('s') => {
                let at = Column::ALL.iter().position(|column| *column == self.sort.unwrap_or(Column::Tenant));
                self.sort = at.map(|at| Column::ALL[(at + 1) % Column::ALL.len()]);
            }
            Key::Char('r') => self.is_reversed = !self.is_reversed,
            Key::Char('k') => self.go(-1),
            Key::Char('j') => self.go(1),
            Key::Move(by) => self.go(by),
            Key::Enter if self.opened.is_none() => {
                let lines = self.lines();
                let tenant = self.selected(&lines).map(|at| lines[at].tenant.clone());
                (self.opened, self.explained, self.scroll) = (tenant, None, 0);
                return Next::Ask;
            }
            Key::Escape | Key::Backspace if self.opened.is_some() => {
                (self.opened, self.explained) = (None, None);
                return Next::Ask;
            }
            Key::Escape => self.filter.clear(),
            Key::Char(_) | Key::Enter | Key::Backspace => {}
        }
        Next::Draw
    }

    fn go(&mut self, by: isize) {
        if self.opened.is_some() {
            let by = i16::try_from(by.clamp(-1_000, 1_000)).unwrap_or(0);
            self.scroll = self.scroll.saturating_add_signed(by).min(1_000);
            return;
        }
        let lines = self.lines();
        if let Some(at) = self.selected(&lines) {
            let to = at.saturating_add_signed(by).min(lines.len() - 1);
            self.selected = Some(lines[to].tenant.clone());
        }
    }
}
