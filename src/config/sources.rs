//! Which keys a source of each type has.

use super::check::Problem;
use super::{SourceConfig, SourceKind};

/// Each key of a source may be set where its type has it, and nowhere else.
pub(super) fn check(name: &str, source: &SourceConfig) -> Result<(), Problem> {
    use SourceKind::{Syslog, Tail, Tcp};
    let (none, kind) = (SourceConfig::default(), source.kind);
    if !(kind != Tail || cfg!(all(feature = "tail", unix))) || !(kind != Syslog || cfg!(feature = "syslog")) {
        let what =
            format!("is \"{0}\", which this program was built without: build it with the feature {0}", kind.as_str());
        return Err(Problem::new(["sources", name, "type"], what));
    }
    let keys: [(&str, bool, &[SourceKind]); 10] = [
        ("listen", source.listen != none.listen, &[Tcp, Syslog]),
        ("allow_beyond_loopback", source.allow_beyond_loopback, &[Tcp, Syslog]),
        ("framing", source.framing != none.framing, &[Tcp]),
        ("max_connections", source.max_connections != none.max_connections, &[Tcp, Syslog]),
        ("ack", source.ack != none.ack, &[Tcp]),
        ("path", source.path.is_some(), &[Tail]),
        ("max_files", source.max_files != none.max_files, &[Tail]),
        ("transport", source.transport != none.transport, &[Syslog]),
        ("tenant_from", source.tenant_from != none.tenant_from, &[Syslog]),
        ("invalid_tenant", source.invalid_tenant != none.invalid_tenant, &[Syslog]),
    ];
    for (key, is_set, kinds) in keys {
        if is_set && !kinds.contains(&kind) {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("\"{}\"", kind.as_str())).collect();
            let what = format!(
                "is a key of sources of the type {}, but this one is \"{}\"",
                kinds.join(" or "),
                kind.as_str()
            );
            return Err(Problem::new(["sources", name, key], what));
        }
    }
    match kind {
        Tail => check_tail(name, source),
        Syslog => check_syslog(name, source),
        _ => Ok(()),
    }
}

#[cfg(all(feature = "tail", unix))]
fn check_tail(name: &str, source: &SourceConfig) -> Result<(), Problem> {
    let Some(path) = &source.path else {
        let what = "must be set for a source of the type \"tail\": the path of its files, like \"/var/log/app.log*\"";
        return Err(Problem::new(["sources", name, "path"], what));
    };
    let pattern = crate::source::PathPattern::new(path);
    pattern.map(drop).map_err(|why| Problem::new(["sources", name, "path"], format!("is {path:?}: it {why}")))
}

#[cfg(not(all(feature = "tail", unix)))]
fn check_tail(_: &str, _: &SourceConfig) -> Result<(), Problem> {
    Ok(())
}

#[cfg(feature = "syslog")]
fn check_syslog(name: &str, source: &SourceConfig) -> Result<(), Problem> {
    let from = source.tenant_from.parse::<crate::source::TenantFrom>();
    from.map(drop).map_err(|what| Problem::new(["sources", name, "tenant_from"], what))
}

#[cfg(not(feature = "syslog"))]
fn check_syslog(_: &str, _: &SourceConfig) -> Result<(), Problem> {
    Ok(())
}

#[cfg(all(test, feature = "tail", feature = "syslog", unix))]
mod tests {
    use crate::config::Layers;

    #[test]
    fn a_key_is_refused_at_a_source_that_has_none_of_it_and_what_is_needed_is_asked_for() {
        for (text, key, says) in [
            ("path = '/x'", "path", "sources of the type \"tail\", but this one is \"tcp\""),
            ("type = 'tail'", "path", "must be set"),
            ("type = 'tail'\npath = ''", "path", "not empty"),
            ("type = 'tail'\npath = '/x'\nlisten = '127.0.0.1:1'", "listen", "\"tcp\" or \"syslog\""),
            ("type = 'syslog'\nack = 'stored'", "ack", "\"tcp\""),
            ("type = 'syslog'\ntenant_from = 'hostname'", "tenant_from", "\"app_name\""),
            ("type = 'syslog'\nmax_files = 3", "max_files", "\"tail\""),
            ("tenant_from = 'app_name'", "tenant_from", "\"syslog\""),
        ] {
            let why = Layers::default().toml("f", format!("[sources.a]\n{text}")).read().unwrap_err();
            assert_eq!(why.key(), Some(&*format!("sources.a.{key}")), "{why}");
            assert!(why.to_string().contains(says), "{why}");
        }
        let both = "[sources.tcp]\n[sources.logs]\ntype = 'tail'\npath = '/var/log/{tenant}/*.log'";
        Layers::default().toml("f", both).read().unwrap();
    }
}
