//! Every key there is, with its type and its bounds: what the JSON Schema and the reference are made of. What a key is for stands
//! above it in `docs/headworks.example.toml`, and nowhere else. Tests hold all three to the configuration itself.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Path,
    /// An address and a port.
    Address,
    Bool,
    /// From, to.
    Whole(u64, u64),
    /// From, to, in bytes.
    Size(u64, u64),
    /// From, to, and a word that is valid beyond.
    Time(&'static str, &'static str, Option<&'static str>),
    Choice(&'static [&'static str]),
    Tenant,
    Tenants,
    Stores,
    /// Of events, with the way to them.
    Fields,
}

use Kind::{Address, Bool, Choice, Fields, Path, Size, Stores, Tenant, Tenants, Text, Time, Whole};

/// A table that stands for all of its kind, and the name that it bears here: each of `sources` is as `sources.NAME`.
pub(super) const NAMED: [(&str, &str); 2] = [("sources", "tcp"), ("stores", "NAME")];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const DAY: &str = "1day";
const MONTH: &str = "30days";
const ACK: Kind = Choice(&["received", "journaled", "stored"]);

const fn time(least: &'static str) -> Kind {
    Time(least, DAY, None)
}

/// By table, in the order of the example.
pub(super) const KEYS: &[(&str, &[(&str, Kind)])] = &[
    (
        "daemon",
        &[
            ("data_dir", Path),
            ("drain_deadline", time("1ms")),
            ("exit_when_hung", Time("1s", DAY, Some("0s"))),
            ("threads", Whole(0, 64)),
        ],
    ),
    ("admin", &[("listen", Address), ("token_file", Path)]),
    (
        "log",
        &[
            ("format", Choice(&["human", "json"])),
            ("level", Text),
            ("supervisor_max_bytes", Size(4 * KIB, GIB)),
            ("supervisor_files", Whole(1, 1_000)),
            ("supervisor_max_age", Time("1m", "3650days", Some("never"))),
        ],
    ),
    (
        "report",
        &[
            ("every", Time("1s", DAY, Some("0s"))),
            ("to", Choice(&["log", "file", "store", "none"])),
            ("path", Path),
            ("tenant", Tenant),
        ],
    ),
    ("limits", &[("max_in_flight", Size(64 * KIB, TIB)), ("max_tenants", Whole(1, 10_000_000))]),
    ("decoder", &[("tenant_field", Text), ("time_field", Text)]),
    (
        "sources.tcp",
        &[
            ("type", Choice(&["tcp", "http", "tail", "syslog", "websocket", "mqtt", "nats", "demo"])),
            ("listen", Address),
            ("allow_beyond_loopback", Bool),
            ("framing", Choice(&["lines", "length_prefixed", "octet_counted"])),
            ("max_frame", Size(16, GIB)),
            ("max_connections", Whole(1, 1_000_000)),
            ("ack", ACK),
            ("max_body", Size(KIB, TIB)),
            ("idle_timeout", time("100ms")),
            ("answer_within", time("1ms")),
            ("tenant_from", Text),
            ("tokens_file", Path),
            ("path", Text),
            ("max_files", Whole(1, 100_000)),
            ("transport", Choice(&["both", "udp", "tcp"])),
            ("invalid_tenant", Choice(&["map", "refuse"])),
            ("max_message", Size(KIB, GIB)),
            ("tenants", Whole(1, 100_000)),
            ("events_per_second", Whole(1, 1_000_000)),
            ("event_bytes", Whole(1, 65_536)),
            ("max_events", Whole(0, 1_000_000_000_000)),
            ("url", Text),
            ("topic", Text),
            ("version", Choice(&["v5", "v3.1.1"])),
            ("qos", Whole(0, 1)),
            ("client_id", Text),
            ("username", Text),
            ("password_file", Path),
            ("ca_file", Path),
            ("keep_alive", Time("1s", "18h", None)),
            ("receive_max", Whole(1, 65_535)),
            ("payload", Choice(&["event", "lines"])),
            ("unique_messages", Bool),
            ("stream", Text),
            ("consumer", Text),
            ("subject", Text),
            ("credentials_file", Path),
            ("ack_wait", time("1s")),
            ("max_ack_pending", Whole(1, 65_536)),
        ],
    ),
    (
        "sources.tcp.tls",
        &[
            ("cert_file", Path),
            ("key_file", Path),
            ("client_ca_file", Path),
            ("tenants", Choice(&["any", "certificate"])),
            ("tenants_file", Path),
        ],
    ),
    (
        "journal",
        &[
            ("type", Choice(&["durable", "memory"])),
            ("max_bytes", Size(32 * KIB, 16 * TIB)),
            ("segment_bytes", Size(4 * KIB, GIB)),
            ("commit_every", Time("0s", "1s", None)),
        ],
    ),
    ("store", STORE),
    ("stores.NAME", STORE),
    (
        "dead_letters",
        &[
            ("max_bytes_per_tenant", Size(64 * KIB, 16 * TIB)),
            ("when_full", Choice(&["purge_oldest", "wait"])),
            ("max_age", Time("1s", "3650days", Some("never"))),
        ],
    ),
    ("retention", &[("every", time("100ms"))]),
    (
        "tenants",
        &[
            ("stores", Stores),
            ("mute", Tenants),
            ("unknown", Choice(&["spawn", "reject", "catch_all"])),
            ("catch_all", Tenant),
            ("max_spawn_rate", Whole(0, 1_000_000)),
            ("max_spawn_burst", Whole(1, 10_000_000)),
        ],
    ),
    ("tenants.defaults", &[("ack", ACK), ("on_failure", Choice(&["dead_letter", "discard", "retry"]))]),
    (
        "tenants.defaults.window",
        &[("max_events", Whole(1, 1_000_000)), ("max_bytes", Size(1, GIB)), ("max_age", time("1ms"))],
    ),
    (
        "tenants.defaults.throttle",
        &[
            ("events_per_second", Whole(0, 1_000_000_000)),
            ("bytes_per_second", Size(0, TIB)),
            ("burst_events", Whole(0, TIB)),
            ("burst_bytes", Size(0, TIB)),
            ("when_over", Choice(&["delay", "reject"])),
            ("delay_for", time("0s")),
        ],
    ),
    (
        "tenants.defaults.overflow",
        &[
            ("max_in_flight", Size(KIB, TIB)),
            ("when_full", Choice(&["block", "reject", "drop_oldest", "spill"])),
            ("block_for", time("0s")),
            ("max_spilled", Size(0, 16 * TIB)),
        ],
    ),
    (
        "tenants.defaults.retry",
        &[
            ("attempts", Whole(1, 1_000)),
            ("base", time("1ms")),
            ("cap", time("1ms")),
            ("attempt_timeout", time("1ms")),
            ("deadline", time("1ms")),
            ("compensation_deadline", time("1ms")),
            ("max_poison", Whole(0, u32::MAX as u64)),
        ],
    ),
    ("tenants.defaults.breaker", &[("failures", Whole(0, 1_000)), ("wait", time("1ms"))]),
    ("tenants.defaults.priority", &[("class", Choice(&["critical", "normal", "bulk"])), ("weight", Whole(1, 1_000))]),
    (
        "tenants.defaults.restart",
        &[
            ("intensity", Whole(1, 1_000)),
            ("period", time("1ms")),
            ("base", time("1ms")),
            ("cap", time("1ms")),
            ("quarantine", time("1ms")),
        ],
    ),
    (
        "tenants.defaults.heartbeat",
        &[
            ("every", time("10ms")),
            ("idle_after", time("10ms")),
            ("max_missed", Whole(1, 1_000)),
            ("stall_after", time("10ms")),
            ("passivate_after", Time("10ms", DAY, Some("never"))),
            ("downstream_every", Time("1s", DAY, Some("never"))),
        ],
    ),
    (
        "tenants.defaults.silence",
        &[
            ("after", Time("10ms", MONTH, Some("never"))),
            ("learn", Bool),
            ("multiple", Whole(2, 100)),
            ("at_least", Time("10ms", MONTH, None)),
            ("at_most", Time("10ms", MONTH, None)),
            ("downstream", Bool),
        ],
    ),
    (
        "tenants.defaults.retention",
        &[
            ("max_age", Time("1s", "3650days", Some("never"))),
            ("max_bytes", Size(0, 16 * TIB)),
            ("dead_letters_max_age", Time("1s", "3650days", Some("never"))),
        ],
    ),
    ("metrics", &[("max_tenants", Whole(0, 10_000))]),
    ("tap", &[("enabled", Bool), ("redact", Fields)]),
    (
        "telemetry",
        &[
            ("endpoint", Text),
            ("protocol", Choice(&["http", "grpc"])),
            ("headers_file", Path),
            ("service_name", Text),
            ("resource_attributes", Text),
            ("metrics_every", Time("1s", DAY, Some("0s"))),
            ("trace_one_in", Whole(0, 1_000_000)),
        ],
    ),
];

