use headworks_actors::Redaction;
use serde::{Deserialize, Serialize};

use super::check::Problem;

/// `[tap]`: what `headworks tap` and `GET /v1/tap` show of events as they pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TapConfig {
    /// Whether they may be asked. Default true: who may ask the API may read stored events, too.
    pub enabled: bool,
    /// The fields of events that are never told there, as [`Redaction`] names them; what is asked for adds to them. Default none.
    pub redact: Vec<String>,
}

impl Default for TapConfig {
    fn default() -> Self {
        Self { enabled: true, redact: vec![] }
    }
}

pub(super) fn check(tap: &TapConfig) -> Result<(), Problem> {
    Redaction::new(&tap.redact).map(drop).map_err(|why| Problem::new(["tap", "redact"], format!("cannot be: {why}")))
}
