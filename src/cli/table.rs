//! What commands print: a table for eyes, one JSON document for machines. Whatever the values hold, neither can move the
//! cursor, change a colour or turn the reading direction of the terminal that shows it.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
pub(crate) use headworks::text::inert;
use headworks::text::{is_hostile, wrap};
use serde::Serialize;

/// The last column has at least so many columns of the screen, however wide the others are.
const LEAST: usize = 20;
/// So many columns of the screen where there is no screen: in a pipe, in a file.
const NO_SCREEN: usize = 80;
/// The gap between columns.
const GAP: u16 = 2;

/// A table in the making.
pub(crate) struct Rows {
    header: Vec<&'static str>,
    numbers: Vec<bool>,
    rows: Vec<Vec<String>>,
}

/// What a table may do without where the screen is narrow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Narrow<'n> {
    /// Shorter names of columns.
    pub(crate) names: &'n [(&'static str, &'static str)],
    /// Columns that are left out, the first one first; where they say nothing but nothing, before any other.
    pub(crate) spare: &'n [&'n str],
    /// Columns whose values are shortened, down to so many columns of the screen.
    pub(crate) long: &'n [(&'n str, usize)],
}

impl Rows {
    /// An empty table. A name that begins with `#` is that of a column of numbers, which stand to the right.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        let name = |name: &&'static str| name.strip_prefix('#').unwrap_or(name);
        let numbers = header.iter().map(|name| name.starts_with('#')).collect();
        Self { header: header.iter().map(name).collect(), numbers, rows: vec![] }
    }

    /// Adds a row: one value a column. The values are made inert here.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row.iter().map(|value| inert(value).into_owned()).collect());
    }

    /// The table for a screen of `width` columns; all of it where there is none: in a pipe, in a file. What is left out that says
    /// anything is named below the table.
    pub(crate) fn fit(mut self, width: Option<usize>, narrow: &Narrow<'_>) -> String {
        let Some(width) = width else { return self.render(Some(usize::MAX)) };
        let least = |rows: &Self, column: usize| {
            let long = narrow.long.iter().find(|(name, _)| *name == rows.header[column]);
            long.map_or(usize::MAX, |(name, least)| *least.max(&name.len())).min(rows.width(column))
        };
        let gaps = |rows: &Self| rows.header.len().saturating_sub(1) * usize::from(GAP);
        let needs = |rows: &Self| (0..rows.header.len()).map(|column| least(rows, column)).sum::<usize>() + gaps(rows);
        if needs(&self) > width {
            for (long, short) in narrow.names {
                self.header.iter_mut().filter(|name| *name == long).for_each(|name| *name = short);
            }
        }
        let mut left_out = vec![];
        let (empty, telling): (Vec<&str>, Vec<&str>) =
            narrow.spare.iter().copied().partition(|name| self.says_nothing(name));
        for name in empty.into_iter().chain(telling) {
            if needs(&self) > width
                && let Some(column) = self.header.iter().position(|own| *own == name)
            {
                if !self.says_nothing(name) {
                    left_out.push(name);
                }
                self.header.remove(column);
                self.numbers.remove(column);
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
        for (name, _) in narrow.long {
            let all = (0..self.header.len()).map(|column| self.width(column)).sum::<usize>() + gaps(&self);
            let Some(column) = self.header.iter().position(|own| own == name) else { continue };
            let room = self.width(column).saturating_sub(all.saturating_sub(width)).max(least(&self, column));
            for value in self.rows.iter_mut().filter_map(|row| row.get_mut(column)) {
                *value = console::truncate_str(value, room, "…").into_owned();
            }
        }
        let mut text = self.render(Some(usize::MAX));
        if !left_out.is_empty() {
            text += &format!("not shown on so narrow a screen: {}\n", left_out.join(", "));
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let values = self.rows.iter().filter_map(|row| row.get(column)).map(|value| console::measure_text_width(value));
        values.chain([self.header[column].len()]).max().unwrap_or(0)
    }

    fn says_nothing(&self, name: &str) -> bool {
        let column = self.header.iter().position(|own| *own == name);
        column.is_none_or(|column| self.rows.iter().all(|row| matches!(row[column].as_str(), "0" | "-" | "")))
    }

    /// The table for a screen of `width` columns, if there is one. Only the values of the last column are shortened.
    pub(crate) fn render(mut self, width: Option<usize>) -> String {
        let last = self.header.len().saturating_sub(1);
        let taken = (0..last).map(|column| self.width(column) + usize::from(GAP)).sum();
        let room = width.unwrap_or(NO_SCREEN).saturating_sub(taken).max(LEAST);
        for value in self.rows.iter_mut().filter_map(|row| row.get_mut(last)) {
            *value = console::truncate_str(value, room, "…").into_owned();
        }

        let cells = |row: Vec<String>| {
            let aligned = |(value, number): (String, &bool)| {
                Cell::new(value).set_alignment(if *number { CellAlignment::Right } else { CellAlignment::Left })
            };
            row.into_iter().zip(&self.numbers).map(aligned).collect::<Vec<_>>()
        };
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(cells(self.header.iter().map(ToString::to_string).collect()));
        table.add_rows(self.rows.into_iter().map(cells));
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        table.trim_fmt() + "\n"
    }
}

/// Sentences for a screen of `width` columns, if there is one: a line each, broken between words.
pub(crate) fn prose(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    text.lines().flat_map(|line| wrap(line, width.max(30))).map(|line| line + "\n").collect()
}

/// How many columns the terminal on stdout has, if it is one.
pub(crate) fn screen() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// One JSON document, indented, with a newline at its end.
pub(crate) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(inert_json(&serde_json::to_string_pretty(value)?))
}

/// One JSON value in one line, with a newline at its end.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(inert_json(&serde_json::to_string(value)?))
}

