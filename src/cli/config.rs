//! `headworks config`: what there is to configure.

use headworks::config::{reference, schema};

use super::exit::Exit;
use super::say;
use super::table::json;

/// What `headworks config` takes.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a JSON Schema of the configuration file, for editors
    Schema,
    /// Print every key with its type, range, default and meaning, as Markdown
    Reference,
}

/// Prints it.
pub(crate) fn run(command: &ConfigCommand) -> Result<Exit, (Exit, String)> {
    let text = match command {
        ConfigCommand::Schema => json(&schema()).map_err(|why| (Exit::Internal, why.to_string()))?,
        ConfigCommand::Reference => reference(),
    };
    Ok(say(text.as_bytes()))
}
