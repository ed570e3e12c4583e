use super::{Opened, Opening};
use crate::source::{DemoOptions, DemoSource};

/// Sample events.
pub(super) fn open(opening: &Opening<'_>) -> Opened {
    let source = opening.source;
    let options = DemoOptions {
        tenants: source.tenants,
        events_per_second: source.events_per_second,
        event_bytes: source.event_bytes,
        max_events: (source.max_events > 0).then_some(source.max_events),
    };
    (None, Box::new(DemoSource::new(opening.name, opening.ingress(), options)))
}
