use std::borrow::Cow;
use std::sync::Arc;

use crate::model::{Cause, Code, TenantId, UnixMillis};

/// Turns a frame into an event. All connections of a source share one.
///
/// A decoder says whose event a frame is, not whether that name is allowed: the ingress checks the grammar of tenant ids,
/// once for each name and not for each event. A frame that is refused, or on which the decoder panics, is kept as a dead
/// letter with its bytes, and the stream goes on. A call must be quick and must not block: it runs on the thread of the
/// ingress.
///
/// ```
/// use headworks_actors::{Cause, Code, Decoded, Decoder};
///
/// /// `acme|anything`
/// struct Piped;
///
/// impl Decoder for Piped {
///     fn decode<'f>(&self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
///         let text = std::str::from_utf8(frame).map_err(|error| Cause::new(Code::BadUtf8, error.to_string()))?;
///         let (tenant, body) = text.split_once('|').ok_or_else(|| Cause::new(Code::NoTenant, "the line has no '|'"))?;
///         Ok(Decoded { tenant: tenant.into(), time: None, body: body.as_bytes().into() })
///     }
/// }
///
/// assert_eq!(Piped.decode(b"acme|hello").unwrap().tenant, "acme");
/// ```
pub trait Decoder: Send + Sync + 'static {
    /// The event that `frame` says. It may borrow from the frame and from the decoder.
    ///
    /// # Errors
    /// The frame is no event. The cause's code is what the refusal is counted by; its detail is for the person who looks
    /// at the dead letter.
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause>;
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'f> {
    /// The name of the tenant as the frame has it, not yet checked.
    pub tenant: Cow<'f, str>,
    /// When it happened, if the frame says so.
    pub time: Option<UnixMillis>,
    /// The bytes to store: as a rule the frame itself, borrowed.
    pub body: Cow<'f, [u8]>,
}

impl<D: Decoder + ?Sized> Decoder for Arc<D> {
    #[inline]
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        D::decode(self, frame)
    }
}

/// Every frame is an event of one tenant, whatever its bytes: for a source that serves a single tenant.
///
/// An empty frame is refused as [`Code::Empty`].
#[derive(Debug, Clone)]
pub struct RawLines {
    tenant: TenantId,
}

impl RawLines {
    /// Frames of `tenant`.
    #[must_use]
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant }
    }
}

impl Decoder for RawLines {
    #[inline]
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        if frame.is_empty() {
            return Err(Cause::new(Code::Empty, "the frame is empty"));
        }
        Ok(Decoded { tenant: self.tenant.as_str().into(), time: None, body: frame.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_lines_are_events_of_their_one_tenant_whatever_their_bytes() {
        let raw: Arc<dyn Decoder> = Arc::new(RawLines::new(TenantId::new("acme").unwrap()));
        for frame in [&b"plain"[..], b"\xff\xfe\0", b" ", b"{\"tenant\":\"other\"}"] {
            let expected = Decoded { tenant: "acme".into(), time: None, body: frame.into() };
            assert_eq!(raw.decode(frame), Ok(expected));
        }
    }

    #[test]
    fn an_empty_raw_line_is_refused_as_empty() {
        let raw = RawLines::new(TenantId::new("acme").unwrap());
        assert_eq!(raw.decode(b"").unwrap_err().code, Code::Empty);
    }

    #[test]
    fn raw_lines_borrow_tenant_and_body() {
        let raw = RawLines::new(TenantId::new("acme").unwrap());
        let event = raw.decode(b"x").unwrap();
        assert!(matches!((event.tenant, event.body), (Cow::Borrowed(_), Cow::Borrowed(_))));
    }
}
