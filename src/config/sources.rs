//! Which keys a source of each type has, and their bounds.

use std::time::Duration;

use super::check::{DAY, Problem, time, within};
use super::{SourceConfig, SourceKind};
use crate::units::bytes::display as size;

use SourceKind::{Http, Nats, Syslog, Tail, Tcp};

/// The keys that some types have and others have not.
const KEYS: &[(&str, &[SourceKind])] = &[
    ("listen", &[Tcp, Http, Syslog]),
    ("allow_beyond_loopback", &[Tcp, Http, Syslog]),
    ("framing", &[Tcp]),
    ("max_connections", &[Tcp, Http, Syslog]),
    ("ack", &[Tcp, Http, Nats]),
    ("max_body", &[Http]),
    ("idle_timeout", &[Http]),
    ("answer_within", &[Http]),
    ("tenant_from", &[Http, Syslog]),
    ("tokens_file", &[Http]),
    ("path", &[Tail]),
    ("max_files", &[Tail]),
    ("transport", &[Syslog]),
    ("invalid_tenant", &[Syslog]),
    ("url", &[Nats]),
    ("stream", &[Nats]),
    ("consumer", &[Nats]),
    ("subject", &[Nats]),
    ("credentials_file", &[Nats]),
    ("ca_file", &[Nats]),
    ("ack_wait", &[Nats]),
    ("max_ack_pending", &[Nats]),
];

/// Whether this program has it.
pub(super) fn is_built(kind: SourceKind) -> bool {
    match kind {
        Tcp => true,
        Http => cfg!(feature = "http"),
        Tail => cfg!(all(feature = "tail", unix)),
        Syslog => cfg!(feature = "syslog"),
        Nats => cfg!(feature = "nats"),
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
    let file = source.tokens_file.as_deref();
    if file.is_some_and(|file| file.to_str().is_none_or(|file| file.is_empty() || file.contains('\0'))) {
        return Err(Problem::new(key("tokens_file"), "must be the path of a file in UTF-8 that is not empty"));
    }
    within(key("ack_wait"), source.ack_wait, Duration::from_secs(1), DAY, time)?;
    within(key("max_ack_pending"), source.max_ack_pending, 1, 65_536, usize::to_string)?;
    for (of, file) in [("credentials_file", &source.credentials_file), ("ca_file", &source.ca_file)] {
        if file.as_deref().is_some_and(|file| file.to_str().is_none_or(|file| file.is_empty() || file.contains('\0'))) {
            return Err(Problem::new(key(of), "must be the path of a file in UTF-8 that is not empty"));
        }
    }
    check_nats(source).map_err(|(of, what)| Problem::new(key(of), what))?;
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

fn check_nats(source: &SourceConfig) -> Result<(), (&'static str, String)> {
    if source.kind != Nats {
        return Ok(());
    }
    let Some(url) = &source.url else {
        return Err(("url", "must be set for type = \"nats\": the servers, like \"nats://127.0.0.1:4222\"".to_owned()));
    };
    let is_address = |url: &str| {
        let host = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '/', ' ']))
    };
    if !url.split(',').all(|url| is_address(url.trim())) {
        let what = format!(
            "is {:?}, but must be nats://HOST:PORT or tls://HOST:PORT, several with commas between them; secrets go into credentials_file",
            url.split(',').map(|url| url.rsplit('@').next().unwrap_or_default()).collect::<Vec<_>>().join(",")
        );
        return Err(("url", what));
    }
    let is_name = |name: &str| {
        (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let stream = source.stream.as_deref().unwrap_or_default();
    if !is_name(stream) {
        return Err(("stream", format!("is {stream:?}, but must be the name of a stream: 1 to 40 of A-Z a-z 0-9 _ -")));
    }
    if !is_name(&source.consumer) {
        return Err(("consumer", format!("is {:?}, but must be 1 to 40 of A-Z a-z 0-9 _ -", source.consumer)));
    }
    #[cfg(feature = "nats")]
    if let Some(Err(why)) = source.subject.as_deref().map(str::parse::<crate::source::SubjectPattern>) {
        return Err(("subject", why.to_string()));
    }
    Ok(())
}

fn check_tenant(source: &SourceConfig) -> Result<(), String> {
    let Some(_from) = &source.tenant_from else { return Ok(()) };
    match source.kind {
        #[cfg(feature = "http")]
        Http => _from.parse::<crate::source::HttpTenant>().map(drop),
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
        Nats => "type = 'nats'\nurl = 'nats://127.0.0.1:4222'\nstream = 'events'",
    })
}

#[cfg(all(test, feature = "http", feature = "tail", feature = "syslog", feature = "nats", unix))]
mod tests {
    use crate::config::Layers;

    #[test]
    fn a_key_is_refused_at_a_source_that_has_none_of_it_and_what_is_needed_is_asked_for() {
        for (text, key, says) in [
            ("path = '/x'", "path", "is for type = \"tail\", but this one is \"tcp\""),
            ("max_body = '3MiB'", "max_body", "is for type = \"http\""),
            ("type = 'tail'", "path", "must be set"),
            ("type = 'tail'\npath = ''", "path", "not empty"),
            ("type = 'tail'\npath = '/x'\nlisten = '127.0.0.1:1'", "listen", "\"tcp\" or \"http\" or \"syslog\""),
            ("type = 'syslog'\nack = 'stored'", "ack", "\"tcp\" or \"http\" or \"nats\""),
            ("type = 'syslog'\ntenant_from = 'hostname'", "tenant_from", "\"app_name\""),
            ("type = 'http'\ntenant_from = 'host'", "tenant_from", "\"query\""),
            ("type = 'http'\nframing = 'length_prefixed'", "framing", "\"tcp\""),
            ("type = 'syslog'\nmax_files = 3", "max_files", "\"tail\""),
            ("tenant_from = 'app_name'", "tenant_from", "\"http\" or \"syslog\""),
            ("type = 'nats'", "url", "must be set"),
            ("type = 'nats'\nurl = 'nats://u:p@h'\nstream = 's'", "url", "credentials_file"),
            ("type = 'nats'\nurl = 'nats://h'", "stream", "name of a stream"),
            ("type = 'nats'\nurl = 'nats://h'\nstream = 's'\nsubject = 'a..b'", "subject", "events.{tenant}.>"),
            ("type = 'nats'\nurl = 'nats://h'\nstream = 's'\nlisten = '127.0.0.1:1'", "listen", "\"tcp\""),
            ("ack_wait = '5s'", "ack_wait", "\"nats\""),
        ] {
            let why = Layers::default().toml("f", format!("[sources.a]\n{text}")).read().unwrap_err();
            assert_eq!(why.key(), Some(&*format!("sources.a.{key}")), "{why}");
            assert!(why.to_string().contains(says), "{why}");
        }
        let both = "[sources.tcp]\n[sources.logs]\ntype = 'tail'\npath = '/var/log/{tenant}/*.log'";
        Layers::default().toml("f", both).read().unwrap();
    }
}
