use serde::{Deserialize, Serialize};

use super::within;

/// How a tenant stands among those that share a store with it, while the store cannot take all of them at once.
///
/// ```
/// use headworks_actors::{Policy, PriorityClass, PriorityPolicy};
///
/// let billing = PriorityPolicy { class: PriorityClass::Critical, weight: 4 };
/// assert!(Policy { priority: billing, ..Policy::default() }.check().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriorityPolicy {
    /// Which tenants go first. Default `normal`.
    pub class: PriorityClass,
    /// The share of the store's bytes that it gets, beside the weights of the others of its class that wait. From 1 to 1000.
    /// Default 1.
    ///
    /// A tenant has one batch at a time in a store: it cannot get more than that one call brings, whatever its weight.
    pub weight: u32,
}

impl Default for PriorityPolicy {
    fn default() -> Self {
        Self { class: PriorityClass::Normal, weight: 1 }
    }
}

impl PriorityPolicy {
    /// See [`Policy::check`](super::Policy::check).
    ///
    /// # Errors
    /// A sentence that names the key and its bounds.
    pub fn check(&self) -> Result<(), String> {
        within("priority.weight", self.weight, 1, 1_000)
    }
}

/// Which tenants go first at a store that they share. No class starves: who has waited for five seconds gets every fourth turn,
/// whoever of a higher class waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorityClass {
    /// Before all others.
    Critical,
    /// Before bulk.
    #[default]
    Normal,
    /// With what the others leave.
    Bulk,
}

impl PriorityClass {
    /// Every one, the first first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Bulk];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_of_nothing_or_beyond_a_thousand_is_refused_by_its_key() {
        for weight in [0, 1_001] {
            let refused = PriorityPolicy { weight, ..PriorityPolicy::default() }.check().unwrap_err();
            assert_eq!(refused, format!("priority.weight is {weight}, but must be from 1 to 1000"));
        }
    }
}
