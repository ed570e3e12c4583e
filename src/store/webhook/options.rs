use std::path::PathBuf;
use std::time::Duration;

use headworks_actors::units;
use serde::{Deserialize, Serialize};

/// How a store behind a webhook reaches its server. There is no secret in it: that stays in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WebhookOptions {
    /// Where batches go: `https://events.example/batches`, or `http://`. No user and no password is in it.
    pub url: String,
    /// Where it is asked for a batch to be taken back. Default unset: nothing can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_url: Option<String>,
    /// The file with the secrets, one a line, that requests are signed with; read anew for each request. Default unset: they are not
    /// signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// The certificates, PEM, of which one must have signed the server's. Default unset: those that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How bodies are compressed. Default `none`.
    pub compression: Compression,
    /// How many requests may be under way at once. Default 4.
    pub pool_size: usize,
    /// How long a connection may take to be there. Default 3 s.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// How long a request may take, with its connection and its answer. Default 3 s.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// How many calls may wait for a request; a further one waits for a place. Default 256.
    pub queue: usize,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            rollback_url: None,
            secret_file: None,
            ca_file: None,
            compression: Compression::None,
            pool_size: 4,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(3),
            queue: 256,
        }
    }
}

impl WebhookOptions {
    /// The defaults, for this address.
    ///
    /// ```
    /// # use headworks::store::WebhookOptions;
    /// let options = WebhookOptions::at("https://events.example/batches");
    /// assert_eq!(options.rollback_url, None);
    /// ```
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// What is wrong with an address, if anything.
    pub(crate) fn check_url(url: &str) -> Result<(), &'static str> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let Some(rest) = rest else { return Err("must begin with \"http://\" or \"https://\"") };
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if place.contains('@') {
            return Err("has a user in it: leave that out; requests are signed with what is in secret_file");
        }
        if place.is_empty() || place.starts_with(':') {
            return Err("names no host, as in \"https://events.example/batches\"");
        }
        if url.contains('#') || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must have neither spaces nor \"#\" in it, and ASCII letters alone");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_http_names_a_host_and_has_no_user_in_it() {
        for good in ["http://x", "https://events.example:8443/a?b=c", "http://127.0.0.1:1/", "http://[::1]:80/a@b"] {
            assert_eq!(WebhookOptions::check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "x",
            "ftp://x",
            "http://",
            "http:///a",
            "http://:80",
            "https://me@x/",
            "http://me:pw@x",
            "http://x/#a",
            "http://x/ a",
        ] {
            assert!(WebhookOptions::check_url(bad).is_err(), "{bad}");
        }
    }
}
