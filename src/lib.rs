//! headworks
pub use headworks_actors::*;
