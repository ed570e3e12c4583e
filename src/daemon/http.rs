use std::io;

use crate::config::{SourceConfig, TenantFrom};
use crate::source::{self, HttpOptions, Tokens};

/// What the config says of a listener for HTTP. An error where its tokens cannot be used.
pub(super) fn options(name: &str, source: &SourceConfig) -> io::Result<HttpOptions> {
    let tokens = source.tokens_file.as_ref().map(|file| {
        Tokens::read(file).map_err(|why| {
            let what = format!("cannot use the tokens in {} (sources.{name}.tokens_file): {why}", file.display());
            io::Error::other(what)
        })
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
