mod mind;
mod origin;
mod running;
mod telemetry;

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use headworks::config::{
    AdminConfig, CertificateTenants, Config, ConfigError, DaemonConfig, Framing, InvalidTenant, JournalConfig,
    JournalKind, Layers, MqttPayload, MqttVersion, Override, ReportTo, SourceConfig, SourceKind, StoreConfig,
    StoreKind, SyslogTransport, TapConfig,
};
use headworks::daemon::{OpenFiles, check_files};
use headworks::store::postgres::{BodyColumn, Partition, SchemaMode, SslMode};
use headworks::store::webhook::Compression;
use headworks::store::{Layout, LettersWhenFull};
use headworks::units::bytes::display as size;
use headworks::{
    AckLevel, OnFailure, Policy, RetentionPolicy, RetryPolicy, SilencePolicy, StoreName, TenantId, ThrottlePolicy,
    Unknown, WhenFull, WhenOver,
};

use super::exit::Exit;
use super::table::{inert, json};

/// What `headworks check` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CheckArgs {
    /// The configuration; without it, the defaults and the environment are checked.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration as one JSON document.
    #[arg(long)]
    json: bool,
    /// Say what this tenant would get, and where each value comes from.
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,
}

/// Says what the configuration means, or what is wrong with it. Nothing is made; a daemon that runs on the data directory is asked
/// what it runs by.
pub(crate) fn run(
    args: &CheckArgs,
    env: impl IntoIterator<Item = (String, String)>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Exit {
    let told = read(args, env).map_err(|why| (Exit::Config, why.to_string())).and_then(|(layers, config)| {
        let mut further = check_files(&config).map_err(|why| (Exit::Config, why.to_string()))?;
        further.extend(OpenFiles::now().raised().warning(&config));
        let config_error = |why: ConfigError| (Exit::Config, why.to_string());
        let told = match &args.tenant {
            Some(tenant) => {
                let origins = layers.tenant(tenant).map_err(config_error)?;
                if args.json { json(&origins) } else { Ok(origin::explain(&origins, &config)) }
            }
            None if args.json => json(&config),
            None => {
                let mut text = explain(args, &config, &layers.overrides().map_err(config_error)?, further);
                running::compare(&mut text, &config);
                Ok(text)
            }
        };
        told.map_err(|why| (Exit::Internal, why.to_string()))
    });
    match told {
        Ok(text) => Exit::after_writing(out.write_all(text.as_bytes()).and_then(|()| out.flush())),
        Err((exit, why)) => {
            // Where stderr is gone, the code alone must say it.
            let _ = writeln!(err, "{why}");
            exit
        }
    }
}

fn read(args: &CheckArgs, env: impl IntoIterator<Item = (String, String)>) -> Result<(Layers, Config), ConfigError> {
    let layers = match &args.config {
        Some(path) => Layers::default().file(path)?,
        None => Layers::default(),
    };
    let layers = layers.environment(env)?;
    let config = layers.read()?;
    Ok((layers, config))
}

/// The configuration in words, and `further` that one is to mind.
fn explain(args: &CheckArgs, config: &Config, overrides: &[Override], further: Vec<String>) -> String {
    let name = args.config.as_ref().map_or_else(|| "The default configuration".to_owned(), |p| p.display().to_string());
    let mut text = format!("{} is valid.\n", inert(&name));
    section(&mut text, "Sources", sources(config));
    section(&mut text, "Admin API", vec![("", admin(&config.admin))]);
    section(&mut text, "Frames", vec![("", frame(config))]);
    section(&mut text, "Journal", journal(config));
    section(&mut text, "Store", store(config));
    section(&mut text, "Limits", limits(config));
    section(&mut text, "Tenants", in_words(&config.tenants.defaults));
    let own: Vec<_> =
        config.tenants.by_id.iter().flat_map(|(id, policy)| differences(id.as_str(), policy, config)).collect();
    let classes = config.tenants.classes.iter().flat_map(|(name, policy)| differences(name, policy, config));
    section(&mut text, "Classes of tenants", classes.collect());
    let rules = config.tenants.rules.iter().flat_map(|rule| {
        let class = rule.class.iter().map(|class| (rule.pattern.as_str(), format!("of class {class}")));
        class.chain(differences(rule.pattern.as_str(), &rule.policy, config))
    });
    section(&mut text, "Tenants by pattern, of which the first counts that matches", rules.collect());
    section(&mut text, "Tenants that differ", own);
    let muted = config.tenants.mute.iter().map(|id| (id.as_str(), "its events are dropped and counted".to_owned()));
    section(&mut text, "Muted", muted.collect());
    let set = overrides.iter().map(|by| (by.key.as_str(), format!("by {}", by.name)));
    section(&mut text, "Set from outside the file", set.collect());
    section(&mut text, "Mind", notes(config).into_iter().chain(further.into_iter().map(|note| ("", note))).collect());
    text
}

/// A heading and its lines, names in one column; nothing where there are none.
fn section(text: &mut String, heading: &str, lines: Vec<(&str, String)>) {
    if lines.is_empty() {
        return;
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let _ = writeln!(text, "\n{heading}");
    for (name, line) in lines {
        let _ = match width {
            0 => writeln!(text, "  {}", inert(&line)),
            _ => writeln!(text, "  {name:<width$}  {}", inert(&line)),
        };
    }
}

fn sources(config: &Config) -> Vec<(&str, String)> {
    let line = |source: &SourceConfig| {
        let kind = match source.kind {
            SourceKind::Tcp => "TCP",
            SourceKind::Http => "HTTP",
            SourceKind::WebSocket => "WebSocket",
            SourceKind::Demo => return demo(source),
            SourceKind::Tail => return tail(source),
            SourceKind::Syslog => return syslog(source),
            SourceKind::Mqtt => return mqtt(source),
            SourceKind::Nats => return nats(source),
            other => other.as_str(),
        };
        let framing = match source.framing {
            Framing::Lines => "lines",
            Framing::LengthPrefixed => "length-prefixed frames",
            Framing::OctetCounted => "octet-counted frames",
        };
        let (mut max_frame, connections) = (size(source.max_frame), source.max_connections);
        if source.kind == SourceKind::WebSocket {
            let _ = write!(max_frame, " in messages of up to {}", size(source.max_message));
        }
        let ack = match source.ack {
            AckLevel::Received => String::new(),
            least => format!("; {}", told(least)),
        };
        let more = format!("{ack}{}", way(source));
        format!("{kind} on {}: {framing} of up to {max_frame}, at most {connections} connections{more}", source.listen)
    };
    config.sources.iter().map(|(name, source)| (name.as_str(), line(source))).collect()
}

fn demo(source: &SourceConfig) -> String {
    let all = match source.max_events {
        0 => "without an end".to_owned(),
        most => format!("{most} in all"),
    };
    let (rate, tenants, bytes) = (source.events_per_second, source.tenants, source.event_bytes);
    format!("sample events of {bytes} bytes and {tenants} tenants: {rate} a second, {all}")
}

/// Whether it speaks TLS, and with whom; and whom it gives up.
fn way(source: &SourceConfig) -> String {
    let idle = source.idle_timeout.map(|idle| format!("; closed after {} without a whole frame", time(idle)));
    let tls = &source.tls;
    let who = match (&tls.client_ca_file, &tls.tenants_file, tls.tenants) {
        (None, ..) => "",
        (Some(_), Some(_), _) => ", and a file says whom a client may speak for, by its certificate",
        (Some(_), None, CertificateTenants::Certificate) => {
            ", and a client speaks for the tenants that its certificate names"
        }
        (Some(_), None, _) => ", and a client needs a certificate",
    };
    let tls = tls.cert_file.as_ref().map(|_| format!("; over TLS{who}"));
    idle.into_iter().chain(tls).collect()
}

fn tail(source: &SourceConfig) -> String {
    let path = source.path.as_deref().unwrap_or_default();
    let tenant = if path.contains("{tenant}") { "; the path names the tenant" } else { "" };
    format!("files {path}: lines of up to {}, at most {} open{tenant}", size(source.max_frame), source.max_files)
}

fn nats(source: &SourceConfig) -> String {
    let subject = source.subject.as_deref().unwrap_or("all subjects");
    let tenant = if subject.contains("{tenant}") { "; the subject names the tenant" } else { "" };
    let ack = match source.ack {
        AckLevel::Stored => format!("; {}", told(AckLevel::Stored)),
        _ => String::new(),
    };
    let (url, stream) = (source.url.as_deref().unwrap_or_default(), source.stream.as_deref().unwrap_or_default());
    format!(
        "the stream {stream} of {url} by the consumer {}, {subject}: messages of up to {}, at most {} not acknowledged{tenant}{ack}",
        source.consumer,
        size(source.max_frame),
        source.max_ack_pending
    )
}

fn syslog(source: &SourceConfig) -> String {
    let by = match source.transport {
        SyslogTransport::Both => "UDP and TCP",
        SyslogTransport::Udp => "UDP",
        SyslogTransport::Tcp => "TCP",
    };
    let invalid = match source.invalid_tenant {
        InvalidTenant::Map => "made one that is",
        InvalidTenant::Refuse => "refused",
    };
    let (max_frame, connections, from) =
        (size(source.max_frame), source.max_connections, source.tenant_from.as_deref().unwrap_or("host"));
    format!(
        "syslog over {by} on {}: messages of up to {max_frame}, at most {connections} connections; the tenant is in {from:?}, and \
         where it is no tenant's name, {invalid}{}",
        source.listen,
        way(source)
    )
}

fn mqtt(source: &SourceConfig) -> String {
    let version = match source.version {
        MqttVersion::V5 => "5",
        MqttVersion::V311 => "3.1.1",
    };
    let payload = match source.payload {
        MqttPayload::Event => "an event each",
        MqttPayload::Lines => "an event a line",
    };
    let (url, topic) = (source.url.as_deref().unwrap_or_default(), source.topic.as_deref().unwrap_or_default());
    let tenant = if topic.contains("{tenant}") { "; the topic names the tenant" } else { "" };
    let user = source.username.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
    let unique = if source.unique_messages { "; one that comes again is known" } else { "" };
    let ack = match source.qos {
        0 => "not acknowledged".to_owned(),
        _ => told(source.ack.max(AckLevel::Journaled)),
    };
    format!(
        "MQTT {version} from {url}{user}: {topic} at quality of service {}, messages of up to {}, {payload}{tenant}{unique}; {ack}",
        source.qos,
        size(source.max_frame)
    )
}

/// Who may ask the API over TCP.
fn admin(admin: &AdminConfig) -> String {
    match (admin.listen, &admin.token_file) {
        (None, _) => "not over TCP; the control socket in the data directory answers".to_owned(),
        (Some(listen), None) => format!("HTTP on {listen}, for whoever can reach it on this machine"),
        (Some(listen), Some(token)) => {
            format!("HTTP on {listen}, for whoever bears the token in {}", token.display())
        }
    }
}

fn frame(config: &Config) -> String {
    let time = match &config.decoder.time_field {
        Some(field) => format!("its time is in {field:?}"),
        None => "its time is that of its arrival".to_owned(),
    };
    format!("a JSON object; its tenant is in {:?}, {time}", config.decoder.tenant_field)
}

fn store(config: &Config) -> Vec<(&'static str, String)> {
    let (path, database) = (config.store_path(), config.store_file());
    let (path, database) = (path.display(), database.display());
    let (group, busy) = (size(config.store.group_max_bytes), time(config.store.busy_timeout));
    let most = config.store.max_concurrency;
    let commit = format!("up to {group} of several tenants together, {most} batches at once");
    let patience = format!("waits {busy} for a locked file");
    let mut told = match config.store.kind {
        StoreKind::Webhook => vec![
            ("server", on_webhook(&config.store)),
            ("commit", format!("{most} batches at once")),
            ("dead letters", format!("SQLite, {database}; {patience}")),
        ],
        StoreKind::Nats => vec![
            ("stream", in_stream(&config.store)),
            ("commit", format!("a message a batch, {most} at once")),
            ("dead letters", format!("SQLite, {database}; {patience}")),
        ],
        StoreKind::Stdout => vec![
            ("output", "the standard output, an event a line; what was printed is never taken back".to_owned()),
            ("dead letters", format!("SQLite, {database}; {patience}")),
        ],
        StoreKind::Files => vec![
            ("directory", format!("plain files, {path}/TENANT/events.ndjson{}", rotated(&config.store))),
            ("commit", commit),
            ("dead letters", format!("SQLite, {database}; {patience}")),
        ],
        StoreKind::Postgres => vec![
            ("server", on_postgres(&config.store)),
            ("commit", commit),
            ("dead letters", format!("SQLite, {database}; {patience}")),
        ],
        StoreKind::Object => vec![
            ("objects", in_objects(&config.store)),
            ("commit", format!("an object a batch{}, {most} at once", compacted(&config.store))),
            ("dead letters", format!("SQLite, {database}; {patience}")),
        ],
        _ => {
            let mut told = vec![("file", format!("SQLite, {path}"))];
            if config.store.layout == Layout::Index {
                let (segments, most) =
                    (config.store_file().with_extension("segments"), size(config.store.segment_bytes));
                told.push((
                    "events",
                    format!("in {}, files of {most}; the database is their index", segments.display()),
                ));
            }
            told.push(("commit", format!("{commit}; {patience}")));
            told
        }
    };
    told.extend(config.stores.iter().map(|(name, store)| {
        if store.kind == StoreKind::Postgres {
            return ("further", format!("{name}: {}", on_postgres(store)));
        }
        if store.kind == StoreKind::Webhook {
            return ("further", format!("{name}: {}", on_webhook(store)));
        }
        if store.kind == StoreKind::Nats {
            return ("further", format!("{name}: {}", in_stream(store)));
        }
        if store.kind == StoreKind::Stdout {
            return ("further", format!("{name}: the standard output, an event a line"));
        }
        if store.kind == StoreKind::Object {
            return ("further", format!("{name}: {}", in_objects(store)));
        }
        let path = config.further_store_path(name, store);
        let kind = match (store.kind, store.layout) {
            (StoreKind::Files, _) => "plain files",
            (_, Layout::Index) => "SQLite as an index of files",
            _ => "SQLite",
        };
        ("further", format!("{name}: {kind}, {}{}", path.display(), rotated(store)))
    }));
    if !config.stores.is_empty() {
        told.push(("saga", in_order(&config.tenants.stores)));
        let own = config.tenants.stores_by_id.iter();
        told.extend(own.map(|(id, saga)| ("saga", format!("of {id}: {}", in_order(saga)))));
    }
    told
}

/// A store on a server. There is no password in its URL.
fn on_postgres(store: &StoreConfig) -> String {
    let password = match &store.password_file {
        Some(path) => format!("the password in {}", path.display()),
        None => "no password".to_owned(),
    };
    let tls = match store.sslmode {
        SslMode::Disable => "never encrypted",
        SslMode::Require => "encrypted, whoever the server is",
        SslMode::VerifyFull => "encrypted, the server verified",
        _ => "encrypted if the server can",
    };
    let tables = match store.schema {
        SchemaMode::Check => "which must be there",
        _ => "made where they are not there",
    };
    let body = match store.body {
        BodyColumn::Jsonb => "jsonb",
        _ => "text",
    };
    let parts = match store.partition {
        Partition::Day => ", partitioned by day",
        Partition::Month => ", partitioned by month",
        _ => "",
    };
    format!(
        "PostgreSQL, {}, with {password}, {tls}; tables in {}, {tables}, bodies as {body}{}{parts}; up to {} connections, {} for one, {} \
         for a statement",
        store.url.as_deref().unwrap_or_default(),
        store.namespace,
        with_columns(store),
        store.pool_size,
        time(store.connect_timeout),
        time(store.statement_timeout),
    )
}

/// When files are followed by the next ones.
fn rotated(store: &StoreConfig) -> String {
    let bytes = (store.rotate_bytes > 0).then(|| size(store.rotate_bytes).to_string());
    match (bytes, store.rotate_every.map(time)) {
        (None, None) => String::new(),
        (Some(bytes), None) => format!("; the next one after {bytes}"),
        (None, Some(every)) => format!("; the next one after {every}"),
        (Some(bytes), Some(every)) => format!("; the next one after {bytes} or {every}"),
    }
}

/// The fields that have columns.
fn with_columns(store: &StoreConfig) -> String {
    match store.columns.as_slice() {
        [] => String::new(),
        columns => format!(" with columns for {}", columns.join(", ")),
    }
}

/// A store behind a webhook. There is no secret in its URL.
fn on_webhook(store: &StoreConfig) -> String {
    let signed = match &store.secret_file {
        Some(path) => format!("signed with the secret in {}", path.display()),
        None => "not signed".to_owned(),
    };
    let compressed = match store.compression {
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        _ => "not compressed",
    };
    let back = match &store.rollback_url {
        Some(url) => format!("taken back at {url}"),
        None => "never taken back".to_owned(),
    };
    format!(
        "POST {} for each batch, {signed}, {compressed}, {back}; up to {} requests at once, {} to connect, {} for one",
        store.url.as_deref().unwrap_or_default(),
        store.pool_size,
        time(store.connect_timeout),
        time(store.request_timeout),
    )
}

/// A store in a NATS JetStream. There is no secret in its URL.
fn in_stream(store: &StoreConfig) -> String {
    let made = match store.schema {
        SchemaMode::Check => "which must be there".to_owned(),
        _ => format!("made with {} of each message if it is not there", copies(store.replicas)),
    };
    let secrets = match &store.credentials_file {
        Some(path) => format!("with the secrets in {}", path.display()),
        None => "with no secrets".to_owned(),
    };
    let ca = store.ca_file.as_ref().map_or_else(String::new, |path| format!(", trusting {}", path.display()));
    format!(
        "NATS JetStream, stream {} on {}, {made}, {secrets}{ca}; a batch is published as {}; {} for a connection, {} for a request",
        store.stream.as_deref().unwrap_or_default(),
        store.url.as_deref().unwrap_or_default(),
        store.subject,
        time(store.connect_timeout),
        time(store.request_timeout),
    )
}

fn copies(replicas: usize) -> String {
    match replicas {
        1 => "one copy".to_owned(),
        more => format!("{more} copies"),
    }
}

/// What becomes of batches that are not to stay objects of their own.
fn compacted(store: &StoreConfig) -> String {
    let (bytes, told) = (size(store.compact_bytes), time);
    let together = |after| format!(", and those of a tenant's day together after {} or {bytes}", told(after));
    store.compact_after.map(together).unwrap_or_default()
}

/// A store in objects. There is no key in its URL.
fn in_objects(store: &StoreConfig) -> String {
    let url = store.url.as_deref().unwrap_or_default();
    let server = store.endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" on {endpoint}"));
    let region = store.region.as_ref().map_or_else(String::new, |region| format!(" in {region}"));
    let keys = match &store.credentials_file {
        _ if url.starts_with("file:") => String::new(),
        Some(path) => format!(", with the keys in {}", path.display()),
        None => ", with the keys of the environment".to_owned(),
    };
    let ca = store.ca_file.as_ref().map_or_else(String::new, |path| format!(", trusting {} too", path.display()));
    let columns = with_columns(store);
    format!(
        "{url}/{}.{}{columns}{server}{region}{keys}{ca}; {} for a connection, {} for a request",
        store.path,
        store.format.ending(),
        time(store.connect_timeout),
        time(store.request_timeout),
    )
}

