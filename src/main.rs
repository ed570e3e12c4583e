//! The headworks daemon.

fn main() {}
