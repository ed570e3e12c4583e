//! The commands.

pub(crate) mod generate;
mod sample;
pub(crate) mod send;
