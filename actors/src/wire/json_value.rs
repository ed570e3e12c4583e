use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::strict_json::Checked;
use crate::model::UnixMillis;

/// A value of a field that matters.
pub(super) enum Value<'f> {
    Null,
    Boolean,
    /// With its value, where that is a whole number.
    Number(Option<i64>),
    Text(Cow<'f, str>),
    Array,
    Object,
}

impl Value<'_> {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }

    pub(super) fn millis(&self) -> Option<UnixMillis> {
        match self {
            Self::Number(whole) => whole.map(UnixMillis),
            _ => None,
        }
    }
}

/// Reads any value; of an array or object only that it is one.
pub(super) struct Plain;

impl<'f> DeserializeSeed<'f> for Plain {
    type Value = Value<'f>;

    #[inline]
    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<Value<'f>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'f> Visitor<'f> for Plain {
    type Value = Value<'f>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'f>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'f>, E> {
        Ok(Value::Boolean)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'f>, E> {
        Ok(Value::Number(Some(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'f>, E> {
        Ok(Value::Number(i64::try_from(number).ok()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'f>, E> {
        // -(2^63) is a double; the largest i64 is not, so the upper bound is 2^63 and excluded.
        const BEYOND: f64 = 9_223_372_036_854_775_808.0;
        let whole = number.fract() == 0.0 && (-BEYOND..BEYOND).contains(&number);
        Ok(Value::Number(whole.then_some(number as i64)))
    }

    fn visit_borrowed_str<E>(self, text: &'f str) -> Result<Value<'f>, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'f>, E> {
        Ok(Value::Text(text.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'f>>(self, seq: A) -> Result<Value<'f>, A::Error> {
        Checked.visit_seq(seq).map(|()| Value::Array)
    }

    fn visit_map<A: MapAccess<'f>>(self, map: A) -> Result<Value<'f>, A::Error> {
        Checked.visit_map(map).map(|()| Value::Object)
    }
}
