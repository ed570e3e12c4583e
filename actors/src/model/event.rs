use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{TenantId, UnixMillis};

/// One decoded fact that owns its bytes: what hooks take and give.
///
/// A hook may change the body and the time; whose event it is was settled at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    tenant: TenantId,
    /// When it happened, if the decoder could tell.
    pub time: Option<UnixMillis>,
    /// The bytes that will be stored.
    pub body: Bytes,
}

impl Event {
    /// An event of `tenant`.
    #[must_use]
    pub fn new(tenant: TenantId, time: Option<UnixMillis>, body: impl Into<Bytes>) -> Self {
        Self { tenant, time, body: body.into() }
    }

    /// Whose event it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The body read as JSON into a type of yours.
    ///
    /// # Errors
    /// The body is not JSON, or not of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// An event where it lies: in its chunk's one block of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'c> {
    /// When it happened, if the decoder could tell.
    pub time: Option<UnixMillis>,
    /// When its chunk was read.
    pub arrived: UnixMillis,
    /// The frame's bytes, or what a hook made of them.
    pub body: &'c [u8],
}

impl EventRef<'_> {
    /// The body read as JSON into a type of yours.
    ///
    /// # Errors
    /// The body is not JSON, or not of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.body)
    }
}
