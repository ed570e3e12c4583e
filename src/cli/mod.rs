//! The command line: what each command takes and prints. Thin over the library.

mod audit;
mod backup;
mod check;
mod config;
mod data;
mod dead_letters;
mod exit;
mod explain;
mod generate;
mod journal;
mod live;
mod log;
mod manual;
mod prune;
mod query;
mod ready;
mod report;
mod run;
mod send;
mod service;
mod table;
mod tap;
mod tenants;
mod top;
mod uncompensated;

use std::io::Write;

use clap::{Parser, Subcommand};
use headworks::config::environment;

use data::Data;
pub(crate) use exit::Exit;

/// Many tenants in one stream: each one's events windowed, stored and accounted for, apart from the others
#[derive(Parser)]
#[command(name = "headworks", version, arg_required_else_help = true, after_help = CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const CODES: &str = "Exit codes: 0 done; 1 failed, or something is left undone (also by a second signal, which ends a drain at once) or does not hold; 2 wrong usage; 69 a port or a peer is not \
                     there; 70 an internal error; 73 a file cannot be made; 74 reading or writing failed; 78 wrong \
                     configuration.";

#[derive(Subcommand)]
enum Command {
    /// Take in events: from the listeners until SIGTERM or Ctrl-C, or from a file to its end
    Run(run::RunArgs),
    /// Say what a configuration means, or what is wrong with it
    Check(check::CheckArgs),
    /// Print what there is to configure
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// List the tenants and how they are, or tell one of a running daemon what to do
    Tenants(tenants::Tenants),
    /// Print the stored events of a tenant, in order
    Query {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: query::QueryArgs,
    },
    /// Show what failed, what was restarted or rolled back, why, and when the next attempt is
    Log {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: log::LogArgs,
    },
    /// Show all about one tenant: window, backlog, batch, attempts, failures, rollbacks
    Explain {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: explain::ExplainArgs,
    },
    /// Show what failed since the daemon was started, by tenant and code, over the last minute, 5 minutes and hour
    Report {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: report::ReportArgs,
    },
    /// Watch a running daemon on the terminal: rates, tenants, one tenant, the log; `?` there tells the keys
    Top {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: top::TopArgs,
    },
    /// Print events as a running daemon accepts them, a sample of them, one JSON object a line
    Tap {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: tap::TapArgs,
    },
    /// Say whether a daemon does its work: ends with 0 if so, with 1 and the reasons if not, and with 69 if none answers
    Ready {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: ready::ReadyArgs,
    },
    /// List what could not be undone yet: what a store may still hold of batches that were given up
    Uncompensated {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: uncompensated::UncompensatedArgs,
    },
    /// Look at what was given up, mend it, bring it back, forget it
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Check the accounting: what the journal says against what the store and the dead letters hold
    Audit {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: audit::AuditArgs,
    },
    /// Delete what the rules of retention let go of, now: at rest by the configuration, else by the daemon that runs
    Prune {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: prune::PruneArgs,
    },
    /// Copy a data directory as it is at one moment, whether a daemon writes there or not
    Backup {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: backup::BackupArgs,
    },
    /// Make a data directory of a backup, checking every byte
    Restore(backup::RestoreArgs),
    /// Look at the durable journal
    #[command(subcommand)]
    Journal(journal::Journal),
    /// Print the completions of a shell
    Completions {
        /// Which
        shell: manual::Shell,
    },
    /// Print the man page, or write one for each command
    Man {
        /// The directory that all pages go to; made if it is not there
        dir: Option<std::path::PathBuf>,
    },
    /// Write sample events to stdout, one JSON object a line
    Gen(generate::GenArgs),
    /// Stream a file or stdin to a listener, and wait until it has taken all in
    Send(send::SendArgs),
}

/// The arguments, or the end with what is wrong with them.
fn parsed() -> Cli {
    Cli::try_parse().unwrap_or_else(|mut why| {
        if why.kind() == clap::error::ErrorKind::ArgumentConflict
            && why.to_string().starts_with("error: the subcommand")
        {
            let tip = "what is for the subcommand goes behind it: `headworks tenants mute acme --config FILE`";
            why.insert(
                clap::error::ContextKind::Suggested,
                clap::error::ContextValue::StyledStrs(vec![tip.to_owned().into()]),
            );
        }
        why.exit()
    })
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> Exit {
    let done = match parsed().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => {
            return check::run(&args, environment(), &mut std::io::stdout(), &mut std::io::stderr());
        }
        Command::Config(command) => config::run(&command),
        Command::Tenants(tenants) => tenants::run(&tenants),
        Command::Query { data, args } => query::run(&data, &args),
        Command::Log { data, args } => log::run(&data, &args),
        Command::Explain { data, args } => explain::run(&data, &args),
        Command::Ready { data, args } => ready::run(&data, &args),
        Command::Report { data, args } => report::run(&data, &args),
        Command::Top { data, args } => top::run(&data, &args),
        Command::Tap { data, args } => tap::run(&data, &args),
        Command::Uncompensated { data, args } => uncompensated::run(&data, &args),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Audit { data, args } => audit::run(&data, &args),
        Command::Prune { data, args } => prune::run(&data, &args),
        Command::Backup { data, args } => backup::make(&data, &args),
        Command::Restore(args) => backup::put_back(&args),
        Command::Journal(journal) => journal::run(&journal),
        Command::Completions { shell } => Ok(manual::completions(<Cli as clap::CommandFactory>::command(), shell)),
        Command::Man { dir } => manual::pages(<Cli as clap::CommandFactory>::command(), dir.as_deref()),
        Command::Gen(args) => generate::run(&args).map(|()| Exit::Ok).map_err(|why| (Exit::Io, why.to_string())),
        Command::Send(args) => send::run(&args).map(|()| Exit::Ok).map_err(|why| (why.exit(), why.to_string())),
    };
    done.unwrap_or_else(|(exit, why)| {
        // Where stderr is gone, the code alone must say it.
        let _ = writeln!(std::io::stderr(), "headworks: {why}");
        exit
    })
}

/// Writes to stdout, and says so where that fails.
fn say(bytes: &[u8]) -> Exit {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    let why = written.as_ref().err().map(ToString::to_string);
    let exit = Exit::after_writing(written);
    if let (Exit::Io, Some(why)) = (exit, why) {
        let _ = writeln!(std::io::stderr(), "headworks: cannot write to stdout: {why}");
    }
    exit
}
