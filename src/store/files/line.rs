//! One body, one line, and back to the byte.
//!
//! A body is its line as it is. Only one that is empty, begins with a backslash or has a newline in it is escaped: its
//! line is a backslash and then the body, with `\\` for each backslash and `\n` for each newline. No JSON text begins
//! with a backslash, so a line that does is never mistaken for an event that was written as it is; and no line is empty,
//! so that an empty line is no event.

use std::borrow::Cow;

const ESCAPE: u8 = b'\\';

/// Adds the line of a body, with the newline that ends it.
pub(in crate::store) fn push_line(body: &[u8], out: &mut Vec<u8>) {
    let is_plain = body.first().is_some_and(|first| *first != ESCAPE) && memchr::memchr(b'\n', body).is_none();
    if is_plain {
        out.extend_from_slice(body);
    } else {
        out.push(ESCAPE);
        for byte in body {
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                &ESCAPE => out.extend_from_slice(b"\\\\"),
                _ => out.push(*byte),
            }
        }
    }
    out.push(b'\n');
}

/// The body of a line, which comes without its newline. `None` where no body has this line.
pub(in crate::store) fn body_of(line: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(escaped) = line.strip_prefix(&[ESCAPE]) else { return (!line.is_empty()).then_some(Cow::Borrowed(line)) };
    let mut body = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        body.push(match byte {
            &ESCAPE => match bytes.next()? {
                b'n' => b'\n',
                &ESCAPE => ESCAPE,
                _ => return None,
            },
            _ => *byte,
        });
    }
    Some(Cow::Owned(body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line_of(body: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        push_line(body, &mut out);
        out
    }

    #[test]
    fn a_body_without_a_newline_is_its_line() {
        for body in [&b"{\"tenant\":\"acme\"}"[..], b" ", b"a\\b", b"a\0\xff\r", b"n"] {
            assert_eq!(line_of(body), [body, b"\n"].concat());
        }
    }

    #[test]
    fn what_could_be_mistaken_is_escaped() {
        for (body, line) in [
            (&b""[..], &b"\\\n"[..]),
            (b"\n", b"\\\\n\n"),
            (b"\\", b"\\\\\\\n"),
            (b"\\n", b"\\\\\\n\n"),
            (b"{\n\"a\":\"\\u0041\"}", b"\\{\\n\"a\":\"\\\\u0041\"}\n"),
        ] {
            assert_eq!(line_of(body), line, "{body:?}");
        }
    }

    #[test]
    fn a_line_that_no_body_has_is_none() {
        for line in [&b""[..], b"\\\\", b"\\a\\x"] {
            assert_eq!(body_of(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn every_body_comes_back_from_its_one_line(body in prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'\n'), Just(b'n'), any::<u8>()], 0..20)) {
            let line = line_of(&body);
            let (newline, line) = line.split_last().unwrap();
            prop_assert_eq!(*newline, b'\n');
            prop_assert!(!line.is_empty() && !line.contains(&b'\n'));
            let back = body_of(line);
            prop_assert_eq!(back.as_deref(), Some(&body[..]));
        }
    }
}
