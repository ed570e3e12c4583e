//! Whom a sender may speak for.

use std::sync::Arc;

use headworks_actors::{Cause, Code, Decoded, Decoder, StreamId, TenantPattern};

/// Whom somebody may speak for: those that each of some lists has.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(Vec<Arc<[TenantPattern]>>);

impl Allowed {
    #[cfg(any(feature = "http", feature = "tls"))]
    pub(crate) fn new(patterns: impl Into<Arc<[TenantPattern]>>) -> Self {
        Self(vec![patterns.into()])
    }

    /// Reads the words behind the name of somebody, at least one.
    #[cfg(any(feature = "http", feature = "tls"))]
    pub(in crate::source) fn parse<'w>(words: impl Iterator<Item = &'w str>) -> Result<Self, String> {
        let patterns: Result<Vec<TenantPattern>, _> = words.map(str::parse).collect();
        let patterns = patterns.map_err(|why: headworks_actors::InvalidTenantPattern| why.to_string())?;
        if patterns.is_empty() { Err("no tenant follows".to_owned()) } else { Ok(Self::new(patterns)) }
    }

    pub(crate) fn allows(&self, tenant: &str) -> bool {
        self.0.iter().all(|list| list.iter().any(|pattern| pattern.matches(tenant)))
    }

    /// Those that the other one allows, too.
    #[cfg(feature = "http")]
    pub(in crate::source) fn and(mut self, other: Option<Self>) -> Self {
        self.0.extend(other.into_iter().flat_map(|other| other.0));
        self
    }

    /// Those that either one allows; both are of one list.
    #[cfg(feature = "tls")]
    pub(in crate::source) fn or(self, other: Self) -> Self {
        let all: Vec<_> = self.0.iter().chain(&other.0).flat_map(|list| list.iter().cloned()).collect();
        Self::new(all)
    }
}

/// Who is at the other side of a connection, as far as it had to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// What it is called, where it is bound to tenants.
    pub(in crate::source) name: Option<Arc<str>>,
    /// Whom it may speak for; everybody, where that is not said.
    pub(in crate::source) allowed: Option<Allowed>,
}

impl Peer {
    /// Its own stream of that name, apart from those of others.
    ///
    /// # Errors
    /// The name is too long for that.
    pub(in crate::source) fn own(&self, stream: StreamId) -> Result<StreamId, String> {
        let Some(name) = &self.name else { return Ok(stream) };
        let own = StreamId::new(&format!("{:08x}:{stream}", crc32c::crc32c(name.as_bytes())));
        own.map_err(|_| "the name of the stream is too long: with a certificate it has up to 119 characters".to_owned())
    }
}

/// Events of those tenants that the sender may speak for.
pub(in crate::source) struct Bound<D> {
    pub(in crate::source) decoder: D,
    pub(in crate::source) allowed: Option<Allowed>,
}

impl<D: Decoder> Decoder for Bound<D> {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let decoded = self.decoder.decode(frame)?;
        match &self.allowed {
            Some(allowed) if !allowed.allows(&decoded.tenant) => {
                let tenant: String = decoded.tenant.chars().take(64).collect();
                Err(Cause::new(Code::TenantNotAllowed, format!("the sender may not speak for the tenant {tenant:?}")))
            }
            _ => Ok(decoded),
        }
    }
}

#[cfg(all(test, feature = "http"))]
mod tests {
    use super::*;

    #[test]
    fn two_lists_allow_what_both_have_and_a_stream_is_its_senders_own() {
        let list = |text: &str| Allowed::parse(text.split(' ')).unwrap();
        let both = list("acme-* zen").and(Some(list("*-eu")));
        assert!(both.allows("acme-eu") && !both.allows("acme-us") && !both.allows("zen"));
        let [a, b] = ["a", "b"].map(|name| Peer { name: Some(name.into()), allowed: None });
        let stream = StreamId::new("s").unwrap();
        assert_ne!(a.own(stream.clone()), b.own(stream.clone()));
        assert_eq!(Peer::default().own(stream.clone()), Ok(stream));
        assert!(a.own(StreamId::new(&"s".repeat(128)).unwrap()).is_err());
    }
}
