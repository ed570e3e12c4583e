//! The headworks daemon and its tools.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write sample events, one JSON object a line, to stdout
    Gen(cli::generate::GenArgs),
    /// Stream a file or stdin to a TCP listener and wait until it has taken all in
    Send(cli::send::SendArgs),
}

fn main() -> ExitCode {
    let outcome: Result<(), Box<dyn std::error::Error>> = match Args::parse().command {
        Command::Gen(args) => cli::generate::run(&args).map_err(Into::into),
        Command::Send(args) => cli::send::run(&args).map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("headworks: {error}");
            ExitCode::FAILURE
        }
    }
}
