use std::io;

use super::{DaemonError, Opened, Opening};
use crate::config::{InvalidTenant, SyslogTransport};
use crate::source::{InvalidTenantName, SyslogDecoder, SyslogOptions, SyslogSource, SyslogTenant, Transport};

/// A listener for syslog.
pub(super) fn open(opening: &Opening<'_>) -> Result<Opened, DaemonError> {
    let source = opening.source;
    let transport = match source.transport {
        SyslogTransport::Both => Transport::Both,
        SyslogTransport::Udp => Transport::Udp,
        SyslogTransport::Tcp => Transport::Tcp,
    };
    let invalid = match source.invalid_tenant {
        InvalidTenant::Map => InvalidTenantName::Map,
        InvalidTenant::Refuse => InvalidTenantName::Refuse,
    };
    let from = source.tenant_from.as_deref().map_or(Ok(SyslogTenant::Host), str::parse);
    let from = from.map_err(|why: String| opening.refused(io::Error::other(why)))?;
    let options = SyslogOptions {
        transport,
        max_frame: source.max_frame,
        max_connections: opening.max_connections,
        idle_timeout: source.idle(),
        tls: opening.files.tls.clone(),
    };
    let decoder = SyslogDecoder::new(from).invalid_tenant(invalid);
    let syslog = SyslogSource::bind(opening.name, source.listen, decoder, options);
    let syslog = syslog.map_err(|why| opening.refused(why))?;
    Ok((Some(syslog.local_addr().map_err(|why| opening.refused(why))?), Box::new(syslog)))
}
