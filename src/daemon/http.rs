use super::DaemonError;
use crate::config::{SourceConfig, TenantFrom};
use crate::source::{self, HttpOptions, Tokens};

/// What the config says of a listener for HTTP. An error where its tokens cannot be used.
pub(super) fn options(name: &str, source: &SourceConfig) -> Result<HttpOptions, DaemonError> {
    let tokens = source.tokens_file.as_ref().map(|file| {
        let unusable = |why: source::BadTokens| DaemonError::Tokens {
            name: name.to_owned(),
            path: file.clone(),
            why: why.to_string(),
        };
        Tokens::read(file).map_err(unusable)
    });
    Ok(HttpOptions {
        max_connections: source.max_connections,
        max_frame: source.max_frame,
        max_body: source.max_body,
        idle_timeout: source.idle_timeout,
        answer_within: source.answer_within,
        ack: source.ack,
        tenant_from: match source.tenant_from {
            TenantFrom::Field => source::TenantFrom::Field,
            TenantFrom::Query => source::TenantFrom::Query,
            TenantFrom::Header => source::TenantFrom::Header,
        },
        tokens: tokens.transpose()?,
    })
}