fn in_order(saga: &[StoreName]) -> String {
    let names: Vec<_> = saga.iter().map(StoreName::as_str).collect();
    match names.as_slice() {
        [only] => format!("a batch goes to {only}"),
        _ => format!("a batch goes to {}: to all of them or to none", names.join(", then ")),
    }
}

fn limits(config: &Config) -> Vec<(&'static str, String)> {
    let hang = match config.daemon.exit_when_hung {
        Duration::ZERO => "the process goes on, whatever holds its actors".to_owned(),
        after => format!("the process ends once something has held its actors for {}", time(after)),
    };
    let place = match config.report.to {
        ReportTo::File => format!("in {}", config.report_file().display()),
        ReportTo::Store => format!("in the store, as events of tenant {}", config.report.tenant),
        _ => "in the log".to_owned(),
    };
    let report = match config.report.every {
        Duration::ZERO => "failures are not summed up".to_owned(),
        _ if config.report.to == ReportTo::None => "failures are not summed up".to_owned(),
        every => format!("failures are summed up {place} every {}", time(every)),
    };
    let letters = &config.dead_letters;
    let when_full = match letters.when_full {
        LettersWhenFull::Wait => "then more of them wait, and their senders too",
        _ => "then the oldest go, counted",
    };
    let age = letters.max_age.map_or_else(String::new, |age| format!("; purged after {}", time(age)));
    let letters = format!("{} a tenant; {when_full}{age}", size(letters.max_bytes_per_tenant));
    let told = vec![
        ("memory", format!("{} of events in flight", size(config.limits.max_in_flight))),
        ("tenants", format!("at most {}; {}", config.limits.max_tenants, unknown(config))),
        ("dead letters", letters),
        ("stop", format!("within {}", time(config.daemon.drain_deadline))),
        ("hang", hang),
        ("threads", threads(&config.daemon)),
        ("report", report),
        ("pruning", pruning(config)),
        ("metrics", format!("series of their own for the {} busiest tenants", config.metrics.max_tenants)),
        ("tap", tap(&config.tap)),
    ];
    told.into_iter().chain(telemetry::telemetry(&config.telemetry)).collect()
}

