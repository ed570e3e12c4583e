//! Thin actors: take a message, ask a rule, send a message.
//!
//! Files follow the flow: [`message`] has every message on one page, then ingress, tenant, writer, aggregator; the
//! supervisor starts them all; [`steps`] are what the writer does without waiting; [`registry`], [`tenants`] and [`slot`] hold what must outlive them, and [`dormant`] what is left of a
//! tenant that has nothing to do. What comes in passes [`admission`]; what cannot, waits in [`waiting`] or lies in the journal alone
//! ([`spill`]); the system's own events come in by [`downstream`]. The way into a store is a [`gate`]. A failure climbs from [`supervise`] to [`tenant_supervisor`] to [`root`];
//! [`watchdog`] looks for those that fail without a word. Where there are several threads, [`homes`] says who lives on which.

pub(crate) mod admission;
pub(crate) mod aggregator;
pub(crate) mod alarms;
pub(crate) mod budget;
pub(crate) mod compensation;
pub(crate) mod control;
pub(crate) mod dormant;
mod downstream;
pub(crate) mod gate;
pub(crate) mod homes;
pub(crate) mod ingress;
pub(crate) mod letters;
pub(crate) mod listening;
pub(crate) mod message;
pub(crate) mod post;
pub(crate) mod recovery;
pub(crate) mod registry;
pub(crate) mod root;
pub(crate) mod rules;
pub(crate) mod slot;
pub(crate) mod spec;
mod spill;
pub(crate) mod stage;
mod steps;
pub(crate) mod streams;
pub(crate) mod supervise;
pub(crate) mod supervisor;
pub(crate) mod tenant;
pub(crate) mod tenant_supervisor;
pub(crate) mod tenants;
pub(crate) mod waiting;
pub(crate) mod watchdog;
pub(crate) mod writer;
