use serde::Serialize;
use smallvec::SmallVec;

use super::UndoStep;
use crate::model::{Attempt, BatchId, Cause, StoreName, UnixMillis};

/// How far a batch has come on its way through its saga: what its entries in the journal come to. Pure: the lanes and the
/// journals keep one each and say the same to it.
///
/// ```
/// use headworks_actors::{Attempt, Cause, Code, Compensation, Progress, StoreName};
///
/// let (archive, db) = (StoreName::new("archive")?, StoreName::new("db")?);
/// let mut progress = Progress::default();
/// progress.intent(&archive, Attempt(1));
/// progress.done(&archive);
/// progress.intent(&db, Attempt(1));
/// progress.give_up(&Cause::new(Code::StorePermanent, "a column is missing"));
/// let newest_first = [&db, &archive].map(|store| (store.clone(), Compensation::Rollback(Attempt(1))));
/// assert_eq!(progress.compensations(), newest_first);
/// # Ok::<(), headworks_actors::InvalidStoreName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The steps that were begun, in the order of their last attempts.
    pub steps: SmallVec<[Begun; 1]>,
    /// What the stores registered to be undone, oldest first.
    pub undo: Vec<(StoreName, UndoStep)>,
    /// Why the batch was given up, if it was.
    pub given_up: Option<Cause>,
    /// How many of its [compensations](Self::compensations) are dealt with; one more than there are where there is
    /// [no way back](Self::is_condemned).
    pub compensated: u32,
}

/// A step of a saga that was begun for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Which store.
    pub store: StoreName,
    /// The last attempt.
    pub attempt: Attempt,
    /// What became of it.
    pub state: StepState,
}

/// What became of the last attempt of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Nothing that is known: it may have taken effect.
    Open,
    /// It failed. Where that was a timeout or a lost connection, it may have taken effect all the same.
    Failed,
    /// The store has the batch.
    Done,
    /// The step was rolled back, and not begun again.
    RolledBack,
}

/// What takes back a part of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compensation {
    /// Something that the store had registered.
    Undo(UndoStep),
    /// The batch itself, of attempts up to this one.
    Rollback(Attempt),
}

impl std::fmt::Display for Compensation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Undo(step) => write!(f, "undo step {:?}", step.name),
            Self::Rollback(_) => f.write_str("rollback"),
        }
    }
}

/// A compensation that could not be done, on the list of those that are tried again and again. Until it is done, the store may
/// hold the batch although it was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uncompensated {
    /// Whose effect it is.
    pub batch: BatchId,
    /// Its place among the batch's compensations, from 0.
    pub nth: u32,
    /// Which store.
    pub store: StoreName,
    /// What it is to do.
    pub compensation: Compensation,
    /// Why the last try failed.
    pub cause: Cause,
    /// When it was put on the list.
    pub since: UnixMillis,
    /// How often it was tried from the list, in this process.
    pub tries: u32,
    /// When it is tried again, where that is known.
    pub next_at: Option<UnixMillis>,
}

impl Progress {
    fn step(&mut self, store: &StoreName) -> Option<&mut Begun> {
        self.steps.iter_mut().find(|step| step.store == *store)
    }

    /// An attempt begins. One that is older than the last of its store changes nothing.
    pub fn intent(&mut self, store: &StoreName, attempt: Attempt) {
        if attempt < self.attempt(store) {
            return;
        }
        // Whoever is at it stands last, also where the saga has another order than it had when the step was begun first.
        self.steps.retain(|step| step.store != *store);
        self.steps.push(Begun { store: store.clone(), attempt, state: StepState::Open });
    }

    /// The attempt failed.
    pub fn failed(&mut self, store: &StoreName, attempt: Attempt) {
        if let Some(step) = self.step(store)
            && step.attempt <= attempt
        {
            (step.attempt, step.state) = (attempt, StepState::Failed);
        }
    }

    /// The store has the batch.
    pub fn done(&mut self, store: &StoreName) {
        if let Some(step) = self.step(store) {
            step.state = StepState::Done;
        }
    }

    /// The store registered a step to be undone. One that is registered already counts once.
    pub fn register(&mut self, store: &StoreName, step: &UndoStep) {
        if !self.undo.iter().any(|(by, known)| by == store && known == step) {
            self.undo.push((store.clone(), step.clone()));
        }
    }