/// What is shown of events as they pass.
fn tap(tap: &TapConfig) -> String {
    match (tap.enabled, tap.redact.as_slice()) {
        (false, _) => "events are not shown as they pass".to_owned(),
        (true, []) => "events are shown whole as they pass, to whoever asks".to_owned(),
        (true, fields) => format!("events are shown as they pass, without {}", fields.join(", ")),
    }
}

/// Whether anything is pruned, and how often that is looked at.
fn pruning(config: &Config) -> String {
    let tenants = &config.tenants;
    let rules = tenants.rules.iter().map(|rule| &rule.policy);
    let mut all = rules.chain(tenants.by_id.values()).chain(tenants.classes.values()).chain([&tenants.defaults]);
    if config.dead_letters.max_age.is_none()
        && all.all(|policy| policy.retention.keeps_all() && policy.retention.dead_letters_max_age.is_none())
    {
        return "nothing is pruned".to_owned();
    }
    format!("what is due is looked for every {}", time(config.retention.every))
}

/// On how many threads the actors live.
fn threads(daemon: &DaemonConfig) -> String {
    match (daemon.actor_threads(), daemon.threads) {
        (1, _) => "one for all connections and tenants".to_owned(),
        (threads, 0) => format!("{threads} for connections and tenants: one less than there are processors"),
        (threads, _) => format!("{threads} for connections and tenants"),
    }
}

