//! Disks that are full or fail, for the program as it is: a small file system of a test's own, and system calls that fail.
//!
//! Where the test may not have them it does not run, and says so: run it as root, and with strace installed, as `.ci/run` does.

use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Process;

/// Says so past the capture of the test's output, which nobody sees of a test that passes.
fn not_tested<T>(why: &str) -> Option<T> {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {}: {why}", test.name().unwrap_or("a test"));
    None
}

/// A file system in memory, gone with this.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// A file system of `size`, as `mount` reads it, in place of a directory, which is made. None where it may not be mounted.
    pub(crate) fn on(path: &Path, size: &str) -> Option<Self> {
        DirBuilder::new().recursive(true).create(path).unwrap();
        let mut mount = Command::new("mount");
        match mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path).output() {
            Ok(mounted) if mounted.status.success() => Some(Self(path.to_owned())),
            refused => not_tested(&format!("no file system may be mounted here: {refused:?}")),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        while ballast.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    /// Gives back what was filled.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A process that is on its way out may have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// System calls of a daemon's journal that do not do what they should, until this is dropped.
pub(crate) struct Fault(Child);

impl Fault {
    /// `what` in the words of strace: `fdatasync:error=EIO`. None where there is no strace, or it may not be used.
    pub(crate) fn of_the_journal(daemon: &Process, what: &str) -> Option<Self> {
        let threads =
            || std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap().map(|thread| thread.unwrap().path());
        let is_of_the_journal = |thread: &PathBuf| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with("headworks-journ"))
        };
        // A thread has its name once it has had its first turn.
        let thread = loop {
            match threads().find(is_of_the_journal) {
                Some(thread) => break thread,
                None => std::thread::yield_now(),
            }
        };
        let calls = what.split(':').next().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &format!("inject={what}"), "-p"]);
        strace.arg(thread.file_name().unwrap()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let refused = match strace.spawn() {
            Ok(mut strace) => {
                let said = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
                let mut said = said.inspect(|line| eprintln!("{line}"));
                if said.any(|line| line.ends_with("attached")) {
                    return Some(Self(strace));
                }
                strace.wait().unwrap().to_string()
            }
            Err(why) => why.to_string(),
        };
        not_tested(&format!("strace may not be used here: {refused}"))
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets go of the thread when asked to; killed, the kernel does. It may have ended with the daemon.
        let _ = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
