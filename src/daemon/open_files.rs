//! How many files the process may have open, and how many of them connections may take.

use std::fmt;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, SourceConfig, SourceKind, SyslogTransport};

/// So many are kept for the stores, the journal, the admin API and all else that is no connection of a source; half of all where that
/// is less.
const RESERVE: u64 = 128;

/// How many files, connections among them, the process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// At the moment; none where there is no limit.
    pub limit: Option<u64>,
    /// As far as it may raise that by itself.
    pub most: Option<u64>,
}

impl OpenFiles {
    /// What holds for this process.
    #[must_use]
    pub fn now() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        Self { limit: current, most: maximum }
    }

    /// Raises the limit of this process as far as it may; what holds then. It is for a program to do, not for a library, as it holds for
    /// all that is in the process, and for those that it starts.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn raise() -> io::Result<Self> {
        let Self { limit, most } = Self::now();
        if limit != most {
            setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
        }
        Ok(Self::now())
    }

    /// What there would be after [`raise`](Self::raise).
    #[must_use]
    pub fn raised(self) -> Self {
        Self { limit: self.most, ..self }
    }

    fn reserve(limit: u64) -> u64 {
        RESERVE.min(limit / 2)
    }

    /// How many of its `wanted` connections a source may have, of the `all` that sources want: all of them where there is room, else its
    /// part of what is not kept for the rest.
    pub(super) fn share(self, wanted: usize, all: u64) -> usize {
        let Some(limit) = self.limit else { return wanted };
        let room = limit - Self::reserve(limit);
        if all <= room {
            return wanted;
        }
        let share = u128::from(room) * (wanted as u128) / u128::from(all.max(1));
        usize::try_from(share).unwrap_or(wanted).clamp(1, wanted.max(1))
    }

    /// A sentence where the sources may want more than there is.
    #[must_use]
    pub fn warning(self, config: &Config) -> Option<String> {
        let (limit, all) = (self.limit?, wanted(config));
        let (reserve, room) = (Self::reserve(limit), limit - Self::reserve(limit));
        (all > room).then(|| {
            format!(
                "the sources may have {all} connections (the sum of their max_connections), and the process {self}: {reserve} are kept for \
                 the stores and the admin API, so that only {room} connections are accepted, each source its part; raise the limit \
                 (LimitNOFILE= of a systemd unit, ulimit -n of a shell), or lower max_connections"
            )
        })
    }
}

impl fmt::Display for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Some(limit) => write!(f, "{limit} open files"),
            None => f.write_str("any number of open files"),
        }
    }
}

/// How many connections the source may have by the configuration.
pub(super) fn connections(source: &SourceConfig) -> usize {
    match source.kind {
        SourceKind::Tcp | SourceKind::Http | SourceKind::WebSocket => source.max_connections,
        SourceKind::Syslog if source.transport != SyslogTransport::Udp => source.max_connections,
        _ => 0,
    }
}

/// How many all may have.
pub(super) fn wanted(config: &Config) -> u64 {
    config.sources.values().map(|source| connections(source) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(limit: u64) -> OpenFiles {
        OpenFiles { limit: Some(limit), most: Some(limit) }
    }

    #[test]
    fn where_there_is_room_a_source_has_all_that_it_may_and_else_its_part_of_what_is_not_kept() {
        assert_eq!(files(1_152).share(1_024, 1_024), 1_024);
        assert_eq!(files(1_151).share(1_024, 1_024), 1_023);
        // Three quarters and one quarter of 896.
        assert_eq!((files(1_024).share(3_000, 4_000), files(1_024).share(1_000, 4_000)), (672, 224));
        // Nobody is shut out, however little there is, and half is kept.
        assert_eq!((files(20).share(1_000, 1_000), files(20).share(1, 100_000)), (10, 1));
        assert_eq!(OpenFiles { limit: None, most: None }.share(1_000_000, 5_000_000), 1_000_000);
    }

    #[test]
    fn what_does_not_fit_is_told_with_both_numbers() {
        let config = Config::default();
        assert_eq!((wanted(&config), files(1_152).warning(&config)), (1_024, None));
        let told = files(1_024).warning(&config).unwrap();
        for says in ["1024 connections", "1024 open files", "128 are kept", "only 896", "LimitNOFILE="] {
            assert!(told.contains(says), "{told}");
        }
    }
}
