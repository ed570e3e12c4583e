use std::any::Any;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BatchId, TenantId, UnixMillis, panic_place};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why something failed, in a word that is the same in log, dead letter, report and metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word itself.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

codes! {
    /// A frame with nothing in it.
    Empty = "empty",
    /// A frame above the size limit. Only its beginning is kept.
    Oversized = "oversized",
    /// The input ended, or was cut off, in the middle of a frame.
    Truncated = "truncated",
    /// The frame is not UTF-8.
    BadUtf8 = "bad_utf8",
    /// The frame is not JSON.
    BadJson = "bad_json",
    /// The JSON is nested deeper than the limit.
    TooDeep = "too_deep",
    /// The frame has no tenant.
    NoTenant = "no_tenant",
    /// The frame's tenant is no valid tenant id.
    BadTenant = "bad_tenant",
    /// The frame has the shape of no event, by the word of the embedder's decoder.
    BadEvent = "bad_event",
    /// The decoder panicked on the frame.
    DecoderPanic = "decoder_panic",
    /// A hook panicked on the event or the batch.
    HookPanic = "hook_panic",
    /// The tenant is unknown and no more may come up.
    TenantLimit = "tenant_limit",
    /// The tenant is unknown, and events of unknown tenants are refused.
    UnknownTenant = "unknown_tenant",
    /// The tenant is unknown, and too many new ones have come up lately.
    SpawnRate = "spawn_rate",
    /// The sender may not speak for the tenant.
    TenantNotAllowed = "tenant_not_allowed",
    /// A connection was refused before it brought anything: it speaks TLS where none is spoken, or none where it is to, or shows no
    /// certificate that counts.
    HandshakeFailed = "handshake_failed",
    /// The tenant is muted: its events are dropped.
    Muted = "muted",
    /// The tenant is above its rate.
    Throttled = "throttled",
    /// The tenant's budget stayed full for longer than its policy lets a connection wait.
    TenantFull = "tenant_full",
    /// The tenant is full, and gives up its oldest events to make room, as its policy says.
    Shed = "shed",
    /// The store failed in a way that may pass.
    StoreTransient = "store_transient",
    /// The store refused the batch for good.
    StorePermanent = "store_permanent",
    /// The store is not reachable or not writable at all.
    StoreUnavailable = "store_unavailable",
    /// The store did not answer within the time of an attempt.
    StoreTimeout = "store_timeout",
    /// The store panicked.
    StorePanic = "store_panic",
    /// An actor panicked.
    ActorPanic = "actor_panic",
    /// An actor stopped that should run.
    ActorStopped = "actor_stopped",
    /// An actor does not answer, or does not do its work.
    Hung = "hung",
    /// A compensation failed.
    CompensationFailed = "compensation_failed",
    /// The dead letters could not be written.
    DeadLetterFailed = "dead_letter_failed",
    /// The journal records nothing, for now.
    JournalUnavailable = "journal_unavailable",
    /// Events are lost, or their journal cannot tell what became of them: it is damaged.
    JournalDamaged = "journal_damaged",
    /// An observer panicked on what it was told.
    ObserverPanic = "observer_panic",
    /// The wall clock panicked; the time it last told is used until it works again.
    ClockPanic = "clock_panic",
    /// A source failed.
    Source = "source",
    /// Somebody changed the rules of a tenant.
    PolicyChanged = "policy_changed",
    /// No frame of the tenant came for as long as its sender may be quiet; or one came after that.
    Silent = "silent",
    /// An operator said so.
    Operator = "operator",
    /// The configuration was read again.
    Config = "config",
    /// A thread has more to do than another.
    Rebalanced = "rebalanced",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == word)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown code {word:?}")))
    }
}

/// Why: a code for counting and a sentence for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The word to count and filter by.
    pub code: Code,
    /// What happened, with the chain of reasons as far as it is known.
    pub detail: Arc<str>,
}

impl Cause {
    /// A cause.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<Arc<str>>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The cause that a caught panic carries, to be made on the thread that caught it. The detail ends with where in the source
    /// the panic began, as far as that is known: once a system was started in the process, and nobody has replaced the panic
    /// hook since.
    #[must_use]
    pub fn from_panic(code: Code, panic: &(dyn Any + Send)) -> Self {
        let text = panic_place::text(panic);
        let told = text.unwrap_or("panicked with a value that is no text");
        Self::new(
            code,
            match panic_place::take(text) {
                Some(place) => format!("{told} at {place}"),
                None => told.to_owned(),
            },
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

/// One thing that went wrong, as the aggregator collects it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When.
    pub at: UnixMillis,
    /// Whose, where that is known.
    pub tenant: Option<TenantId>,
    /// The source it came from, where there is one.
    pub source: Option<Arc<str>>,
    /// The batch it hit, where it hit one.
    pub batch: Option<BatchId>,
    /// Why.
    pub cause: Cause,
    /// How many events or frames it hit; 0 for a failed try that will be made again.
    pub events: u64,
}
