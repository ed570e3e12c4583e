use std::fs::File;
use std::io;
use std::path::{Component, Path};

use super::{Backup, BackupError, FORMAT, MANIFEST, Making, cannot};

/// Makes a data directory of a backup, checking every byte. `data_dir` must not be there, or be empty; the files then belong
/// to whom that directory belongs.
///
/// # Errors
/// See [`BackupError`]. Then nothing is left.
pub fn restore(from: &Path, data_dir: &Path) -> Result<Backup, BackupError> {
    let backup = read(from)?;
    let owner = std::fs::metadata(data_dir).ok();
    let making = Making::of(data_dir)?;
    for file in &backup.files {
        let source = from.join(&file.path);
        let open = File::open(&source).map_err(cannot("read", &source))?;
        // One byte more than there may be: a file that is longer is another one.
        if making.copy(&file.path, open, file.bytes.saturating_add(1))? != *file {
            return Err(BackupError::Damaged { path: source });
        }
    }
    if let Some(owner) = owner {
        give(&making.part, &owner).map_err(cannot("give its owner", &making.part))?;
    }
    making.finish()?;
    Ok(backup)
}

fn read(from: &Path) -> Result<Backup, BackupError> {
    let no_backup = |why: String| BackupError::NoBackup { path: from.to_owned(), why };
    let list = std::fs::read(from.join(MANIFEST)).map_err(|why| no_backup(format!("its {MANIFEST}: {why}")))?;
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let format = serde_json::from_slice::<Format>(&list).map_err(|why| no_backup(format!("its {MANIFEST}: {why}")))?;
    if format.format > FORMAT {
        let why = format!("it has format {}, and this version knows {FORMAT}: use a newer headworks", format.format);
        return Err(no_backup(why));
    }
    let backup: Backup = serde_json::from_slice(&list).map_err(|why| no_backup(format!("its {MANIFEST}: {why}")))?;
    // A list that somebody else wrote must not reach beyond the directory.
    let is_inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    match backup.files.iter().find(|file| !is_inside(&file.path)) {
        Some(file) => Err(no_backup(format!("{} is not inside of it", file.path.display()))),
        None => Ok(backup),
    }
}

fn give(path: &Path, owner: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::symlink_metadata(path)?;
    if (meta.uid(), meta.gid()) != (owner.uid(), owner.gid()) {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    if meta.is_dir() {
        std::fs::read_dir(path)?.try_for_each(|entry| give(&entry?.path(), owner))?;
    }
    Ok(())
}
