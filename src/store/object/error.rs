use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use headworks_actors::StorageError;
use object_store::Error;
use object_store::client::HttpError;

/// Why a store in objects was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options cannot work, whatever the server says.
    #[error("cannot use the object store: {0}")]
    Options(String),
    /// What is there cannot be used, and will not be by waiting.
    #[error("cannot open the store in {place}: {detail}")]
    Refused {
        /// The URL.
        place: String,
        /// What it said, and what helps.
        detail: String,
    },
    /// No thread for the store.
    #[error("cannot start the thread of the object store: {0}")]
    Thread(io::Error),
}

/// Why something could not be read from objects.
#[derive(Debug, thiserror::Error)]
#[error("cannot read from {place}: {detail}")]
pub struct ReadError {
    pub(super) place: String,
    pub(super) detail: String,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, the disk, or the way to it.
    Objects(Error),
    /// No answer for so long that it is taken for gone.
    Silent,
    /// What is there is not what this store can use.
    Unfit(String),
    /// This batch can never be stored.
    Refused(String),
    /// Somebody else was at it at the same time.
    Conflict(String),
}

impl From<Error> for Failure {
    fn from(why: Error) -> Self {
        Self::Objects(why)
    }
}

/// What a failure means for those who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Whatever is asked now fails: it is away, full, or does not let us in. It is waited for.
    Outage,
    /// The same may work at once.
    Passing,
    /// It will never work for this batch.
    Refusal,
}

/// All that an error was made of, itself first.
fn causes(why: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(Some(why as &(dyn StdError + 'static)), |why| (*why).source())
}

/// The status and the words of a server's answer, where that is what failed. The error has no other way to say them.
fn answer(why: &Error) -> Option<(u16, String)> {
    causes(why).find_map(|cause| {
        let text = cause.to_string();
        let (_, status) = text.split_once("non-2xx status code: ")?;
        let status = status.get(..3)?.parse().ok()?;
        Some((status, text))
    })
}

fn io_error(why: &Error) -> Option<&io::Error> {
    causes(why).find_map(|cause| cause.downcast_ref::<io::Error>())
}

fn is_of_the_way(why: &Error) -> bool {
    causes(why).any(|cause| cause.is::<HttpError>())
}

impl Failure {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Silent | Self::Unfit(_) => Class::Outage,
            Self::Refused(_) => Class::Refusal,
            Self::Conflict(_) => Class::Passing,
            Self::Objects(why) => class(why),
        }
    }

    /// Whether a store that is opened now may wait for this to pass, or better says so at once.
    pub(super) fn may_be_waited_for(&self) -> bool {
        match self {
            Self::Silent | Self::Conflict(_) => true,
            Self::Unfit(_) | Self::Refused(_) => false,
            Self::Objects(why) => match answer(why) {
                // What a server does not know how to do it will not learn.
                Some((status, _)) => (status >= 500 && status != 501) || status == 429,
                None => is_of_the_way(why) || io_error(why).is_some_and(|why| why.kind() == ErrorKind::StorageFull),
            },
        }
    }

    /// What happened, with what helps where something does.
    pub(super) fn explain(&self) -> String {
        match self {
            Self::Silent => "it does not answer; is it stopped, or the network cut?".into(),
            Self::Unfit(why) | Self::Refused(why) | Self::Conflict(why) => why.clone(),
            Self::Objects(why) => {
                let mut text = why.to_string();
                // Most errors say their cause themselves.
                for cause in causes(why).skip(1).map(ToString::to_string) {
                    if !text.contains(&cause) {
                        text += &format!(": {cause}");
                    }
                }
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                let mut said: String = text.chars().take(600).collect();
                if let Some(help) = help(why) {
                    said += &format!("; {help}");
                }
                said
            }
        }
    }

    /// As the answer to whoever asked for `what`.
    pub(super) fn storage_error(&self, what: &str, place: &str) -> StorageError {
        let detail = format!("cannot {what} in {place}: {}", self.explain());
        match self.class() {
            Class::Outage => StorageError::unavailable(detail),
            Class::Passing => StorageError::transient(detail),
            Class::Refusal => StorageError::permanent(detail),
        }
    }
}

/// What an operator can put right is an outage, so that it never turns a stream into dead letters.
fn class(why: &Error) -> Class {
    match why {
        Error::NotFound { .. } | Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Class::Outage,
        _ => match answer(why) {
            // The server's: it is away, busy, or wants less.
            Some((408 | 429 | 500.., _)) => Class::Outage,
            Some((_, text)) if text.contains("ExpiredToken") || text.contains("RequestTimeTooSkewed") => Class::Outage,
            Some((413, _)) => Class::Refusal,
            Some((_, text)) if text.contains("EntityTooLarge") => Class::Refusal,
            Some(_) => Class::Passing,
            None if is_of_the_way(why) => Class::Outage,
            // Nothing that a disk refuses has to do with what is in a batch.
            None if io_error(why).is_some() => Class::Outage,
            None => Class::Passing,
        },
    }
}

fn help(why: &Error) -> Option<&'static str> {
    let text = answer(why).map(|(_, text)| text).unwrap_or_default();
    Some(match why {
        _ if text.contains("NoSuchBucket") => "make the bucket, or check url",
        _ if text.contains("ExpiredToken") => "renew the credentials",
        _ if text.contains("RequestTimeTooSkewed") => "set the clock of this machine",
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } if io_error(why).is_none() => {
            "check the keys in credentials_file or in the environment, and what they may do: list, get and put, and delete where objects go"
        }
        Error::NotFound { .. } if io_error(why).is_some() => "was it moved while in use? Put it back",
        _ => match io_error(why)?.kind() {
            ErrorKind::StorageFull => "the disk is full; make room",
            ErrorKind::QuotaExceeded => "the quota is reached; make room, or raise it",
            ErrorKind::ReadOnlyFilesystem => "the file system is read-only; check the system log",
            ErrorKind::PermissionDenied => "check the owner and the mode of it and of its directory",
            ErrorKind::NotFound | ErrorKind::NotADirectory => "was it moved while in use? Put it back",
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Generic { store: "S3", source: source.into() }
    }

    #[test]
    fn what_an_operator_can_put_right_is_waited_for_and_what_is_too_large_is_refused() {
        let says = |status: &str| generic(format!("Server returned non-2xx status code: {status}: <Error/>"));
        for (why, expected) in [
            (says("500 Internal Server Error"), Class::Outage),
            (says("503 Slow Down"), Class::Outage),
            (says("429 Too Many Requests"), Class::Outage),
            (says("400 Bad Request: ExpiredToken"), Class::Outage),
            (says("400 Bad Request: EntityTooLarge"), Class::Refusal),
            (says("413 Content Too Large"), Class::Refusal),
            (says("400 Bad Request"), Class::Passing),
            (generic(io::Error::from_raw_os_error(28)), Class::Outage),
            (generic(io::Error::from_raw_os_error(5)), Class::Outage),
            (generic("odd"), Class::Passing),
            (Error::PermissionDenied { path: "a".into(), source: "no".into() }, Class::Outage),
            (Error::NotFound { path: "a".into(), source: "no".into() }, Class::Outage),
        ] {
            assert_eq!(class(&why), expected, "{why}");
        }
        let full =
            Failure::from(generic(io::Error::from_raw_os_error(28))).storage_error("store batch x", "file:///srv");
        assert!(full.to_string().ends_with("the disk is full; make room"), "{full}");
    }
}
