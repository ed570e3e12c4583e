//! The server of the tests.
#![expect(dead_code, clippy::unwrap_used, reason = "tests need more of it, and fail by panicking")]

#[path = "../../tests/rig/nats.rs"]
pub(crate) mod nats;
#[path = "../../tests/rig/process.rs"]
mod process;
#[path = "../../tests/rig/python.rs"]
mod python;

use std::time::Duration;

use process::Process;

const DEADLINE: Duration = Duration::from_secs(120);
