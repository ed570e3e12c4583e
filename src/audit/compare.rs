use std::collections::{BTreeMap, BTreeSet};

use headworks_actors::{StoreName, TenantId};

use super::reason::meaning;
use super::{Account, Audit, Books, Check, Difference, Events, Frames, Held, Holdings, Malformed, Row, Scope, Sources};

/// Compares what the journal says with what is there.
///
/// `accounts` is none where no journal is left to say anything; `sources` is none where nothing is on record of frames as
/// they came. A tenant of the holdings without an account is one of which the journal knows nothing.
///
/// An event in flight may be in the store or among the dead letters already: its outcome goes on record afterwards. So the
/// store may hold from what was stored before up to what was stored or in flight after, and exactly what was stored where
/// nothing is in flight.
#[must_use]
pub fn audit(scope: Scope, accounts: Option<Vec<Account>>, sources: Option<Sources>, holdings: &Holdings) -> Audit {
    let is_told = accounts.is_some();
    let mut accounts: BTreeMap<TenantId, Account> =
        accounts.unwrap_or_default().into_iter().map(|account| (account.tenant.clone(), account)).collect();
    for tenant in holdings.tenants.keys() {
        let nothing = || Account::at_rest(tenant.clone(), Books { frames: None, events: Events::default() });
        accounts.entry(tenant.clone()).or_insert_with(nothing);
    }
    // What is in flight, or moves, may have frames wait behind it, of its own tenant and of others.
    let is_at_rest = accounts.values().all(|account| account.before == account.after && idle(&account.after))
        && sources.is_none_or(|sources| sources.before == sources.after && sources.letters_pending == 0);

    let mut all = Row { tenant: None, holds: true, frames: None, events: None, held: Held::default(), pruned: 0 };
    let waiting = sources.map_or(0, |sources| sources.waiting);
    let mut found = Findings { scope, waiting, differences: vec![] };
    let mut tenants = vec![];
    for (tenant, account) in accounts {
        let held = holdings.tenants.get(&tenant).copied().unwrap_or_default();
        let known = found.differences.len();
        if is_told {
            found.books(&account.after, is_at_rest, Some(&tenant), &held);
            found.held(&account, &held, !holdings.unread.has_all_of(&tenant));
        } else {
            found.exactly(Check::Rows, held.events, held.rows, Some(&tenant), &held);
        }
        for (store, kept) in holdings.further.get(&tenant).into_iter().flatten() {
            let known = found.differences.len();
            let held = Held { events: kept.events, rows: kept.rows, damaged: kept.damaged, ..held };
            if is_told {
                found.stored(&account, &held);
            } else {
                found.exactly(Check::Rows, held.events, held.rows, Some(&tenant), &held);
            }
            found.in_store(known, store);
        }
        let row = Row {
            holds: found.differences.len() == known,
            pruned: holdings.pruned.get(&tenant).copied().unwrap_or(0),
            tenant: Some(tenant),
            frames: account.after.frames,
            events: is_told.then_some(account.after.events),
            held,
        };
        add(&mut all, &row);
        tenants.push(row);
    }
    if let Some(sources) = sources {
        found.sources(&sources, is_at_rest, holdings.malformed + holdings.malformed_purged);
        all.frames = Some(sources.after);
    }
    let (before, missing) = (holdings.at_door_before, holdings.at_door_missing);
    found.exactly(Check::Numbered, before, before.saturating_sub(missing), None, &Held::default());
    all.holds = found.differences.is_empty();
    Audit {
        scope,
        holds: all.holds,
        tenants,
        all,
        malformed: Malformed {
            counted: sources.map(|sources| sources.after.malformed),
            kept: holdings.malformed,
            purged: holdings.malformed_purged,
        },
        waiting,
        differences: found.differences,
        unchecked: unchecked(scope, sources.is_some(), holdings),
        damage: holdings.damage.clone(),
    }
}

fn idle(books: &Books) -> bool {
    books.events.in_flight == 0
}

/// What was found so far.
struct Findings {
    scope: Scope,
    /// Frames that waited at the door, of whatever tenant.
    waiting: u64,
    differences: Vec<Difference>,
}

impl Findings {
    /// `found` must lie between `low` and `high`; says whether it does.
    fn within(
        &mut self,
        check: Check,
        (low, high): (u64, u64),
        found: u64,
        tenant: Option<&TenantId>,
        held: &Held,
    ) -> bool {
        let expected = found.clamp(low, high.max(low));
        if found != expected {
            self.differences.push(Difference {
                tenant: tenant.cloned(),
                check,
                expected,
                found,
                difference: found.wrapping_sub(expected).cast_signed(),
                meaning: meaning(check, self.scope, expected, found, held),
            });
        }
        found == expected
    }

    fn exactly(&mut self, check: Check, expected: u64, found: u64, tenant: Option<&TenantId>, held: &Held) -> bool {
        self.within(check, (expected, expected), found, tenant, held)
    }

