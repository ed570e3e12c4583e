use std::borrow::Cow;

use chrono::{DateTime, Datelike, FixedOffset, Local, Timelike, Utc};
use headworks_actors::{Cause, Code, Decoded, Decoder, TenantId, UnixMillis};
use serde::Serialize;
use serde_json::{Map, Value};
use syslog_loose::{IncompleteDate, Message, ProcId, Protocol, Variant, decompose_pri, parse_message_with_year_exact};

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
        let text = text.trim();
        if text.is_empty() {
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
        Ok(Decoded { tenant, time, body: Cow::Owned(body(&message, !has_special(text))) })
    }
}

fn parsed(text: &str) -> Result<Message<&str>, Cause> {
    let bad = |why: &str| Cause::new(Code::BadEvent, why.to_owned());
    let (priority, rest) = text
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .ok_or_else(|| bad("a syslog message begins with its priority, like <13>"))?;
    let is_number = (1..=3).contains(&priority.len()) && priority.bytes().all(|byte| byte.is_ascii_digit());
    let Some(priority) = priority.parse().ok().filter(|priority| is_number && *priority <= 191) else {
        return Err(bad("the priority must be a number from 0 to 191"));
    };
    if let Some(message) = rest.strip_prefix("1 ").and_then(|rest| quick(priority, rest)) {
        return Ok(message);
    }
    let variant = if rest.starts_with("1 ") { Variant::RFC5424 } else { Variant::RFC3164 };
    parse_message_with_year_exact(text, year, variant).map_err(|_| match variant {
        Variant::RFC5424 => bad("it says that it is of version 1, but is not as RFC 5424 has it"),
        _ => bad("it is neither as RFC 5424 nor as RFC 3164 has it"),
    })
}

/// The quick way through a message of RFC 5424, behind its version, that is as nearly all are: with single spaces, and no structured
/// data. `None` says nothing: the rest is for the library, which takes several times as long, and reads the same out of this.
fn quick(priority: u8, mut rest: &str) -> Option<Message<&str>> {
    let mut field = || {
        let (text, behind) = rest.split_at(rest.bytes().position(|byte| !byte.is_ascii_graphic())?);
        rest = behind.strip_prefix(' ')?;
        (!text.is_empty() && !text.ends_with(':')).then(|| Some(text).filter(|text| *text != "-"))
    };
    let (timestamp, hostname, appname, procid, msgid) = (field()?, field()?, field()?, field()?, field()?);
    let timestamp = match timestamp {
        Some(time) => Some(DateTime::parse_from_rfc3339(time).ok()?),
        None => None,
    };
    let (facility, severity) = decompose_pri(priority);
    Some(Message {
        protocol: Protocol::RFC5424(1),
        facility,
        severity,
        timestamp,
        hostname,
        appname,
        procid: procid.map(ProcId::from),
        msgid,
        structured_data: vec![],
        msg: rest.strip_prefix('-')?.trim_start_matches([' ', '\t']),
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

/// About how long the names of the fields and what else is around their values are, in bytes.
const AROUND: usize = 256;

/// The name of a field, with what is around it.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The fields by their names, in their order. `is_plain` says that nothing in the message needs an escape.
fn body(message: &Message<&str>, is_plain: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.msg.len() + AROUND);
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            body.extend_from_slice(name.as_bytes());
            put_text(value, is_plain, &mut body);
        }
    };
    put(name!("app_name"), message.appname);
    put(name!("facility"), message.facility.map(|facility| facility.as_str()));
    put(name!("hostname"), message.hostname);
    put(name!("message"), Some(message.msg.strip_prefix('\u{feff}').unwrap_or(message.msg)));
    put(name!("msgid"), message.msgid);
    match message.procid {
        Some(ProcId::PID(number)) => put(name!("procid"), Some(&number.to_string())),
        Some(ProcId::Name(name)) => put(name!("procid"), Some(name)),
        None => {}
    }
    put(name!("severity"), message.severity.map(|severity| severity.as_str()));
    if let Some(elements) = structured_data(message) {
        body.extend_from_slice(name!("structured_data").as_bytes());
        put_json(&elements, &mut body);
    }
    if let Some(time) = message.timestamp {
        body.extend_from_slice(name!("timestamp").as_bytes());
        put_time(&time, &mut body);
    }
    // In the place of the first comma: there is always a message.
    body[0] = b'{';
    body.push(b'}');
    body
}

/// Whether something in it is written in another way in JSON. Without a branch a byte, so that the processor does it side by side.
fn has_special(text: &str) -> bool {
    let is_special = |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    text.bytes().fold(0, |any, byte| any | is_special(byte)) != 0
}

fn put_text(text: &str, is_plain: bool, body: &mut Vec<u8>) {
    if !is_plain && has_special(text) {
        return put_json(text, body);
    }
    body.push(b'"');
    body.extend_from_slice(text.as_bytes());
    body.push(b'"');
}

