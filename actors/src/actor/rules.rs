//! Rules and limits for all tenants, changed while the system runs.

use std::sync::{Arc, PoisonError};

use super::registry::Shared;
use super::tenants::Admittance;
use crate::model::{Cause, Error, Role, SupervisorEvent, What};
use crate::policy::{RulesSet, TenantRules};

/// So many tenants are named in the log where the rules of all are set at once: more would push out of it all that is there.
const TOLD: usize = 64;

impl Shared {
    /// Other rules from now on for all that have none of their own.
    pub(crate) fn set_rules(&self, rules: TenantRules) -> Result<RulesSet, Error> {
        rules.check(self.journal.is_durable()).map_err(Error::InvalidPolicy)?;
        let _only = self.tenants.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = Arc::new(rules);
        // Before anybody is looked for: who wakes from here on has the new ones, who woke before is found.
        let before = {
            let mut place = self.defaults.rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, rules.clone())
        };
        let given = self.tenants.policies.iter().map(|given| given.key().clone());
        let mut kept: Vec<_> = given.filter(|id| before.of(id) != rules.of(id)).collect();
        kept.sort();
        let mut changed = 0;
        for slot in self.all_slots() {
            let policy = rules.of(&slot.id);
            if slot.has_own_policy || self.tenants.policies.contains_key(&slot.id) || slot.policy() == *policy {
                continue;
            }
            slot.set_policy(self, policy, changed < TOLD);
            changed += 1;
        }
        self.listen_to_sleepers();
        Ok(RulesSet { changed, kept })
    }

    /// Changes who may become known by an event.
    pub(crate) fn admit(&self, change: impl FnOnce(&mut Admittance)) {
        change(&mut self.tenants.admittance.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes an entry about the system as a whole.
    pub(crate) fn note(&self, what: What, cause: Cause) {
        let event = SupervisorEvent::new(None, Role::Supervisor, what);
        self.log(SupervisorEvent { cause: Some(cause), ..event });
    }
}
