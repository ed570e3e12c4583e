//! The actor system of headworks.
pub mod model;
pub mod policy;
pub mod port;
pub mod wire;

pub use model::*;
pub use policy::*;
pub use port::*;
pub use wire::*;