/// What becomes of events of tenants that nobody knows.
fn unknown(config: &Config) -> String {
    let tenants = &config.tenants;
    match (tenants.unknown(), tenants.spawn_rate()) {
        (Unknown::Reject, _) => "events of unknown ones are rejected".to_owned(),
        (Unknown::CatchAll(other), _) => format!("events of unknown ones become {other}'s"),
        (_, None) => "unknown ones come up by their first events".to_owned(),
        (_, Some(rate)) => {
            format!("unknown ones come up by their first events, {} a second, {} at once", rate.per_second, rate.burst)
        }
    }
}

/// When a sender that asks is told that its event is safe.
fn told(least: AckLevel) -> String {
    match least {
        AckLevel::Received => "a sender is told as it asks".to_owned(),
        AckLevel::Journaled => "a sender is told once the disk has it, at the earliest".to_owned(),
        AckLevel::Stored => "a sender is told once the store has it".to_owned(),
    }
}

fn journal(config: &Config) -> Vec<(&'static str, String)> {
    let JournalConfig { kind, max_bytes, segment_bytes, commit_every } = &config.journal;
    match kind {
        JournalKind::Memory => vec![("memory", "what is accepted and not stored is lost with the process".to_owned())],
        _ => vec![
            ("files", format!("{}, up to {}", config.journal_dir().display(), size(*max_bytes))),
            ("commit", format!("within {}; files of {}", time(*commit_every), size(*segment_bytes))),
        ],
    }
}