    /// The batch is given up.
    pub fn give_up(&mut self, cause: &Cause) {
        self.given_up = Some(cause.clone());
    }

    /// The nth compensation is dealt with: it is done, or on the list of those that could not be done.
    pub fn compensated(&mut self, nth: u32) {
        self.compensated = self.compensated.max(nth.saturating_add(1));
    }

    /// Whether the batch becomes dead letters whatever happens, as some of them may be kept already.
    #[must_use]
    pub fn is_condemned(&self) -> bool {
        self.given_up.is_some() && self.compensated as usize > self.compensations().len()
    }

    /// The saga begins anew, with everything taken back; attempts are counted on.
    pub fn again(&mut self) {
        self.steps.iter_mut().for_each(|step| step.state = StepState::RolledBack);
        *self = Self { steps: std::mem::take(&mut self.steps), ..Self::default() };
    }

    /// The last attempt of a step; 0 before the first.
    #[must_use]
    pub fn attempt(&self, store: &StoreName) -> Attempt {
        self.steps.iter().find(|step| step.store == *store).map_or(Attempt(0), |step| step.attempt)
    }

    /// Whether the store is known to have the batch.
    #[must_use]
    pub fn is_done(&self, store: &StoreName) -> bool {
        self.steps.iter().any(|step| step.store == *store && step.state == StepState::Done)
    }

    /// The last attempt of which nobody knows what became.
    #[must_use]
    pub fn open(&self) -> Option<&Begun> {
        self.steps.iter().rfind(|step| step.state == StepState::Open)
    }

    /// Whether anything of the batch may be in a store.
    #[must_use]
    pub fn was_tried(&self) -> bool {
        !self.steps.is_empty() || !self.undo.is_empty() || self.given_up.is_some()
    }

    /// Everything that takes the batch back, newest first: for each step what it registered, then its rollback.
    #[must_use]
    pub fn compensations(&self) -> Vec<(StoreName, Compensation)> {
        let begun = self.steps.iter().rev().filter(|step| step.state != StepState::RolledBack);
        begun
            .flat_map(|step| {
                let registered = self.undo.iter().rev().filter(|(by, _)| *by == step.store);
                let undo = registered.map(|(by, undo)| (by.clone(), Compensation::Undo(undo.clone())));
                undo.chain([(step.store.clone(), Compensation::Rollback(step.attempt))])
            })
            .collect()
    }

    /// The nth compensation as it stands on the list of those that could not be done.
    #[must_use]
    pub fn uncompensated(&self, batch: &BatchId, nth: u32, cause: Cause, since: UnixMillis) -> Option<Uncompensated> {
        let (store, compensation) = self.compensations().into_iter().nth(nth as usize)?;
        let batch = batch.clone();
        Some(Uncompensated { batch, nth, store, compensation, cause, since, tries: 0, next_at: None })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Code;

    const STORES: [&str; 3] = ["a", "b", "c"];

    fn name(store: usize) -> StoreName {
        StoreName::new(STORES[store]).unwrap()
    }

    fn step(n: u8) -> UndoStep {
        UndoStep { name: n.to_string(), data: vec![] }
    }

    #[derive(Debug, Clone, Copy)]
    enum Deed {
        Intent(usize),
        Register(u8),
        Failed,
        Done,
        GiveUp,
        Compensated,
        Again,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            4 => (0..STORES.len()).prop_map(Deed::Intent),
            3 => (0..4u8).prop_map(Deed::Register),
            2 => Just(Deed::Failed),
            3 => Just(Deed::Done),
            1 => Just(Deed::GiveUp),
            3 => Just(Deed::Compensated),
            1 => Just(Deed::Again),
        ]
    }

    /// What a batch has done, told plainly.
    #[derive(Default)]
    struct Model {
        /// Attempts of each store, in all rounds.
        attempts: BTreeMap<usize, u32>,
        /// The stores of this round, each where its last attempt is.
        order: Vec<usize>,
        /// Those that are done.
        done: Vec<usize>,
        /// Whose attempt is under way.
        open: Option<usize>,
        registered: Vec<(usize, u8)>,
        is_given_up: bool,
        compensated: usize,
    }

