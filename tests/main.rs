//! The integration tests: one binary, one file a feature.

// The program and its store come together.
#[cfg(feature = "sqlite")]
mod feature;
#[cfg(feature = "sqlite")]
mod rig;
