use serde::Serialize;

/// What the circuit breaker between a tenant and a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go through, though the last one failed.
    Closed,
    /// None does, for a while.
    Open,
    /// The next call says whether it is closed.
    HalfOpen,
}

impl BreakerState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}