/// The rules of a tenant.
fn in_words(policy: &Policy) -> Vec<(&'static str, String)> {
    let Policy {
        ack,
        window,
        throttle,
        overflow,
        retry,
        breaker,
        priority,
        on_failure,
        restart,
        heartbeat,
        silence,
        retention,
    } = policy;
    let spilled = format!("up to {} wait in the journal alone", size(overflow.max_spilled));
    let when_full = match overflow.when_full {
        WhenFull::Block => {
            format!(
                "then its connection waits, for {} at most while others on it could go on; then {spilled}, if it is durable",
                time(overflow.block_for)
            )
        }
        WhenFull::Spill => format!(
            "then {spilled}; beyond that its connection waits, for {} at most while others on it could go on",
            time(overflow.block_for)
        ),
        WhenFull::Reject => "then its events are rejected at once".to_owned(),
        WhenFull::DropOldest => "then its oldest events are shed, as far as they are in no batch yet".to_owned(),
        _ => "then its events are held off".to_owned(),
    };
    vec![
        (
            "window",
            format!(
                "closes at {} events, {} or {} after its first event, whichever is first",
                window.max_events,
                size(window.max_bytes),
                time(window.max_age)
            ),
        ),
        ("throttle", rate(throttle)),
        ("overflow", format!("{} in flight, {when_full}", size(overflow.max_in_flight))),
        (
            "retry",
            format!(
                "{} attempts of {} at most, waits of up to {}, doubled up to {}; {} in all",
                retry.attempts,
                time(retry.attempt_timeout),
                time(retry.base),
                time(retry.cap),
                time(retry.deadline)
            ),
        ),
        ("refused", refused(retry, *on_failure)),
        (
            "breaker",
            match breaker.failures {
                0 => "off: a store is asked however often it fails".to_owned(),
                most => format!("a store is left alone for {} after {most} failures in a row", time(breaker.wait)),
            },
        ),
        (
            "priority",
            format!("{}, weight {}, at a store that cannot take all at once", priority.class.as_str(), priority.weight),
        ),
        (
            "restart",
            format!(
                "{} times within {}, after {}, doubled up to {}, then {} of quarantine",
                restart.intensity,
                time(restart.period),
                time(restart.base),
                time(restart.cap),
                time(restart.quarantine)
            ),
        ),
        ("ack", told(*ack)),
        (
            "heartbeat",
            format!(
                "every {}, a restart after {} without an answer; idle after {} without an event, {}; stalled after {} without a step{}",
                time(heartbeat.every),
                heartbeat.max_missed,
                time(heartbeat.idle_after),
                match heartbeat.passivate_after {
                    Some(after) => format!("passivated after {}", time(after)),
                    None => "never passivated".to_owned(),
                },
                time(heartbeat.stall_after),
                heartbeat
                    .downstream_every
                    .map_or_else(String::new, |every| format!("; an event in its own stream every {}", time(every)))
            ),
        ),
        ("silence", silent(silence)),
        ("retention", kept(retention)),
    ]
}

/// When a tenant's sender counts as silent.
fn silent(policy: &SilencePolicy) -> String {
    let told = told_when_silent(policy);
    if policy.downstream && policy.is_set() { format!("{told}; by an event in its own stream, too") } else { told }
}

fn told_when_silent(SilencePolicy { after, learn, multiple, at_least, at_most, .. }: &SilencePolicy) -> String {
    let after = after.map(|after| format!("after {} without a frame", time(after)));
    if !*learn {
        return after.unwrap_or_else(|| "never told of".to_owned());
    }
    let learnt = format!(
        "told after {multiple} of the tenant's longest usual gaps, from {} to {}",
        time(*at_least),
        time(*at_most)
    );
    after.map_or_else(|| learnt.clone(), |after| format!("{learnt}; {after} until they are learnt"))
}

/// What of a tenant's stored events is kept.
fn kept(retention: &RetentionPolicy) -> String {
    let letters = retention.dead_letters_max_age;
    let letters = letters.map_or_else(String::new, |age| format!("; dead letters go after {}", time(age)));
    let events = match (retention.max_age, retention.max_bytes) {
        (None, 0) => "what is stored is kept for ever".to_owned(),
        (Some(age), 0) => format!("what is stored is kept for {}, then pruned", time(age)),
        (None, most) => {
            format!("the newest {} of what is stored are kept, in each store; what is older is pruned", size(most))
        }
        (Some(age), most) => format!(
            "what is stored is kept for {}, and of that the newest {} in each store; the rest is pruned",
            time(age),
            size(most)
        ),
    };
    events + &letters
}

