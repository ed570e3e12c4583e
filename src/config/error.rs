use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::text::nearest;

/// What is wrong with a configuration.
///
/// Reads as `headworks.toml:3:1: daemon.dat_dir: there is no key "dat_dir" here; ...`, with the line itself below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: Place,
    key: Option<String>,
    sentence: String,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere in particular: it is a default, or was set by hand.
    Nowhere,
    /// A file as a whole.
    File(PathBuf),
    /// A place in a file.
    Line { file: PathBuf, line: usize, column: usize, excerpt: String },
    /// A variable or a flag.
    Named(String),
}

impl Place {
    /// The place at `span` of the file's `text`.
    pub(super) fn in_file(file: &Path, text: &str, span: &Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let (line, column) = (text[..begin].matches('\n').count() + 1, text[begin..start].chars().count() + 1);
        let marked = text[start..text.floor_char_boundary(span.end.clamp(start, end))].chars().count().max(1);
        Self::Line { file: file.into(), line, column, excerpt: excerpt(&text[begin..end], line, column, marked) }
    }
}

impl Place {
    /// File and line, or the name of what sets it.
    pub(super) fn short(&self) -> Option<String> {
        match self {
            Self::Nowhere => None,
            Self::File(file) => Some(file.display().to_string()),
            Self::Line { file, line, .. } => Some(format!("{}:{line}", file.display())),
            Self::Named(name) => Some(name.clone()),
        }
    }
}

/// The line, and carets under what is meant. Of a long line only the part that matters.
fn excerpt(content: &str, line: usize, column: usize, marked: usize) -> String {
    const WIDTH: usize = 100;
    let content = &without_password(content);
    let skipped = (column - 1).saturating_sub(WIDTH / 2);
    // Whatever stands there, it must not reach the terminal as a command.
    let shown: String = content.trim_end().chars().skip(skipped).take(WIDTH).map(inert).collect();
    let before = column - 1 - skipped;
    let carets = "^".repeat(marked.min(shown.chars().count().saturating_sub(before)).max(1));
    let (number, gutter) = (line.to_string(), " ".repeat(line.to_string().len()));
    format!("\n{gutter} |\n{number} | {shown}\n{gutter} | {}{carets}", " ".repeat(before))
}

/// The same, with a star for each character of a password in a URL, or after the word: a log is no place for it.
fn without_password(content: &str) -> String {
    let in_url = content.find("://").and_then(|at| {
        let login = at + 3 + content[at + 3..].find('@').filter(|end| !content[at + 3..][..*end].contains('/'))?;
        Some((at + 3 + content[at + 3..login].find(':')? + 1, login))
    });
    let by_word = content.find("password=").map(|at| {
        let begin = at + "password=".len();
        let end = content[begin..].find([' ', '&', '"', '\'']).map_or(content.len(), |end| begin + end);
        (begin, end)
    });
    match in_url.or(by_word) {
        Some((begin, end)) => {
            let stars = "*".repeat(content[begin..end].chars().count());
            [&content[..begin], &stars, &content[end..]].concat()
        }
        None => content.to_owned(),
    }
}

fn inert(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

impl ConfigError {
    pub(super) fn new(place: Place, key: Option<String>, sentence: impl Into<String>) -> Self {
        Self { place, key, sentence: sentence.into() }
    }

    /// The key that is wrong, from the top: `sources.tcp.listen`. `None` where it is no key, as in text that is no TOML.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The line of the file, from 1, where it is one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self.place {
            Place::Line { line, .. } => Some(line),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Nowhere => {}
            Place::File(file) => write!(f, "{}: ", file.display())?,
            Place::Line { file, line, column, .. } => write!(f, "{}:{line}:{column}: ", file.display())?,
            Place::Named(name) => write!(f, "{name}: ")?,
        }
        f.write_str(&self.sentence)?;
        match &self.place {
            Place::Line { excerpt, .. } => f.write_str(excerpt),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What the deserialiser says, for someone who does not know Rust: serde's words are fixed, so they can be reworded.
pub(super) fn reworded(message: &str) -> String {
    let words: Vec<_> = message.split('`').skip(1).step_by(2).collect();
    if let [wrong, valid @ ..] = words.as_slice()
        && let Some(what) = [("unknown field ", "there is no key"), ("unknown variant ", "there is no choice")]
            .iter()
            .find_map(|(begin, what)| message.starts_with(begin).then_some(what))
    {
        if let Some((_, new)) = RENAMED.iter().find(|(old, _)| old == wrong) {
            return format!("{what} {wrong:?} here any more: it is {new} now");
        }
        let mut sentence = format!("{what} {wrong:?} here; valid: {}", valid.join(", "));
        if let Some(near) = nearest(wrong, valid) {
            sentence += &format!("; did you mean {near:?}?");
        }
        return sentence;
    }
    if message == "wanted string or table" {
        return "expected a string (in quotes)".to_owned();
    }
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let expected = match expected.trim_end() {
        "" => return message.trim_end().to_owned(),
        "usize" | "u64" | "u32" => "a whole number, 0 or more",
        "a map" => "a table",
        "a sequence" => "a list",
        "a string" | "path string" => "a string (in quotes)",
        "a boolean" => "true or false",
        table if table.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{what}, expected {expected}")
}

/// A sentence on a name that is not there: with those that are, and the one that was most likely meant.
pub(super) fn unknown_name(what: &str, wrong: &str, valid: &[&str]) -> String {
    let mut sentence = match valid {
        [] => format!("{what}, and no other either"),
        _ => format!("{what}; valid: {}", valid.join(", ")),
    };
    if let Some(near) = nearest(wrong, valid) {
        sentence += &format!("; did you mean {near:?}?");
    }
    sentence
}

/// Keys that have another name now.
const RENAMED: [(&str, &str); 1] = [("report_every", "[report] every")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_is_shown_has_stars_for_a_password() {
        for (line, shown) in [
            ("url = 'postgres://app:hunter2@db/x'", "url = 'postgres://app:*******@db/x'"),
            ("url = 'host=db password=hunter2 user=app'", "url = 'host=db password=******* user=app'"),
            ("url = 'postgres://db/x?password=hunter2'", "url = 'postgres://db/x?password=*******'"),
            ("url = 'postgres://app@db:5432/x'", "url = 'postgres://app@db:5432/x'"),
            ("url = 'http://db:80/a@b'", "url = 'http://db:80/a@b'"),
        ] {
            assert_eq!(without_password(line), shown);
        }
    }
}
