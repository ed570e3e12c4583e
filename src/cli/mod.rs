//! The command line: what each command takes and prints. Thin over the library.

pub(crate) mod check;
pub(crate) mod dead_letters;
pub(crate) mod exit;
pub(crate) mod table;
pub(crate) mod tenants;
