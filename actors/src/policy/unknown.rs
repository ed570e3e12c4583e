use std::time::Duration;

use tokio::time::Instant;

use crate::model::TenantId;

/// What becomes of an event of a tenant that nobody has heard of: neither by a spec, nor by the record, nor by an event before.
///
/// ```
/// use headworks_actors::{System, Unknown};
///
/// let system = System::builder().unknown_tenants(Unknown::CatchAll("others".parse()?)).start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unknown {
    /// Its tenant comes up, as far as the limits allow.
    #[default]
    Spawn,
    /// It is rejected: `unknown_tenant`.
    Reject,
    /// It becomes an event of this tenant, its body as it came.
    CatchAll(TenantId),
}

/// How many new tenants may come up by their first events; those beyond are rejected: `spawn_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnRate {
    /// So many a second in the long run; 0 counts as 1.
    pub per_second: u32,
    /// So many at once; 0 counts as 1.
    pub burst: u32,
}

/// How far the rate is used up.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpawnGate {
    /// When the whole burst is there again.
    full_at: Option<Instant>,
}

impl SpawnGate {
    /// Whether one more may come up now; it counts as one that did.
    pub(crate) fn take(&mut self, rate: SpawnRate, now: Instant) -> bool {
        let each = Duration::from_secs(1) / rate.per_second.max(1);
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        if full_at.duration_since(now) > each * (rate.burst.max(1) - 1) {
            return false;
        }
        self.full_at = Some(full_at + each);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_comes_up_at_once_and_then_one_each_interval() {
        let (rate, start) = (SpawnRate { per_second: 10, burst: 3 }, Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let mut gate = SpawnGate::default();
        let took: Vec<_> =
            [0, 0, 0, 0, 99, 100, 101, 1_000, 1_000, 1_000, 1_000].map(|millis| gate.take(rate, at(millis))).into();
        assert_eq!(took, [true, true, true, false, false, true, false, true, true, true, false]);
    }

    proptest! {
        #[test]
        fn no_span_of_time_sees_more_than_its_rate_and_one_burst(
            per_second in 1..50u32,
            burst in 1..20u32,
            waits in prop::collection::vec(0..200u64, 1..200),
        ) {
            let (rate, mut now, mut gate) = (SpawnRate { per_second, burst }, Instant::now(), SpawnGate::default());
            let mut taken = vec![];
            for wait in waits {
                now += Duration::from_millis(wait);
                if gate.take(rate, now) {
                    taken.push(now);
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (nth, to) in taken.iter().enumerate().skip(first) {
                    let allowed = f64::from(burst) + to.duration_since(*from).as_secs_f64() * f64::from(per_second);
                    prop_assert!((nth - first + 1) as f64 <= allowed + 1e-6);
                }
            }
        }
    }
}
