//! Events that the system makes itself, where a tenant's rules ask for them: what is known of its sender, in its own stream.
//!
//! They come in by the door that all others come in by, so that every sum holds; but they are no sign of the sender, and nobody waits
//! for them: where there is no room they are refused, and counted as that.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::{Full, OnRecord, take_in};
use super::registry::{Feeding, Phase, Shared};
use super::slot::Slot;
use crate::model::{Cause, ChunkBuilder, Code, Event, UnixMillis};
use crate::port::lane::Frames;

/// The source that they are counted under.
const SOURCE: &str = "headworks";

/// What is told of a tenant.
pub(super) struct Sign {
    pub(super) what: &'static str,
    /// How long ago its sender showed itself last, where it ever did.
    pub(super) silent_for: Option<Duration>,
    /// Within what time it is expected to.
    pub(super) expected_within: Option<Duration>,
}

impl Sign {
    /// A JSON object; `headworks` in it says that no sender wrote it. The tenant's id needs no escapes.
    fn body(&self, shared: &Shared, slot: &Slot, at: UnixMillis) -> String {
        let field = serde_json::Value::from(&*shared.defaults.tenant_field);
        let mut body = format!("{{{field}:\"{}\",\"headworks\":\"{}\",\"at\":\"{at}\"", slot.id, self.what);
        for (name, lasting) in [("silent_for_ms", self.silent_for), ("expected_within_ms", self.expected_within)] {
            if let Some(lasting) = lasting {
                // To a string it cannot fail.
                let _ = write!(body, ",\"{name}\":{}", lasting.as_millis());
            }
        }
        body.push('}');
        body
    }
}

/// Takes the sign in as an event of the tenant's, or refuses it, at once. Only on one of the system's threads.
pub(super) fn tell(shared: &Arc<Shared>, slot: &Arc<Slot>, sign: &Sign) {
    let _feeding = Feeding::begin(shared);
    // After the count, so that a drain either sees this or is seen by it.
    if shared.phase() > Phase::Running {
        return;
    }
    let (slot, at, source) = (&shared.present(slot), shared.seam.now(), shared.source(&SOURCE.into()));
    let event = Event::new(slot.id.clone(), Some(at), sign.body(shared, slot, at));
    shared.count_own(slot);
    source.lock().received += 1;
    if slot.muted.load(Ordering::Acquire) {
        shared.count(slot, |counters| counters.muted += 1);
        source.lock().muted += 1;
        return;
    }
    let event = match slot.hooks.event(event) {
        Ok(Some(event)) => event,
        Ok(None) => {
            shared.count_frames(slot, Frames { received: 0, discarded: 1 });
            source.lock().accepted += 1;
            return;
        }
        Err(cause) => {
            shared.count(slot, |counters| counters.rejected += 1);
            source.lock().rejected += 1;
            return shared.failed(&slot.failure(shared, cause, 1));
        }
    };
    let mut builder = ChunkBuilder::default();
    builder.push(&event.body, event.time);
    let Some(chunk) = builder.build(slot.id.clone(), at) else { return };
    let mut record = OnRecord::own(shared);
    let taken = {
        let source = &mut source.lock();
        take_in(shared, source, slot, chunk, Instant::now(), &mut record, Frames::default(), false)
    };
    record.append(shared);
    let Err(full) = taken else { return };
    let (code, why) = match full {
        Full::Rate(..) => {
            shared.count(slot, |counters| counters.throttled += 1);
            source.lock().throttled += 1;
            let rates = slot.policy().throttle.rates();
            return failed(shared, slot, Code::Throttled, sign, &format!("the tenant is above {rates}"));
        }
        Full::Journal(_) => (Code::JournalUnavailable, "the journal has no room"),
        Full::System(_) => (Code::TenantFull, "the memory for events in flight is full"),
        Full::Tenant(..) => (Code::TenantFull, "the tenant has as much in flight as it may"),
        Full::Recovering(_) => (Code::TenantFull, "what an earlier process left of the tenant comes first"),
    };
    shared.count(slot, |counters| counters.rejected += 1);
    source.lock().rejected += 1;
    failed(shared, slot, code, sign, why);
}

fn failed(shared: &Shared, slot: &Slot, code: Code, sign: &Sign, why: &str) {
    let detail = format!("1 event of our own refused, which was to say \"{}\": {why}", sign.what);
    shared.failed(&slot.failure(shared, Cause::new(code, detail), 1));
}
