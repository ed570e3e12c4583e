use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::exit::Exit;

/// A file that goes when it is not needed any more.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Scratch {
    /// For its owner alone, under a name that nobody can foresee.
    fn new(bytes: &[u8]) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("headworks-{:016x}.txt", fastrand::u64(..)));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        let scratch = Self(path);
        file.write_all(bytes)?;
        Ok(scratch)
    }
}

/// The bytes as somebody leaves them in their editor.
pub(super) fn edited(bytes: &[u8]) -> Result<Vec<u8>, (Exit, String)> {
    let set = |name| std::env::var(name).ok().filter(|editor| !editor.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).ok_or_else(|| {
        (Exit::Failure, "say where the new body is: --body FILE or --stdin; or set EDITOR to edit it here".to_owned())
    })?;
    let failed = |why: std::io::Error| (Exit::Io, format!("cannot edit in {}: {why}", std::env::temp_dir().display()));
    let scratch = Scratch::new(bytes).map_err(failed)?;
    run(&editor, &scratch.0)?;
    std::fs::read(&scratch.0).map_err(failed)
}

/// By the shell: an editor may be set with words of its own.
fn run(editor: &str, file: &Path) -> Result<(), (Exit, String)> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err((Exit::Failure, format!("nothing was changed: {editor} ended with {status}"))),
        Err(why) => Err((Exit::Failure, format!("nothing was changed: cannot start {editor}: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_may_have_words_of_its_own_and_one_that_fails_changes_nothing() {
        let scratch = Scratch::new(b"before").unwrap();
        run("sed -i s/before/after/", &scratch.0).unwrap();
        assert_eq!(std::fs::read(&scratch.0).unwrap(), b"after");
        assert!(run("false", &scratch.0).unwrap_err().1.starts_with("nothing was changed: false ended with "));
        let path = scratch.0.clone();
        drop(scratch);
        assert!(!path.exists());
    }
}
