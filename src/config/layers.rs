use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::environment::variables;
use super::error::Place;
use super::tree::Tree;
use super::{Config, ConfigError};

/// A configuration as it is put together, each layer over the ones before it: file, environment, flags.
///
/// Only texts are kept here; what they say is made out together, in [`read`](Self::read).
///
/// ```
/// use headworks::config::Layers;
///
/// let config = Layers::default()
///     .toml("built-in", "[daemon]\ndata_dir = '/srv/headworks'")
///     .environment([("HEADWORKS__LOG__LEVEL".to_owned(), "debug".to_owned())])?
///     .flag("--listen", "sources.tcp.listen", "127.0.0.1:0")
///     .read()?;
/// assert_eq!(config.sources["tcp"].listen.port(), 0);
/// # Ok::<(), headworks::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Layers {
    pub(super) file: Option<(PathBuf, String)>,
    pub(super) settings: Vec<Setting>,
}

/// A configuration has no more: ten thousand tenants with rules of their own are far below it.
const MOST_BYTES: u64 = 64 << 20;
const TOO_LARGE: &str = "it has more than 64 MiB, which no configuration has; is it another file, or a device?";

/// One variable or flag.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// What the user calls it.
    pub(super) name: String,
    /// The levels of its key, as written.
    pub(super) path: Vec<String>,
    /// TOML, or else a string.
    pub(super) value: String,
}

/// A key that a variable or a flag sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key, from the top: `daemon.data_dir`.
    pub key: String,
    /// The variable or the flag.
    pub name: String,
}

impl Layers {
    /// The file at `path` as the lowest layer.
    ///
    /// # Errors
    /// It cannot be read, or is not UTF-8.
    pub fn file(self, path: &Path) -> Result<Self, ConfigError> {
        let unread = |why: String| {
            let why = format!("the configuration cannot be read: {why}");
            ConfigError::new(Place::File(path.into()), None, why)
        };
        let mut text = String::new();
        // A file may have no end: a device, or what a slip names.
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text));
        match read {
            _ if text.len() as u64 > MOST_BYTES => Err(unread(TOO_LARGE.to_owned())),
            Ok(read) if read as u64 > MOST_BYTES => Err(unread(TOO_LARGE.to_owned())),
            Ok(_) => Ok(self.toml(path, text)),
            Err(why) => Err(unread(why.to_string())),
        }
    }

    /// The text of a file as the lowest layer, in the place of any other; `name` is what errors call it.
    #[must_use]
    pub fn toml(mut self, name: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.file = Some((name.into(), text.into()));
        self
    }

    /// Adds the variables of `env` that begin with `HEADWORKS_`; all others are passed by.
    ///
    /// # Errors
    /// One of them does not follow the rule.
    pub fn environment(mut self, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        self.settings.extend(variables(env)?);
        Ok(self)
    }

    /// Adds a flag of the command line; `key` is what it sets, from the top: `daemon.data_dir`.
    #[must_use]
    pub fn flag(mut self, name: &str, key: &str, value: impl Into<toml::Value>) -> Self {
        let path = key.split('.').map(str::to_owned).collect();
        self.settings.push(Setting { name: name.to_owned(), path, value: value.into().to_string() });
        self
    }

    /// What variables and flags set, lowest first.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn overrides(&self) -> Result<Vec<Override>, ConfigError> {
        Tree::grow(self).map(|tree| tree.overrides)
    }

    /// The configuration that comes of it, checked.
    ///
    /// # Errors
    /// The first thing that is wrong: where it stands, which key it is, what is wrong with it, and what is valid.
    pub fn read(&self) -> Result<Config, ConfigError> {
        Tree::grow(self)?.read()
    }
}
