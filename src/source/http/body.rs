use std::io;
use std::pin::Pin;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::asked::Coding;

/// The memory that a compressed body may want to be remembered in, as a power of two: 8 MiB, what every decoder must have.
const WINDOW_LOG: u32 = 23;

/// The bytes of a body as they come, in plain.
pub(super) type Plain = Pin<Box<dyn AsyncRead>>;

/// A body's bytes, decompressed as they are read and no further.
pub(super) fn plain(body: Incoming, coding: Coding) -> Plain {
    let raw = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    match coding {
        Coding::Identity => Box::pin(raw),
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(raw);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Zstd => {
            let mut decoder = ZstdDecoder::with_params(raw, &[DParameter::window_log_max(WINDOW_LOG)]);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
    }
}
