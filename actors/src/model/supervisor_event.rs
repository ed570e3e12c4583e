use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{BatchId, Cause, StoreName, TenantId, UnixMillis};

/// What an actor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Frames to chunks, one a connection.
    Ingress,
    /// One tenant's window.
    Tenant,
    /// One tenant's storage child.
    Writer,
    /// Failures and compensations.
    Aggregator,
    /// The root, which starts the others.
    Supervisor,
    /// What feeds an ingress; a task, not an actor.
    Source,
}

impl Role {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Tenant => "tenant",
            Self::Writer => "writer",
            Self::Aggregator => "aggregator",
            Self::Supervisor => "supervisor",
            Self::Source => "source",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! whats {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What the supervisor saw or did.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum What {
            $($(#[doc = $doc])+ $name,)+
        }

        impl What {
            /// Each of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

whats! {
    /// An actor came up: for the first time, or after its tenant was passivated, stopped or quarantined.
    Started = "started",
    /// A tenant's actor did not answer a heartbeat; the attempt says how many in a row.
    MissedHeartbeat = "missed_heartbeat",
    /// An actor panicked, stopped or hung, or an attempt of its store failed.
    Failed = "failed",
    /// An attempt to store was cut off, and nobody knows what came of it: the same batch is sent again under the same id.
    Ambiguous = "ambiguous",
    /// A restart is due at the time of the next attempt.
    BackingOff = "backing_off",
    /// A fresh actor took over.
    Restarted = "restarted",
    /// The intensity is spent. A tenant's actors end, and its events wait; the entry is of the actor whose failure was one
    /// too many.
    Quarantined = "quarantined",
    /// A quarantine was lifted, a stopped tenant resumed, or a backoff cut short.
    Resumed = "resumed",
    /// Batches wait and nothing has moved for too long; the cause says what they wait for.
    Stalled = "stalled",
    /// They move again.
    Unstalled = "unstalled",
    /// The system's thread does not turn: the entry names the actor whose code holds it.
    Hung = "hung",
    /// The thread turns again.
    Unhung = "unhung",
    /// A store is not available: the tenant's lane waits and spends no attempt.
    Parked = "parked",
    /// The lane moves again.
    Unparked = "unparked",
    /// The tenant's calls of a store failed too often in a row: it makes none before the time of the next attempt.
    BreakerOpened = "breaker_opened",
    /// A call of it went through again.
    BreakerClosed = "breaker_closed",
    /// A batch that was given up was taken back in every store, or what could not be before was now.
    Compensated = "compensated",
    /// A compensation could not be done: it is on the list of the uncompensated, and tried again.
    CompensationFailed = "compensation_failed",
    /// A batch that a store refuses was halved, to find the events that it refuses.
    Split = "split",
    /// A batch that was given up goes through its saga once more.
    StartedOver = "started_over",
    /// A batch was given up and dropped, as its rule says.
    Discarded = "discarded",
    /// The tenant is full, and begins to give up its oldest events to make room.
    Shedding = "shedding",
    /// It holds half of what it held then: it has room again. The cause says how many events it gave up.
    SheddingEnded = "shedding_ended",
    /// What an earlier process had left of the tenant was read back from the journal.
    Recovered = "recovered",
    /// The tenant's memory is full: what arrives lies in the journal alone, and is read back in order.
    Spilling = "spilling",
    /// All that lay in the journal alone was read back.
    CaughtUp = "caught_up",
    /// A batch was given up and kept as dead letters.
    DeadLettered = "dead_lettered",
    /// No event for the tenant's idle time.
    Idle = "idle",
    /// Events again after an idle time.
    Active = "active",
    /// No frame of the tenant came for as long as its sender may be quiet; the cause says how long that is.
    Silent = "silent",
    /// A frame came after that.
    Heard = "heard",
    /// A tenant's actors ended while nothing of it was in flight; its next event brings them back.
    Passivated = "passivated",
    /// Somebody changed the rules of a tenant; the cause names them.
    PolicyChanged = "policy_changed",
    /// The tenant's events are dropped at the door from now on.
    Muted = "muted",
    /// The tenant's events are let in again.
    Unmuted = "unmuted",
    /// An operator told the tenant something; the cause says what.
    Ordered = "ordered",
    /// What was kept of the tenant was erased by an operator; the cause says what that was.
    Erased = "erased",
    /// The journal cannot be written: nothing is accepted and no attempt begun until it can; the cause says why.
    JournalFails = "journal_fails",
    /// It can be written again.
    JournalWorks = "journal_works",
    /// The quota of the journal is reached: no event is taken in until some are settled.
    JournalFull = "journal_full",
    /// It has room again.
    JournalHasRoom = "journal_has_room",
    /// A source brings nothing in although it runs, or not all that it is to, and tries again; the cause says why. Told again where that
    /// is another reason than before.
    SourceFails = "source_fails",
    /// It brings in all that it is to again.
    SourceWorks = "source_works",
    /// Something was lost before its source could take it in; the cause says how much, and why.
    SourceLost = "source_lost",
    /// What the rules of retention let go of was pruned; the cause says how much, and of whom.
    Pruned = "pruned",
    /// A tenant, or the frames that are nobody's, have no room for more dead letters: the oldest go for each that comes, or those that
    /// come wait; the cause says which. Told again once none had to for a while.
    LettersFull = "letters_full",
    /// The configuration was read again, and what of it can change at run time did; the cause says what.
    Reloaded = "reloaded",
    /// A configuration that was read again is not valid, and changed nothing; the cause says why.
    ReloadRefused = "reload_refused",
    /// A tenant's actors live on another thread from now on, since theirs had more to do.
    Moved = "moved",
    /// The system takes no new work, and stores what it accepted.
    Draining = "draining",
    /// An actor ended because it was told to.
    Stopped = "stopped",
}

/// One entry of the supervisor log.
///
/// [`Display`](fmt::Display) is one line for a person; serde gives the same fields for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SupervisorEvent {
    /// Its place in the log, from 0, without gaps.
    pub cursor: u64,
    /// When.
    pub at: UnixMillis,
    /// Whose actor, where it belongs to one tenant.
    pub tenant: Option<TenantId>,
    /// Which actor.
    pub actor: Role,
    /// How many lives it had before: each restart ends one, and so does a stop, a quarantine and a passivation.
    pub epoch: u64,
    /// What happened.
    pub what: What,
    /// Which store of the saga.
    pub store: Option<StoreName>,
    /// Which source, where it is about one as a whole.
    pub source: Option<Arc<str>>,
    /// Why.
    pub cause: Option<Cause>,
    /// Which batch it is about, where it is about one.
    pub batch: Option<BatchId>,
    /// How many events a batch held that was compensated or kept as dead letters.
    pub batch_events: u64,
    /// Which restart of the tenant's actors in a row without progress, which attempt to store, or which missed heartbeat
    /// this is about.
    pub attempt: Option<u32>,
    /// When the next one is due.
    pub next_attempt_at: Option<UnixMillis>,
    /// Compensations that ran.
    pub compensations_run: u32,
    /// Compensations that failed.
    pub compensations_failed: u32,
    /// Accepted events of the tenant that wait, kept, for their outcome.
    pub events_kept: u64,
    /// How many more there were of this kind, of the same tenant, actor, store and code, that are summed up in this entry: where
    /// a tenant has more than 20 of a kind in 10 s, those beyond are one entry. Its batch, cause and attempt are the last one's;
    /// its events and compensations are those of all.
    pub repeats: u64,
    /// Of an entry that sums up: when the first of them happened. Of a source that fails or works again: since when it has failed.
    pub since: Option<UnixMillis>,
}

impl SupervisorEvent {
    /// An entry with the fields that every entry has. The log fills in cursor and time.
    #[must_use]
    pub fn new(tenant: Option<TenantId>, actor: Role, what: What) -> Self {
        Self {
            cursor: 0,
            at: UnixMillis(0),
            tenant,
            actor,
            epoch: 0,
            what,
            store: None,
            source: None,
            cause: None,
            batch: None,
            batch_events: 0,
            attempt: None,
            next_attempt_at: None,
            compensations_run: 0,
            compensations_failed: 0,
            events_kept: 0,
            repeats: 0,
            since: None,
        }
    }
}

impl fmt::Display for SupervisorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = self.tenant.as_ref().map_or("-", TenantId::as_str);
        write!(f, "{} {tenant} {} {}", self.at, self.actor, self.what.as_str())?;
        if self.epoch > 0 {
            write!(f, " epoch={}", self.epoch)?;
        }
        if let Some(batch) = &self.batch {
            write!(f, " batch={batch}")?;
        }
        if self.batch_events > 0 {
            write!(f, " batch_events={}", self.batch_events)?;
        }
        if let Some(store) = &self.store {
            write!(f, " store={store}")?;
        }
        if let Some(source) = &self.source {
            write!(f, " source={source}")?;
        }
        if let Some(attempt) = self.attempt {
            write!(f, " attempt={attempt}")?;
        }
        if let Some(next) = self.next_attempt_at {
            write!(f, " next_attempt_at={next}")?;
        }
        if self.compensations_run > 0 || self.compensations_failed > 0 {
            write!(
                f,
                " compensations_run={} compensations_failed={}",
                self.compensations_run, self.compensations_failed
            )?;
        }
        if self.events_kept > 0 {
            write!(f, " events_kept={}", self.events_kept)?;
        }
        if self.repeats > 0 {
            write!(f, " repeats={}", self.repeats)?;
        }
        if let Some(since) = &self.since {
            write!(f, " since={since}")?;
        }
        if let Some(cause) = &self.cause {
            // A panic's text may span lines and hold anything; the log has one line an entry.
            write!(f, " cause={} {:?}", cause.code, cause.detail)?;
        }
        Ok(())
    }
}
