//! headworks
pub use headworks_actors::*;

pub mod config;
#[cfg(feature = "sqlite")]
pub mod daemon;
pub mod source;
pub mod store;
