use std::collections::BTreeMap;
use std::path::Path;

use headworks_actors::{TenantId, TenantPattern};
use rustls::pki_types::CertificateDer;

use super::TlsTenants;
use super::names::Names;
use crate::source::allowed::{Allowed, Peer};

/// Whom clients may speak for, by their certificates.
#[derive(Debug)]
pub(super) enum Clients {
    Any,
    Certificate,
    Listed(BTreeMap<String, Allowed>),
}

impl Clients {
    /// Reads the file, where there is one.
    pub(super) fn of(tenants: &TlsTenants) -> Result<Self, String> {
        match tenants {
            TlsTenants::Any => Ok(Self::Any),
            TlsTenants::Certificate => Ok(Self::Certificate),
            TlsTenants::File(path) => Self::read(path),
        }
    }

    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|why| why.to_string());
        let listed = text.and_then(|text| parse(&text));
        listed.map(Self::Listed).map_err(|why| format!("cannot use {} (tls.tenants_file): {why}", path.display()))
    }

    /// The client that showed these, its own first.
    pub(super) fn peer(&self, shown: &[CertificateDer<'_>]) -> Result<Peer, String> {
        match (self, shown) {
            (Self::Any, _) => Ok(Peer::default()),
            (_, []) => Err("it showed no certificate".to_owned()),
            (_, [own, ..]) => self.named(&Names::of(own)?),
        }
    }

    fn named(&self, names: &Names) -> Result<Peer, String> {
        let allowed = match self {
            Self::Any => return Ok(Peer::default()),
            Self::Certificate => {
                let tenants = names.plain.iter().filter(|name| TenantId::new(name).is_ok());
                let exact: Vec<TenantPattern> = tenants.filter_map(|name| name.parse().ok()).collect();
                (!exact.is_empty()).then(|| Allowed::new(exact))
            }
            Self::Listed(listed) => names.all().filter_map(|name| listed.get(name).cloned()).reduce(Allowed::or),
        };
        let Some(allowed) = allowed else {
            let names: Vec<_> = names.all().take(10).map(|name| format!("{name:.100?}")).collect();
            let what = match self {
                Self::Listed(_) => "none of which is in tls.tenants_file",
                _ => "none of which is a tenant's (tls.tenants)",
            };
            return Err(format!("its certificate is that of {}, {what}", names.join(", ")));
        };
        Ok(Peer { name: names.all().next().map(Into::into), allowed: Some(allowed) })
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Allowed>, String> {
    let mut listed = BTreeMap::new();
    for (nth, line) in text.lines().enumerate() {
        let bad = |why: String| format!("line {}: {why}", nth + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, patterns) = match line.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(|| bad("the quote has no end".to_owned()))?,
            None => line.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((line, "")),
        };
        let allowed = Allowed::parse(patterns.split_ascii_whitespace())
            .map_err(|why| bad(format!("{why}; a line is: NAME PATTERN [PATTERN...]")))?;
        if listed.insert(name.to_owned(), allowed).is_some() {
            return Err(bad(format!("{name:?} is there twice")));
        }
    }
    if listed.is_empty() {
        Err("there is nobody in it; a line is: NAME PATTERN [PATTERN...]".to_owned())
    } else {
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plain: &[&str], uris: &[&str]) -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { plain: owned(plain), uris: owned(uris) }
    }

    #[test]
    fn a_certificate_speaks_for_the_tenants_it_is_made_out_to_and_for_no_pattern() {
        let allowed = |plain: &[&str]| {
            Clients::Certificate.named(&names(plain, &["spiffe://x/zen"])).map(|peer| peer.allowed.unwrap())
        };
        let acme = allowed(&["Acme Inc", "acme", "acme.eu"]).unwrap();
        assert!(acme.allows("acme") && acme.allows("acme.eu") && !acme.allows("other") && !acme.allows("zen"));
        // "*" and "?" are in no tenant's id.
        assert!(allowed(&["*", "?", "a*"]).unwrap_err().contains("\"*\", \"?\", \"a*\", \"spiffe://x/zen\""));
        assert!(allowed(&[]).is_err());
    }

    #[test]
    fn a_list_says_by_any_of_its_names_whom_a_client_may_speak_for() {
        let text = "# who\n\nedge.example acme-*\n\"Sensor 7\" zen\nspiffe://x/y other one\n";
        let listed = Clients::Listed(parse(text).unwrap());
        let peer = listed.named(&names(&["Sensor 7", "edge.example"], &[])).unwrap();
        let allowed = peer.allowed.unwrap();
        assert!(allowed.allows("zen") && allowed.allows("acme-eu") && !allowed.allows("other"));
        assert_eq!(peer.name.as_deref(), Some("Sensor 7"));
        assert!(listed.named(&names(&[], &["spiffe://x/y"])).unwrap().allowed.unwrap().allows("one"));
        assert!(listed.named(&names(&["edge"], &[])).unwrap_err().contains("tls.tenants_file"));
    }

    #[test]
    fn what_is_wrong_in_a_list_is_told_by_its_line() {
        for (text, word) in [
            ("", "nobody in it"),
            ("# a\nedge", "line 2: no tenant follows"),
            ("edge a/b", "line 1"),
            ("\"edge a", "no end"),
            ("edge a\nedge b", "line 2: \"edge\" is there twice"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
