//! What commands print: a table for eyes, one JSON document for machines. Whatever the values hold, neither can move the
//! cursor, change a colour or turn the reading direction of the terminal that shows it.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
pub(crate) use headworks::text::inert;
use headworks::text::is_hostile;
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

    /// The table for a screen of `width` columns, if there is one. Only the values of the last column are shortened.
    pub(crate) fn render(mut self, width: Option<usize>) -> String {
        let last = self.header.len().saturating_sub(1);
        let taken = (0..last).map(|column| {
            let values =
                self.rows.iter().filter_map(|row| row.get(column)).map(|value| console::measure_text_width(value));
            values.chain([self.header[column].len()]).max().unwrap_or(0) + usize::from(GAP)
        });
        let room = width.unwrap_or(NO_SCREEN).saturating_sub(taken.sum()).max(LEAST);
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
