//! The integration tests: one binary, one file a feature.

mod feature;
