use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use super::strict_json::{Checked, read, text};
use super::{Decoded, Decoder};
use crate::model::{Cause, Code, UnixMillis};

/// A frame is one JSON value of a type of yours, and a function of it names the tenant.
///
/// The frame is first checked as [`Json`](super::Json) checks it (`empty`, `bad_utf8`, `bad_json`, `too_deep`), also in
/// the fields that `T` skips; one that is good JSON and yet no `T` is refused as [`Code::BadEvent`] with serde's message.
/// The value is read to know its tenant and time and then dropped: the frame is stored exactly as it came.
///
/// ```
/// use headworks_actors::{Code, Decoder, TypedJson, UnixMillis};
///
/// #[derive(serde::Deserialize)]
/// struct Reading {
///     site: u32,
///     at: i64,
/// }
///
/// let readings = TypedJson::new(|reading: &Reading| format!("site-{}", reading.site))
///     .time(|reading: &Reading| Some(UnixMillis(reading.at)));
///
/// let event = readings.decode(br#"{"site": 7, "at": 1732233600007, "celsius": 21.5}"#).unwrap();
/// assert_eq!(event.tenant, "site-7");
/// assert_eq!(event.time, Some(UnixMillis(1_732_233_600_007)));
///
/// let refusal = readings.decode(br#"{"site": "seven"}"#).unwrap_err();
/// assert_eq!(refusal.code, Code::BadEvent);
/// ```
pub struct TypedJson<T> {
    tenant: Question<T, String>,
    time: Option<Question<T, Option<UnixMillis>>>,
}

/// What an event is asked.
type Question<T, A> = Box<dyn Fn(&T) -> A + Send + Sync>;

impl<T: DeserializeOwned + 'static> TypedJson<T> {
    /// Events whose tenant is what `tenant` says, and which have no time.
    pub fn new(tenant: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        Self { tenant: Box::new(tenant), time: None }
    }

    /// The time of an event is what `time` says.
    #[must_use]
    pub fn time(mut self, time: impl Fn(&T) -> Option<UnixMillis> + Send + Sync + 'static) -> Self {
        self.time = Some(Box::new(time));
        self
    }
}

impl<T: DeserializeOwned + 'static> Decoder for TypedJson<T> {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let text = text(frame)?;
        read(text, Checked)?;
        let event: T = serde_json::from_str(text).map_err(|error| no_event(&error))?;
        Ok(Decoded {
            tenant: Cow::Owned((self.tenant)(&event)),
            time: self.time.as_ref().and_then(|time| time(&event)),
            body: frame.into(),
        })
    }
}

impl<T> fmt::Debug for TypedJson<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedJson<{}>", std::any::type_name::<T>())
    }
}

#[cold]
fn no_event(error: &serde_json::Error) -> Cause {
    let detail = error.to_string();
    // serde quotes the value it did not like, and that may be as long as the frame.
    let detail = match detail.char_indices().nth(300) {
        Some((at, _)) => format!("{}... at line {} column {}", &detail[..at], error.line(), error.column()),
        None => detail,
    };
    Cause::new(Code::BadEvent, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Reading {
        site: String,
        at: Option<i64>,
    }

    fn readings() -> TypedJson<Reading> {
        TypedJson::new(|reading: &Reading| reading.site.clone()).time(|reading: &Reading| reading.at.map(UnixMillis))
    }

    fn code(frame: &[u8]) -> Code {
        readings().decode(frame).unwrap_err().code
    }

    #[test]
    fn the_functions_name_tenant_and_time_and_the_body_stays_as_it_came() {
        let frame = br#" {"at":7, "more":[1, 2], "site":"a\u0062"} "#;
        let readings = readings();
        let event = readings.decode(frame).unwrap();
        assert_eq!((event.tenant.as_ref(), event.time), ("ab", Some(UnixMillis(7))));
        assert_eq!(event.body, Cow::Borrowed(&frame[..]));
        assert_eq!(readings.decode(br#"{"site":"x"}"#).unwrap().time, None);
    }

    #[test]
    fn good_json_of_another_shape_is_refused_with_the_words_of_serde() {
        let refusal = readings().decode(br#"{"at":7}"#).unwrap_err();
        assert_eq!(refusal.code, Code::BadEvent);
        assert_eq!(&*refusal.detail, "missing field `site` at line 1 column 8");
        assert_eq!(code(b"[]"), Code::BadEvent);
    }

    #[test]
    fn what_is_no_json_is_refused_before_the_type_is_asked_even_in_fields_it_skips() {
        assert_eq!(code(b""), Code::Empty);
        assert_eq!(code(b"\xff"), Code::BadUtf8);
        assert_eq!(code(br#"{"site":"x"} x"#), Code::BadJson);
        assert_eq!(code(br#"{"site":"x","skipped":1e400000}"#), Code::BadJson);
        assert_eq!(code(br#"{"site":"x","skipped":"\ud800"}"#), Code::BadJson);
        let deep = format!(r#"{{"site":"x","skipped":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(code(deep.as_bytes()), Code::TooDeep);
    }

    #[test]
    fn a_long_value_is_not_quoted_whole_in_the_refusal() {
        let frame = format!(r#"{{"site":"x","at":"{}"}}"#, "\u{e9}".repeat(100_000));
        let refusal = readings().decode(frame.as_bytes()).unwrap_err();
        assert!(refusal.detail.len() < 1_000, "{}", refusal.detail.len());
        assert!(refusal.detail.contains("at line 1 column"), "{}", refusal.detail);
    }
}