/// As `to_rfc3339` has it, which takes several times as long.
fn put_time(time: &DateTime<FixedOffset>, body: &mut Vec<u8>) {
    let offset = time.offset().local_minus_utc();
    let (Ok(year @ 0..=9_999), 0) = (u32::try_from(time.year()), offset % 60) else {
        return put_json(&time.to_rfc3339(), body);
    };
    let local = time.naive_local();
    // A leap second is the one before with too many nanoseconds.
    let (second, nanos) = (local.second() + local.nanosecond() / 1_000_000_000, local.nanosecond() % 1_000_000_000);
    let mut text = *b"\"0000-00-00T00:00:00.000000000";
    let mut put = |at: usize, number: u32| {
        text[at] = b'0' + (number / 10 % 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    };
    put(1, year / 100);
    put(3, year % 100);
    for (nth, number) in [local.month(), local.day(), local.hour(), local.minute(), second].into_iter().enumerate() {
        put(6 + nth * 3, number);
    }
    let length = match nanos {
        0 => 20,
        nanos if nanos % 1_000_000 == 0 => 24,
        nanos if nanos % 1_000 == 0 => 27,
        _ => 30,
    };
    if nanos > 0 {
        put(21, nanos / 10_000_000);
        put(23, nanos / 100_000);
        put(25, nanos / 1_000);
        put(27, nanos / 10);
        text[29] = b'0' + (nanos % 10) as u8;
    }
    body.extend_from_slice(&text[..length]);
    let (sign, minutes) = (if offset < 0 { b'-' } else { b'+' }, offset.unsigned_abs() / 60);
    let digit = |number: u32| b'0' + (number % 10) as u8;
    let (hours, minutes) = (minutes / 60, minutes % 60);
    body.extend([sign, digit(hours / 10), digit(hours), b':', digit(minutes / 10), digit(minutes), b'"']);
}

fn put_json(value: &(impl Serialize + ?Sized), body: &mut Vec<u8>) {
    // There is nothing in it that JSON has not, and memory takes whatever is written.
    let _ = serde_json::to_writer(body, value);
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

    /// The fields as a map of values has them.
    fn as_a_map(message: &Message<&str>) -> Value {
        let mut body = Map::new();
        let mut put = |key: &str, value: Option<Value>| drop(value.map(|value| body.insert(key.to_owned(), value)));
        put("timestamp", message.timestamp.map(|time| time.to_rfc3339().into()));
        put("hostname", message.hostname.map(Value::from));
        put("app_name", message.appname.map(Value::from));
        let procid = message.procid.as_ref().map(|id| match id {
            ProcId::PID(number) => number.to_string().into(),
            ProcId::Name(name) => Value::from(*name),
        });
        put("procid", procid);
        put("msgid", message.msgid.map(Value::from));
        put("severity", message.severity.map(|severity| severity.as_str().into()));
        put("facility", message.facility.map(|facility| facility.as_str().into()));
        put("structured_data", structured_data(message));
        put("message", Some(message.msg.strip_prefix('\u{feff}').unwrap_or(message.msg).into()));
        Value::Object(body)
    }

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
    fn a_common_message_takes_the_quick_way() {
        let read = quick(13, "2026-01-02T03:04:05.006Z host app 7 - - hello").unwrap();
        assert_eq!((read.hostname, read.appname, read.msgid, read.msg), (Some("host"), Some("app"), None, "hello"));
        assert!(quick(13, "- - - - - -").is_some());
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
                    let expected = as_a_map(&parsed(text.trim()).unwrap());
                    prop_assert_eq!(serde_json::from_slice::<Value>(&event.body).unwrap(), expected);
                }
            }
        }

        #[test]
        fn the_quick_way_reads_what_the_library_reads(
            head in "(191|13|007)>1 (-|2026-01-02T03:04:(05|60)(\\.[0-9]{1,9})?(Z|[+-]0[0-9]:30)|x) ",
            fields in prop::collection::vec("[a-z]{1,3}:?|-|[0-9]{1,3}|\\+7|[:a \t\u{a0}]{0,3}", 3..5),
            rest in "( ?-| ?\\[a b=\"c\"\\]|)[ \t]{0,2}[ -~]{0,5}",
        ) {
            let text = format!("<{head}{} {rest}", fields.join(" "));
            let library = parse_message_with_year_exact(text.trim(), year, Variant::RFC5424);
            let quick = quick(head[..head.find('>').unwrap()].parse().unwrap(), text.trim().split_once(">1 ").unwrap_or_default().1);
            if let Some(quick) = quick {
                prop_assert_eq!(format!("{quick:?}"), format!("{:?}", library.unwrap()), "{}", text);
            }
        }

        #[test]
        fn a_time_is_written_as_the_library_writes_it(
            seconds in -70_000_000_000_i64..300_000_000_000,
            nanos in prop_oneof![Just(0_u32), (0..2_000_u32).prop_map(|n| n * 1_000_000), 0..2_000_000_000_u32],
            minutes in -1_439..1_440,
        ) {
            let offset = FixedOffset::east_opt(minutes * 60).unwrap();
            // Only the last second of a minute can be a leap second.
            let seconds = if nanos < 1_000_000_000 { seconds } else { seconds.div_euclid(60) * 60 + 59 };
            let time = DateTime::from_timestamp(seconds, nanos).unwrap().with_timezone(&offset);
            let mut written = vec![];
            put_time(&time, &mut written);
            prop_assert_eq!(serde_json::from_slice::<String>(&written).unwrap(), time.to_rfc3339());
        }

        #[test]
        fn the_text_of_a_message_is_kept_whole(text in "[a-z](\\PC|[\u{1}-\u{1f}\"\\\\]){0,80}[!-~]") {
            let frame = format!("<13>1 2026-01-02T03:04:05Z host app - - - {text}");
            prop_assert_eq!(&decoded(&frame).1["message"], &json!(text));
        }
    }
}
