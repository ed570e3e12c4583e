//! The actor system of headworks.
mod actor;
pub mod model;
pub mod observe;
pub mod policy;
pub mod port;
mod system;
pub mod wire;

pub use actor::spec::{IngressSpec, TenantSpec};
pub use model::*;
pub use observe::*;
pub use policy::*;
pub use port::*;
pub use system::*;
pub use wire::*;
