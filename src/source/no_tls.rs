//! What stands for TLS in a program that was built without.

use std::time::{Duration, SystemTime};

use headworks_actors::{Cause, Code};
use tokio::net::TcpStream;

use super::allowed::Peer;

/// There is none: it takes the feature `tls`.
#[derive(Debug, Clone)]
pub enum Tls {}

impl Tls {
    /// Never asked.
    ///
    /// # Errors
    /// None ever.
    pub fn reload(&self) -> Result<(), String> {
        match *self {}
    }

    /// Nothing ever.
    #[must_use]
    pub fn warning(&self, _: SystemTime) -> Option<String> {
        match *self {}
    }

    /// Never asked.
    pub(super) async fn accept(&self, _: TcpStream) -> Result<(TcpStream, Peer), NotLetIn> {
        match *self {}
    }
}

/// Why a connection is refused at the door.
#[derive(Debug)]
pub(super) struct NotLetIn(pub(super) Cause);

impl NotLetIn {
    pub(super) fn plain() -> Self {
        Self(Cause::new(Code::HandshakeFailed, "it does not speak TLS"))
    }

    pub(super) fn late(_: Duration) -> Self {
        Self(Cause::new(Code::HandshakeFailed, "its TLS handshake took too long"))
    }
}