/// What a tenant may send over time.
fn rate(throttle: &ThrottlePolicy) -> String {
    let ThrottlePolicy { events_per_second, bytes_per_second, burst_events, burst_bytes, when_over, delay_for } =
        throttle;
    let at_once = |burst: String, is_set: bool| if is_set { format!(", {burst} at once") } else { String::new() };
    let events = (*events_per_second > 0).then(|| {
        format!("{events_per_second} events a second{}", at_once(burst_events.to_string(), *burst_events > 0))
    });
    let bytes = (*bytes_per_second > 0)
        .then(|| format!("{} a second{}", size(*bytes_per_second), at_once(size(*burst_bytes), *burst_bytes > 0)));
    let rates: Vec<_> = events.into_iter().chain(bytes).collect();
    if rates.is_empty() {
        return "no rate is too high".to_owned();
    }
    let when_over = match when_over {
        WhenOver::Delay => format!(
            "above that its connection waits, for {} at most where it has brought events of others",
            time(*delay_for)
        ),
        WhenOver::Reject => "above that its events are refused at once".to_owned(),
        _ => "above that its events are held off".to_owned(),
    };
    format!("{}; {when_over}", rates.join(" and "))
}

/// What becomes of a batch that cannot be stored.
fn refused(retry: &RetryPolicy, on_failure: OnFailure) -> String {
    let split = match retry.max_poison {
        0 => "rolled back".to_owned(),
        most => format!("rolled back, and split to find the events that are refused, up to {most}"),
    };
    let end = match on_failure {
        OnFailure::DeadLetter => "then dead letters",
        OnFailure::Retry => "then tried again, for as long as it takes",
        OnFailure::Discard => "then dropped",
    };
    format!("{split}; {end}")
}

/// The keys in which a tenant's rules are not the default ones.
fn differences<'c>(id: &'c str, own: &Policy, config: &Config) -> Vec<(&'c str, String)> {
    let mut found = vec![];
    if let (Ok(own), Ok(others)) = (toml::Table::try_from(own), toml::Table::try_from(&config.tenants.defaults)) {
        let mut compare = |key: String, value: &toml::Value, other: Option<&toml::Value>| {
            if other != Some(value) {
                let other = other.map_or_else(String::new, |other| format!(", not {other}"));
                found.push((id, format!("{key} = {value}{other}")));
            }
        };
        for (name, value) in &own {
            match value.as_table() {
                Some(own) => own.iter().for_each(|(key, value)| {
                    let other = others.get(name).and_then(|table| table.get(key));
                    compare(format!("{name}.{key}"), value, other);
                }),
                None => compare(name.clone(), value, others.get(name)),
            }
        }
    }
    if found.is_empty() {
        found.push((id, "in nothing".to_owned()));
    }
    found
}

