//! headworks
pub use headworks_actors::*;

pub mod store;
