use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a window was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlushReason {
    /// It held `max_events`.
    Size,
    /// The next event would have exceeded `max_bytes`.
    Bytes,
    /// Its first event was `max_age` old.
    Age,
    /// The memory budget of the whole system was full.
    Pressure,
    /// The system drains.
    Drain,
    /// Someone asked for it.
    Explicit,
}

impl FlushReason {
    /// Every reason there is.
    pub const ALL: [Self; 6] = [Self::Size, Self::Bytes, Self::Age, Self::Pressure, Self::Drain, Self::Explicit];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Pressure => "pressure",
            Self::Drain => "drain",
            Self::Explicit => "explicit",
        }
    }
}

impl fmt::Display for FlushReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
