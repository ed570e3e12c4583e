use std::io;
use std::path::{Component, Path, PathBuf};

/// The stamp of where the tenant's name stands in a path.
const TENANT: &str = "{tenant}";

/// Files that a program made of a log when it was done with it: their bytes are no lines.
const COMPRESSED: [&str; 7] = ["gz", "bz2", "xz", "zst", "zip", "lz4", "tmp"];

/// Which files: a path in which `*` stands for any run of characters within one name, `?` for one character, and `{tenant}` for
/// one or more characters that name the tenant of the file's lines.
///
/// A name that begins with a dot is matched only by one that is written with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    base: PathBuf,
    parts: Vec<Vec<Token>>,
    names_tenant: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Any,
    Tenant,
}

/// A path that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPattern(&'static str);

/// A file that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) tenant: Option<String>,
}

impl PathPattern {
    /// The pattern that `path` says.
    ///
    /// # Errors
    /// [`InvalidPattern`]: it is empty, leads up by `..` behind a wildcard, or names the tenant twice.
    pub fn new(path: &str) -> Result<Self, InvalidPattern> {
        if path.is_empty() || path.contains('\0') || path.ends_with('/') {
            return Err(InvalidPattern("must be the path of files, not empty and not that of a directory"));
        }
        let tenants = path.matches(TENANT).count();
        if tenants > 1 {
            return Err(InvalidPattern("must have {tenant} at most once"));
        }
        let (mut base, mut parts) = (PathBuf::new(), vec![]);
        for component in Path::new(path).components() {
            let name = component.as_os_str().to_str().unwrap_or_default();
            let is_plain = !name.contains(['*', '?']) && !name.contains(TENANT);
            match component {
                // The last one is looked for in its directory.
                _ if is_plain && parts.is_empty() => base.push(name),
                Component::Normal(_) => parts.push(tokens(name)),
                _ => return Err(InvalidPattern("must not lead up by \"..\" behind a wildcard")),
            }
        }
        Ok(Self { base, parts, names_tenant: tenants == 1 })
    }

    /// Whether the path says whose lines they are.
    #[must_use]
    pub fn names_tenant(&self) -> bool {
        self.names_tenant
    }

    /// Every file that matches now, by path. What cannot be read is told to `refused`.
    pub(super) fn find(&self, mut refused: impl FnMut(&Path, &io::Error)) -> Vec<Found> {
        let mut found = vec![];
        walk(&self.base, &self.parts, None, &mut found, &mut refused);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }
}

fn tokens(name: &str) -> Vec<Token> {
    let (mut tokens, mut rest) = (vec![], name.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        tokens.push(match first {
            b'*' => Token::Any,
            b'?' => Token::One,
            b'{' if rest.starts_with(&TENANT.as_bytes()[1..]) => {
                rest = &rest[TENANT.len() - 1..];
                Token::Tenant
            }
            byte => Token::Byte(*byte),
        });
    }
    tokens
}

fn walk(
    path: &Path,
    parts: &[Vec<Token>],
    tenant: Option<String>,
    found: &mut Vec<Found>,
    refused: &mut impl FnMut(&Path, &io::Error),
) {
    let Some((part, rest)) = parts.split_first() else {
        let is_compressed = path.extension().is_some_and(|end| COMPRESSED.iter().any(|known| end == *known));
        if !is_compressed && path.is_file() {
            found.push(Found { path: path.to_owned(), tenant });
        }
        return;
    };
    let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let entries = match std::fs::read_dir(here) {
        Ok(entries) => entries,
        // It may come, or be a file beside directories.
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return,
        Err(why) => return refused(here, &why),
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") && part.first() != Some(&Token::Byte(b'.')) {
            continue;
        }
        if let Some(named) = matched(part, bytes) {
            let tenant = named.map(|named| String::from_utf8_lossy(named).into_owned()).or_else(|| tenant.clone());
            walk(&path.join(&name), rest, tenant, found, refused);
        }
    }
}

/// Whether the name matches, and what it says for the tenant: as little as can be, so that `{tenant}.log*` reads `a.log.log` as `a`.
#[expect(clippy::option_option, reason = "a match need not name a tenant")]
fn matched<'n>(tokens: &[Token], name: &'n [u8]) -> Option<Option<&'n [u8]>> {
    let Some((token, rest)) = tokens.split_first() else { return name.is_empty().then_some(None) };
    match token {
        Token::Byte(byte) => matched(rest, name.strip_prefix(std::slice::from_ref(byte))?),
        Token::One => matched(rest, name.get(1..)?),
        Token::Any => (0..=name.len()).find_map(|length| matched(rest, &name[length..])),
        Token::Tenant => {
            (1..=name.len()).find_map(|length| matched(rest, &name[length..]).map(|_| Some(&name[..length])))
        }
    }
}

/// The file with this place on its disk, in a directory.
pub(super) fn by_place(directory: &Path, place: (u64, u64)) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).ok()?;
    let is_it = |path: &PathBuf| {
        let of = std::fs::metadata(path);
        of.is_ok_and(|of| of.is_file() && (of.dev(), of.ino()) == place)
    };
    entries.filter_map(Result::ok).map(|entry| entry.path()).find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, files: &[&str]) -> Vec<(String, Option<String>)> {
        let place = tempfile::TempDir::new().unwrap();
        for file in files {
            let path = place.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let pattern = PathPattern::new(&format!("{}/{pattern}", place.path().display())).unwrap();
        let found = pattern.find(|path, why| panic!("{path:?}: {why}"));
        let name = |path: PathBuf| path.strip_prefix(place.path()).unwrap().to_str().unwrap().to_owned();
        found.into_iter().map(|found| (name(found.path), found.tenant)).collect()
    }

    #[test]
    fn a_pattern_finds_what_it_says_and_the_tenant_in_it() {
        let none = |name: &str| (name.to_owned(), None);
        let files = ["app.log", "app.log.1", "app.log.2.gz", ".app.log", "db.log", "deep/app.log"];
        assert_eq!(found("app.log", &files), [none("app.log")]);
        assert_eq!(found("app.log*", &files), [none("app.log"), none("app.log.1")]);
        assert_eq!(found("d?.l*g", &files), [none("db.log")]);
        assert_eq!(found("*/*.log", &files), [none("deep/app.log")]);
        assert_eq!(found("nowhere/*.log", &files), []);
        let of = |name: &str, tenant: &str| (name.to_owned(), Some(tenant.to_owned()));
        let files = ["acme/out.log", "acme/out.log.1", "zen/out.log"];
        let expected = [of("acme/out.log", "acme"), of("acme/out.log.1", "acme"), of("zen/out.log", "zen")];
        assert_eq!(found("{tenant}/out.log*", &files), expected);
        assert_eq!(found("app-{tenant}.log*", &["app-a.log.log.1"]), [of("app-a.log.log.1", "a")]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "/var/log/", "{tenant}/{tenant}", "*/../x"] {
            assert!(PathPattern::new(bad).is_err(), "{bad:?}");
        }
    }
}
