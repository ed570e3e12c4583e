use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

/// The longest tenant id, in bytes.
const MAX_LEN: usize = 64;

/// The name of a tenant: the unit of isolation.
///
/// Matches `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, so that an id is inert in a path, a log line, a metric label and a page.
/// Cloning is cheap: a name of up to 23 bytes lies in the id itself, a longer one is shared.
///
/// ```
/// use headworks_actors::TenantId;
/// let acme: TenantId = "acme".parse()?;
/// assert_eq!(acme.as_str(), "acme");
/// assert!("../etc".parse::<TenantId>().is_err());
/// # Ok::<(), headworks_actors::InvalidTenantId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(SmolStr);

impl TenantId {
    /// The id, if `name` follows the grammar.
    ///
    /// # Errors
    /// [`InvalidTenantId`] says which rule was broken.
    pub fn new(name: &str) -> Result<Self, InvalidTenantId> {
        Self::check(name).map(|()| Self(name.into()))
    }

    /// Whether `name` follows the grammar, without an id being made of it.
    pub(crate) fn check(name: &str) -> Result<(), InvalidTenantId> {
        check_name(name).map_err(|rule| InvalidTenantId { name: shortened(name), rule })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The grammar of names: of tenants, and of stores.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    let bytes = name.as_bytes();
    match bytes.first() {
        None => return Err("it is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => return Err("it must begin with a letter or a digit"),
        Some(_) => {}
    }
    if bytes.len() > MAX_LEN {
        return Err("it is longer than 64 bytes");
    }
    if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err("only letters, digits, '.', '_' and '-' are allowed");
    }
    Ok(())
}

/// A name that is no tenant id, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no tenant id: {rule}")]
pub struct InvalidTenantId {
    name: String,
    rule: &'static str,
}

/// Enough of a hostile name to recognise it.
pub(super) fn shortened(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name.to_owned(),
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<&str> for TenantId {
    type Error = InvalidTenantId;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl Serialize for TenantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_the_grammar_or_is_refused_with_the_rule() {
        for good in ["a", "A9", "0", "acme.eu-west_1", &"x".repeat(64)] {
            assert!(TenantId::new(good).is_ok(), "{good}");
        }
        for (bad, rule) in [
            ("", "empty"),
            (".hidden", "begin"),
            ("-x", "begin"),
            ("a/b", "only"),
            ("a\0b", "only"),
            ("\u{202e}a", "begin"),
            ("caf\u{e9}", "only"),
            (&"x".repeat(65) as &str, "longer"),
        ] {
            let error = TenantId::new(bad).unwrap_err().to_string();
            assert!(error.contains(rule), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_hostile_name_is_shortened_in_its_error() {
        let error = TenantId::new(&"\u{e9}".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 500, "{}", error.len());
    }
}
