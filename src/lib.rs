//! headworks
pub use headworks_actors::*;

pub mod config;
