//! Which keys a source of each type has, and their bounds.

use std::time::Duration;

use super::check::{DAY, Problem, time, within};
use super::{CertificateTenants, SourceConfig, SourceKind, SyslogTransport, nats};
use crate::units::bytes::display as size;

use SourceKind::{Demo, Http, Mqtt, Nats, Syslog, Tail, Tcp, WebSocket};

/// The keys that some types have and others have not.
const KEYS: &[(&str, &[SourceKind])] = &[
    ("listen", &[Tcp, Http, Syslog, WebSocket]),
    ("allow_beyond_loopback", &[Tcp, Http, Syslog, WebSocket]),
    ("framing", &[Tcp]),
    ("max_connections", &[Tcp, Http, Syslog, WebSocket]),
    ("ack", &[Tcp, Http, WebSocket, Mqtt, Nats]),
    ("max_body", &[Http]),
    ("idle_timeout", &[Tcp, Http, Syslog, WebSocket]),
    ("answer_within", &[Http]),
    ("tenant_from", &[Http, Syslog, WebSocket, Mqtt]),
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
    ("url", &[Mqtt, Nats]),
    ("topic", &[Mqtt]),
    ("version", &[Mqtt]),
    ("qos", &[Mqtt]),
    ("client_id", &[Mqtt]),
    ("username", &[Mqtt]),
    ("password_file", &[Mqtt]),
    ("ca_file", &[Mqtt, Nats]),
    ("keep_alive", &[Mqtt]),
    ("receive_max", &[Mqtt]),
    ("payload", &[Mqtt]),
    ("unique_messages", &[Mqtt]),
    ("tls", &[Tcp, Http, Syslog, WebSocket]),
    ("stream", &[Nats]),
    ("consumer", &[Nats]),
    ("subject", &[Nats]),
    ("credentials_file", &[Nats]),
    ("ack_wait", &[Nats]),
    ("max_ack_pending", &[Nats]),
];

