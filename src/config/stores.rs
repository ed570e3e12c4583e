//! Which keys a store of each type has, and their bounds.

use std::time::Duration;

use super::check::{DAY, Problem, time, within};
use super::{StoreConfig, StoreKind, nats};
use crate::store::ObjectFormat;
use crate::store::postgres::{PostgresOptions, SslMode};
use crate::store::webhook::WebhookOptions;
use crate::units::bytes::display as size;

use StoreKind::{Files, Nats, Object, Postgres, Sqlite, Stdout, Webhook};

/// The keys that some types have and others have not. All others mean nothing where they do not apply, or are of all.
const KEYS: &[(&str, &[StoreKind])] = &[
    ("layout", &[Sqlite]),
    ("rotate_bytes", &[Files]),
    ("rotate_every", &[Files]),
    ("url", &[Postgres, Object, Webhook, Nats]),
    ("ca_file", &[Postgres, Object, Webhook, Nats]),
    ("connect_timeout", &[Postgres, Object, Webhook, Nats]),
    ("request_timeout", &[Object, Webhook, Nats]),
    ("pool_size", &[Postgres, Webhook]),
    ("password_file", &[Postgres]),
    ("sslmode", &[Postgres]),
    ("namespace", &[Postgres]),
    ("schema", &[Postgres, Nats]),
    ("body", &[Postgres]),
    ("partition", &[Postgres]),
    ("statement_timeout", &[Postgres]),
    ("endpoint", &[Object]),
    ("region", &[Object]),
    ("credentials_file", &[Object, Nats]),
    ("path", &[Object]),
    ("format", &[Object]),
    ("columns", &[Postgres, Object]),
    ("compact_after", &[Object]),
    ("compact_bytes", &[Object]),
    ("rollback_url", &[Webhook]),
    ("secret_file", &[Webhook]),
    ("compression", &[Webhook]),
    ("stream", &[Nats]),
    ("subject", &[Nats]),
    ("replicas", &[Nats]),
];

/// Whether this program has it.
pub(super) fn is_built(kind: StoreKind) -> bool {
    match kind {
        Sqlite | Files => true,
        Postgres => cfg!(feature = "postgres"),
        Object => cfg!(feature = "object"),
        Webhook => cfg!(feature = "webhook"),
        Stdout => cfg!(feature = "stdout"),
        Nats => cfg!(feature = "nats"),
    }
}

/// Each key of a store may be set where its type has it, and nowhere else.
pub(super) fn check(at: &[&str], store: &StoreConfig) -> Result<(), Problem> {
    let key = |key| at.iter().copied().chain([key]);
    let kind = store.kind;
    let (said, default) = (table(store), table(&StoreConfig::default()));
    for (name, kinds) in KEYS {
        if !kinds.contains(&kind) && said.get(*name) != default.get(*name) {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("\"{}\"", kind.as_str())).collect();
            let what =
                format!("is for type = {}, but this one is \"{}\": leave it out", kinds.join(" or "), kind.as_str());
            return Err(Problem::new(key(name), what));
        }
    }
    let second = Duration::from_secs(1);
    within(key("segment_bytes"), store.segment_bytes, 64 << 10, 1 << 30, |n| size(*n))?;
    within(key("group_max_bytes"), store.group_max_bytes, 4 << 10, 1 << 30, |n| size(*n))?;
    within(key("busy_timeout"), store.busy_timeout, Duration::from_millis(1), second * 60, time)?;
    within(key("max_concurrency"), store.max_concurrency, 1, 10_000, u32::to_string)?;
    within(key("rotate_bytes"), store.rotate_bytes, 0, 1 << 44, |n| size(*n))?;
    if let Some(every) = store.rotate_every {
        within(key("rotate_every"), every, second, DAY * 3650, time)?;
    }
    within(key("pool_size"), store.pool_size, 1, 100, usize::to_string)?;
    within(key("connect_timeout"), store.connect_timeout, second / 10, second * 60, time)?;
    within(key("statement_timeout"), store.statement_timeout, second / 10, second * 3600, time)?;
    if let Some(after) = store.compact_after {
        within(key("compact_after"), after, second, DAY * 30, time)?;
    }
    within(key("compact_bytes"), store.compact_bytes, 4 << 10, 1 << 30, |n| size(*n))?;
    within(key("request_timeout"), store.request_timeout, second / 10, second * 3600, time)?;
    within(key("replicas"), store.replicas, 1, 5, usize::to_string)?;
    match kind {
        Nats => check_nats(at, store)?,
        Postgres => check_postgres(at, store)?,
        Object => check_object(at, store)?,
        Webhook => check_webhook(at, store)?,
        Sqlite | Files | Stdout => {}
    }
    if !is_built(kind) {
        let what =
            format!("is \"{0}\", which this headworks was built without: build it with --features {0}", kind.as_str());
        return Err(Problem::new(key("type"), what));
    }
    Ok(())
}

