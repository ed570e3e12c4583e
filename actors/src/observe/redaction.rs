//! What of an event somebody who looks on may not see.

use serde::de::IgnoredAny;

/// Stands in the place of a value that is not told.
pub const REDACTED: &str = "[redacted]";

/// Fields of events whose values are not told.
///
/// A field is named by the way to it from the top, with dots in between: `card.number`. On its way it passes through arrays:
/// each element is looked at. A field whose own name has dots in it is found, too. Letter case counts.
///
/// ```
/// use headworks_actors::{Payload, Redaction};
///
/// let redaction = Redaction::new(["password", "cards.number"])?;
/// let told = redaction.payload(br#"{"user": "eve", "password": "x", "cards": [{"number": 1, "ok": true}]}"#);
/// let expected = r#"{"user":"eve","password":"[redacted]","cards":[{"number":"[redacted]","ok":true}]}"#;
/// assert_eq!(told, Payload::Json(expected.to_owned()));
/// assert_eq!(redaction.payload(b"password: x"), Payload::Withheld);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redaction {
    fields: Vec<String>,
}

/// An event as it may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// JSON on one line, as it came but for whitespace and what is redacted.
    Json(String),
    /// It is no JSON, but text.
    Text(String),
    /// It is neither.
    Bytes(Vec<u8>),
    /// Fields are to be redacted, and it is no JSON object in which they could be found: none of it is told.
    Withheld,
}

impl Redaction {
    /// The most fields that there may be.
    pub const MAX_FIELDS: usize = 100;
    /// The longest name of a field with the way to it, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Of these fields.
    ///
    /// # Errors
    /// A sentence that says which is no name of a field, or that they are too many.
    pub fn new(fields: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, String> {
        let mut fields: Vec<String> = fields.into_iter().map(Into::into).collect();
        let is_bad = |field: &&String| field.len() > Self::MAX_BYTES || field.split('.').any(str::is_empty);
        if let Some(field) = fields.iter().find(is_bad) {
            let most = Self::MAX_BYTES;
            return Err(format!(
                "{field:?} names no field: write names with a dot in between, like card.number, {most} bytes at the most"
            ));
        }
        fields.sort();
        fields.dedup();
        if fields.len() > Self::MAX_FIELDS {
            return Err(format!("{} fields are too many; {} may be redacted", fields.len(), Self::MAX_FIELDS));
        }
        Ok(Self { fields })
    }

    /// The fields, sorted.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// What of an event's body may be told.
    #[must_use]
    pub fn payload(&self, body: &[u8]) -> Payload {
        let asks = !self.fields.is_empty();
        let text = std::str::from_utf8(body).ok();
        let json = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        let json = json.filter(|json| !asks || json.trim_start().starts_with('{'));
        match (json.and_then(|json| redacted(json, &self.fields)), text) {
            (Some(json), _) => Payload::Json(json),
            (None, _) if asks => Payload::Withheld,
            (None, Some(text)) => Payload::Text(text.to_owned()),
            (None, None) => Payload::Bytes(body.to_vec()),
        }
    }
}

/// An object or array that is open.
struct Level<'r> {
    is_object: bool,
    /// What is left of the ways to the fields in it.
    ways: Vec<&'r str>,
}

/// `json`, which is valid, without whitespace and the values of `fields`. The text is copied and not written anew, so that order,
/// numbers and fields that come twice stay as they are. `None` where the name of a field cannot be read, as nobody knows whether it
/// is to be told then.
fn redacted(json: &str, fields: &[String]) -> Option<String> {
    let (bytes, mut out, mut at) = (json.as_bytes(), String::with_capacity(json.len()), 0);
    let mut open: Vec<Level<'_>> = vec![];
    // The ways into the value that comes next; and whether a name comes, or a value that is not told.
    let mut ways: Vec<&str> = fields.iter().map(String::as_str).collect();
    let (mut is_name, mut is_redacted) = (false, false);
    while let Some(byte) = bytes.get(at) {
        let from = at;
        at = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'{' | b'[' => {
                is_name = *byte == b'{';
                open.push(Level { is_object: is_name, ways: ways.clone() });
                at + 1
            }
            b'}' | b']' => {
                open.pop();
                at + 1
            }
            b',' => {
                let level = open.last()?;
                is_name = level.is_object;
                ways.clone_from(&level.ways);
                at + 1
            }
            b':' => at + 1,
            b'"' if is_name => {
                let end = end_of_string(bytes, at);
                (ways, is_redacted) = into(&json[at..end], &open.last()?.ways)?;
                is_name = false;
                end
            }
            b'"' => end_of_string(bytes, at),
            _ => end_of_scalar(bytes, at),
        };
        out.push_str(&json[from..at]);
        if *byte == b':' && std::mem::take(&mut is_redacted) {
            at = end_of_value(bytes, at);
            out.push('"');
            out.push_str(REDACTED);
            out.push('"');
        }
    }
    Some(out)
}

/// What is left of the `ways` behind the field of this quoted name; and whether one of them ends there.
fn into<'r>(quoted: &str, ways: &[&'r str]) -> Option<(Vec<&'r str>, bool)> {
    if ways.is_empty() {
        return Some((vec![], false));
    }
    // It may be written in escapes.
    let name: String = serde_json::from_str(quoted).ok()?;
    let behind = |way: &&'r str| way.strip_prefix(name.as_str())?.strip_prefix('.');
    Some((ways.iter().filter_map(behind).collect(), ways.contains(&name.as_str())))
}

/// Behind the string that begins at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

/// Behind the number or word that begins at `at`.
fn end_of_scalar(bytes: &[u8], at: usize) -> usize {
    let is_end = |byte: &u8| b",]}: \t\n\r".contains(byte);
    bytes[at..].iter().position(is_end).map_or(bytes.len(), |length| at + length.max(1))
}

/// Behind the value that begins at `at` or after whitespace.
fn end_of_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => end_of_string(bytes, at),
            b'{' | b'[' | b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => at + 1,
            _ => end_of_scalar(bytes, at),
        };
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    at
}

#[cfg(test)]
#[path = "redaction_tests.rs"]
mod tests;
