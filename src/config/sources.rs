//! Which keys a source of each type has, and their bounds.

use std::time::Duration;

use super::check::{DAY, Problem, time, within};
use super::{SourceConfig, SourceKind};
use crate::units::bytes::display as size;

use SourceKind::{Demo, Http, Syslog, Tail, Tcp, WebSocket};

/// The keys that some types have and others have not.
const KEYS: &[(&str, &[SourceKind])] = &[
    ("listen", &[Tcp, Http, Syslog, WebSocket]),
    ("allow_beyond_loopback", &[Tcp, Http, Syslog, WebSocket]),
    ("framing", &[Tcp]),
    ("max_connections", &[Tcp, Http, Syslog, WebSocket]),
    ("ack", &[Tcp, Http, WebSocket]),
    ("max_body", &[Http]),
    ("idle_timeout", &[Http, WebSocket]),
    ("answer_within", &[Http]),
    ("tenant_from", &[Http, Syslog, WebSocket]),
    ("tokens_file", &[Http, WebSocket]),
    ("path", &[Tail]),
    ("max_files", &[Tail]),
    ("transport", &[Syslog]),
    ("invalid_tenant", &[Syslog]),
    ("max_message", &[WebSocket]),
    ("tenants", &[Demo]),
    ("events_per_second", &[Demo]),
    ("event_bytes", &[Demo]),
    ("max_events", &[Demo]),
];

/// Whether this program has it.
pub(super) fn is_built(kind: SourceKind) -> bool {
    match kind {
        Tcp | Demo => true,
        Http => cfg!(feature = "http"),
        Tail => cfg!(all(feature = "tail", unix)),
        Syslog => cfg!(feature = "syslog"),
        WebSocket => cfg!(feature = "websocket"),
    }
}

/// Each key of a source may be set where its type has it, and nowhere else.
pub(super) fn check(name: &str, source: &SourceConfig) -> Result<(), Problem> {
    let kind = source.kind;
    if !is_built(kind) {
        let what =
            format!("is \"{0}\", which this program was built without: build it with --features {0}", kind.as_str());
        return Err(Problem::new(["sources", name, "type"], what));
    }
    let (said, default) = (table(source), table(&SourceConfig::default()));
    for (key, kinds) in KEYS {
        if !kinds.contains(&kind) && said.get(*key) != default.get(*key) {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("\"{}\"", kind.as_str())).collect();
            let what =
                format!("is for type = {}, but this one is \"{}\": leave it out", kinds.join(" or "), kind.as_str());
            return Err(Problem::new(["sources", name, key], what));
        }
    }
    let key = |key| ["sources", name, key];
    within(key("max_body"), source.max_body, 1 << 10, 1 << 40, |n| size(*n))?;
    within(key("idle_timeout"), source.idle_timeout, Duration::from_millis(100), DAY, time)?;
    within(key("answer_within"), source.answer_within, Duration::from_millis(1), DAY, time)?;
    within(key("max_files"), source.max_files, 1, 100_000, usize::to_string)?;
    within(key("max_message"), source.max_message, 1 << 10, 1 << 30, |n| size(*n))?;
    within(key("tenants"), source.tenants, 1, 100_000, u32::to_string)?;
    within(key("events_per_second"), source.events_per_second, 1, 1_000_000, u32::to_string)?;
    within(key("event_bytes"), source.event_bytes, 1, 1 << 16, usize::to_string)?;
    within(key("max_events"), source.max_events, 0, 1_000_000_000_000, u64::to_string)?;
    if kind == Demo && source.event_bytes > source.max_frame {
        let what = format!("is {}, more than max_frame lets in: {}", source.event_bytes, size(source.max_frame));
        return Err(Problem::new(key("event_bytes"), what));
    }
    let file = source.tokens_file.as_deref();
    if file.is_some_and(|file| file.to_str().is_none_or(|file| file.is_empty() || file.contains('\0'))) {
        return Err(Problem::new(key("tokens_file"), "must be the path of a file in UTF-8 that is not empty"));
    }
    check_path(source).map_err(|what| Problem::new(key("path"), what))?;
    check_tenant(source).map_err(|what| Problem::new(key("tenant_from"), what))
}

