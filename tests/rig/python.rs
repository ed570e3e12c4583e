//! Programs from PyPI, in environments that are kept beside the build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Tests run at a time, and one of them makes it.
static MAKING: Mutex<()> = Mutex::new(());

/// The programs of an environment with these packages, each with its version.
pub(crate) fn environment(packages: &[&str]) -> PathBuf {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(packages.join("-").replace("==", "-"));
    let run = |command: &mut Command| {
        let ended = command.stdin(Stdio::null()).output();
        let ended = ended.unwrap_or_else(|why| panic!("{command:?}: {why}; .ci/run installs what this test needs"));
        assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    // Made whole or not at all.
    if !folder.join("made").exists() {
        let _ = std::fs::remove_dir_all(&folder);
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(packages));
        std::fs::write(folder.join("made"), "").unwrap();
    }
    folder.join("bin")
}
