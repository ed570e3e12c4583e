use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::model::{Cause, Code};

/// The frame as text with something in it.
#[inline]
pub(super) fn text(frame: &[u8]) -> Result<&str, Cause> {
    let text = std::str::from_utf8(frame)
        .map_err(|error| Cause::new(Code::BadUtf8, format!("the frame is not UTF-8: {error}")))?;
    if text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
        return Err(Cause::new(Code::Empty, "the frame is empty"));
    }
    Ok(text)
}

/// Reads all of `text` as one JSON value through `seed`.
///
/// The text is JSON as RFC 8259 has it only if the seed reads every value through `deserialize_any`, as [`Checked`] does.
#[inline]
pub(super) fn read<'f, S: DeserializeSeed<'f>>(text: &'f str, seed: S) -> Result<S::Value, Cause> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| refused(&error))
}

#[cold]
fn refused(error: &serde_json::Error) -> Cause {
    let detail = error.to_string();
    // serde_json has no other mark for it.
    if detail.starts_with("recursion limit exceeded") {
        return Cause::new(Code::TooDeep, format!("the frame nests arrays and objects deeper than 127: {detail}"));
    }
    Cause::new(Code::BadJson, format!("the frame is not JSON: {detail}"))
}

/// Reads any value and forgets it, but checks all of it.
///
/// serde's own `IgnoredAny` and serde_json's `RawValue` let pass what other readers refuse: any depth, lone surrogates
/// and numbers beyond a double. A store that refuses them would do so for ever.
#[derive(Clone, Copy)]
pub(super) struct Checked;

impl<'f> DeserializeSeed<'f> for Checked {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'f> Visitor<'f> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'f>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'f>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Self)?.is_some() {
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}
