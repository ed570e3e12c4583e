//! The actor system of headworks.
pub mod model;
pub mod port;

pub use model::*;
pub use port::*;
