//! Bytes to events, without I/O: where a frame ends, and what it says.
//!
//! A [`Framer`] cuts the bytes of one connection into frames; a [`Decoder`] turns a frame into an event. Neither ends a
//! stream: a frame that is too long, cut off or no event is an answer with its [`Cause`](crate::model::Cause) and its
//! bytes, and the next frame is read as if nothing had been.

mod decode;
mod framing;
mod json;
mod json_fields;
mod json_scan;
mod json_value;
mod length_prefixed;
mod lines;
mod partial;
mod strict_json;
mod typed_json;

pub use decode::{Decoded, Decoder, RawLines};
pub use framing::{DEFAULT_MAX_FRAME_BYTES, Frame, Framer, Framing, KEPT_OF_OVERSIZED, RejectedFrame};
pub use json::Json;
pub use typed_json::TypedJson;

#[cfg(test)]
mod framing_tests;
#[cfg(test)]
mod json_tests;
