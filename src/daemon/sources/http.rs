use super::{DaemonError, Opened, Opening, decoder};
use crate::config::SourceConfig;
use crate::source::{BadTokens, HttpOptions, HttpSource, HttpTenant, Tokens};

/// A listener for requests.
pub(super) fn open(opening: &Opening<'_>) -> Result<Opened, DaemonError> {
    let source = opening.source;
    let defaults = HttpOptions::default();
    let options = HttpOptions {
        max_connections: opening.max_connections,
        max_frame: source.max_frame,
        max_body: source.max_body,
        idle_timeout: source.idle().unwrap_or(defaults.idle_timeout),
        answer_within: source.answer_within,
        ack: source.ack,
        tenant_from: tenant_from(opening)?,
        tokens: opening.files.tokens(),
        tls: opening.files.tls.clone(),
    };
    let http = HttpSource::bind(opening.name, source.listen, decoder(opening.config), options);
    let http = http.map_err(|why| opening.refused(why))?;
    Ok((Some(http.local_addr().map_err(|why| opening.refused(why))?), Box::new(http)))
}

/// Who may speak for whom.
pub(super) fn tokens(name: &str, source: &SourceConfig) -> Result<Option<Tokens>, DaemonError> {
    let tokens = source.tokens_file.as_ref().map(|file| {
        let unusable =
            |why: BadTokens| DaemonError::Tokens { name: name.to_owned(), path: file.clone(), why: why.to_string() };
        Tokens::read(file).map_err(unusable)
    });
    tokens.transpose()
}

pub(super) fn tenant_from(opening: &Opening<'_>) -> Result<HttpTenant, DaemonError> {
    let tenant_from = opening.source.tenant_from.as_deref().map_or(Ok(HttpTenant::Field), str::parse);
    tenant_from.map_err(|why: String| opening.refused(std::io::Error::other(why)))
}
