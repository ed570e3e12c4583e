//! The decoder of the baseline: the one that the system uses, so that both do the same checks.

use std::borrow::Cow;
use std::sync::LazyLock;

use headworks::{Decoder, Json};

static JSON: LazyLock<Json> = LazyLock::new(Json::new);

/// The tenant that a frame names, if it is an event.
pub(crate) fn decode(frame: &[u8]) -> Option<Cow<'_, str>> {
    JSON.decode(frame).ok().map(|event| event.tenant)
}
