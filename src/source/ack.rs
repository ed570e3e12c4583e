//! The words of the TCP acknowledgement protocol, `docs/TCP_ACKNOWLEDGEMENTS.md`, for both of its ends. Pure: no socket.
//!
//! ```
//! use headworks::AckLevel;
//! use headworks::source::ack::{Hello, Reply};
//!
//! let hello = Hello { stream: "sensor-7".parse()?, next: 1, level: AckLevel::Stored, skip: false };
//! assert_eq!(hello.to_string(), "headworks-ack/1 stream=sensor-7 next=1 level=stored");
//! assert_eq!(Reply::parse(b"ack 1-500")?, Some(Reply::Ack(1..=500)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod hello;
mod reply;

pub use hello::{BadHello, FirstLine, Hello};
pub use reply::{BadReply, Reply};

/// What a connection begins with that asks for acknowledgements, whatever the version.
pub const PREFIX: &[u8] = b"headworks-ack/";

/// The longest first line, in bytes, without its line end.
pub const MAX_HELLO: usize = 512;

/// The longest line of an answer that a client needs to understand, in bytes, without its line end.
pub const MAX_REPLY: usize = 1_024;

/// The highest position: what fits a signed 64-bit number, so that any language can count it.
pub const MAX_POSITION: u64 = i64::MAX as u64;

/// A number as the protocol writes it: decimal digits and nothing else.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
