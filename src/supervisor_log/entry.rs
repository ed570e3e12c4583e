use headworks_actors::{Opening, SupervisorEvent, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

/// A daemon began to write: its opening, whose cursors start at 0, its version and its process.
pub const OPENED: &str = "opened";
/// The daemon ended as it should; where the next entry is `opened` without this before it, it did not.
pub const CLOSED: &str = "closed";
/// Entries that are not here: [`LogEntry::missed`] says how many, the cause why.
pub const MISSED: &str = "missed";

/// One entry of the supervisor log as it is on disk, in the admin API and in `headworks log --json`.
///
/// A [`SupervisorEvent`] in words, so that a reader understands what a newer version writes: unknown words stay text, unknown
/// fields are passed by. Fields that say nothing are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogEntry {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: UnixMillis,
    /// Whose actor, where it belongs to one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Which actor, in the words of [`Role`](headworks_actors::Role), or `log`.
    pub actor: String,
    /// What happened, in the words of [`What`](headworks_actors::What), or one of the log's own.
    pub what: String,
    /// How often the actor had been restarted before.
    #[serde(skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<LogCause>,
    /// Which batch it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// How many events that batch held, where it was compensated or kept as dead letters.
    #[serde(skip_serializing_if = "is_zero")]
    pub batch_events: u64,
    /// Which store of the saga it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Which source it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Which restart in a row without progress, or which attempt to store, this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When the next one is due.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<UnixMillis>,
    /// Compensations that ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub compensations_run: u64,
    /// Compensations that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub compensations_failed: u64,
    /// Accepted events of the tenant that wait, kept, for their outcome.
    #[serde(skip_serializing_if = "is_zero")]
    pub events_kept: u64,
    /// How many more of its kind are summed up in it: see [`SupervisorEvent::repeats`].
    #[serde(skip_serializing_if = "is_zero")]
    pub repeats: u64,
    /// Of an entry that sums up: when the first of them happened. Of a source that fails or works again: since when it has failed.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    /// Of [`MISSED`]: how many entries are not here.
    #[serde(skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// Of [`OPENED`]: which version of headworks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of [`OPENED`]: the id of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// Which start of the daemon: cursors count from 0 in each.
    pub opening: String,
    /// Its place there. Where a place is left out, a connection began or ended. None for the log's own entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// Why: see [`Cause`](headworks_actors::Cause).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogCause {
    /// The word to count and filter by.
    pub code: String,
    /// What happened.
    pub detail: String,
}

impl LogEntry {
    /// An entry of the system.
    #[must_use]
    pub fn of(event: &SupervisorEvent, opening: Opening) -> Self {
        Self {
            at: event.at,
            tenant: event.tenant.as_ref().map(ToString::to_string),
            actor: event.actor.as_str().to_owned(),
            what: event.what.as_str().to_owned(),
            epoch: event.epoch,
            cause: event
                .cause
                .as_ref()
                .map(|cause| LogCause { code: cause.code.as_str().to_owned(), detail: cause.detail.to_string() }),
            batch: event.batch.as_ref().map(ToString::to_string),
            batch_events: event.batch_events,
            store: event.store.as_ref().map(ToString::to_string),
            source: event.source.as_ref().map(ToString::to_string),
            attempt: event.attempt,
            next_attempt_at: event.next_attempt_at,
            compensations_run: u64::from(event.compensations_run),
            compensations_failed: u64::from(event.compensations_failed),
            events_kept: event.events_kept,
            repeats: event.repeats,
            since: event.since,
            opening: opening.to_string(),
            cursor: Some(event.cursor),
            ..Self::default()
        }
    }

    /// An entry of the log itself.
    #[must_use]
    pub fn own(what: &str, opening: Opening) -> Self {
        let (actor, what) = ("log".to_owned(), what.to_owned());
        Self { at: UnixMillis::now(), actor, what, opening: opening.to_string(), ..Self::default() }
    }

    /// Entries that are not in the log: how many, and why.
    #[must_use]
    pub fn missed(opening: Opening, missed: u64, why: impl Into<String>) -> Self {
        let cause = LogCause { code: MISSED.to_owned(), detail: why.into() };
        Self { missed, cause: Some(cause), ..Self::own(MISSED, opening) }
    }

    /// Whose it is, as a tenant's id.
    #[must_use]
    pub fn is_of(&self, tenant: &TenantId) -> bool {
        self.tenant.as_deref() == Some(tenant.as_str())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Times as people and `jq` read them; a number is milliseconds.
pub(crate) mod rfc3339 {
    use std::time::SystemTime;

    use headworks_actors::UnixMillis;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Time {
        Text(String),
        Millis(i64),
    }

    impl Time {
        fn read<E: Error>(self) -> Result<UnixMillis, E> {
            match self {
                Self::Millis(millis) => Ok(UnixMillis(millis)),
                Self::Text(text) => humantime::parse_rfc3339(&text)
                    .map(|time: SystemTime| UnixMillis::from(time))
                    .map_err(|why| E::custom(format!("{text:?} is no time: {why}"))),
            }
        }
    }

    pub(crate) fn serialize<S: Serializer>(time: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixMillis, D::Error> {
        Time::deserialize(deserializer)?.read()
    }

    pub(crate) mod option {
        use headworks_actors::UnixMillis;
        use serde::{Deserialize, Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(time: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => serializer.collect_str(time),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMillis>, D::Error> {
            Option::<super::Time>::deserialize(deserializer)?.map(super::Time::read).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Attempt, BatchId, Cause, Code, Role, Seq, What};

    use super::*;

    fn event() -> SupervisorEvent {
        let tenant = TenantId::new("acme").unwrap();
        SupervisorEvent {
            cursor: 7,
            at: UnixMillis(1_732_233_600_007),
            epoch: 2,
            cause: Some(Cause::new(Code::StoreTransient, "the disk\n\"sighs\" \u{1b}[2J")),
            batch: Some(BatchId::new(Opening(1), tenant.clone(), Seq(3))),
            attempt: Some(Attempt(2).0),
            next_attempt_at: Some(UnixMillis(1_732_233_601_000)),
            compensations_run: 1,
            events_kept: 9,
            ..SupervisorEvent::new(Some(tenant), Role::Writer, What::Failed)
        }
    }

    #[test]
    fn an_entry_is_one_line_that_reads_back_as_it_was() {
        let entry = LogEntry::of(&event(), Opening(1));
        let line = serde_json::to_string(&entry).unwrap();
        assert!(
            line.starts_with(r#"{"at":"2024-11-22T00:00:00.007Z","tenant":"acme","actor":"writer","what":"failed""#)
        );
        assert!(!line.contains('\n') && !line.contains("missed"), "{line}");
        assert_eq!(serde_json::from_str::<LogEntry>(&line).unwrap(), entry);
    }

    #[test]
    fn words_and_fields_of_a_newer_version_are_read() {
        let line = r#"{"at":1732233600007,"actor":"oracle","what":"foresaw","cause":{"code":"omen","detail":"x","weight":3},"depth":[1]}"#;
        let entry: LogEntry = serde_json::from_str(line).unwrap();
        assert_eq!((&*entry.what, &*entry.actor, &*entry.cause.unwrap().code), ("foresaw", "oracle", "omen"));
        assert_eq!(entry.at, UnixMillis(1_732_233_600_007));
    }
}
