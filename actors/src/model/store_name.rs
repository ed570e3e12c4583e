use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smol_str::SmolStr;

use super::tenant::{check_name, shortened};

/// The name of a store in a saga: on record, so that a batch that is rolled back after a restart finds the store again.
///
/// Follows the grammar of [`TenantId`](super::TenantId). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreName(SmolStr);

impl StoreName {
    /// The name of a tenant's only store, where it was given none.
    pub const ONLY: Self = Self(SmolStr::new_inline("store"));

    /// The name, if it follows the grammar.
    ///
    /// # Errors
    /// [`InvalidStoreName`] says which rule was broken.
    pub fn new(name: &str) -> Result<Self, InvalidStoreName> {
        match check_name(name) {
            Ok(()) => Ok(Self(name.into())),
            Err(rule) => Err(InvalidStoreName { name: shortened(name), rule }),
        }
    }

    /// Of the nth store of a saga, from 0, where it was given none.
    pub(crate) fn of_place(nth: usize) -> Self {
        Self(smol_str::format_smolstr!("store-{}", nth + 1))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name that is no name of a store, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no name for a store: {rule}")]
pub struct InvalidStoreName {
    name: String,
    rule: &'static str,
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl FromStr for StoreName {
    type Err = InvalidStoreName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl Serialize for StoreName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StoreName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
