use std::path::PathBuf;

use headworks::backup::{Backup, BackupError, State, backup, restore};
use headworks::daemon::Found;
use serde::Serialize;

use super::data::{Data, Directory, database};
use super::exit::Exit;
use super::say;
use super::table::{inert, json};

type Failure = (Exit, String);

/// What `headworks backup` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BackupArgs {
    /// The directory to make; it must not be there
    to: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `headworks restore` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    from: PathBuf,
    /// The data directory to make; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Copies the directory as it is now, whether a daemon writes there or not.
pub(crate) fn make(data: &Data, args: &BackupArgs) -> Result<Exit, Failure> {
    let (path, directory) = data.directory()?;
    database(&path)?;
    let state = match &directory {
        Directory::Live(_) => State::Live,
        Directory::Files(_) => State::AtRest,
    };
    let made = backup(&path, &args.to, state).map_err(failure)?;
    // Kept until here: no daemon starts in the middle.
    drop(directory);
    tell(&made, args.json, &format!("{} is backed up to {}", path.display(), args.to.display()))
}

/// Makes a data directory of a backup.
pub(crate) fn put_back(args: &RestoreArgs) -> Result<Exit, Failure> {
    if let Ok(Found::InUse { holder }) = Found::look(&args.data) {
        let why = format!("{holder} writes to {}; stop it first, or name another directory", args.data.display());
        return Err((Exit::Unavailable, why));
    }
    let restored = restore(&args.from, &args.data).map_err(failure)?;
    tell(&restored, args.json, &format!("{} is restored to {}", args.from.display(), args.data.display()))
}

fn failure(why: BackupError) -> Failure {
    let exit = match &why {
        BackupError::Exists { .. } => Exit::CantCreate,
        BackupError::NoBackup { .. } | BackupError::Damaged { .. } => Exit::Failure,
        _ => Exit::Io,
    };
    (exit, why.to_string())
}

fn tell(backup: &Backup, as_json: bool, what: &str) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Told<'b> {
        version: &'b str,
        taken_at: i64,
        files: usize,
        bytes: u64,
    }
    let (files, bytes) = (backup.files.len(), backup.bytes());
    let text = if as_json {
        let told = Told { version: &backup.version, taken_at: backup.taken_at.0, files, bytes };
        json(&told).map_err(|why| (Exit::Internal, why.to_string()))?
    } else {
        format!("{}: {files} files, {bytes} bytes, as of {}\n", inert(what), backup.taken_at)
    };
    Ok(say(text.as_bytes()))
}
