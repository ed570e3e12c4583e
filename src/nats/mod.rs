//! What the source and the store of NATS share: who one is to a server, what of a stream may lose messages, tenants in subjects.

mod connect;
mod risks;
mod tenant;

pub(crate) use connect::{Connection, Way};
pub(crate) use risks::risks;
pub(crate) use tenant::{escaped, unescaped};
