//! The quick way through a frame: one pass over its bytes, which says yes to what is certainly a sound object, and nothing to
//! all else.
//!
//! What it does not know (an escape in a field that matters, an exponent, deep nesting, any mistake) it leaves to the strict
//! reader, which takes several times as long and says why it refuses. So it may pass over what is sound, but takes nothing that
//! the strict reader would refuse, and reads the same out of it.

use super::Json;
use crate::model::UnixMillis;

/// What a sound object says in the fields that matter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned<'f> {
    pub(super) tenant: &'f str,
    pub(super) time: Option<UnixMillis>,
}

/// How deep it goes. The strict reader goes deeper.
const MAX_DEPTH: u32 = 100;

/// How many digits a number may have: what an `i64` surely takes.
const MAX_DIGITS: usize = 18;

/// Reads `frame` as one object with its tenant, if that is what it plainly is.
#[inline(always)]
pub(super) fn scan<'f>(frame: &'f [u8], json: &Json) -> Option<Scanned<'f>> {
    if !frame.is_ascii() {
        std::str::from_utf8(frame).ok()?;
    }
    let mut cursor = Cursor { frame, at: 0 };
    cursor.expect(b'{')?;
    let (mut tenant, mut time) = (None, None);
    // A bit for each level: whether it is an object.
    let (mut levels, mut depth) = (1_u128, 1);
    // What was just opened may be empty; after a comma something has to come.
    let mut is_fresh = true;
    loop {
        let is_object = levels & 1 == 1;
        let mut next = cursor.token()?;
        if !is_fresh || next != closing(is_object) {
            let mut field = Field::Other;
            if is_object {
                let name = cursor.text()?;
                if depth == 1 {
                    field = Field::named(&name, json)?;
                }
                cursor.expect(b':')?;
                next = cursor.token()?;
            }
            match (next, field) {
                (b'"', Field::Tenant) => {
                    let text = cursor.text()?;
                    if text.has_escapes || tenant.replace(text.bytes).is_some() {
                        return None;
                    }
                }
                (_, Field::Tenant) => return None,
                (b'-' | b'0'..=b'9', Field::Time) => time = Some(UnixMillis(cursor.number()??)),
                (_, field) => {
                    if field == Field::Time {
                        time = None;
                    }
                    match next {
                        b'"' => cursor.text().map(|_| ())?,
                        b'{' | b'[' => {
                            depth += 1;
                            if depth > MAX_DEPTH {
                                return None;
                            }
                            levels = levels << 1 | u128::from(next == b'{');
                            cursor.at += 1;
                            is_fresh = true;
                            continue;
                        }
                        b't' => cursor.word(b"true")?,
                        b'f' => cursor.word(b"false")?,
                        b'n' => cursor.word(b"null")?,
                        _ => cursor.number().map(|_| ())?,
                    }
                }
            }
        }
        is_fresh = false;
        loop {
            let next = cursor.token()?;
            cursor.at += 1;
            if next == b',' {
                break;
            }
            if next != closing(levels & 1 == 1) {
                return None;
            }
            levels >>= 1;
            depth -= 1;
            if depth == 0 {
                let tenant = std::str::from_utf8(tenant?).ok()?;
                return cursor.token().is_none().then_some(Scanned { tenant, time });
            }
        }
    }
}

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

/// What a field of the outermost object is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Tenant,
    Time,
    Other,
}

impl Field {
    /// A name with escapes may be any.
    #[inline]
    fn named(name: &Text<'_>, json: &Json) -> Option<Self> {
        if name.bytes == json.tenant_field.as_bytes() {
            Some(Self::Tenant)
        } else if json.time_field.as_ref().is_some_and(|field| name.bytes == field.as_bytes()) {
            Some(Self::Time)
        } else {
            (!name.has_escapes).then_some(Self::Other)
        }
    }
}

/// A text between quotes, without them.
struct Text<'f> {
    bytes: &'f [u8],
    has_escapes: bool,
}

struct Cursor<'f> {
    frame: &'f [u8],
    at: usize,
}

