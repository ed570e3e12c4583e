//! What a source has in files: its certificate and the tokens of its senders are read again with the configuration.

use std::time::SystemTime;

#[cfg(feature = "http")]
use std::path::PathBuf;

use super::super::DaemonError;
use crate::config::SourceConfig;
use crate::source::Tls;
#[cfg(feature = "http")]
use crate::source::Tokens;

/// The files of one source, as they were read last.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Files {
    pub(super) tls: Option<Tls>,
    #[cfg(feature = "http")]
    tokens: Option<(PathBuf, Tokens)>,
}

impl Files {
    /// Reads those that the source names. Where it is one of passwords, or of certificates that a server is to be known by, it is but
    /// looked at: they are read whenever one connects.
    pub(in crate::daemon) fn read(name: &str, source: &SourceConfig) -> Result<Self, DaemonError> {
        #[cfg(unix)]
        super::super::secrets::check_source(name, source)?;
        Ok(Self {
            tls: super::tls(name, source)?,
            #[cfg(feature = "http")]
            tokens: super::http::tokens(name, source)?.and_then(|tokens| Some((source.tokens_file.clone()?, tokens))),
        })
    }

    /// Who may speak for whom.
    #[cfg(feature = "http")]
    pub(super) fn tokens(&self) -> Option<Tokens> {
        self.tokens.as_ref().map(|(_, tokens)| tokens.clone())
    }

    pub(in crate::daemon) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Reads them again: of each kind what was read, or why not, in which case what was read before stays.
    pub(in crate::daemon) fn read_again(&self) -> Vec<(&'static str, Result<(), String>)> {
        let tls = self.tls.as_ref().map(|tls| ("certificates", tls.reload()));
        #[cfg(feature = "http")]
        let tokens = self.tokens.as_ref().map(|(path, tokens)| {
            let why = |why| format!("cannot use the tokens in {} (tokens_file): {why}", path.display());
            ("tokens", tokens.read_again(path).map_err(why))
        });
        #[cfg(not(feature = "http"))]
        let tokens = None;
        [tls, tokens].into_iter().flatten().collect()
    }

    /// What is to be told of them although they can be used: a certificate that clients refuse, or soon will.
    pub(in crate::daemon) fn warning(&self, now: SystemTime) -> Option<String> {
        self.tls.as_ref()?.warning(now)
    }
}