/// What is set, by key.
fn table(source: &SourceConfig) -> toml::Table {
    toml::Table::try_from(source).unwrap_or_default()
}

fn check_path(source: &SourceConfig) -> Result<(), String> {
    match (source.kind, &source.path) {
        (Tail, None) => {
            Err("must be set for type = \"tail\": the path of its files, like \"/var/log/app.log*\"".to_owned())
        }
        #[cfg(all(feature = "tail", unix))]
        (Tail, Some(path)) => {
            crate::source::PathPattern::new(path).map(drop).map_err(|why| format!("is {path:?}: it {why}"))
        }
        _ => Ok(()),
    }
}

fn check_tenant(source: &SourceConfig) -> Result<(), String> {
    let Some(_from) = &source.tenant_from else { return Ok(()) };
    match source.kind {
        #[cfg(feature = "http")]
        Http | WebSocket => _from.parse::<crate::source::HttpTenant>().map(drop),
        #[cfg(feature = "syslog")]
        Syslog => _from.parse::<crate::source::SyslogTenant>().map(drop),
        _ => Ok(()),
    }
}

/// For tests: the least that a source has to say to have this key; nothing where each has it, or this program has none such.
#[cfg(test)]
pub(super) fn with_key(key: &str) -> Option<&'static str> {
    let kinds = KEYS.iter().find(|(of, _)| *of == key).map_or(&[Tcp][..], |(_, kinds)| kinds);
    if kinds.contains(&Tcp) {
        return Some("");
    }
    kinds.iter().find(|kind| is_built(**kind)).map(|kind| match kind {
        Tcp => "",
        Http => "type = 'http'",
        Tail => "type = 'tail'\npath = '/x'",
        Syslog => "type = 'syslog'",
        WebSocket => "type = 'websocket'",
        Demo => "type = 'demo'",
    })
}

#[cfg(all(test, feature = "websocket", feature = "tail", feature = "syslog", unix))]
mod tests {
    use crate::config::Layers;

    #[test]
    fn a_key_is_refused_at_a_source_that_has_none_of_it_and_what_is_needed_is_asked_for() {
        for (text, key, says) in [
            ("path = '/x'", "path", "is for type = \"tail\", but this one is \"tcp\""),
            ("max_body = '3MiB'", "max_body", "is for type = \"http\""),
            ("type = 'tail'", "path", "must be set"),
            ("type = 'tail'\npath = ''", "path", "not empty"),
            ("type = 'tail'\npath = '/x'\nlisten = '127.0.0.1:1'", "listen", "\"http\" or \"syslog\" or \"websocket\""),
            ("type = 'syslog'\nack = 'stored'", "ack", "\"tcp\" or \"http\""),
            ("type = 'syslog'\ntenant_from = 'hostname'", "tenant_from", "\"app_name\""),
            ("type = 'http'\ntenant_from = 'host'", "tenant_from", "\"query\""),
            ("type = 'http'\nframing = 'length_prefixed'", "framing", "\"tcp\""),
            ("type = 'syslog'\nmax_files = 3", "max_files", "\"tail\""),
            ("tenant_from = 'app_name'", "tenant_from", "\"http\" or \"syslog\""),
            ("type = 'websocket'\nmax_body = '1MiB'", "max_body", "\"http\""),
            ("type = 'websocket'\ntenant_from = 'host'", "tenant_from", "\"query\""),
            ("type = 'http'\nmax_message = '2MiB'", "max_message", "\"websocket\""),
            ("type = 'demo'\nlisten = '127.0.0.1:1'", "listen", "but this one is \"demo\""),
            ("type = 'demo'\nmax_frame = '1KiB'\nevent_bytes = 2000", "event_bytes", "more than max_frame"),
            ("tenants = 3", "tenants", "\"demo\""),
        ] {
            let why = Layers::default().toml("f", format!("[sources.a]\n{text}")).read().unwrap_err();
            assert_eq!(why.key(), Some(&*format!("sources.a.{key}")), "{why}");
            assert!(why.to_string().contains(says), "{why}");
        }
        let both = "[sources.tcp]\n[sources.logs]\ntype = 'tail'\npath = '/var/log/{tenant}/*.log'";
        Layers::default().toml("f", both).read().unwrap();
    }
}