/// What is valid and may still surprise.
fn notes(config: &Config) -> Vec<(&str, String)> {
    let open = config.sources.iter().filter(|(_, source)| {
        !source.asks_who() && source.listens().is_some_and(|at| !at.ip().to_canonical().is_loopback())
    });
    let open =
        open.map(|(name, _)| format!("source {name} asks nobody for a password, and other machines can reach it"));
    let limit = config.limits.max_in_flight;
    let own = config.tenants.by_id.iter().map(|(id, policy)| (format!("tenant {id}"), policy));
    let all = std::iter::once(("a tenant".to_owned(), &config.tenants.defaults)).chain(own);
    let wide = all.filter(|(_, policy)| policy.overflow.max_in_flight > limit).map(|(who, policy)| {
        format!(
            "{who} may have {} in flight, but all together only {}: the bound of all is met first",
            size(policy.overflow.max_in_flight),
            size(limit)
        )
    });
    open.chain(wide).chain(mind::notes(config)).map(|note| ("", note)).collect()
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: Option<&str>, env: &[(&str, &str)], json: bool) -> (Exit, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headworks.toml");
        let config = text.map(|text| {
            std::fs::write(&path, text).unwrap();
            path
        });
        let (mut out, mut err) = (vec![], vec![]);
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let exit = run(&CheckArgs { config, json, tenant: None }, env, &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(&folder.path().display().to_string(), "");
        (exit, text(out), text(err))
    }

    #[test]
    fn the_defaults_are_told_in_words() {
        let expected = "\
The default configuration is valid.

Sources
  tcp  TCP on 127.0.0.1:7400: lines of up to 1MiB, at most 1024 connections

Admin API
  HTTP on 127.0.0.1:7401, for whoever can reach it on this machine

Frames
  a JSON object; its tenant is in \"tenant\", its time is that of its arrival

Journal
  files   headworks-data/journal, up to 1GiB
  commit  within 5ms; files of 64MiB

Store
  file    SQLite, headworks-data/headworks.db
  commit  up to 2MiB of several tenants together, 256 batches at once; waits 500ms for a locked file

Limits
  memory        16MiB of events in flight
  tenants       at most 10000; unknown ones come up by their first events
  dead letters  256MiB a tenant; then the oldest go, counted
  stop          within 30s
  hang          the process ends once something has held its actors for 1m
  threads       THREADS
  report        failures are summed up in the log every 1m
  pruning       nothing is pruned
  metrics       series of their own for the 100 busiest tenants
  tap           events are shown whole as they pass, to whoever asks

Tenants
  window     closes at 500 events, 1MiB or 1s after its first event, whichever is first
  throttle   no rate is too high
  overflow   8MiB in flight, then its connection waits, for 5s at most while others on it could go on; then up to 256MiB wait in the journal alone, if it is durable
  retry      5 attempts of 10s at most, waits of up to 200ms, doubled up to 30s; 10m in all
  refused    rolled back, and split to find the events that are refused, up to 100; then dead letters
  breaker    a store is left alone for 30s after 10 failures in a row
  priority   normal, weight 1, at a store that cannot take all at once
  restart    5 times within 1m, after 50ms, doubled up to 10s, then 1m of quarantine
  ack        a sender is told as it asks
  heartbeat  every 10s, a restart after 3 without an answer; idle after 1m without an event, passivated after 5m; stalled after 1m without a step
  silence    never told of
  retention  what is stored is kept for ever
";
        // How many there are by default is the machine's.
        let expected = expected.replace("THREADS", &threads(&DaemonConfig::default()));
        assert_eq!(checked(None, &[], false), (Exit::Ok, expected, String::new()));
        let three = DaemonConfig { threads: 3, ..DaemonConfig::default() };
        assert_eq!(threads(&three), "3 for connections and tenants");
    }

    #[test]
    fn what_differs_what_is_muted_and_what_may_surprise_is_told() {
        let text = "
[limits]
max_in_flight = '1MiB'
[sources.open]
listen = '0.0.0.0:7400'
allow_beyond_loopback = true
[tenants]
mute = ['spam']
[tenants.by_id.acme]
window = { max_events = 10, max_age = '2s' }
overflow.max_in_flight = '64KiB'
[tenants.by_id.same]
window.max_events = 500
";
        let (exit, out, _) = checked(Some(text), &[("HEADWORKS__LOG__LEVEL", "debug")], false);
        assert_eq!(exit, Exit::Ok);
        let expected = "
Tenants that differ
  acme  overflow.max_in_flight = \"64KiB\", not \"8MiB\"
  acme  window.max_age = \"2s\", not \"1s\"
  acme  window.max_events = 10, not 500
  same  in nothing

Muted
  spam  its events are dropped and counted

Set from outside the file
  log.level  by HEADWORKS__LOG__LEVEL

Mind
  source open asks nobody for a password, and other machines can reach it
  a tenant may have 8MiB in flight, but all together only 1MiB: the bound of all is met first
  tenant same may have 8MiB in flight, but all together only 1MiB: the bound of all is met first
  tenant acme: window.max_bytes is 1MiB, but overflow.max_in_flight only 64KiB: it is full before a window is
";
        assert!(out.starts_with("/headworks.toml is valid.\n") && out.ends_with(expected), "{out}");
    }

    #[test]
    fn what_is_pruned_is_told_in_words() {
        let text = "
[dead_letters]
max_age = '90days'
[tenants.defaults.retention]
max_age = '30days'
max_bytes = '1GiB'
";
        let (exit, out, _) = checked(Some(text), &[], false);
        assert_eq!(exit, Exit::Ok);
        let expected = "retention  what is stored is kept for 30days, and of that the newest 1GiB in each store; the rest is pruned\n";
        assert!(out.contains(expected), "{out}");
        assert!(out.contains("256MiB a tenant; then the oldest go, counted; purged after "), "{out}");
        assert!(out.contains("pruning       what is due is looked for every 1m\n"), "{out}");
        let (_, out, _) = checked(Some("tenants.defaults.retention.dead_letters_max_age = '2days'"), &[], false);
        assert!(out.contains("retention  what is stored is kept for ever; dead letters go after 2days\n"), "{out}");
        assert!(out.contains("pruning       what is due is looked for every 1m\n"), "{out}");
        let (_, out, _) = checked(Some("tenants.defaults.retention.max_bytes = '1GiB'"), &[], false);
        assert!(
            out.contains("the newest 1GiB of what is stored are kept, in each store; what is older is pruned\n"),
            "{out}"
        );
        let (exit, _, err) = checked(
            Some("store.type = 'webhook'\nstore.url = 'https://x'\ntenants.by_id.acme.retention.max_age = '1day'"),
            &[],
            false,
        );
        assert_eq!(exit, Exit::Config);
        assert!(
            err.contains(
                "tenants.by_id.acme.retention says that stored events are pruned, but their batches go to store"
            ),
            "{err}"
        );
    }

    #[test]
    fn events_that_nobody_sent_are_told_in_words() {
        let text = "
[tenants.defaults]
silence.after = '5m'
silence.downstream = true
heartbeat.downstream_every = '1m'
";
        let (exit, out, _) = checked(Some(text), &[], false);
        assert_eq!(exit, Exit::Ok);
        assert!(out.contains("stalled after 1m without a step; an event in its own stream every 1m\n"), "{out}");
        assert!(out.contains("silence    after 5m without a frame; by an event in its own stream, too\n"), "{out}");
    }

    #[test]
    fn a_rate_is_told_in_words() {
        let text = "
[tenants.defaults.throttle]
events_per_second = 100
bytes_per_second = '1MiB'
burst_events = 20
when_over = 'reject'
";
        let (exit, out, _) = checked(Some(text), &[], false);
        assert_eq!(exit, Exit::Ok);
        let expected =
            "throttle   100 events a second, 20 at once and 1MiB a second; above that its events are refused at once\n";
        assert!(out.contains(expected), "{out}");
        let (_, out, _) = checked(Some("[tenants.defaults.throttle]\nevents_per_second = 5"), &[], false);
        let expected = "5 events a second; above that its connection waits, for 5s at most where it has brought events of others\n";
        assert!(out.contains(expected), "{out}");
        let (exit, _, err) =
            checked(Some("[tenants.defaults.throttle]\nevents_per_second = 100\nburst_events = 1"), &[], false);
        assert_eq!(exit, Exit::Config);
        assert!(err.contains("tenants.defaults.throttle.burst_events is 1, but must be at least 5"), "{err}");
    }

    #[test]
    fn a_store_on_files_is_told_with_its_place_and_that_of_the_dead_letters() {
        let (exit, out, _) = checked(Some("[store]\ntype = 'files'\n[daemon]\ndata_dir = '/srv'"), &[], false);
        assert_eq!(exit, Exit::Ok);
        let expected = "
Store
  directory     plain files, /srv/events/TENANT/events.ndjson
  commit        up to 2MiB of several tenants together, 256 batches at once
  dead letters  SQLite, /srv/headworks.db; waits 500ms for a locked file
";
        assert!(out.contains(expected), "{out}");
    }

    /// A file with a secret, which nobody but its owner may read, as temporary files are.
    fn secret() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2").unwrap();
        file
    }

    #[test]
    fn a_store_on_a_server_is_told_with_its_address_and_never_with_a_password() {
        let secret = secret();
        let text = "[stores.pg]\ntype = 'postgres'\nurl = 'postgres://app@db/events'\npassword_file = 'SECRET'\nbody = 'jsonb'\n\
                    columns = ['level', 'ms=http.took:number']";
        let secret = secret.path().to_str().unwrap();
        let (exit, out, err) = checked(Some(&text.replace("SECRET", secret)), &[], false);
        let out = out.replace(secret, "/etc/secret");
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
        let expected = "
  further  pg: PostgreSQL, postgres://app@db/events, with the password in /etc/secret, encrypted if the server can; tables in headworks, \
made where they are not there, bodies as jsonb with columns for level, ms=http.took:number; up to 4 connections, 3s for one, 3s for a statement
";
        assert!(out.contains(expected), "{out}");
        let (exit, out, err) = checked(Some(&text.replace("app@", "app:hunter2@")), &[], false);
        assert_eq!((exit, out.as_str()), (Exit::Config, ""));
        assert!(err.contains("stores.pg.url has a password in it") && err.contains("password_file"), "{err}");
        assert!(!err.contains("hunter2"), "{err}");
    }

    #[cfg(feature = "nats")]
    #[test]
    fn a_stream_of_a_server_is_told_with_what_of_it_is_read() {
        let text = "[sources.bus]\ntype = 'nats'\nurl = 'nats://h:4222'\nstream = 'EVENTS'\nsubject = 'e.{tenant}.>'\nack = 'stored'";
        let (_, out, _) = checked(Some(text), &[], false);
        let says = "the stream EVENTS of nats://h:4222 by the consumer headworks, e.{tenant}.>: messages of up to 1MiB, at most 1024 not \
                    acknowledged; the subject names the tenant; ";
        assert!(out.contains(says), "{out}");
    }

    #[test]
    fn a_store_in_objects_is_told_with_its_names_and_where_its_keys_are() {
        let text = "[store]\ntype = 'object'\nurl = 's3://bucket/events'\nendpoint = 'https://s3.example'\nregion = 'eu'\n\
                    credentials_file = 'SECRET'\nformat = 'parquet'\ncolumns = ['level', 'ms:number']\n\
                    [stores.near]\ntype = 'object'\nurl = 'file:///srv/events'";
        let secret = secret();
        let secret = secret.path().to_str().unwrap();
        let text = text.replace("SECRET", secret);
        let (exit, out, err) = checked(Some(&text), &[], false);
        let out = out.replace(secret, "/etc/secret");
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
        let together = text.replace("url = 's3://", "compact_after = '10m'\nurl = 's3://");
        let told = checked(Some(&together), &[], false).1;
        assert!(
            told.contains("  an object a batch, and those of a tenant's day together after 10m or 16MiB, 256 at once"),
            "{told}"
        );
        let expected = "
  objects       s3://bucket/events/{tenant}/{date}/{batch}.parquet with columns for level, ms:number on https://s3.example in eu, with \
the keys in /etc/secret; 3s for a connection, 3s for a request
  commit        an object a batch, 256 at once
";
        assert!(out.contains(expected), "{out}");
        assert!(out.contains("near: file:///srv/events/{tenant}/{date}/{batch}.ndjson.zst; 3s for a"), "{out}");
    }

    #[test]
    fn a_store_with_an_index_is_told_with_the_place_of_its_events() {
        let text = "[store]\nlayout = 'index'\n[daemon]\ndata_dir = '/srv'\n[stores.more]\nlayout = 'index'";
        let (exit, out, _) = checked(Some(text), &[], false);
        assert_eq!(exit, Exit::Ok);
        let expected = "
Store
  file     SQLite, /srv/headworks.db
  events   in /srv/headworks.segments, files of 64MiB; the database is their index
  commit   up to 2MiB of several tenants together, 256 batches at once; waits 500ms for a locked file
  further  more: SQLite as an index of files, /srv/stores/more.db
";
        assert!(out.contains(expected), "{out}");
    }

    #[test]
    fn as_json_it_is_the_effective_configuration() {
        let (exit, out, _) = checked(Some("[tenants.by_id.acme]\nwindow.max_events = 7"), &[], true);
        assert_eq!(exit, Exit::Ok);
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(document["tenants"]["by_id"]["acme"]["window"]["max_events"], 7);
        assert_eq!(document["tenants"]["by_id"]["acme"]["retry"]["attempts"], 5);
        assert_eq!(document["sources"]["tcp"]["listen"], "127.0.0.1:7400");
        assert_eq!(document["store"]["group_max_bytes"], "2MiB");
    }

    #[test]
    fn a_bad_configuration_ends_with_78_and_prints_nothing_but_the_error() {
        let (exit, out, err) = checked(Some("[daemon]\ndat_dir = 1"), &[], false);
        assert_eq!((exit, exit as u8, out.as_str()), (Exit::Config, 78, ""));
        assert!(err.starts_with("/headworks.toml:2:1: daemon.dat_dir: "), "{err}");
        let (exit, _, err) = checked(None, &[("HEADWORKS_DATA_DIR", "x")], true);
        assert_eq!(exit, Exit::Config);
        assert!(err.starts_with("HEADWORKS_DATA_DIR: "), "{err}");
    }

    #[test]
    fn a_value_cannot_move_the_cursor() {
        let (exit, out, _) = checked(
            Some("[decoder]\ntime_field = \"\\u001b[2J\\u202e\"\n[daemon]\ndata_dir = \"\\u009b\""),
            &[],
            false,
        );
        assert_eq!(exit, Exit::Ok);
        assert!(!out.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{out}");
    }
}
