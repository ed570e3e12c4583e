//! Assembly: a builder makes a system, a handle speaks to it from any thread, a drain ends it.

mod builder;
mod drain;
mod handle;
mod measure;
mod rules;
mod source;
#[cfg(feature = "testing")]
pub mod source_conformance;
mod stream;
mod tap;

pub use crate::actor::streams::Answer;
pub use builder::{Placement, SystemBuilder};
pub use drain::{DrainReport, TenantDrained};
pub use handle::{IngressHandle, System, TenantHandle};
pub use measure::Measurements;
pub use source::{Intake, Lost, Source, SourceHandle, Telling};
pub use stream::{Answers, Receipt, Settlement};