const STORE: &[(&str, Kind)] = &[
    ("type", Choice(&["sqlite", "files", "postgres", "object", "webhook", "stdout", "nats"])),
    ("layout", Choice(&["rows", "index"])),
    ("segment_bytes", Size(64 * KIB, GIB)),
    ("group_max_bytes", Size(4 * KIB, GIB)),
    ("busy_timeout", Time("1ms", "1m", None)),
    ("max_concurrency", Whole(1, 10_000)),
    ("url", Text),
    ("password_file", Path),
    ("sslmode", Choice(&["disable", "prefer", "require", "verify_full"])),
    ("ca_file", Path),
    ("namespace", Text),
    ("schema", Choice(&["make", "check"])),
    ("body", Choice(&["text", "jsonb"])),
    ("partition", Choice(&["none", "day", "month"])),
    ("pool_size", Whole(1, 100)),
    ("connect_timeout", Time("100ms", "1m", None)),
    ("statement_timeout", Time("100ms", "1h", None)),
    ("rotate_bytes", Size(0, 16 * TIB)),
    ("rotate_every", Time("1s", "3650days", Some("never"))),
    ("rollback_url", Text),
    ("secret_file", Path),
    ("compression", Choice(&["none", "gzip", "zstd"])),
    ("endpoint", Text),
    ("region", Text),
    ("credentials_file", Path),
    ("path", Text),
    ("format", Choice(&["ndjson.zst", "parquet"])),
    ("columns", Fields),
    ("compact_after", Time("1s", "30days", Some("never"))),
    ("compact_bytes", Size(4 * KIB, GIB)),
    ("request_timeout", Time("100ms", "1h", None)),
    ("stream", Text),
    ("subject", Text),
    ("replicas", Whole(1, 5)),
];

