use std::path::Path;

use clap::Command;
pub(crate) use clap_complete::Shell;

use super::exit::Exit;
use super::say;

/// Prints what the shell completes commands and options by.
pub(crate) fn completions(mut command: Command, shell: Shell) -> Exit {
    let mut script = vec![];
    clap_complete::generate(shell, &mut command, "headworks", &mut script);
    say(&script)
}

/// Prints the man page, or writes those of all commands to a directory.
pub(crate) fn pages(command: Command, dir: Option<&Path>) -> Result<Exit, (Exit, String)> {
    let Some(dir) = dir else {
        let mut page = vec![];
        let rendered = clap_mangen::Man::new(command).render(&mut page);
        rendered.map_err(|why| (Exit::Internal, format!("cannot write the man page: {why}")))?;
        return Ok(say(&page));
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|why| (Exit::CantCreate, format!("cannot write the man pages to {}: {why}", dir.display())))?;
    Ok(Exit::Ok)
}
