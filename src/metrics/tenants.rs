use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Result;

use headworks_actors::{Counters, TenantId, TenantSnapshot};

use super::families::{Families, In};

/// Reads one of its numbers.
type Of<T> = fn(&T) -> u64;

/// The counters that tenants have series of.
const COUNTERS: [(&str, &str, Of<Counters>); 13] = [
    ("received", "Frames that came for the tenant.", |c| c.received),
    ("accepted", "Events of the tenant that were accepted.", |c| c.accepted),
    ("duplicate", "Frames of the tenant that had been accepted before.", |c| c.duplicate),
    ("muted", "Frames dropped because the tenant is muted.", |c| c.muted),
    ("throttled", "Frames refused because the tenant is above its rate.", |c| c.throttled),
    ("rejected", "Frames refused because the tenant was full.", |c| c.rejected),
    ("malformed", "Frames known to be the tenant's that are no event.", |c| c.malformed),
    ("stored", "Events of the tenant that are stored.", |c| c.stored),
    ("dead_lettered", "Events of the tenant that were kept as dead letters.", |c| c.dead_lettered),
    ("shed", "Events of the tenant that were given up to make room.", |c| c.shed),
    ("discarded", "Events of the tenant that a rule dropped.", |c| c.discarded),
    ("attempts_failed", "Calls of a store for the tenant that failed, of an outage the first alone.", |c| {
        c.attempts_failed
    }),
    ("restarts", "Restarts of the tenant's actors.", |c| c.restarts),
];

/// What tenants have now.
const GAUGES: [(&str, In, &str, Of<TenantSnapshot>); 4] = [
    ("in_flight", In::Things, "Accepted events of the tenant without an outcome yet.", |t| t.in_flight),
    ("in_flight_memory", In::Bytes, "Memory of the tenant's events in flight.", |t| t.in_flight_bytes),
    ("batches_waiting", In::Things, "Closed batches of the tenant that wait or are being stored.", |t| {
        t.batches_waiting
    }),
    ("uncompensated", In::Things, "Compensations of the tenant that could not be done yet.", |t| t.uncompensated),
];

type Numbers = [u64; COUNTERS.len()];

fn numbers(counters: &Counters) -> Numbers {
    COUNTERS.map(|(_, _, of)| of(counters))
}

fn add(sum: &mut Numbers, more: &Numbers) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

fn less(all: &Numbers, part: &Numbers) -> Numbers {
    std::array::from_fn(|nth| all[nth].saturating_sub(part[nth]))
}

/// The tenants with series of their own, and what those of all others begin with.
#[derive(Debug, Default)]
pub(super) struct Busiest {
    /// Each with what it had brought before.
    named: BTreeMap<TenantId, Numbers>,
    /// What those brought in series of their own that have none any more.
    retired: Numbers,
    /// Whether there ever was a tenant without.
    has_others: bool,
}

/// A row of series.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row<'t> {
    tenant: Cow<'t, str>,
    counters: Numbers,
    gauges: [u64; GAUGES.len()],
}

/// The sum of all that have no series of their own.
const OTHER: &str = "other";

/// How a tenant is written: as it is named, but the one whose name is taken.
fn label(tenant: &TenantId) -> &str {
    // No id begins with anything but a letter or a digit.
    if tenant.as_str() == OTHER { "_other" } else { tenant.as_str() }
}

impl Busiest {
    /// Says who has series of their own from now on.
    fn choose(&mut self, tenants: &[TenantSnapshot], max: usize) {
        let (mut named, mut others): (Vec<_>, Vec<_>) =
            tenants.iter().partition(|tenant| self.named.contains_key(&tenant.tenant));
        let had_others = self.has_others;
        let traffic = |tenant: &&TenantSnapshot| tenant.counters.received;
        let mut leave = named.split_off(named.len().min(max));
        let free = (max - named.len()).min(others.len());
        if others.len() > free && !others.is_empty() {
            others.sort_by_cached_key(|tenant| Reverse(traffic(tenant)));
        }
        let rest = others.split_off(free);
        let mut join = others;
        named.sort_by_cached_key(traffic);
        for (least, busier) in named.iter().zip(&rest) {
            if traffic(busier) <= traffic(least) + traffic(least) / 4 {
                break;
            }
            leave.push(least);
            join.push(busier);
        }
        for tenant in leave {
            if let Some(began) = self.named.remove(&tenant.tenant) {
                add(&mut self.retired, &less(&numbers(&tenant.counters), &began));
            }
        }
        for tenant in join {
            // Of one that was in no sum yet, all is told.
            let began = if had_others { numbers(&tenant.counters) } else { Numbers::default() };
            self.named.insert(tenant.tenant.clone(), began);
        }
        self.has_others |= tenants.len() > self.named.len();
    }

    /// The series of all tenants; `tenants` are all there are.
    pub(super) fn rows<'t>(&mut self, tenants: &'t [TenantSnapshot], max: usize) -> Vec<Row<'t>> {
        self.choose(tenants, max);
        let mut other = Row { tenant: OTHER.into(), counters: Numbers::default(), gauges: Default::default() };
        let mut rows = Vec::with_capacity(self.named.len() + 1);
        for tenant in tenants {
            let gauges = GAUGES.map(|(_, _, _, of)| of(tenant));
            match self.named.get(&tenant.tenant) {
                Some(began) => {
                    add(&mut other.counters, began);
                    let counters = less(&numbers(&tenant.counters), began);
                    rows.push(Row { tenant: label(&tenant.tenant).into(), counters, gauges });
                }
                None => {
                    add(&mut other.counters, &numbers(&tenant.counters));
                    other.gauges.iter_mut().zip(gauges).for_each(|(sum, more)| *sum += more);
                }
            }
        }
        other.counters = less(&other.counters, &self.retired);
        if self.has_others {
            rows.push(other);
        }
        rows
    }
}

pub(super) fn tell(families: &mut Families<'_>, rows: &[Row<'_>]) -> Result {
    for (nth, (name, help, _)) in COUNTERS.iter().enumerate() {
        let each = rows.iter().map(|row| (&row.tenant, row.counters[nth]));
        families.counters(&format!("headworks_tenant_{name}"), help, "tenant", each)?;
    }
    for (nth, (name, unit, help, _)) in GAUGES.iter().enumerate() {
        let each = rows.iter().map(|row| (&row.tenant, row.gauges[nth]));
        families.gauges(&format!("headworks_tenant_{name}"), *unit, help, "tenant", each)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
