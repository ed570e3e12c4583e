//! The actor system through its public API, in virtual time unless a test says otherwise.

mod feature;
mod rig;
