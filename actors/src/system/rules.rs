use std::time::Duration;

use super::System;
use crate::model::{Cause, Error, Role, SupervisorEvent, TenantId, What};
use crate::policy::{RulesSet, SpawnRate, TenantRules, Unknown};

/// What can be changed for all tenants while the system runs.
impl System {
    /// Other rules from now on for all tenants that bring none of their own: in the place of those that
    /// [`SystemBuilder::rules`](super::SystemBuilder::rules) or an earlier call gave. They hold as those of
    /// [`set_policy`](Self::set_policy) do, for tenants that are awake and for those that come up later; no event is lost or
    /// delayed by it. Rules that `set_policy` gave to a tenant stay over them. The supervisor log names the first 64 tenants that
    /// live by others now.
    ///
    /// ```
    /// # use headworks_actors::{Policy, System, TenantRules};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let system = System::builder().start()?;
    /// let mut trial = Policy::default();
    /// trial.throttle.events_per_second = 10;
    /// system.set_rules(TenantRules::new(Policy::default()).pattern("trial-*".parse()?, trial))?;
    /// assert_eq!(system.policy(&"trial-7".parse()?).throttle.events_per_second, 10);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`]: nothing is changed.
    pub fn set_rules(&self, rules: TenantRules) -> Result<RulesSet, Error> {
        self.shared.set_rules(rules)
    }

    /// The tenants with rules that were given by [`set_policy`](Self::set_policy), by name.
    #[must_use]
    pub fn ruled_apart(&self) -> Vec<TenantId> {
        let mut tenants: Vec<_> = self.shared.tenants.policies.iter().map(|given| given.key().clone()).collect();
        tenants.sort();
        tenants
    }

    /// What becomes of events of unknown tenants from now on; those that are known stay so. See
    /// [`SystemBuilder::unknown_tenants`](super::SystemBuilder::unknown_tenants).
    pub fn set_unknown_tenants(&self, unknown: Unknown) {
        self.shared.admit(|admittance| admittance.unknown = unknown);
    }

    /// How many tenants may be known from now on; where there are more, they stay. See
    /// [`SystemBuilder::max_tenants`](super::SystemBuilder::max_tenants).
    pub fn set_max_tenants(&self, tenants: usize) {
        self.shared.admit(|admittance| admittance.max = tenants);
    }

    /// How many unknown tenants may come up from now on. See
    /// [`SystemBuilder::max_spawn_rate`](super::SystemBuilder::max_spawn_rate).
    pub fn set_max_spawn_rate(&self, rate: Option<SpawnRate>) {
        self.shared.admit(|admittance| admittance.rate = rate);
    }

    /// How often what failed is reported from now on; the time counts anew where it is another. See
    /// [`SystemBuilder::report_every`](super::SystemBuilder::report_every).
    pub fn set_report_every(&self, every: Option<Duration>) {
        self.shared.report_every.send_if_modified(|now| std::mem::replace(now, every) != every);
    }

    /// Writes an entry about the system as a whole, as of its supervisor, to the supervisor log: what the embedder did to it, like
    /// [`What::Reloaded`].
    pub fn note(&self, what: What, cause: Cause) {
        self.shared.note(what, cause);
    }

    /// The same about a tenant, where it is about one.
    pub fn note_of(&self, tenant: Option<&TenantId>, what: What, cause: Cause) {
        let event = SupervisorEvent::new(tenant.cloned(), Role::Supervisor, what);
        self.shared.log(SupervisorEvent { cause: Some(cause), ..event });
    }
}
