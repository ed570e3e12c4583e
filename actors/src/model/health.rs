use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Cause, Role, TenantId, UnixMillis};

/// Whether a system as a whole does its work. What is wrong with one tenant is in its snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SystemHealth {
    /// Who holds the system's thread: nothing at all moves until it returns.
    pub hung: Option<Hung>,
    /// The actor of the root whose restart intensity is spent. It is tried again after the quarantine of a default
    /// [`RestartPolicy`](crate::RestartPolicy).
    pub failed: Option<FailedActor>,
}

impl SystemHealth {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.hung.is_none() && self.failed.is_none()
    }
}

/// Code that does not return, and so holds the thread that all actors share. It cannot be stopped from outside: only the end
/// of the process helps, or its own return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hung {
    /// Whose code it is; `None` where it is no actor's: a source, a compensation, an observer.
    pub actor: Option<Role>,
    /// The actor's tenant, if it is one's.
    pub tenant: Option<TenantId>,
    /// When the thread was last seen to turn.
    pub since: UnixMillis,
    /// For how long it has not, as far as the process itself was running.
    pub lasting: Duration,
    /// Whether the supervisor log says so already. It is told after this is, since it may be held up itself.
    pub is_logged: bool,
}

impl fmt::Display for Hung {
    /// Half a sentence: `the writer of tenant acme has held the system's thread for 12s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.actor, &self.tenant) {
            (Some(actor), Some(tenant)) => write!(f, "the {actor} of tenant {tenant}")?,
            (Some(actor), None) => write!(f, "the {actor}")?,
            (None, _) => f.write_str("a task that is no actor (a source, a compensation or an observer)")?,
        }
        let lasting = Duration::from_millis(u64::try_from(self.lasting.as_millis()).unwrap_or(u64::MAX));
        write!(f, " has held the system's thread for {}", humantime::format_duration(lasting))
    }
}

/// An actor of the root that failed too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedActor {
    /// Which.
    pub actor: Role,
    /// How it failed last.
    pub cause: Cause,
    /// Since when it does not run.
    pub since: UnixMillis,
}

/// A source brings nothing in although it runs, or not all that it is to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Outage {
    /// Why.
    pub why: String,
    /// Since when.
    pub since: UnixMillis,
    /// When it tries again, where it knows.
    pub next_attempt_at: Option<UnixMillis>,
    /// It is about a part of what the source is to bring in: the rest comes.
    pub is_partial: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_is_told_in_words() {
        let mut hung = Hung {
            actor: Some(Role::Writer),
            tenant: TenantId::new("acme").ok(),
            since: UnixMillis(0),
            lasting: Duration::from_micros(12_000_400),
            is_logged: false,
        };
        assert_eq!(hung.to_string(), "the writer of tenant acme has held the system's thread for 12s");
        hung.tenant = None;
        hung.actor = Some(Role::Ingress);
        assert_eq!(hung.to_string(), "the ingress has held the system's thread for 12s");
        hung.actor = None;
        assert!(hung.to_string().starts_with("a task that is no actor"));
    }
}
