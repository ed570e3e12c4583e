//! Systems whose batches go to two stores, and what must hold of both.

use std::collections::{BTreeMap, BTreeSet};

use headworks_actors::{
    Batch, BatchId, DeadLetterKind, Fault, Faulty, MemoryDeadLetters, MemoryStore, Policy, RetryPolicy, Saga,
    SystemBuilder,
};

use super::{Recorder, Rig, Store, tenant, windows_of};

/// Two stores that misbehave by script.
pub(crate) struct Pair {
    pub(crate) first: Store,
    pub(crate) second: Store,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let store = || Recorder::new(Faulty::new(MemoryStore::new(), Fault::None.always()));
        Self { first: store(), second: store() }
    }

    pub(crate) fn both(&self) -> [&Store; 2] {
        [&self.first, &self.second]
    }

    pub(crate) fn saga(&self) -> Saga {
        Saga::new().then(self.first.clone()).named("first").then(self.second.clone()).named("second")
    }

    pub(crate) fn heal(&self) {
        self.both().into_iter().for_each(|store| store.heal());
    }

    /// A system in front of both.
    pub(crate) fn rig(&self, policy: Policy) -> Rig {
        self.rig_with(policy, |builder| builder)
    }

    pub(crate) fn rig_with(&self, policy: Policy, parts: impl FnOnce(SystemBuilder) -> SystemBuilder) -> Rig {
        let rig = Rig::with(policy, |builder| parts(builder.saga(self.saga())));
        Rig { store: self.first.inner().clone(), ..rig }
    }

    /// Both hold the same batches, of the same bytes, in the same order.
    pub(crate) fn assert_same(&self, name: &str) {
        let held = |store: &Store| -> Vec<(BatchId, Vec<Vec<u8>>)> {
            let batches = store.inner().batches(&tenant(name));
            batches.iter().map(|batch| (batch.id().clone(), bodies(batch))).collect()
        };
        let [first, second] = self.both().map(held);
        assert_eq!(first, second, "of {name}");
    }

    /// Every event of the tenant that is stored in both or given up, in order; none is both.
    pub(crate) fn in_order(&self, letters: &MemoryDeadLetters, name: &str) -> Vec<String> {
        self.assert_same(name);
        in_order(self.first.inner(), letters, name)
    }
}

pub(crate) fn bodies(batch: &Batch) -> Vec<Vec<u8>> {
    batch.events().map(|event| event.body.to_vec()).collect()
}

/// Every event of the tenant that is stored or given up, by batch and piece; none is both, no batch is there in part.
pub(crate) fn in_order(store: &MemoryStore, letters: &MemoryDeadLetters, name: &str) -> Vec<String> {
    let mut batches: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let stored = store.batches(&tenant(name));
    assert!(stored.is_sorted_by_key(|batch| batch.id().place()), "batches of {name} are stored out of order");
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    for batch in &stored {
        let events = bodies(batch).iter().map(|body| text(body)).collect();
        assert!(batches.insert(batch.id().place(), events).is_none(), "{} is stored twice", batch.id());
    }
    let whole: BTreeSet<_> = batches.keys().copied().collect();
    for letter in letters.all() {
        if letter.tenant == Some(tenant(name)) && letter.kind == DeadLetterKind::Event {
            let (id, index) = letter.batch.clone().unwrap();
            assert!(!whole.contains(&id.place()), "{id} is stored and given up");
            let batch = batches.entry(id.place()).or_default();
            assert_eq!(batch.len(), index as usize, "{id}");
            batch.push(text(&letter.body));
        }
    }
    batches.into_values().flatten().collect()
}

/// As `windows_of`; what a store refuses is split.
pub(crate) fn split_windows_of(max_events: usize) -> Policy {
    Policy { retry: RetryPolicy::default(), ..windows_of(max_events) }
}

/// The number that ends the body of an event.
pub(crate) fn number(body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).unwrap();
    text.trim_end_matches('}').rsplit(':').next().unwrap().parse().unwrap()
}

/// Whether one of the batch's events is among these.
pub(crate) fn holds(batch: &Batch, numbers: &BTreeSet<usize>) -> bool {
    batch.events().any(|event| numbers.contains(&number(event.body)))
}
