use super::http::tenant_from;
use super::{DaemonError, Opened, Opening, decoder};
use crate::source::{WebSocketOptions, WebSocketSource};

/// A listener for WebSocket.
pub(super) fn open(opening: &Opening<'_>) -> Result<Opened, DaemonError> {
    let source = opening.source;
    let options = WebSocketOptions {
        max_connections: opening.max_connections,
        max_frame: source.max_frame,
        max_message: source.max_message,
        idle_timeout: source.idle().unwrap_or(WebSocketOptions::default().idle_timeout),
        ack: source.ack,
        tenant_from: tenant_from(opening)?,
        tokens: opening.files.tokens(),
        tls: opening.files.tls.clone(),
    };
    let websocket = WebSocketSource::bind(opening.name, source.listen, decoder(opening.config), options);
    let websocket = websocket.map_err(|why| opening.refused(why))?;
    Ok((Some(websocket.local_addr().map_err(|why| opening.refused(why))?), Box::new(websocket)))
}
