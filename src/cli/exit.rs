use std::io;
use std::process::{ExitCode, Termination};

/// How the program ends: the codes of `sysexits.h`, so that a service manager can tell what to try again. A command line
/// that makes no sense ends with 2, mostly by clap's own hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It could not do what was asked, and no other code says why; or it did, and found that something does not hold: an
    /// audit, the check of a journal.
    Failure = 1,
    /// The command line says too little, or what makes no sense together.
    Usage = 2,
    /// Something it needs is not there: the address is taken, the peer or the daemon does not answer.
    Unavailable = 69,
    /// The program itself is at fault: a panic where none may be.
    Internal = 70,
    /// A file or directory cannot be made.
    CantCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// The configuration is wrong: to start again will not help.
    Config = 78,
}

impl Exit {
    /// The end of a command whose last act was to write. A reader that has had enough (`headworks ... | head`) is no
    /// failure.
    pub(crate) fn after_writing(written: io::Result<()>) -> Self {
        match written {
            Ok(()) => Self::Ok,
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Self::Ok,
            Err(_) => Self::Io,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_had_enough_is_no_failure_and_a_full_disk_is() {
        assert_eq!(Exit::after_writing(Ok(())), Exit::Ok);
        assert_eq!(Exit::after_writing(Err(io::ErrorKind::BrokenPipe.into())), Exit::Ok);
        assert_eq!(Exit::after_writing(Err(io::ErrorKind::StorageFull.into())), Exit::Io);
    }
}
