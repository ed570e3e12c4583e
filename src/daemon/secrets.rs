//! The files that the configuration names and the daemon reads: secrets and certificates.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::DaemonError;
use crate::admin::Token;
use crate::config::{Config, StoreConfig};

/// Whether the daemon can use the files that the configuration names, as whoever asks: the token of the admin API, the tokens of
/// sources, passwords and certificates of stores, the headers of a collector. Those alone that are used.
///
/// # Errors
/// The first that it cannot, with its key and why.
pub fn check_files(config: &Config) -> Result<(), DaemonError> {
    if let (Some(_), Some(path)) = (config.admin.listen, &config.admin.token_file) {
        Token::read(path).map_err(|why| DaemonError::Token { path: path.clone(), why })?;
    }
    for (name, source) in &config.sources {
        super::sources::check_files(name, source)?;
        let named = [("password_file", &source.password_file), ("ca_file", &source.ca_file)];
        check_readable(&format!("sources.{name}"), named)?;
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
    let named = [
        ("password_file", &store.password_file),
        ("ca_file", &store.ca_file),
        ("credentials_file", &store.credentials_file),
        ("secret_file", &store.secret_file),
    ];
    check_readable(at, named)
}

fn check_readable<const N: usize>(at: &str, named: [(&str, &Option<PathBuf>); N]) -> Result<(), DaemonError> {
    for (key, path) in named {
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