fn inert_json(text: &str) -> String {
    let mut inert = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Outside strings JSON has no such character but the newlines of the indentation; in them, this is its escape.
        if c == '\n' || !is_hostile(c) {
            inert.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(inert, "\\u{unit:04x}");
            }
        }
    }
    inert + "\n"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOSTILE: &str = "a\u{1b}[31mb\u{9b}2Jc\r\nd\u{202e}e\u{7f}\u{200b}\0";

    fn one(value: &str, width: Option<usize>) -> String {
        let mut rows = Rows::new(&["name", "#count", "text"]);
        rows.push(vec!["n".into(), "7".into(), value.into()]);
        rows.render(width)
    }

    #[test]
    fn names_stand_to_the_left_and_numbers_to_the_right() {
        let mut rows = Rows::new(&["name", "#count", "text"]);
        rows.push(vec!["a".into(), "7".into(), "x".into()]);
        rows.push(vec!["longer".into(), "1234567".into(), "y".into()]);
        assert_eq!(rows.render(None), "name      count  text\na             7  x\nlonger  1234567  y\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(inert(HOSTILE), r"a\u{1b}[31mb\u{9b}2Jc\r\nd\u{202e}e\u{7f}\u{200b}\u{0}");
        assert_eq!(inert("{\"a\": 'ü 日本 \\'}"), "{\"a\": 'ü 日本 \\'}");
        assert_eq!(one(HOSTILE, None).lines().count(), 2);
    }

    #[test]
    fn a_long_value_is_shortened_to_the_screen_by_what_is_seen_of_it() {
        for (value, width, seen) in [("x", 40, 40), ("日", 41, 40), ("x", 3, 33)] {
            let text = one(&value.repeat(1_000), Some(width));
            let line = text.lines().nth(1).unwrap();
            assert!(line.ends_with('…'), "{line}");
            assert_eq!(console::measure_text_width(line), seen, "{line}");
        }
        assert_eq!(console::measure_text_width(one(&"x".repeat(1_000), None).lines().nth(1).unwrap()), 80);
        assert!(!one(&"x".repeat(67), None).contains('…'));
    }

    #[test]
    fn a_table_fits_its_screen_by_shorter_names_then_without_what_says_nothing_then_without_what_can_be_spared() {
        let narrow =
            Narrow { names: &[("a long name", "name")], spare: &["one", "two", "three"], long: &[("text", 6)] };
        let table = |width| {
            let mut rows = Rows::new(&["a long name", "#one", "#two", "#three", "text"]);
            rows.push(vec!["abc".into(), "12345".into(), "0".into(), "7".into(), "0123456789".into()]);
            rows.push(vec!["d".into(), "1".into(), "0".into(), "8".into(), "-".into()]);
            rows.fit(width, &narrow)
        };
        let whole = table(None);
        assert_eq!(whole.lines().next(), Some("a long name    one  two  three  text"));
        assert_eq!(table(Some(200)), whole);
        assert_eq!(
            table(Some(33)),
            "name    one  two  three  text\nabc   12345    0      7  01234567…\nd         1    0      8  -\n"
                .replace("01234567…", "0123456…")
        );
        assert_eq!(
            table(Some(30)),
            "name    one  three  text\nabc   12345      7  0123456789\nd         1      8  -\n"
        );
        assert_eq!(
            table(Some(20)),
            "name  three  text\nabc       7  012345…\nd         8  -\nnot shown on so narrow a screen: one\n"
        );
        for width in 20..60 {
            assert!(table(Some(width)).lines().take(3).all(|line| console::measure_text_width(line) <= width));
        }
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(Rows::new(&["name", "#count"]).render(Some(0)), "name  count\n");
    }

    proptest! {
        #[test]
        fn json_is_inert_and_means_what_it_was_given(text in any::<String>(), tail in ".*") {
            let value = format!("{text}{HOSTILE}\u{e0041}{tail}");
            let document = json(&value).unwrap();
            prop_assert!(!document.trim_end().contains(is_hostile));
            prop_assert_eq!(serde_json::from_str::<String>(&document).unwrap(), value);
        }

        #[test]
        fn no_value_breaks_a_line_of_the_table(value in any::<String>(), width in 0..200usize) {
            let text = one(&value, Some(width));
            prop_assert_eq!(text.lines().count(), 2);
            prop_assert!(!text.contains(|c| c != '\n' && is_hostile(c)));
        }
    }
}
