//! The actor system through its public API, in virtual time unless a test says otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod feature;
mod rig;