const _: () = assert!(MIB == KIB * KIB);

/// The file that says what each key is for.
const EXAMPLE: &str = include_str!("../../docs/headworks.example.toml");

/// What the example says of each table and each key, by its path.
pub(super) static WORDS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| words(EXAMPLE));

/// The comments right above tables and keys. A key without one shares that of the key right above it.
fn words(example: &str) -> BTreeMap<String, String> {
    let (mut found, mut table, mut comment, mut last) = (BTreeMap::new(), String::new(), vec![], String::new());
    for line in example.lines() {
        let key_of = |line: &str| {
            let (key, _) = line.split_once(" = ")?;
            key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_').then(|| key.to_owned())
        };
        // A key without a default is shown as a comment.
        let text = line.strip_prefix("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.trim_matches(['[', ']']).to_owned();
            found.insert(table.clone(), comment.join(" "));
            (comment, last) = (vec![], String::new());
        } else if let Some(key) = key_of(text.unwrap_or(line)) {
            if !comment.is_empty() {
                last = std::mem::take(&mut comment).join(" ");
            }
            found.insert(format!("{table}.{key}"), last.clone());
        } else if let Some(text) = text {
            comment.push(text.trim());
        } else {
            comment.clear();
        }
    }
    found
}

/// What a key is for.
pub(super) fn word(table: &str, key: &str) -> &'static str {
    // A further store is as the first one.
    let like = if table == "stores.NAME" { "store" } else { table };
    let said = |path: &str| WORDS.get(path).map(String::as_str).filter(|words| !words.is_empty());
    said(&format!("{like}.{key}")).or_else(|| said(like)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers};
    use crate::units::bytes::display as size;

    /// Other keys that must be others, so that a key can be at its bound.
    const BESIDE: [(&str, &str); 9] = [
        ("limits.max_in_flight", "sources.tcp.max_frame = 16"),
        ("sources.tcp.max_frame", "limits.max_in_flight = '1GiB'"),
        ("journal.max_bytes", "journal.segment_bytes = '4KiB'"),
        ("tenants.defaults.retry.cap", "tenants.defaults.retry.base = '1ms'"),
        ("tenants.defaults.restart.cap", "tenants.defaults.restart.base = '1ms'"),
        ("tenants.defaults.heartbeat.stall_after", "tenants.defaults.retry.attempt_timeout = '1ms'"),
        ("tenants.defaults.silence.at_least", "tenants.defaults.silence.at_most = '30days'"),
        ("tenants.defaults.silence.at_most", "tenants.defaults.silence.at_least = '10ms'"),
        ("tenants.defaults.throttle.burst_events", "tenants.defaults.throttle.events_per_second = 0"),
    ];

    /// What is said there beside the key, in the table.
    fn all_but(table: &str, key: &str, said: &str) -> String {
        let others = said.lines().filter(|line| !line.starts_with(&format!("{key} =")));
        others.map(|line| format!("{table}.{line}\n")).collect()
    }

    fn all() -> impl Iterator<Item = (String, Kind)> {
        KEYS.iter().flat_map(|(table, keys)| keys.iter().map(move |(key, kind)| (format!("{table}.{key}"), *kind)))
    }

    /// Whether the key itself is refused at this value.
    fn is_refused(key: &str, value: &str) -> bool {
        let beside = BESIDE.iter().find(|(of, _)| *of == key).map_or("", |(_, beside)| beside);
        let (table, last) = key.rsplit_once('.').unwrap();
        let beside = match table {
            "sources.tcp" => match crate::config::sources::with_key(last) {
                Some(said) => all_but(table, last, said) + beside,
                None => return false,
            },
            "store" | "stores.NAME" => match crate::config::stores::with_key(last) {
                Some(said) => all_but(table, last, said),
                None => return false,
            },
            _ => beside.to_owned(),
        };
        let beside = if last == "sslmode" { format!("{beside}{table}.ca_file = 'ca'") } else { beside };
        match Layers::default().toml("f", format!("{key} = {value}\n{beside}")).read() {
            Ok(_) => false,
            Err(why) => why.key() == Some(key),
        }
    }

    #[test]
    fn the_table_has_every_key_of_the_configuration_and_no_other() {
        fn leaves(table: &toml::Table, path: &str, found: &mut Vec<String>) {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match value {
                    toml::Value::Table(inner) => leaves(inner, &path, found),
                    _ => found.push(path),
                }
            }
        }
        let mut whole = Config::default();
        whole.decoder.time_field = Some("time".into());
        whole.admin.token_file = Some("token".into());
        whole.sources.values_mut().for_each(|source| {
            source.tenant_from = Some("field".into());
            source.tokens_file = Some("tokens".into());
            source.path = Some("/var/log/app.log".into());
            (source.url, source.topic) = (Some("mqtt://broker".into()), Some("t".into()));
            (source.client_id, source.username) = (Some("c".into()), Some("u".into()));
            (source.password_file, source.ca_file) = (Some("password".into()), Some("ca".into()));
            source.idle_timeout = Some(std::time::Duration::from_secs(1));
            let file = || Some("file".into());
            let (cert_file, key_file, client_ca_file, tenants_file) = (file(), file(), file(), file());
            let tenants = crate::config::CertificateTenants::Any;
            source.tls = crate::config::TlsConfig { cert_file, key_file, client_ca_file, tenants, tenants_file };
            source.stream = Some("events".into());
            source.subject = Some("events.>".into());
            source.credentials_file = Some("credentials".into());
        });
        whole.telemetry.endpoint = Some("http://127.0.0.1:4318".into());
        whole.telemetry.headers_file = Some("headers".into());
        whole.store.url = Some("url".into());
        whole.store.password_file = Some("password".into());
        whole.store.ca_file = Some("ca".into());
        whole.store.rollback_url = Some("url".into());
        whole.store.secret_file = Some("secret".into());
        whole.store.endpoint = Some("endpoint".into());
        whole.store.region = Some("region".into());
        whole.store.credentials_file = Some("keys".into());
        whole.store.stream = Some("events".into());
        let mut expected = vec![];
        leaves(&toml::Table::try_from(whole).unwrap(), "", &mut expected);
        // They are tables of tenants.
        expected.retain(|key| key != "tenants.rules");
        let mut listed: Vec<_> = all().map(|(key, _)| key).filter(|key| !key.starts_with("stores.NAME")).collect();
        expected.sort();
        listed.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn every_key_is_said_what_it_is_for() {
        for (table, keys) in KEYS {
            for (key, _) in *keys {
                assert!(word(table, key).len() > 15, "docs/headworks.example.toml says nothing above {table}.{key}");
            }
        }
        assert_eq!(
            word("daemon", "drain_deadline"),
            "How long a stop may take to store what was accepted. From 1ms to 1day."
        );
        assert!(word("decoder", "tenant_field").starts_with("A frame is one JSON object."));
    }

    #[test]
    fn the_bounds_of_the_table_are_those_that_are_checked() {
        let millis = |text: &str| u64::try_from(humantime::parse_duration(text).unwrap().as_millis()).unwrap();
        for (key, kind) in all() {
            let (inside, outside) = match kind {
                Whole(least, most) => (
                    vec![least.to_string(), most.to_string()],
                    least.checked_sub(1).into_iter().chain([most + 1]).map(|n| n.to_string()).collect(),
                ),
                Size(least, most) => {
                    let told = |n: u64| format!("'{}'", size(usize::try_from(n).unwrap()));
                    (
                        vec![told(least), told(most)],
                        least.checked_sub(1).into_iter().chain([most + 1]).map(told).collect(),
                    )
                }
                Time(least, most, or) => {
                    let quoted = |text: String| format!("'{text}'");
                    let below = millis(least).checked_sub(1).filter(|below| or != Some("0s") || *below > 0);
                    let inside = [Some(least), Some(most), or].into_iter().flatten().map(str::to_owned).map(quoted);
                    let outside = below.into_iter().chain([millis(most) + 1]).map(|n| quoted(format!("{n}ms")));
                    (inside.collect(), outside.collect::<Vec<_>>())
                }
                Choice(words) => {
                    // A program without it says so.
                    let is_built = |word: &&&str| match **word {
                        "postgres" => cfg!(feature = "postgres"),
                        "webhook" => cfg!(feature = "webhook"),
                        "stdout" => cfg!(feature = "stdout"),
                        "object" => cfg!(feature = "object"),
                        "parquet" => cfg!(feature = "parquet"),
                        "http" => cfg!(feature = "http"),
                        "tail" | "nats" => false,
                        "syslog" => cfg!(feature = "syslog"),
                        "websocket" => cfg!(feature = "websocket"),
                        // It cannot do without more.
                        "mqtt" => false,
                        _ => true,
                    };
                    let words = words.iter().filter(is_built);
                    (words.map(|word| format!("'{word}'")).collect(), vec!["'nonsense'".to_owned()])
                }
                Bool => (vec!["true".into(), "false".into()], vec!["1".to_owned()]),
                Tenant => (vec!["'a'".into()], vec!["'a/b'".to_owned()]),
                Tenants => (vec!["[]".into(), "['a']".into()], vec!["'a'".to_owned(), "['a/b']".to_owned()]),
                Stores => (vec!["['store']".into()], vec!["'store'".to_owned()]),
                Fields => (vec!["[]".into(), "['a', 'b.c']".into()], vec!["'a'".to_owned(), "['a..b']".to_owned()]),
                Address => (vec!["'127.0.0.1:1'".into()], vec!["'localhost'".to_owned()]),
                Text | Path => (vec![], vec!["1".to_owned()]),
            };
            for value in inside {
                assert!(!is_refused(&key, &value), "{key} = {value} is refused");
            }
            for value in outside {
                assert!(is_refused(&key, &value), "{key} = {value} is not refused");
            }
        }
    }
}
