use std::sync::Arc;

use crate::model::{Error, InvalidTenantId, TenantId};
use crate::policy::Policy;
use crate::port::{Hooks, Saga, Storage, Stores};
use crate::wire::{Decoder, Framing};

/// A tenant as a value: what is not said here it takes from the system's defaults.
///
/// The spec is what a supervisor starts from, at first and after each failure.
#[derive(Clone)]
#[must_use]
pub struct TenantSpec {
    pub(crate) id: TenantId,
    pub(crate) policy: Option<Policy>,
    pub(crate) saga: Option<Saga>,
    /// The saga once it is checked.
    pub(crate) stores: Option<Arc<Stores>>,
    pub(crate) hooks: Hooks,
}

impl TenantSpec {
    /// A tenant that follows the system's defaults.
    ///
    /// # Errors
    /// `id` is no tenant id.
    pub fn new(id: &str) -> Result<Self, InvalidTenantId> {
        TenantId::new(id).map(Self::from)
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// The same, if it can work as written.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        let check = self.policy.as_ref().map_or(Ok(()), Policy::check);
        check.map_err(|why| Error::InvalidPolicy(format!("tenant {}: {why}", self.id)))?;
        if let Some(saga) = self.saga.take() {
            let invalid = |why| Error::InvalidSaga(format!("tenant {}: {why}", self.id));
            self.stores = Some(Arc::new(saga.check().map_err(invalid)?));
        }
        Ok(self)
    }

    /// Whether its rules can work with that kind of journal.
    pub(crate) fn check_journal(&self, is_durable: bool) -> Result<(), Error> {
        let check = self.policy.as_ref().map_or(Ok(()), |policy| policy.overflow.check_journal(is_durable));
        check.map_err(|why| Error::InvalidPolicy(format!("tenant {}: {why}", self.id)))
    }

    /// What it says of nobody: nothing.
    pub(crate) fn silent() -> Self {
        #[expect(clippy::expect_used, reason = "a constant that follows the grammar")]
        let nobody = TenantId::new("nobody").expect("it follows the grammar");
        Self::from(nobody)
    }

    /// Whether it leaves everything to the system's defaults.
    pub(crate) fn is_silent(&self) -> bool {
        self.policy.is_none() && self.saga.is_none() && self.stores.is_none() && self.hooks.is_empty()
    }

    /// This spec, and `base` where this one is silent.
    pub(crate) fn over(self, base: Option<&Self>) -> Self {
        let Some(base) = base else { return self };
        let has_own = self.saga.is_some() || self.stores.is_some();
        Self {
            id: self.id,
            policy: self.policy.or_else(|| base.policy.clone()),
            stores: if has_own { self.stores } else { base.stores.clone() },
            saga: if has_own { self.saga } else { base.saga.clone() },
            hooks: if self.hooks.is_empty() { base.hooks.clone() } else { self.hooks },
        }
    }

    /// Its own rules, all of them.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Its own store, the only one.
    pub fn store(self, storage: impl Storage) -> Self {
        self.saga(Saga::new().then(storage))
    }

    /// Its own stores, in order.
    pub fn saga(mut self, saga: Saga) -> Self {
        (self.saga, self.stores) = (Some(saga), None);
        self
    }

    /// Its own hooks, after the system's.
    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }
}

impl From<TenantId> for TenantSpec {
    fn from(id: TenantId) -> Self {
        Self { id, policy: None, saga: None, stores: None, hooks: Hooks::new() }
    }
}

impl std::fmt::Debug for TenantSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantSpec")
            .field("id", &self.id)
            .field("policy", &self.policy)
            .field("own_stores", &(self.saga.is_some() || self.stores.is_some()))
            .field("hooks", &self.hooks)
            .finish()
    }
}

/// An ingress as a value: how one stream of bytes becomes events.
#[derive(Clone)]
#[must_use]
pub struct IngressSpec {
    pub(crate) source: Arc<str>,
    pub(crate) framing: Framing,
    pub(crate) decoder: Arc<dyn Decoder>,
    pub(crate) last_position: u64,
}

impl IngressSpec {
    /// A stream of the source `source`: connections of one source share its counters.
    pub fn new(source: &str, framing: Framing, decoder: impl Decoder) -> Self {
        Self { source: source.into(), framing, decoder: Arc::new(decoder), last_position: u64::MAX }
    }

    /// The same with another decoder, made of its own: one that looks at what that says, for a sender that may not say everything.
    pub fn decoded_by<D: Decoder>(self, other: impl FnOnce(Arc<dyn Decoder>) -> D) -> Self {
        Self { decoder: Arc::new(other(self.decoder)), ..self }
    }

    /// The last position that a frame may have where frames are numbered: what comes behind it is refused with
    /// [`PositionsUsedUp`](crate::Error::PositionsUsedUp). Default none.
    pub fn last_position(self, position: u64) -> Self {
        Self { last_position: position, ..self }
    }

    /// How its bytes are cut into frames.
    #[must_use]
    pub fn framing(&self) -> &Framing {
        &self.framing
    }
}

impl std::fmt::Debug for IngressSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngressSpec")
            .field("source", &self.source)
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}