    impl Model {
        fn compensations(&self) -> Vec<(StoreName, Compensation)> {
            let mut all = vec![];
            for store in self.order.iter().rev() {
                for (_, n) in self.registered.iter().rev().filter(|(by, _)| by == store) {
                    all.push((name(*store), Compensation::Undo(step(*n))));
                }
                all.push((name(*store), Compensation::Rollback(Attempt(self.attempts[store]))));
            }
            all
        }

        /// Does what may be done now, to both.
        fn act(&mut self, progress: &mut Progress, deed: Deed) {
            let all = self.compensations().len();
            match (deed, self.open) {
                (Deed::Intent(store), None) if !self.is_given_up && !self.done.contains(&store) => {
                    let attempt = self.attempts.entry(store).or_default();
                    *attempt += 1;
                    self.order.retain(|other| *other != store);
                    self.order.push(store);
                    self.open = Some(store);
                    progress.intent(&name(store), Attempt(*attempt));
                }
                (Deed::Register(n), Some(store)) => {
                    if !self.registered.contains(&(store, n)) {
                        self.registered.push((store, n));
                    }
                    progress.register(&name(store), &step(n));
                }
                (Deed::Failed, Some(store)) => {
                    self.open = None;
                    progress.failed(&name(store), Attempt(self.attempts[&store]));
                }
                (Deed::Done, Some(store)) => {
                    self.open = None;
                    self.done.push(store);
                    progress.done(&name(store));
                }
                (Deed::GiveUp, _) if !self.is_given_up => {
                    self.is_given_up = true;
                    progress.give_up(&Cause::new(Code::StorePermanent, "no"));
                }
                // The one after the last is the last word.
                (Deed::Compensated, _) if self.is_given_up && self.compensated <= all => {
                    progress.compensated(u32::try_from(self.compensated).unwrap());
                    self.compensated += 1;
                }
                (Deed::Again, _) if self.is_given_up && self.compensated == all => {
                    *self = Self { attempts: std::mem::take(&mut self.attempts), ..Self::default() };
                    progress.again();
                }
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn progress_is_what_the_record_of_it_comes_to(deeds in prop::collection::vec(deed(), 0..80)) {
            let (mut model, mut progress) = (Model::default(), Progress::default());
            for deed in deeds {
                model.act(&mut progress, deed);
                prop_assert_eq!(progress.compensations(), model.compensations());
                prop_assert_eq!(progress.open().map(|step| step.store.clone()), model.open.map(name));
                prop_assert_eq!(progress.given_up.is_some(), model.is_given_up);
                let is_condemned = model.is_given_up && model.compensated == model.compensations().len() + 1;
                prop_assert_eq!(progress.is_condemned(), is_condemned);
                for store in 0..STORES.len() {
                    let attempts = model.attempts.get(&store).copied().unwrap_or(0);
                    prop_assert_eq!(progress.attempt(&name(store)), Attempt(attempts));
                    prop_assert_eq!(progress.is_done(&name(store)), model.done.contains(&store));
                }
            }
        }
    }

    #[test]
    fn what_is_told_twice_or_too_late_changes_nothing() {
        let mut progress = Progress::default();
        progress.failed(&name(0), Attempt(1));
        progress.done(&name(0));
        assert!(!progress.was_tried());
        progress.intent(&name(0), Attempt(2));
        let before = progress.clone();
        progress.intent(&name(0), Attempt(1));
        progress.failed(&name(0), Attempt(1));
        assert_eq!(progress, before);
        progress.register(&name(0), &step(1));
        progress.compensated(1);
        let before = progress.clone();
        progress.register(&name(0), &step(1));
        progress.compensated(0);
        assert_eq!(progress, before);
    }

    #[test]
    fn a_compensation_that_is_owed_is_named_as_it_stands_in_the_order() {
        let mut progress = Progress::default();
        progress.intent(&name(0), Attempt(1));
        progress.register(&name(0), &step(7));
        let (id, cause) = ("1/t/1".parse().unwrap(), Cause::new(Code::CompensationFailed, "no"));
        let owed = |nth| progress.uncompensated(&id, nth, cause.clone(), UnixMillis(5));
        assert_eq!(owed(0).unwrap().compensation, Compensation::Undo(step(7)));
        assert_eq!(owed(1).unwrap().compensation, Compensation::Rollback(Attempt(1)));
        assert_eq!(owed(2), None);
    }
}
