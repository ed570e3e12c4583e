//! The headworks daemon.

#[expect(dead_code, reason = "the commands stand ready; the command line that names them comes with the daemon")]
mod cli;

fn main() {}
