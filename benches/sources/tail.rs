//! A file that is there; plain is reading its lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use headworks::source::{PathPattern, TailOptions, TailSource};
use headworks::{Framing, IngressSpec, Json, Source};
use tempfile::TempDir;

use crate::load::Load;
use crate::side::{Counter, Feed, Plain, Result, Way};

pub(crate) struct Tail {
    folder: TempDir,
    sources: u64,
}

impl Tail {
    pub(crate) fn new(load: &Load) -> Result<Self> {
        let tail = Self { folder: tempfile::tempdir()?, sources: 0 };
        let mut file = File::create(tail.file())?;
        load.json().iter().try_for_each(|lines| file.write_all(lines))?;
        Ok(tail)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("events.log")
    }
}

impl Way for Tail {
    /// Each source finds a file that it does not know.
    fn source(&mut self) -> Result<(Box<dyn Source>, Feed)> {
        self.sources += 1;
        let pattern = PathPattern::new(self.file().to_str().ok_or("the path is no text")?)?;
        let positions = self.folder.path().join(format!("positions-{}.json", self.sources));
        let spec = IngressSpec::new("tail", Framing::lines(), Json::new());
        let source = TailSource::open("tail", spec, TailOptions::new(pattern, positions))?;
        Ok((Box::new(source), Box::new(|| Ok(()))))
    }

    fn plain(&mut self, came: &Counter) -> Result<Plain> {
        let (file, came) = (self.file(), came.clone());
        let feed = move || {
            let (mut reader, mut line) = (BufReader::with_capacity(64 << 10, File::open(file)?), vec![]);
            while reader.read_until(b'\n', &mut line)? > 0 {
                line.clear();
                came.add(1);
            }
            Ok(())
        };
        Ok(Plain { _server: None, feed: Box::new(feed) })
    }
}
