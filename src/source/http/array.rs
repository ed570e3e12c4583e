//! A JSON array, or one value, as a line for each element.

/// Turns the bytes of a JSON text into lines, in whatever cut they come: an element of the array a line, or the whole text where
/// it is no array. What is in an element is not judged: that is the decoder's. Newlines in it become spaces, or, within a string, where
/// JSON has none, a character that is as wrong. No copy is held of what is unfinished.
#[derive(Debug, Default)]
pub(super) struct Elements {
    place: Place,
    depth: u32,
    is_string: bool,
    is_escaped: bool,
    /// Something of the element came.
    is_begun: bool,
    /// A comma came, after which there must be an element.
    is_due: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Before,
    /// In the array.
    Array,
    /// The text is one value.
    Value,
    After,
}

/// Why a text is no JSON array.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadArray {
    #[error("something follows the array")]
    Trailing,
    #[error("the array does not end")]
    Endless,
}

impl Elements {
    /// Adds the lines that these bytes make to `lines`.
    pub(super) fn push(&mut self, bytes: &[u8], lines: &mut Vec<u8>) -> Result<(), BadArray> {
        for &byte in bytes {
            let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            match self.place {
                Place::Before if is_space => {}
                Place::Before if byte == b'[' => self.place = Place::Array,
                Place::Before => {
                    self.place = Place::Value;
                    self.element(byte, lines);
                }
                Place::Value => self.element(byte, lines),
                Place::After if is_space => {}
                Place::After => return Err(BadArray::Trailing),
                Place::Array => self.in_array(byte, is_space, lines),
            }
        }
        Ok(())
    }

    fn in_array(&mut self, byte: u8, is_space: bool, lines: &mut Vec<u8>) {
        let is_between = self.depth == 0 && !self.is_string;
        match byte {
            b',' if is_between => {
                lines.push(b'\n');
                (self.is_begun, self.is_due) = (false, true);
            }
            b']' if is_between => {
                if self.is_begun || self.is_due {
                    lines.push(b'\n');
                }
                self.place = Place::After;
            }
            _ if is_space && !self.is_begun => {}
            _ => self.element(byte, lines),
        }
    }

    fn element(&mut self, byte: u8, lines: &mut Vec<u8>) {
        self.is_begun = true;
        if self.is_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_string = false,
                _ => {}
            }
            lines.push(if byte == b'\n' { b'\t' } else { byte });
            return;
        }
        match byte {
            b'"' => self.is_string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        lines.push(if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
    }

    /// The text has ended.
    pub(super) fn finish(&self) -> Result<(), BadArray> {
        if self.place == Place::Array { Err(BadArray::Endless) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(text: &str) -> Result<Vec<String>, BadArray> {
        let (mut elements, mut lines) = (Elements::default(), vec![]);
        elements.push(text.as_bytes(), &mut lines)?;
        elements.finish()?;
        let text = String::from_utf8(lines).unwrap();
        Ok(text.split_terminator('\n').map(|line| line.trim().to_owned()).collect())
    }

    #[test]
    fn each_element_is_a_line_whatever_is_in_it() {
        let is = |text: &str, expected: &[&str]| assert_eq!(lines(text).unwrap(), expected, "{text}");
        is("[]", &[]);
        is(" \n[ ]\n", &[]);
        is("", &[]);
        is(r#"[{"a":"],\"["},{"b":[1,2]}]"#, &[r#"{"a":"],\"["}"#, r#"{"b":[1,2]}"#]);
        is("[\n  {\n\"a\": 1\n},\n 2 ]", &["{ \"a\": 1 }", "2"]);
        is("[1,,2]", &["1", "", "2"]);
        is("[1,]", &["1", ""]);
        is("{\"a\":\n1}", &["{\"a\": 1}"]);
        is("[\"a\nb\"]", &["\"a\tb\""]);
    }

    #[test]
    fn an_array_that_does_not_end_or_goes_on_is_told() {
        assert_eq!(lines("[{\"a\":1}"), Err(BadArray::Endless));
        assert_eq!(lines("[1] 2"), Err(BadArray::Trailing));
    }

    proptest! {
        #[test]
        fn any_array_reads_back_as_its_elements_in_whatever_cut(
            texts in prop::collection::vec("(?s).{0,8}", 0..6), cut in 1usize..9, pretty: bool,
        ) {
            let values: Vec<_> = texts.iter().map(|text| serde_json::json!({ "t": text, "n": [1, {"x": text}] })).collect();
            let array = if pretty { serde_json::to_vec_pretty(&values) } else { serde_json::to_vec(&values) }.unwrap();
            let (mut elements, mut lines) = (Elements::default(), vec![]);
            for piece in array.chunks(cut) {
                elements.push(piece, &mut lines).unwrap();
            }
            elements.finish().unwrap();
            let read: Vec<serde_json::Value> =
                lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
