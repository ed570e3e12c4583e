//! Retention: what stored is pruned, when, and why it is never missed.
//!
//! ```text
//! look (a reader)  ->  who is settled  ->  that is on disk in the journal  ->  step, step, step (the store's thread)
//! ```
//!
//! # What goes
//!
//! By [`RetentionPolicy`], tenant by tenant and store by store, whole batches, the oldest first: those whose last event arrived
//! `max_age` ago, and those that are above `max_bytes`. By `dead_letters.max_age`, dead letters that were given up so long ago. By
//! default nothing goes. The rule is [`due`], over plain data.
//!
//! # How long a batch must be remembered
//!
//! A store knows a batch by its id, and takes it once. An id comes to a store again only while its batch has no outcome that is
//! committed in the journal: after an ambiguous attempt, after a crash, or because a later store of its saga is not there. An id
//! that has such an outcome never comes again: the journal keeps the outcomes in order, and every opening has ids of its own. The
//! writer of a tenant takes one batch after the other, so that all of its batches in a store are settled, but for the newest one
//! there. Hence the order of a [pass](Pass):
//!
//! 1. It takes down which batch is the newest of each store. Later ones it leaves alone.
//! 2. It asks who has something in flight: of such a tenant the newest batch in each store stays. Who is owed compensations keeps
//!    all, since an older batch may yet be rolled back.
//! 3. It waits until all outcomes so far are committed in the journal.
//! 4. It deletes the rows of the ledger *with* the events: nothing of the batch is needed any more.
//!
//! So the ledger needs no rule of its own. The same holds of fences: those of settled tenants go with the next pass.
//!
//! # The audit
//!
//! The count of pruned events is kept by tenant and opening, and changed in the transaction that deletes them. A crash finds both
//! or neither. The [audit](crate::audit) counts them as stored.
//!
//! # What it costs others
//!
//! A step is a transaction of its own kind among those of the store's thread, of at most 10,000 events, 2 MiB of bodies or one
//! batch. The next one is asked for when it is done: a batch waits for one step at the most, which takes about as long as a group of
//! batches does. What is due is found by a reader, which holds up nobody.
//!
//! A store on [plain files](crate::store::files) gives up whole files with all that is known of their batches, one step a tenant: its
//! index is written anew without them. What is too old may stay there for as long as others in its file are not.
//!
//! A store on a [PostgreSQL server](crate::store::postgres) does the same over its own connections, step by step, so that a server that says
//! nothing is given up as soon as with a batch; the others are pruned all the same. Its fences stay for an hour at least, which is longer than
//! an attempt may be on its way there whose process is gone.
//!
//! A store in [objects](crate::store::object) gives up whole objects, of several batches where they are compacted, once the youngest in one is due.
//! It counts them in one object a tenant, which says first up to which batch all are gone, and then they are deleted: see `gone.rs` there. An
//! object is as old as it is there, and takes what it takes there, compressed.
//!
//! # Space
//!
//! The layout `index` gives back whole segments, once all that is in one is gone: one batch of a tenant that keeps all is enough to
//! keep its segment, so tenants with very different rules do better in stores of their own, or in rows. Rows leave free pages in the database, which new
//! rows use: it stops to grow and does not shrink, but for `headworks prune --vacuum`. On PostgreSQL an empty partition is dropped, and the
//! room of rows in others is what its `autovacuum` makes of it.

#[cfg(feature = "sqlite")]
mod order;
#[cfg(feature = "sqlite")]
mod pass;
mod rule;
#[cfg(feature = "sqlite")]
mod walk;

#[cfg(feature = "sqlite")]
pub(crate) use order::{Orders, Pruner, orders};
#[cfg(feature = "sqlite")]
pub(crate) use pass::prune_letters;
#[cfg(feature = "sqlite")]
pub use pass::{Pass, PrunedRow, PrunedStore, Report, Rest};
pub use rule::{Kept, Pruned, due};
#[cfg(feature = "postgres")]
pub(crate) use walk::Listed;
#[cfg(feature = "sqlite")]
pub(crate) use walk::{Asked, FENCES, LOOK, Step, Stock, Walk};

#[cfg(doc)]
use headworks_actors::RetentionPolicy;
