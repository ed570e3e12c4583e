use std::io;

use super::{DaemonError, Opened, Opening};
use crate::source::{PathPattern, TailOptions, TailSource};

/// The files of a pattern; where it is in them is kept in the data directory.
pub(super) fn open(opening: &Opening<'_>) -> Result<Opened, DaemonError> {
    let (name, source) = (opening.name, opening.source);
    let path = opening.config.daemon.data_dir.join("tail").join(format!("{name}.json"));
    let refused = |why| DaemonError::Positions { name: name.to_owned(), path: path.clone(), why };
    let pattern = PathPattern::new(source.path.as_deref().unwrap_or_default());
    let pattern = pattern.map_err(|why| refused(io::Error::other(why)))?;
    let options = TailOptions { max_files: source.max_files, ..TailOptions::new(pattern, &path) };
    Ok((None, Box::new(TailSource::open(name, opening.ingress(), options).map_err(refused)?)))
}
