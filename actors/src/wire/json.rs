use super::json_fields::{Fields, Object, Tenant};
use super::json_scan::{Scanned, scan};
use super::strict_json::{Checked, read, text};
use super::{Decoded, Decoder};
use crate::model::{Cause, Code, TenantId};

/// A frame is one JSON object, and a field of it names the tenant.
///
/// The whole frame is checked against RFC 8259, nested at most 127 deep, and stored exactly as it came. Fields other than
/// the two named here may be anything.
///
/// | the frame | is refused as |
/// |---|---|
/// | is empty, or only white space | [`Code::Empty`] |
/// | is not UTF-8 | [`Code::BadUtf8`] |
/// | is not one JSON value, or more than one | [`Code::BadJson`] |
/// | is nested too deep | [`Code::TooDeep`] |
/// | is JSON, but no object | [`Code::BadEvent`] |
/// | has no tenant field | [`Code::NoTenant`] |
/// | has a tenant field that is not a string, or has it twice | [`Code::BadTenant`] |
///
/// ```
/// use headworks_actors::{Decoder, Json, UnixMillis};
///
/// let json = Json::new().tenant_field("device").time_field("at");
/// let event = json.decode(br#"{"device": "t042", "at": 1732233600007, "celsius": 21.5}"#).unwrap();
/// assert_eq!(event.tenant, "t042");
/// assert_eq!(event.time, Some(UnixMillis(1_732_233_600_007)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json {
    pub(super) tenant_field: Box<str>,
    pub(super) time_field: Option<Box<str>>,
    tenant: Option<TenantId>,
}

impl Json {
    /// Objects with the tenant in the field `tenant` and no time.
    #[must_use]
    pub fn new() -> Self {
        Self { tenant_field: "tenant".into(), time_field: None, tenant: None }
    }

    /// The tenant is in the top-level field `name`.
    #[must_use]
    pub fn tenant_field(mut self, name: impl Into<Box<str>>) -> Self {
        self.tenant_field = name.into();
        self
    }

    /// Every object is an event of `tenant`, whatever it says itself, if anything.
    #[must_use]
    pub fn of_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// The time is in the top-level field `name`, as a whole number of milliseconds since 1970-01-01 UTC.
    ///
    /// An event without the field, or with anything else in it, has no time, and is an event all the same. The last one
    /// counts where the field stands twice.
    #[must_use]
    pub fn time_field(mut self, name: impl Into<Box<str>>) -> Self {
        self.time_field = Some(name.into());
        self
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for Json {
    #[inline]
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        match scan(frame, self) {
            Some(Scanned { tenant, time }) => {
                let tenant = self.tenant.as_ref().map_or(tenant, TenantId::as_str);
                Ok(Decoded { tenant: tenant.into(), time, body: frame.into() })
            }
            None => self.read(frame),
        }
    }
}

impl Json {
    /// Reads what the quick way leaves, and says what is wrong with it.
    #[cold]
    pub(super) fn read<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let text = text(frame)?;
        if let Some(kind) = kind_unless_object(text) {
            read(text, Checked)?;
            return Err(Cause::new(Code::BadEvent, format!("the frame is {kind}, not an object")));
        }
        let Fields { tenant, time } = read(text, Object(self))?;
        if let Some(tenant) = &self.tenant {
            return Ok(Decoded { tenant: tenant.as_str().into(), time, body: frame.into() });
        }
        match tenant {
            Tenant::Named(tenant) => Ok(Decoded { tenant, time, body: frame.into() }),
            other => Err(self.refused(&other)),
        }
    }

    fn refused(&self, tenant: &Tenant<'_>) -> Cause {
        let field = &self.tenant_field;
        match tenant {
            Tenant::Other(kind) => Cause::new(Code::BadTenant, format!("the field {field:?} is {kind}, not a string")),
            Tenant::Twice => Cause::new(Code::BadTenant, format!("the object has the field {field:?} more than once")),
            Tenant::Missing | Tenant::Named(_) => {
                Cause::new(Code::NoTenant, format!("the object has no field {field:?} at its top level"))
            }
        }
    }
}

/// What the text's first byte says that it is, if not an object.
#[inline]
fn kind_unless_object(text: &str) -> Option<&'static str> {
    match text.trim_start().as_bytes().first()? {
        b'{' => None,
        b'[' => Some("an array"),
        b'"' => Some("a string"),
        b'n' => Some("null"),
        b't' | b'f' => Some("a boolean"),
        _ => Some("a number"),
    }
}
