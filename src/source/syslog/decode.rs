use std::borrow::Cow;

use chrono::{Datelike, Local, Utc};
use headworks_actors::{Cause, Code, Decoded, Decoder, TenantId, UnixMillis};
use serde_json::{Map, Value};
use syslog_loose::{IncompleteDate, Message, ProcId, Variant, parse_message_with_year_exact};

use super::tenant::{InvalidTenantName, SyslogTenant, mapped};

/// Makes an event of a syslog message: a JSON object with `timestamp` (RFC 3339), `hostname`, `app_name`, `procid`, `msgid`,
/// `severity` and `facility` (their words, as `err` and `auth`), `structured_data` (an object of objects; a parameter that comes more than
/// once is a list) and `message`. What the message does not say is left out. Its time is that of the message, if it says one; a
/// time without a zone (RFC 3164) is in that of this machine, and of the year that makes it the nearest to now.
///
/// A message must be UTF-8 and begin with its priority, `<0>` to `<191>`; one that then says version 1 must be as RFC 5424 has it. What
/// is not so is refused as [`Code::BadEvent`] or [`Code::BadUtf8`], and one without what names its tenant as [`Code::NoTenant`].
///
/// ```
/// use headworks::Decoder;
/// use headworks::source::{SyslogDecoder, SyslogTenant};
///
/// let decoder = SyslogDecoder::new(SyslogTenant::Host);
/// let event = decoder.decode(b"<13>1 2026-01-02T03:04:05Z acme app 7 - - hello").unwrap();
/// assert_eq!(event.tenant, "acme");
/// ```
#[derive(Debug, Clone)]
pub struct SyslogDecoder {
    from: SyslogTenant,
    invalid: InvalidTenantName,
}

impl SyslogDecoder {
    /// The tenant is named by what `from` says; a name that no tenant can have is made one.
    #[must_use]
    pub fn new(from: SyslogTenant) -> Self {
        Self { from, invalid: InvalidTenantName::Map }
    }

    /// What becomes of a message whose tenant has a name that no tenant can have.
    #[must_use]
    pub fn invalid_tenant(mut self, invalid: InvalidTenantName) -> Self {
        self.invalid = invalid;
        self
    }
}

impl Decoder for SyslogDecoder {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let text = std::str::from_utf8(frame).map_err(|why| Cause::new(Code::BadUtf8, why.to_string()))?;
        if text.trim().is_empty() {
            return Err(Cause::new(Code::Empty, "the message is empty"));
        }
        let message = parsed(text)?;
        let Some(name) = self.from.of(&message).filter(|name| !name.is_empty()) else {
            return Err(Cause::new(Code::NoTenant, "the message does not say what names its tenant"));
        };
        let tenant = match self.invalid {
            InvalidTenantName::Map => mapped(name),
            InvalidTenantName::Refuse => match TenantId::new(&name) {
                Ok(_) => name,
                Err(why) => return Err(Cause::new(Code::BadTenant, why.to_string())),
            },
        };
        let time = message.timestamp.map(|time| UnixMillis(time.timestamp_millis()));
        Ok(Decoded { tenant, time, body: Cow::Owned(body(&message)) })
    }
}

fn parsed(text: &str) -> Result<Message<&str>, Cause> {
    let bad = |why: &str| Cause::new(Code::BadEvent, why.to_owned());
    let text = text.trim();
    let (priority, rest) = text
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .ok_or_else(|| bad("a syslog message begins with its priority, like <13>"))?;
    let is_number = (1..=3).contains(&priority.len()) && priority.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || priority.parse::<u8>().map_or(true, |priority| priority > 191) {
        return Err(bad("the priority must be a number from 0 to 191"));
    }
    let variant = if rest.starts_with("1 ") { Variant::RFC5424 } else { Variant::RFC3164 };
    parse_message_with_year_exact(text, year, variant).map_err(|_| match variant {
        Variant::RFC5424 => bad("it says that it is of version 1, but is not as RFC 5424 has it"),
        _ => bad("it is neither as RFC 5424 nor as RFC 3164 has it"),
    })
}

/// The year of a date that has none.
fn year((month, ..): IncompleteDate) -> i32 {
    let now = Utc::now().with_timezone(&Local);
    match (month, now.month()) {
        (12, 1) => now.year() - 1,
        (1, 12) => now.year() + 1,
        _ => now.year(),
    }
}

