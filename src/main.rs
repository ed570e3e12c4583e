//! The headworks daemon and its tools.

mod cli;

fn main() -> cli::Exit {
    cli::main()
}
