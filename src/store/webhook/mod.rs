//! A store behind a webhook: a POST to an HTTP server for each batch.
//!
//! ```text
//! POST /batches
//! content-type: application/x-ndjson
//! idempotency-key: 5f0c9b1e2d3a4f60/acme/42      the id of the batch: the same for each attempt
//! headworks-tenant: acme
//! headworks-attempt: 1
//! headworks-events: 2
//! webhook-id, webhook-timestamp, webhook-signature
//!
//! {"tenant":"acme","n":1}
//! {"tenant":"acme","n":2}
//! ```
//!
//! - **Lines.** A body is its line, byte for byte; one that is empty, begins with a backslash or has a newline in it is escaped as in a
//!   store on [plain files](super::files).
//! - **Signed** by the [standard webhooks](https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body, in base64. What is signed
//!   is the body before its compression. `webhook-id` is the batch id with `%2E` for each dot.
//! - **Whole or not at all, and once**, if the server sees to it: see below.
//! - **Answers.** 2xx: stored. 400, 409, 413, 422 and all other 4xx: refused for good, and the batch comes again in
//!   pieces until the events that are refused are found. 401, 403, 404, 405, 407, 410, and 3xx, which is not followed: the address or the
//!   secret is wrong, which an operator can put right: an outage, as is a server that cannot be connected to. 408, 425, other 5xx, a time
//!   that is up and a connection that is cut: the attempt is spent and another follows.
//! - **Retry-After.** 429 is an outage for its tenant, and 503 with Retry-After one for all: nothing is asked before that time, up to
//!   an hour, and no attempt is spent.
//! - An answer is read up to 64 KiB; its beginning is in the log where it is no success.
//!
//! # What the server must do
//!
//! Keep the batch with its idempotency key in one transaction, and answer with 2xx once it is safe. Where the key is known, answer with 2xx
//! and keep nothing: the answer before was lost. Whoever has batches taken back (`rollback_url`) gets
//! `{"batch":"...","tenant":"acme","attempt":2}` there: remove the batch if it is there and came with that attempt or an earlier one, keep the
//! number, and refuse with 409 a batch that comes with that attempt or an earlier one afterwards; answer with 2xx, also where the batch
//! never came. Without `rollback_url` a batch of which it is not known whether it arrived cannot be taken back: once it is given up,
//! that is told as a failed compensation.

mod options;

#[cfg(feature = "webhook")]
mod answer;
#[cfg(feature = "webhook")]
mod request;
#[cfg(feature = "webhook")]
mod sign;
#[cfg(feature = "webhook")]
mod store;
#[cfg(feature = "webhook")]
mod target;

pub use options::{Compression, WebhookOptions};
#[cfg(feature = "webhook")]
pub use store::{OpenError, WebhookStore};

/// Whether requests can be signed with what is in the file; a sentence without the secret where they cannot.
#[cfg(feature = "webhook")]
pub(crate) fn check_secret(path: &std::path::Path) -> Result<(), String> {
    sign::Secrets::usable(path)
}
