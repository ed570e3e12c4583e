//! The files that the configuration names and the daemon reads: secrets and certificates.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::DaemonError;
use crate::admin::Token;
use crate::config::{Config, SourceKind, StoreConfig, StoreKind};

/// Whether the daemon can use the files that the configuration names, as whoever asks: the token of the admin API, the tokens of
/// sources, passwords and certificates of stores, the headers of a collector. Those alone that are used.
///
/// # Errors
/// The first that it cannot, with its key and why.
pub fn check_files(config: &Config) -> Result<(), DaemonError> {
    if let (Some(_), Some(path)) = (config.admin.listen, &config.admin.token_file) {
        Token::read(path).map_err(|why| DaemonError::Token { path: path.clone(), why })?;
    }
    for (name, source) in config.sources.iter().filter(|(_, source)| source.kind == SourceKind::Http) {
        #[cfg(feature = "http")]
        super::http::options(name, source)?;
        #[cfg(not(feature = "http"))]
        let _ = (name, source);
    }
    check_store("store", &config.store)?;
    for (name, store) in &config.stores {
        check_store(&format!("stores.{name}"), store)?;
    }
    #[cfg(feature = "otlp")]
    crate::telemetry::Ready::of(&config.telemetry).map_err(DaemonError::Telemetry)?;
    Ok(())
}

fn check_store(at: &str, store: &StoreConfig) -> Result<(), DaemonError> {
    if store.kind != StoreKind::Postgres {
        return Ok(());
    }
    for (key, path) in [("password_file", &store.password_file), ("ca_file", &store.ca_file)] {
        if let Some(path) = path {
            readable(path).map_err(|why| DaemonError::File { key: format!("{at}.{key}"), path: path.clone(), why })?;
        }
    }
    Ok(())
}

/// Whether anything can be read of it.
fn readable(path: &Path) -> io::Result<()> {
    match File::open(path)?.read(&mut [0])? {
        0 => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        _ => Ok(()),
    }
}
