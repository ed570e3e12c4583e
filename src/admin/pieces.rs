//! Long answers, which are written while they are read.

use std::io::{self, Write};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;

/// So much is read ahead of the client.
const AHEAD: usize = 4;
const PIECE: usize = 64 << 10;

/// An answer with what `write` writes, on a thread for such work.
pub(super) fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Response {
    let (to, pieces) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces(to));
        let written = write(&mut out);
        // A client that has gone needs no answer; one that is there learns of the failure by a broken connection.
        if let Err(why) = written.and_then(|()| out.flush()) {
            let _ = out.get_ref().0.blocking_send(Err(why));
        }
    });
    let body = futures::stream::unfold(pieces, async |mut pieces| pieces.recv().await.map(|piece| (piece, pieces)));
    ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(body)).into_response()
}

/// Writes into an answer.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