/// Whether this program has it.
pub(super) fn is_built(kind: SourceKind) -> bool {
    match kind {
        Tcp | Demo => true,
        Http => cfg!(feature = "http"),
        Tail => cfg!(all(feature = "tail", unix)),
        Syslog => cfg!(feature = "syslog"),
        WebSocket => cfg!(feature = "websocket"),
        Mqtt => cfg!(feature = "mqtt"),
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
    if let Some(idle) = source.idle_timeout {
        within(key("idle_timeout"), idle, Duration::from_millis(100), DAY, time)?;
    }
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
    within(key("qos"), source.qos, 0, 1, u8::to_string)?;
    within(key("keep_alive"), source.keep_alive, Duration::from_secs(1), Duration::from_secs(18 * 3600), time)?;
    within(key("receive_max"), source.receive_max, 1, u16::MAX, u16::to_string)?;
    let file = source.tokens_file.as_deref();
    if file.is_some_and(|file| file.to_str().is_none_or(|file| file.is_empty() || file.contains('\0'))) {
        return Err(Problem::new(key("tokens_file"), "must be the path of a file in UTF-8 that is not empty"));
    }
    check_tls(source).map_err(|(last, what)| Problem::new(["sources", name, "tls", last], what))?;
    within(key("ack_wait"), source.ack_wait, Duration::from_secs(1), DAY, time)?;
    within(key("max_ack_pending"), source.max_ack_pending, 1, 65_536, usize::to_string)?;
    for (of, file) in [("credentials_file", &source.credentials_file), ("ca_file", &source.ca_file)] {
        if file.as_deref().is_some_and(|file| file.to_str().is_none_or(|file| file.is_empty() || file.contains('\0'))) {
            return Err(Problem::new(key(of), "must be the path of a file in UTF-8 that is not empty"));
        }
    }
    check_nats(source).map_err(|(of, what)| Problem::new(key(of), what))?;
    check_path(source).map_err(|what| Problem::new(key("path"), what))?;
    #[cfg(feature = "mqtt")]
    if kind == Mqtt {
        check_mqtt(source).map_err(|(of, what)| Problem::new(key(of), what))?;
    }
    check_tenant(source).map_err(|what| Problem::new(key("tenant_from"), what))
}

/// What is set, by key.
fn table(source: &SourceConfig) -> toml::Table {
    toml::Table::try_from(source).unwrap_or_default()
}

/// What is wrong with which key.
fn check_tls(source: &SourceConfig) -> Result<(), (&'static str, String)> {
    let tls = &source.tls;
    if tls.is_unset() {
        return Ok(());
    }
    let is_by_certificate = tls.tenants == CertificateTenants::Certificate;
    let files = [
        ("cert_file", &tls.cert_file),
        ("key_file", &tls.key_file),
        ("client_ca_file", &tls.client_ca_file),
        ("tenants_file", &tls.tenants_file),
    ];
    for (key, file) in files {
        if file.as_ref().is_some_and(|file| file.to_str().is_none_or(|file| file.is_empty() || file.contains('\0'))) {
            return Err((key, "must be the path of a file in UTF-8 that is not empty".to_owned()));
        }
    }
    let what = |key, what: &str| Err((key, what.to_owned()));
    match (&tls.cert_file, &tls.key_file) {
        (None, _) => {
            return what(
                "cert_file",
                "is missing, without which there is no TLS: set it to the certificate (PEM) of this source",
            );
        }
        (_, None) => {
            return what(
                "key_file",
                "is missing, without which there is no TLS: set it to the private key (PEM) of tls.cert_file",
            );
        }
        _ => {}
    }
    if tls.client_ca_file.is_none() && is_by_certificate {
        return what("tenants", "is \"certificate\", but no client is asked for one: set tls.client_ca_file");
    }
    if tls.client_ca_file.is_none() && tls.tenants_file.is_some() {
        return what(
            "tenants_file",
            "is about certificates of clients, but none is asked for one: set tls.client_ca_file",
        );
    }
    if tls.tenants_file.is_some() && is_by_certificate {
        return what("tenants", "is \"certificate\", but tls.tenants_file says it otherwise: leave out one of the two");
    }
    if source.kind == Syslog && source.transport != SyslogTransport::Tcp {
        return what("cert_file", "is for TCP, and datagrams would go past it: set transport = \"tcp\" beside it");
    }
    if !cfg!(feature = "tls") {
        return what("cert_file", "needs what this program was built without: build it with --features tls");
    }
    Ok(())
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

/// The key, and what is wrong with it.
#[cfg(feature = "mqtt")]
fn check_mqtt(source: &SourceConfig) -> Result<(), (&'static str, String)> {
    let missing = |like: &str| format!("must be set for type = \"mqtt\", like {like:?}");
    let url = source.url.as_deref().ok_or_else(|| ("url", missing("mqtt://broker:1883")))?;
    // It is not repeated: a password may stand in it.
    let url: crate::source::MqttUrl = url.parse().map_err(|why| ("url", why))?;
    match (url.is_encrypted(), &source.ca_file) {
        (true, None) => {
            let what = "must be set for mqtts://: a file with the certificates that are trusted, as \
                        \"/etc/ssl/certs/ca-certificates.crt\"";
            return Err(("ca_file", what.to_owned()));
        }
        (false, Some(_)) => {
            return Err(("ca_file", "is for mqtts://: leave it out, or encrypt the connection".to_owned()));
        }
        _ => {}
    }
    let topic = source.topic.as_deref().ok_or_else(|| ("topic", missing("tenants/{tenant}/#")))?;
    let topic: crate::source::TopicFilter =
        topic.parse().map_err(|why: crate::source::InvalidFilter| ("topic", format!("is {topic:?}: it {why}")))?;
    match (source.tenant_from.as_deref(), topic.names_tenant()) {
        (Some("topic"), false) => {
            return Err(("tenant_from", "is \"topic\", but no level of topic is {tenant}".to_owned()));
        }
        (Some("field"), true) => {
            return Err(("tenant_from", "is \"field\", but a level of topic is {tenant}: write + there".to_owned()));
        }
        (None | Some("topic" | "field"), _) => {}
        (Some(other), _) => {
            return Err(("tenant_from", format!("is {other:?}, but must be \"field\" or \"topic\"")));
        }
    }
    let is_named = |id: &String| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if source.client_id.as_ref().is_some_and(|id| !is_named(id)) {
        return Err(("client_id", "must have from 1 to 128 visible ASCII characters".to_owned()));
    }
    if source.password_file.is_some() && source.username.is_none() {
        return Err(("password_file", "needs a username beside it".to_owned()));
    }
    Ok(())
}

fn check_nats(source: &SourceConfig) -> Result<(), (&'static str, String)> {
    if source.kind != Nats {
        return Ok(());
    }
    let Some(url) = &source.url else {
        return Err(("url", "must be set for type = \"nats\": the servers, like \"nats://127.0.0.1:4222\"".to_owned()));
    };
    nats::check_url(url).map_err(|why| ("url", why))?;
    let stream = source.stream.as_deref().unwrap_or_default();
    if !nats::is_name(stream) {
        return Err(("stream", format!("is {stream:?}, but must be the name of a stream: 1 to 40 of A-Z a-z 0-9 _ -")));
    }
    if !nats::is_name(&source.consumer) {
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
        Mqtt if key == "ca_file" => "type = 'mqtt'\nurl = 'mqtts://b'\ntopic = 't'",
        Mqtt => "type = 'mqtt'\nurl = 'mqtt://b'\ntopic = 't'\nusername = 'u'",
        Nats => "type = 'nats'\nurl = 'nats://127.0.0.1:4222'\nstream = 'events'",
    })
}

#[cfg(all(
    test,
    feature = "websocket",
    feature = "tail",
    feature = "syslog",
    feature = "mqtt",
    feature = "nats",
    unix
))]
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
            ("type = 'syslog'\nack = 'stored'", "ack", "\"tcp\" or \"http\" or \"websocket\" or \"mqtt\" or \"nats\""),
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
            ("tenant_from = 'app_name'", "tenant_from", "\"mqtt\""),
            ("qos = 0", "qos", "is for type = \"mqtt\""),
            ("type = 'mqtt'\ntopic = 't'", "url", "must be set"),
            ("type = 'mqtt'\nurl = 'mqtt://b'", "topic", "must be set"),
            ("type = 'mqtt'\nurl = 'mqtt://u:p@b'\ntopic = 't'", "url", "password_file"),
            ("type = 'mqtt'\nurl = 'mqtts://b'\ntopic = 't'", "ca_file", "must be set for mqtts://"),
            ("type = 'mqtt'\nurl = 'mqtt://b'\ntopic = 'a/#/b'", "topic", "whole last one"),
            ("type = 'mqtt'\nurl = 'mqtt://b'\ntopic = 't'\ntenant_from = 'topic'", "tenant_from", "{tenant}"),
            (
                "type = 'mqtt'\nurl = 'mqtt://b'\ntopic = 't'\ntenant_from = 'host'",
                "tenant_from",
                "\"field\" or \"topic\"",
            ),
            ("type = 'mqtt'\nurl = 'mqtt://b'\ntopic = 't'\npassword_file = 'p'", "password_file", "username"),
            (
                "type = 'mqtt'\nurl = 'mqtt://b'\ntopic = 't'\nlisten = '127.0.0.1:1'",
                "listen",
                "but this one is \"mqtt\"",
            ),
            ("type = 'tail'\npath = '/x'\ntls.cert_file = 'c'", "tls", "\"tcp\" or \"http\" or \"syslog\""),
            ("tls.key_file = 'k'", "tls.cert_file", "is missing"),
            ("tls.cert_file = 'c'", "tls.key_file", "is missing"),
            ("tls.cert_file = ''\ntls.key_file = 'k'", "tls.cert_file", "not empty"),
            ("type = 'nats'", "url", "must be set"),
            ("type = 'nats'\nurl = 'nats://u:p@h'\nstream = 's'", "url", "credentials_file"),
            ("type = 'nats'\nurl = 'nats://h'", "stream", "name of a stream"),
            ("type = 'nats'\nurl = 'nats://h'\nstream = 's'\nsubject = 'a..b'", "subject", "events.{tenant}.>"),
            ("type = 'nats'\nurl = 'nats://h'\nstream = 's'\nlisten = '127.0.0.1:1'", "listen", "\"tcp\""),
            ("ack_wait = '7s'", "ack_wait", "\"nats\""),
        ] {
            let why = Layers::default().toml("f", format!("[sources.a]\n{text}")).read().unwrap_err();
            assert_eq!(why.key(), Some(&*format!("sources.a.{key}")), "{why}");
            assert!(why.to_string().contains(says), "{why}");
        }
        let both = "[sources.tcp]\n[sources.logs]\ntype = 'tail'\npath = '/var/log/{tenant}/*.log'";
        Layers::default().toml("f", both).read().unwrap();
    }

    #[test]
    #[cfg(feature = "tls")]
    fn tls_needs_what_belongs_together_and_who_asks_for_certificates_may_listen_anywhere() {
        const FILES: &str = "tls.cert_file = 'c'\ntls.key_file = 'k'";
        let read = |text: String| Layers::default().toml("f", format!("[sources.a]\n{FILES}\n{text}")).read();
        for (text, key, says) in [
            ("tls.tenants = 'certificate'", "tls.tenants", "set tls.client_ca_file"),
            ("tls.tenants_file = 't'", "tls.tenants_file", "set tls.client_ca_file"),
            (
                "tls.client_ca_file = 'a'\ntls.tenants = 'certificate'\ntls.tenants_file = 't'",
                "tls.tenants",
                "one of the two",
            ),
            ("type = 'syslog'", "tls.cert_file", "transport = \"tcp\""),
            ("listen = '0.0.0.0:1'", "listen", "tls.client_ca_file"),
            ("type = 'syslog'\ntransport = 'tcp'\nlisten = '0.0.0.0:1'", "listen", "allow_beyond_loopback"),
        ] {
            let why = read(text.to_owned()).unwrap_err();
            assert_eq!(why.key(), Some(&*format!("sources.a.{key}")), "{why}");
            assert!(why.to_string().contains(says), "{why}");
        }
        for text in [
            "tls.client_ca_file = 'a'",
            "tls.client_ca_file = 'a'\ntls.tenants = 'certificate'",
            "type = 'http'\ntokens_file = 't'",
        ] {
            read(format!("listen = '0.0.0.0:1'\n{text}")).unwrap();
        }
        let plain = "[sources.a]\ntype = 'http'\ntokens_file = 't'\nlisten = '0.0.0.0:1'";
        assert!(
            Layers::default().toml("f", plain).read().is_err(),
            "tokens that everybody can hear are no safe way in"
        );
    }
}