fn body(message: &Message<&str>) -> Vec<u8> {
    let mut body = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    };
    put("timestamp", message.timestamp.map(|time| time.to_rfc3339().into()));
    put("hostname", message.hostname.map(Value::from));
    put("app_name", message.appname.map(Value::from));
    put(
        "procid",
        message.procid.as_ref().map(|id| match id {
            ProcId::PID(number) => number.to_string().into(),
            ProcId::Name(name) => Value::from(*name),
        }),
    );
    put("msgid", message.msgid.map(Value::from));
    put("severity", message.severity.map(|severity| severity.as_str().into()));
    put("facility", message.facility.map(|facility| facility.as_str().into()));
    put("structured_data", structured_data(message));
    put("message", Some(message.msg.strip_prefix('\u{feff}').unwrap_or(message.msg).into()));
    Value::Object(body).to_string().into_bytes()
}

fn structured_data(message: &Message<&str>) -> Option<Value> {
    if message.structured_data.is_empty() {
        return None;
    }
    let mut elements = Map::new();
    for element in &message.structured_data {
        let of = elements.entry(element.id).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(of) = of else { continue };
        for (name, value) in element.params() {
            match of.get_mut(*name) {
                None => drop(of.insert((*name).to_owned(), value.into())),
                Some(Value::Array(values)) => values.push(value.into()),
                Some(first) => *first = Value::Array(vec![first.take(), value.into()]),
            }
        }
    }
    Some(Value::Object(elements))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn decoded(frame: &str) -> (String, Value) {
        let decoder = SyslogDecoder::new(SyslogTenant::Host);
        let event = decoder.decode(frame.as_bytes()).unwrap();
        (event.tenant.into_owned(), serde_json::from_slice(&event.body).unwrap())
    }

    #[test]
    fn a_message_of_rfc_5424_becomes_an_event() {
        let (tenant, body) = decoded(
            "<165>1 2003-10-11T22:14:15.003Z mymachine evntslog 12 ID47 [ex@1 a=\"x\\\"y\" b=\"1\" b=\"2\"] \u{feff}An event",
        );
        assert_eq!(tenant, "mymachine");
        let expected = json!({
            "timestamp": "2003-10-11T22:14:15.003+00:00", "hostname": "mymachine", "app_name": "evntslog", "procid": "12",
            "msgid": "ID47", "severity": "notice", "facility": "local4",
            "structured_data": {"ex@1": {"a": "x\"y", "b": ["1", "2"]}}, "message": "An event"
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_message_of_rfc_3164_becomes_an_event() {
        let (tenant, body) = decoded("<34>Oct 11 22:14:15 mymachine su[7]: 'su root' failed on /dev/pts/8");
        assert_eq!((tenant.as_str(), &body["app_name"], &body["procid"]), ("mymachine", &json!("su"), &json!("7")));
        assert_eq!((&body["severity"], &body["facility"]), (&json!("crit"), &json!("auth")));
        assert_eq!(body["message"], "'su root' failed on /dev/pts/8");
        assert!(body["timestamp"].as_str().unwrap().contains("-10-11T22:14:15"), "{body}");
    }

    #[test]
    fn what_is_no_message_is_refused_with_a_reason() {
        let decoder = SyslogDecoder::new(SyslogTenant::AppName).invalid_tenant(InvalidTenantName::Refuse);
        for (frame, code) in [
            (&b""[..], Code::Empty),
            (b"hello", Code::BadEvent),
            (b"<192>x", Code::BadEvent),
            (b"<+1>x", Code::BadEvent),
            (b"<13>1 no date", Code::BadEvent),
            (b"<13>\xff", Code::BadUtf8),
            (b"<13>1 2003-10-11T22:14:15.003Z host - - - - x", Code::NoTenant),
            (b"<13>1 2003-10-11T22:14:15.003Z host a/b - - - x", Code::BadTenant),
        ] {
            assert_eq!(decoder.decode(frame).map(|_| ()).unwrap_err().code, code, "{}", String::from_utf8_lossy(frame));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn whatever_comes_is_an_event_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SyslogDecoder::new(SyslogTenant::Host).decode(&bytes);
        }

        #[test]
        fn what_looks_like_a_message_is_an_event_or_refused(
            text in "<[0-9]{1,3}>(1 )?([A-Z][a-z]{2} [ 0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}|[-0-9T:.Z]{1,30}) ?(\\PC{0,10} ?){0,6}(\\[[ -~]{0,30}\\]? ?)?\\PC{0,60}",
        ) {
            for from in [SyslogTenant::Host, SyslogTenant::AppName] {
                if let Ok(event) = SyslogDecoder::new(from).decode(text.as_bytes()) {
                    prop_assert!(serde_json::from_slice::<Value>(&event.body).unwrap().is_object());
                    prop_assert!(TenantId::new(&event.tenant).is_ok());
                }
            }
        }

        #[test]
        fn the_text_of_a_message_is_kept_whole(text in "[a-z][ -~]{0,80}[!-~]") {
            let frame = format!("<13>1 2026-01-02T03:04:05Z host app - - - {text}");
            prop_assert_eq!(&decoded(&frame).1["message"], &json!(text));
        }
    }
}
