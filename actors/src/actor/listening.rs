//! Notices that an expected sender has stopped, and that it is back.

use std::sync::Arc;
use std::time::Duration;

use super::downstream::{self, Sign};
use super::registry::{Phase, Shared};
use crate::model::{Cause, Code, Role, SupervisorEvent, TenantId, What};
use crate::policy::{Expected, Policy, Sound};
use crate::port::silences::Listener;

/// Tells of tenants that fall silent, and are heard again, until the system drains: then nobody is to send any more.
pub(crate) async fn listen(shared: Arc<Shared>) {
    shared.listen_to_sleepers();
    loop {
        let tenant = shared.silences.due().await;
        if shared.phase() > Phase::Running {
            return;
        }
        if let Some(sound) = shared.silences.look(&tenant) {
            tell(&shared, &tenant, sound);
        }
        // However many are due: others have their turn.
        tokio::task::yield_now().await;
    }
}

impl Shared {
    /// Who listens for a tenant with these rules, if anybody is to. One of whom something was said by name is expected.
    pub(super) fn listener(&self, id: &TenantId, policy: &Policy) -> Option<Arc<Listener>> {
        let is_named = self.defaults.specs.contains_key(id)
            || self.tenants.policies.contains_key(id)
            || self.defaults.rules().names(id.as_str());
        self.silences.of(id, &policy.silence, is_named)
    }

    /// Listens, by the rules as they are now, for tenants that are not awake: those that are named, and who was listened for.
    pub(super) fn listen_to_sleepers(&self) {
        let rules = self.defaults.rules();
        let named = self.defaults.specs.keys().chain(rules.named()).cloned();
        for id in named.chain(self.silences.tenants()) {
            if self.slot(&id).is_none() {
                drop(self.listener(&id, &self.policy(&id)));
            }
        }
    }
}

fn tell(shared: &Arc<Shared>, tenant: &TenantId, sound: Sound) {
    let (what, detail) = match sound {
        Sound::Silent(lasted, expected) => {
            (What::Silent, format!("no frame came for {}, and {}", time(lasted), said(expected)))
        }
        Sound::Heard(lasted, expected) => {
            (What::Heard, format!("a frame came after {} without one; {}", time(lasted), said(expected)))
        }
    };
    if !shared.knows(tenant) {
        // It is configured, and was never met: it is to stand in the list of tenants, where it is looked for.
        shared.wake(tenant);
    }
    let event = match shared.slot(tenant) {
        Some(slot) => slot.event(Role::Tenant, what),
        None => SupervisorEvent::new(Some(tenant.clone()), Role::Tenant, what),
    };
    shared.log(SupervisorEvent { cause: Some(Cause::new(Code::Silent, detail)), ..event });
    if shared.policy(tenant).silence.downstream {
        let (Sound::Silent(lasted, expected) | Sound::Heard(lasted, expected)) = sound;
        let sign = Sign { what: what.as_str(), silent_for: Some(lasted), expected_within: Some(expected.within) };
        // Whoever asked for it wants to read it of the sender that stopped an hour ago, too, whose tenant sleeps by then.
        downstream::tell(shared, &shared.wake(tenant), &sign);
    }
}

fn said(Expected { within, is_learnt }: Expected) -> String {
    let by = if is_learnt { "silence.learn, from its own rhythm" } else { "silence.after" };
    format!("one is expected within {} ({by})", time(within))
}

fn time(lasting: Duration) -> humantime::FormattedDuration {
    let millis = lasting.as_millis();
    humantime::format_duration(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}
