use std::io;

use async_nats::jetstream::{self, ErrorCode};
use headworks_actors::StorageError;

/// Why a store in a NATS JetStream was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options cannot work, whatever the server says.
    #[error("cannot use the NATS store: {0}")]
    Options(String),
    /// The server or the stream cannot be used, and will not be by waiting.
    #[error("cannot open the store in {place}: {detail}")]
    Refused {
        /// The URL and the stream.
        place: String,
        /// What it said, and what helps.
        detail: String,
    },
    /// No thread for the store.
    #[error("cannot start the thread of the NATS store: {0}")]
    Thread(io::Error),
}

/// Why something was not done.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The server is away, hangs, has no leader or no room.
    Away(String),
    /// The server or the stream is not what this store can use; an operator can put it right.
    Unfit(String),
    /// It will never work for this batch.
    Refused(String),
    /// The same may work at once.
    Passing(String),
}

impl Failure {
    /// The text, whatever it means.
    pub(super) fn explain(&self) -> &str {
        match self {
            Self::Away(why) | Self::Unfit(why) | Self::Refused(why) | Self::Passing(why) => why,
        }
    }

    /// As the answer to whoever asked for `what`. What an operator can put right is an outage, so that it never turns a stream into
    /// dead letters.
    pub(super) fn storage_error(&self, what: &str, place: &str) -> StorageError {
        let detail = format!("cannot {what} in {place}: {}", self.explain());
        match self {
            Self::Away(_) | Self::Unfit(_) => StorageError::unavailable(detail),
            Self::Refused(_) => StorageError::permanent(detail),
            Self::Passing(_) => StorageError::transient(detail),
        }
    }
}

/// What the server's answer to a request means, where it is an error.
impl From<&jetstream::Error> for Failure {
    fn from(why: &jetstream::Error) -> Self {
        let code = why.error_code();
        match code {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Self::Refused(format!(
                "{why}; it is larger than the stream takes: raise its max_msg_size, or lower window.max_bytes"
            )),
            ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Self::Refused(why.to_string()),
            // "maximum bytes exceeded" and so on.
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => {
                Self::Away(format!("{why}; the stream is full, or its server: make room, or raise the limit"))
            }
            ErrorCode::STREAM_NOT_FOUND => Self::Unfit(format!("{why}; make the stream, or check its name")),
            ErrorCode::STREAM_SEALED => Self::Unfit(format!("{why}; choose another stream")),
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                Self::Unfit(format!("{why}; enable JetStream in the server's configuration"))
            }
            // It has no leader, or is on its way up.
            _ if why.code() == 503 => Self::Away(why.to_string()),
            _ => Self::Passing(why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_can_put_right_is_waited_for_and_what_is_too_large_is_refused() {
        let answer = |code: u16, err_code: u64| {
            let told = format!("{{\"code\":{code},\"err_code\":{err_code},\"description\":\"why\"}}");
            Failure::from(&serde_json::from_str::<jetstream::Error>(&told).unwrap())
        };
        let class = |failure: Failure| match failure.storage_error("store batch x", "s") {
            StorageError::Permanent { .. } => "permanent",
            StorageError::Transient { .. } => "transient",
            StorageError::Unavailable { .. } => "unavailable",
            _ => "other",
        };
        for (code, err_code, expected) in [
            (400, 10054, "permanent"),
            (400, 10097, "permanent"),
            (503, 10077, "unavailable"),
            (400, 10047, "unavailable"),
            (404, 10059, "unavailable"),
            (503, 10008, "unavailable"),
            (503, 10039, "unavailable"),
            (400, 10109, "unavailable"),
            (500, 10158, "transient"),
            (400, 10003, "transient"),
        ] {
            assert_eq!(class(answer(code, err_code)), expected, "{err_code}");
        }
        assert!(answer(503, 10077).explain().contains("make room"));
    }
}