/// What is set, by key.
fn table(store: &StoreConfig) -> toml::Table {
    toml::Table::try_from(store).unwrap_or_default()
}

fn check_postgres(at: &[&str], store: &StoreConfig) -> Result<(), Problem> {
    let key = |key| at.iter().copied().chain([key]);
    if !PostgresOptions::is_namespace(&store.namespace) {
        let what = "is no name for a PostgreSQL schema: it has lower-case letters, digits and \"_\" in it, up to 63, begins \
                    with none of the digits, and not with \"pg_\"";
        return Err(Problem::new(key("namespace"), what));
    }
    if store.sslmode == SslMode::VerifyFull && store.ca_file.is_none() {
        let what = "is \"verify_full\", which needs to know whom to trust: set ca_file to a file of certificates";
        return Err(Problem::new(key("sslmode"), what));
    }
    if store.sslmode != SslMode::VerifyFull && store.ca_file.is_some() {
        let what = "is for sslmode = \"verify_full\": nothing else looks at certificates; leave it out, or choose that";
        return Err(Problem::new(key("ca_file"), what));
    }
    let Some(url) = &store.url else {
        let what = "is missing, which type = \"postgres\" needs: url = \"postgres://USER@HOST:PORT/DATABASE\"";
        return Err(Problem::new(key("url"), what));
    };
    #[cfg(feature = "postgres")]
    // Its sentence begins with the key.
    crate::store::postgres::check_url(url)
        .map_err(|why| Problem::new(key("url"), why.strip_prefix("url ").unwrap_or(&why)))?;
    #[cfg(feature = "postgres")]
    crate::store::postgres::check_columns(&store.columns).map_err(|why| Problem::new(key("columns"), why))?;
    #[cfg(not(feature = "postgres"))]
    let _ = url;
    Ok(())
}

fn check_webhook(at: &[&str], store: &StoreConfig) -> Result<(), Problem> {
    let key = |key| at.iter().copied().chain([key]);
    let Some(url) = &store.url else {
        let what = "is missing, which type = \"webhook\" needs: url = \"https://HOST/PATH\"";
        return Err(Problem::new(key("url"), what));
    };
    let urls = [("url", Some(url)), ("rollback_url", store.rollback_url.as_ref())];
    for (name, url) in urls.into_iter().filter_map(|(name, url)| Some((name, url?))) {
        WebhookOptions::check_url(url).map_err(|why| Problem::new(key(name), why))?;
        if store.ca_file.is_some() && !url.starts_with("https:") {
            let what = "begins with \"http:\", and ca_file is for \"https:\": leave that out, or choose this";
            return Err(Problem::new(key(name), what));
        }
    }
    Ok(())
}

