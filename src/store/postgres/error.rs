use std::error::Error as _;

use headworks_actors::StorageError;
use tokio_postgres::error::SqlState;

/// Why a store on PostgreSQL was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options cannot work, whatever the server says.
    #[error("cannot use the PostgreSQL store: {0}")]
    Options(String),
    /// The server refused, and will again.
    #[error("cannot open the store in {place}: {detail}")]
    Refused {
        /// Server, database and namespace.
        place: String,
        /// What it said, and what helps.
        detail: String,
    },
    /// No thread for the store.
    #[error("cannot start the thread of the PostgreSQL store: {0}")]
    Thread(std::io::Error),
}

/// Why something could not be read from a PostgreSQL server.
#[derive(Debug, thiserror::Error)]
#[error("cannot read from {place}: {detail}")]
pub struct ReadError {
    pub(super) place: String,
    pub(super) detail: String,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, or the way to it.
    Server(tokio_postgres::Error),
    /// It said nothing for so long that it is taken for gone.
    Silent,
    /// What is there is not what this store can use.
    Unfit(String),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(why: tokio_postgres::Error) -> Self {
        Self::Server(why)
    }
}

/// What a failure means for those who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Whatever is asked now fails: the server is away, full, or does not let us in. It is waited for.
    Outage,
    /// The same may work at once.
    Passing,
    /// It will never work for this batch.
    Refusal,
}

impl Failure {
    pub(super) fn class(&self) -> Class {
        match self {
            // An error without a word from the server is one of the connection.
            Self::Server(_) if self.misses_a_partition() => Class::Outage,
            Self::Server(why) => why.code().map_or(Class::Outage, class),
            Self::Silent | Self::Unfit(_) => Class::Outage,
        }
    }

    /// PostgreSQL has but the word of a constraint for it, without a constraint.
    fn misses_a_partition(&self) -> bool {
        let Self::Server(why) = self else { return false };
        why.as_db_error().is_some_and(|db| *db.code() == SqlState::CHECK_VIOLATION && db.constraint().is_none())
    }

    /// Whether a store that is opened now may wait for this to pass, or better says so at once.
    pub(super) fn may_be_waited_for(&self) -> bool {
        match self {
            Self::Silent => true,
            Self::Unfit(_) => false,
            Self::Server(why) => match why.code() {
                Some(code) => matches!(&code.code()[..2], "08" | "53" | "57") || *code == SqlState::LOCK_NOT_AVAILABLE,
                // Neither the way in which it is asked nor the certificate.
                None => !["invalid", "error performing TLS", "authentication"]
                    .iter()
                    .any(|begin| why.to_string().starts_with(begin)),
            },
        }
    }

    /// What happened, with what helps where something does.
    pub(super) fn explain(&self) -> String {
        match self {
            Self::Unfit(why) => why.clone(),
            Self::Silent => "the server does not answer; is it stopped, or the network cut?".into(),
            Self::Server(why) => match why.as_db_error() {
                // The detail may quote an event, so that it is left out.
                Some(db) => {
                    let (message, code) = (db.message(), db.code().code());
                    let missing = "make the partition: whoever makes the tables makes those, too";
                    let help = Some(missing).filter(|_| self.misses_a_partition()).or_else(|| help(db.code()));
                    let help = help.map_or_else(String::new, |help| format!("; {help}"));
                    format!("{message} (SQLSTATE {code}){help}")
                }
                None => {
                    let mut text = why.to_string();
                    let mut source = why.source();
                    while let Some(cause) = source {
                        text += &format!(": {cause}");
                        source = cause.source();
                    }
                    if text.ends_with("password missing") {
                        text += "; the server asks for one: name a password_file";
                    }
                    text
                }
            },
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

/// By SQLSTATE. What an operator can put right is an outage, so that it never turns a stream into dead letters.
fn class(code: &SqlState) -> Class {
    match code.code() {
        // Serialization, deadlock, and a commit of which nothing is known.
        "40001" | "40P01" | "40003" => Class::Passing,
        // A lock that somebody holds; a lost right or table; a server that takes no writes.
        "55P03" | "42501" | "42P01" | "42703" | "3F000" | "3D000" | "25006" => Class::Outage,
        code => match &code[..2] {
            // Connection, who we are, room, operator, its disks, itself.
            "08" | "28" | "53" | "57" | "58" | "XX" | "F0" => Class::Outage,
            // The data itself: what they are, constraints, triggers, views with a check, limits like that of nesting.
            "22" | "23" | "27" | "44" | "54" | "P0" => Class::Refusal,
            _ => Class::Passing,
        },
    }
}

fn help(code: &SqlState) -> Option<&'static str> {
    Some(match code.code() {
        "28P01" => "check the password in password_file, and the user in url",
        "28000" => "check the user in url, sslmode, and the server's pg_hba.conf",
        "3D000" => "check the database in url, or create it",
        "42501" => "grant it to the user in url",
        "42P01" | "3F000" | "42703" => {
            "the tables were changed or dropped: restore them, or start again to have them made"
        }
        "53300" => "raise the server's max_connections, or lower pool_size",
        "53100" => "make room on the server's disk",
        "55P03" => "somebody holds a lock on the tables: see pg_locks",
        "57014" => "raise statement_timeout, or see what keeps the server busy",
        "25006" => "it is a standby, or was made read-only: url must lead to the primary",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_can_put_right_is_waited_for_what_the_data_are_is_refused_and_a_deadlock_is_tried_again() {
        let states = |class: Class| match class {
            Class::Outage => {
                "08006 28P01 28000 3D000 42501 42P01 3F000 42703 53100 53200 53300 55P03 57014 57P01 57P03 58030 25006 XX001"
            }
            Class::Refusal => "22P02 22P05 22021 23502 23505 23514 54001 P0001 44000",
            Class::Passing => "40001 40P01 40003 42601 25P02",
        };
        for expected in [Class::Outage, Class::Refusal, Class::Passing] {
            for code in states(expected).split(' ') {
                assert_eq!(class(&SqlState::from_code(code)), expected, "{code}");
            }
        }
    }
}