    /// The two sums in themselves.
    fn books(&mut self, books: &Books, is_at_rest: bool, tenant: Option<&TenantId>, held: &Held) {
        if let Some(frames) = &books.frames {
            self.frames(frames, is_at_rest, tenant, held);
        }
        self.exactly(Check::Events, books.events.accepted, books.events.accounted_for(), tenant, held);
    }

    /// A frame that waits at the door is received and has no answer yet.
    fn frames(&mut self, frames: &Frames, is_at_rest: bool, tenant: Option<&TenantId>, held: &Held) {
        let low = if is_at_rest { frames.received.saturating_sub(self.waiting) } else { 0 };
        self.within(Check::Frames, (low, frames.received), frames.answered(), tenant, held);
    }

    /// Store and dead letters against the journal.
    fn held(&mut self, account: &Account, held: &Held, is_read: bool) {
        let Account { tenant, before, after } = account;
        let (before, after) = (&before.events, &after.events);
        let tenant = Some(tenant);
        let may = |settled: fn(&Events) -> u64| (settled(before), settled(after) + after.in_flight);
        let stored = is_read && self.stored(account, held);
        let letters =
            self.within(Check::DeadLettered, may(|events| events.dead_lettered), held.given_up(), tenant, held);
        if stored && letters {
            let (_, most) = may(|events| events.stored + events.dead_lettered);
            self.within(Check::Settled, (0, most), held.rows + held.given_up(), tenant, held);
        }
    }

    /// A store against the journal; whether it holds.
    fn stored(&mut self, Account { tenant, before, after }: &Account, held: &Held) -> bool {
        let may = (before.events.stored, after.events.stored + after.events.in_flight);
        self.within(Check::Stored, may, held.rows, Some(tenant), held)
            // What is missing from the store's own batches and made up for by something else.
            && self.exactly(Check::Rows, held.events, held.rows, Some(tenant), held)
    }

    /// What was found from `known` on is about this store.
    fn in_store(&mut self, known: usize, store: &StoreName) {
        for difference in self.differences.iter_mut().skip(known) {
            difference.meaning = format!("in {store}: {}", difference.meaning);
        }
    }

    /// The frames of the sources, and the dead letters of those that were no event.
    fn sources(&mut self, sources: &Sources, is_at_rest: bool, kept: u64) {
        self.frames(&sources.after, is_at_rest, None, &Held::default());
        let low = if sources.letters_pending == 0 { sources.before.malformed } else { 0 };
        self.within(Check::Malformed, (low, sources.after.malformed), kept, None, &Held::default());
    }
}

fn unchecked(scope: Scope, has_sources: bool, holdings: &Holdings) -> Vec<String> {
    let mut unchecked = vec![];
    if scope == Scope::Store {
        let why = "the journal was in memory and ended with its process, so that no record is left of what was accepted; \
                   checked is the store against itself alone";
        unchecked.push(why.to_owned());
    } else if !has_sources {
        let why = "the sum of frames, and how many were malformed: the journal keeps no record of frames as they came; a running \
                   daemon checks both from its start on";
        unchecked.push(why.to_owned());
    }
    if has_sources && scope == Scope::Journal && holdings.malformed_before > 0 {
        let before = holdings.malformed_before;
        unchecked.push(format!(
            "how many malformed frames came before this start of the daemon, {before} of which are among the dead letters: they are counted \
             anew with each start. None that was kept is missing unless it is said above; what a process that was killed had read and \
             not kept yet went with it, and a sender that asks is answered once its frames are kept"
        ));
    }
    if scope == Scope::Run {
        let why = "what came before this start of the daemon: its journal is in memory";
        unchecked.push(why.to_owned());
    }
    let unread: BTreeSet<_> =
        holdings.unread.by_id.values().chain([&holdings.unread.all]).flat_map(|(names, _)| names).collect();
    unchecked.extend(unread.into_iter().map(|store| {
        format!("what is stored in {store}: it is a webhook, a NATS stream or the standard output, and cannot be read back from here")
    }));
    unchecked.extend(holdings.erased.iter().map(|(tenant, erased)| {
        format!("{erased} events of {tenant} that were erased on an operator's word: they count as if they were there")
    }));
    unchecked
}

fn add(all: &mut Row, row: &Row) {
    all.pruned += row.pruned;
    let held = &mut all.held;
    held.events += row.held.events;
    held.rows += row.held.rows;
    held.dead_letters += row.held.dead_letters;
    held.purged += row.held.purged;
    held.damaged += row.held.damaged;
    if let Some(events) = &row.events {
        let sum = all.events.get_or_insert_default();
        sum.accepted += events.accepted;
        sum.stored += events.stored;
        sum.dead_lettered += events.dead_lettered;
        sum.shed += events.shed;
        sum.discarded += events.discarded;
        sum.in_flight += events.in_flight;
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
