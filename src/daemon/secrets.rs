//! The files that the configuration names and the daemon reads: secrets and certificates.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use super::DaemonError;
use crate::admin::Token;
use crate::config::{Config, SourceConfig, StoreConfig};
use crate::secret_file;

/// Whether the daemon can use the files that the configuration names, as whoever asks: the token of the admin API, the tokens of
/// sources, passwords and certificates of sources and stores, the headers of a collector. Those alone that are used. The answer is what
/// is to be told although they can be used: certificates that have expired, or soon will.
///
/// # Errors
/// The first that it cannot, with its key and why.
pub fn check_files(config: &Config) -> Result<Vec<String>, DaemonError> {
    if let (Some(_), Some(path)) = (config.admin.listen, &config.admin.token_file) {
        Token::read(path).map_err(|why| DaemonError::Token { path: path.clone(), why })?;
    }
    let mut notes = vec![];
    for (name, source) in &config.sources {
        let warning = super::sources::Files::read(name, source)?.warning(SystemTime::now());
        notes.extend(warning.map(|warning| format!("source {name}: {warning}")));
    }
    check_store("store", &config.store)?;
    for (name, store) in &config.stores {
        check_store(&format!("stores.{name}"), store)?;
    }
    #[cfg(feature = "otlp")]
    crate::telemetry::Ready::of(&config.telemetry).map_err(DaemonError::Telemetry)?;
    Ok(notes)
}

/// The secrets that a source connects with.
pub(super) fn check_source(name: &str, source: &SourceConfig) -> Result<(), DaemonError> {
    let at = format!("sources.{name}");
    check(&at, "password_file", source.password_file.as_deref(), secret)?;
    check(&at, "credentials_file", source.credentials_file.as_deref(), secret)?;
    check(&at, "ca_file", source.ca_file.as_deref(), readable)
}

fn check_store(at: &str, store: &StoreConfig) -> Result<(), DaemonError> {
    check(at, "password_file", store.password_file.as_deref(), secret)?;
    check(at, "credentials_file", store.credentials_file.as_deref(), secret)?;
    check(at, "secret_file", store.secret_file.as_deref(), signing)?;
    check(at, "ca_file", store.ca_file.as_deref(), readable)
}

fn check(
    at: &str,
    key: &str,
    path: Option<&Path>,
    can_be_used: fn(&Path) -> io::Result<()>,
) -> Result<(), DaemonError> {
    let Some(path) = path else { return Ok(()) };
    can_be_used(path).map_err(|why| DaemonError::File { key: format!("{at}.{key}"), path: path.to_owned(), why })
}

/// Whether there is a secret in it, and nobody else's eyes.
fn secret(path: &Path) -> io::Result<()> {
    match secret_file::bytes(path, secret_file::MOST)?.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        false => Ok(()),
    }
}

/// Whether requests can be signed with what is in it.
fn signing(path: &Path) -> io::Result<()> {
    #[cfg(feature = "webhook")]
    return crate::store::webhook::check_secret(path).map_err(io::Error::other);
    #[cfg(not(feature = "webhook"))]
    secret(path)
}

/// Whether anything can be read of it.
fn readable(path: &Path) -> io::Result<()> {
    match File::open(path)?.read(&mut [0])? {
        0 => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        _ => Ok(()),
    }
}