impl<'f> Cursor<'f> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.frame.get(self.at).copied()
    }

    /// The next byte that is no white space, still to be taken.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                other => return Some(other),
            }
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.token()? == byte).then(|| self.at += 1)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.frame.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    #[inline(always)]
    fn text(&mut self) -> Option<Text<'f>> {
        if self.peek()? != b'"' {
            return None;
        }
        let from = self.at + 1;
        // Names are short.
        let eight = self.frame.get(from..)?.first_chunk();
        let end = match eight.map_or(0, |eight| meaningful(u64::from_le_bytes(*eight))) {
            0 => plain(self.frame, from),
            found => from + (found.trailing_zeros() / 8) as usize,
        };
        if *self.frame.get(end)? != b'"' {
            return self.uncommon_text(from, end);
        }
        self.at = end + 1;
        Some(Text { bytes: self.frame.get(from..end)?, has_escapes: false })
    }

    /// A text from `from` on that has escapes, or is nearly all of a short frame; up to `at` its bytes are plain.
    #[inline(never)]
    fn uncommon_text(&mut self, from: usize, mut at: usize) -> Option<Text<'f>> {
        let mut has_escapes = false;
        loop {
            match *self.frame.get(at)? {
                b'"' => {
                    self.at = at + 1;
                    return Some(Text { bytes: self.frame.get(from..at)?, has_escapes });
                }
                b'\\' => {
                    has_escapes = true;
                    at += escaped(self.frame.get(at + 1..)?)?;
                    at = plain(self.frame, at);
                }
                0..0x20 => return None,
                _ => at += 1,
            }
        }
    }

    /// A run of digits, and how long it is.
    #[inline]
    fn digits(&mut self) -> Option<(i64, usize)> {
        let (from, mut value) = (self.at, 0_i64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let len = self.at - from;
        (1..=MAX_DIGITS).contains(&len).then_some((value, len))
    }

    /// A number, and its value where it has no fraction. One with an exponent may be too large for a double.
    #[inline]
    fn number(&mut self) -> Option<Option<i64>> {
        let is_negative = self.peek()? == b'-';
        self.at += usize::from(is_negative);
        let leads_with_zero = self.peek()? == b'0';
        let (value, len) = self.digits()?;
        if leads_with_zero && len > 1 {
            return None;
        }
        let has_fraction = self.peek() == Some(b'.');
        if has_fraction {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            return None;
        }
        Some((!has_fraction).then_some(if is_negative { -value } else { value }))
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Up to where the bytes from `at` on mean nothing in a text, as far as that is quickly seen: the end of a frame that is shorter
/// than eight bytes is left to be looked at one by one.
#[inline(never)]
fn plain(frame: &[u8], mut at: usize) -> usize {
    let mut rest = frame.get(at..).unwrap_or_default();
    loop {
        let Some((eight, behind)) = rest.split_first_chunk() else {
            let Some(last) = frame.last_chunk().filter(|_| !rest.is_empty()) else { return at };
            // The bytes that were seen go out at one end, and zeros come in at the other, which mean something.
            let unseen = u64::from_le_bytes(*last) >> (8 * (8 - rest.len()));
            return at + (meaningful(unseen).trailing_zeros() / 8) as usize;
        };
        let found = meaningful(u64::from_le_bytes(*eight));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
        rest = behind;
        while let Some((block, behind)) = rest.split_first_chunk()
            && is_plain(block)
        {
            at += BLOCK;
            rest = behind;
        }
    }
}

const BLOCK: usize = 32;

/// Whether nothing in the block means anything in a text. Without a branch a byte, so that the processor does it side by side.
#[inline]
fn is_plain(block: &[u8; BLOCK]) -> bool {
    let meaningful = |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    block.iter().fold(0, |any, byte| any | meaningful(*byte)) == 0
}

/// Marks in the top bits of the bytes: the lowest mark stands where the first quote, backslash or control character is. Marks above
/// it may be wrong.
#[inline]
fn meaningful(eight: u64) -> u64 {
    let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let quote = zero(eight ^ (ONES * b'"' as u64));
    let backslash = zero(eight ^ (ONES * b'\\' as u64));
    let control = eight.wrapping_sub(ONES * 0x20) & !eight;
    (quote | backslash | control) & (ONES * 0x80)
}

/// How long an escape is, from its backslash on; `rest` comes after that. Surrogates are for the strict reader.
fn escaped(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => {
            let hex = rest.get(1..5)?;
            let is_surrogate = matches!(hex, [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
            (!is_surrogate && hex.iter().all(u8::is_ascii_hexdigit)).then_some(6)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> Json {
        Json::new().tenant_field("t").time_field("at")
    }

    /// Parts of frames: put together at random they are often nearly sound.
    fn part() -> impl Strategy<Value = String> {
        const PARTS: &str = concat!(
            r#"{;};[;];,;:; ;"t":"acme";"t";"at":;"at";"x":;"x":1;,"y":;"";"a b c d e f g h i";"\u0074";\n;\u00e9;\ud800;\u12;\x;"#,
            "17;-5;0;01;1.5;1e3;1E400;-;.;123456789012345678;1234567890123456789012;true;false;null;nul;\";é;\n;\u{1};\u{7f}"
        );
        prop::sample::select(PARTS.split(';').collect::<Vec<_>>()).prop_map(str::to_owned)
    }

    /// Sound JSON of any shape.
    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e9..1e9_f64).prop_map(Into::into),
            "[ -~é\u{1}\"\\\\]{0,20}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::Array),
                prop::collection::hash_map("[a-z]{0,3}|at|t", inner, 0..5)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn agrees(frame: &[u8]) -> Result<(), TestCaseError> {
        let json = json();
        if let Some(scanned) = scan(frame, &json) {
            let strict = json.read(frame);
            let strict = strict.map(|event| (event.tenant.into_owned(), event.time));
            prop_assert_eq!(
                strict,
                Ok((scanned.tenant.to_owned(), scanned.time)),
                "{:?}",
                String::from_utf8_lossy(frame)
            );
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_takes_nothing_that_the_strict_reader_refuses_and_reads_the_same(
            inner in prop::collection::vec(part(), 0..12),
            fields in value(),
            change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            agrees(inner.concat().as_bytes())?;
            agrees(format!("{{{}}}", inner.concat()).as_bytes())?;
            agrees(format!("{{\"t\":\"acme\",{}}}", inner.concat()).as_bytes())?;
            let mut frame = format!("{{\"x\":{fields},\"t\":\"acme\",\"at\":{fields}}}").into_bytes();
            agrees(&frame)?;
            if let Some((at, byte)) = change {
                let at = at.index(frame.len());
                frame[at] = byte;
                agrees(&frame)?;
                frame.truncate(at);
                agrees(&frame)?;
            }
        }

        #[test]
        fn it_finds_the_first_byte_that_means_something(bytes in any::<[u8; 8]>()) {
            let first = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(meaningful(u64::from_le_bytes(bytes)).trailing_zeros() as usize / 8, first.unwrap_or(8));
        }
    }

    #[test]
    fn what_follows_the_object_is_not_passed_over() {
        for rest in ["\u{1}", "}", "x", " \u{1}}", "{}"] {
            assert_eq!(scan(format!("{{\"t\":\"a\"}}{rest}").as_bytes(), &json()), None, "{rest:?}");
        }
    }

    #[test]
    fn common_frames_take_the_quick_way() {
        for frame in [
            r#"{"t":"acme","at":1732233600007,"level":"info","line":"a \"quoted\" word\n","ratio":-0.25}"#,
            r#" { "x" : [ 1 , { } , [ ] , [ null , true , false ] ] , "t" : "acme" , "at" : 1732233600007 } "#,
            r#"{"name":"café","at":1,"at":1732233600007,"t":"acme","u":"\u00e9"}"#,
        ] {
            let expected = Scanned { tenant: "acme", time: Some(UnixMillis(1_732_233_600_007)) };
            assert_eq!(scan(frame.as_bytes(), &json()), Some(expected), "{frame}");
        }
        assert_eq!(scan(br#"{"at":"noon","t":"a"}"#, &json()), Some(Scanned { tenant: "a", time: None }));
    }
}
