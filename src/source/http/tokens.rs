use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::secret_file;
use crate::source::allowed::Allowed;

/// The lengths that a token may have, in bytes, and the largest file of them.
const SHORTEST: usize = 16;
const LONGEST: usize = 1024;
const MOST: usize = 1 << 20;

/// Who may speak for whom: tokens, each with the tenants that its bearers may send events of.
///
/// In a file, a line is `TOKEN PATTERN [PATTERN...]`, with spaces between; `*` in a pattern is any run of characters. Empty lines and
/// those that begin with `#` are none.
/// Clones are the same: [`read_again`](Self::read_again) is for all of them.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Arc<Known>>>);

type Known = [(Box<str>, Allowed)];

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.known().len()).finish()
    }
}

/// Why tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadTokens {
    /// The file cannot be read, or others may read it.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// A line is wrong. The error does not show it.
    #[error("line {line}: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// There is none in it.
    #[error("there is no token in it; a line is: TOKEN PATTERN [PATTERN...]")]
    Empty,
}

impl Tokens {
    /// Reads them from a file.
    ///
    /// # Errors
    /// [`BadTokens`].
    pub fn read(path: &Path) -> Result<Self, BadTokens> {
        Self::parse(&secret_file::read(path, MOST)?)
    }

    /// Reads them from the file again: who comes from now on is known by these.
    ///
    /// # Errors
    /// [`BadTokens`]: those from before stay.
    pub fn read_again(&self, path: &Path) -> Result<(), BadTokens> {
        let fresh = Self::read(path)?.known();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    fn known(&self) -> Arc<Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads them from a text.
    ///
    /// # Errors
    /// [`BadTokens`].
    pub fn parse(text: &str) -> Result<Self, BadTokens> {
        let mut tokens: Vec<(Box<str>, Allowed)> = vec![];
        for (nth, line) in text.lines().enumerate() {
            let bad = |why: String| BadTokens::Line { line: nth + 1, why };
            let mut words = line.split_ascii_whitespace();
            let Some(token) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            if !(SHORTEST..=LONGEST).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(bad(format!("a token has from {SHORTEST} to {LONGEST} visible ASCII characters")));
            }
            if tokens.iter().any(|(other, _)| **other == *token) {
                return Err(bad("its token is there twice".to_owned()));
            }
            let allowed = Allowed::parse(words).map_err(|why| match why.as_str() {
                "no tenant follows" => bad("no tenant follows the token; * is any".to_owned()),
                _ => bad(why),
            })?;
            tokens.push((token.into(), allowed));
        }
        if tokens.is_empty() { Err(BadTokens::Empty) } else { Ok(Self(Arc::new(RwLock::new(tokens.into())))) }
    }

    /// Whom the bearer of `token` may speak for. Takes as long for one wrong token as for another of its length.
    pub(crate) fn bearer(&self, token: &[u8]) -> Option<Allowed> {
        let is = |own: &str| {
            let own = own.as_bytes();
            let pairs = own.iter().zip(token);
            let differences = pairs.fold(0, |all, (own, other)| std::hint::black_box(all | (own ^ other)));
            own.len() == token.len() && differences == 0
        };
        let known = self.known();
        known.iter().fold(None, |found, (own, allowed)| if is(own) { Some(allowed) } else { found }).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_speaks_for_the_tenants_of_the_line_and_for_no_other() {
        let tokens = Tokens::parse("# who\n\n0123456789abcdef acme acme-*\n0123456789abcdeF *\n").unwrap();
        let acme = tokens.bearer(b"0123456789abcdef").unwrap();
        assert!(acme.allows("acme") && acme.allows("acme-eu") && !acme.allows("other"));
        assert!(tokens.bearer(b"0123456789abcdeF").unwrap().allows("other"));
        for wrong in [&b"0123456789abcde"[..], b"0123456789abcdef0", b"", b"acme"] {
            assert!(tokens.bearer(wrong).is_none());
        }
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_told_by_its_line_and_without_its_secret() {
        for (text, word) in [
            ("", "no token in it"),
            ("# a\nsecret", "line 2: a token has from 16"),
            ("secret-secret-secret", "line 1: no tenant follows"),
            ("secret-secret-secret a/b", "is no pattern"),
            ("secret-secret-secret a\nsecret-secret-secret b", "line 2: its token is there twice"),
        ] {
            let why = Tokens::parse(text).unwrap_err().to_string();
            assert!(why.contains(word) && !why.contains("secret-secret"), "{why}");
        }
    }
}