fn check_nats(at: &[&str], store: &StoreConfig) -> Result<(), Problem> {
    let key = |key| at.iter().copied().chain([key]);
    let Some(url) = &store.url else {
        let what = "is missing, which type = \"nats\" needs: url = \"nats://HOST:4222\"";
        return Err(Problem::new(key("url"), what));
    };
    nats::check_url(url).map_err(|why| Problem::new(key("url"), why))?;
    let Some(stream) = &store.stream else {
        let what = "is missing, which type = \"nats\" needs: stream = \"EVENTS\"";
        return Err(Problem::new(key("stream"), what));
    };
    if !nats::is_name(stream) {
        let what = format!("is {stream:?}, but must be the name of a stream: 1 to 40 of A-Z a-z 0-9 _ -");
        return Err(Problem::new(key("stream"), what));
    }
    #[cfg(feature = "nats")]
    crate::store::nats::Template::new(&store.subject).map_err(|why| Problem::new(key("subject"), why))?;
    Ok(())
}

fn check_object(at: &[&str], store: &StoreConfig) -> Result<(), Problem> {
    let key = |key| at.iter().copied().chain([key]);
    if !store.columns.is_empty() && store.format != ObjectFormat::Parquet {
        let what =
            "is for format = \"parquet\": lines have all fields as they are; leave it out, or choose that format";
        return Err(Problem::new(key("columns"), what));
    }
    let Some(url) = &store.url else {
        let what =
            "is missing, which type = \"object\" needs: url = \"file:///srv/events\" or url = \"s3://BUCKET/PREFIX\"";
        return Err(Problem::new(key("url"), what));
    };
    let of_servers = [
        ("endpoint", store.endpoint.is_some()),
        ("region", store.region.is_some()),
        ("credentials_file", store.credentials_file.is_some()),
        ("ca_file", store.ca_file.is_some()),
    ];
    if let Some((name, _)) = of_servers.into_iter().find(|(_, is_set)| *is_set && url.starts_with("file:")) {
        let what = "is for objects on a server, and url names a directory: leave it out, or choose url = \"s3://BUCKET/PREFIX\"";
        return Err(Problem::new(key(name), what));
    }
    if let Some(endpoint) = store.endpoint.as_deref().filter(|url| !url.starts_with("http")) {
        let what = format!("is {endpoint:?}, but is the URL of a server: \"https://s3.example\"");
        return Err(Problem::new(key("endpoint"), what));
    }
    #[cfg(feature = "object")]
    {
        use crate::store::columns::Column;
        use crate::store::object::{Template, check_url};
        // Its sentence begins with the key.
        check_url(url).map_err(|why| Problem::new(key("url"), why.strip_prefix("url ").unwrap_or(&why)))?;
        Template::new(&store.path, store.format.ending()).map_err(|why| Problem::new(key("path"), why))?;
        Column::parse_all(&store.columns).map_err(|why| Problem::new(key("columns"), why))?;
        if store.format == ObjectFormat::Parquet && cfg!(not(feature = "parquet")) {
            let what = "is \"parquet\", which this headworks was built without: build it with --features parquet";
            return Err(Problem::new(key("format"), what));
        }
    }
    Ok(())
}

/// For tests: the least that a store has to say to have this key; nothing where this program has none such.
#[cfg(test)]
pub(super) fn with_key(key: &str) -> Option<&'static str> {
    let kinds = KEYS.iter().find(|(of, _)| *of == key).map_or(&[Sqlite][..], |(_, kinds)| kinds);
    let kind = kinds.iter().find(|kind| is_built(**kind))?;
    Some(match kind {
        Sqlite => "",
        Files => "type = 'files'",
        Postgres => "type = 'postgres'\nurl = 'postgres://app@db/events'",
        // Columns are of one format, and the other keys of both.
        Object if cfg!(feature = "parquet") => "type = 'object'\nurl = 's3://bucket'\nformat = 'parquet'",
        Object => "type = 'object'\nurl = 's3://bucket'",
        Webhook => "type = 'webhook'\nurl = 'https://other'",
        Stdout => "type = 'stdout'",
        Nats => "type = 'nats'\nurl = 'nats://bus'\nstream = 'EVENTS'",
    })
}
