use proptest::prelude::*;

use super::*;
use crate::AckLevel;
use crate::store::Layout;

const EXAMPLE: &str = include_str!("../../docs/headworks.example.toml");

fn read(text: &str) -> Result<Config, ConfigError> {
    Layers::default().toml("headworks.toml", text).read()
}

fn with(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// The error of a text as a user sees it.
fn error(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

#[test]
fn no_file_and_an_empty_file_are_the_defaults() {
    assert_eq!(Config::load(None, []).unwrap(), Config::default());
    assert_eq!(read("").unwrap(), Config::default());
    Config::default().check().unwrap();
}

#[test]
fn the_example_is_the_default_but_for_its_example_tenants() {
    let mut example = read(EXAMPLE).unwrap();
    assert!(
        example.tenants.by_id.len() >= 2 && example.tenants.by_id.keys().all(|id| id.as_str().starts_with("example"))
    );
    assert!(example.tenants.classes.keys().all(|name| name.starts_with("example")));
    assert!(example.tenants.rules.iter().all(|rule| rule.pattern.as_str().starts_with("example")));
    example.tenants.by_id.clear();
    example.tenants.classes.clear();
    example.tenants.rules.clear();
    assert_eq!(example, Config::default());
}

#[test]
fn the_example_shows_every_key() {
    fn missing(whole: &toml::Table, shown: &toml::Table, path: &str, found: &mut Vec<String>) {
        for (key, value) in whole {
            let path = format!("{path}.{key}");
            match (value, shown.get(key)) {
                (_, None) => found.push(path),
                (toml::Value::Table(whole), Some(toml::Value::Table(shown))) => missing(whole, shown, &path, found),
                _ => {}
            }
        }
    }
    // A key without a default is shown as a comment.
    let optional = ["time_field", "token_file", "url", "password_file", "ca_file", "rollback_url", "secret_file"];
    let shown = optional
        .iter()
        .fold(EXAMPLE.to_owned(), |text, key| text.replace(&format!("\n# {key} = "), &format!("\n{key} = ")));
    let shown: toml::Table = shown.parse().unwrap();
    let mut whole = Config::default();
    whole.decoder.time_field = Some("time".into());
    whole.admin.token_file = Some("x".into());
    whole.store.url = Some("x".into());
    whole.store.password_file = Some("x".into());
    whole.store.ca_file = Some("x".into());
    whole.store.rollback_url = Some("x".into());
    whole.store.secret_file = Some("x".into());
    let mut found = vec![];
    missing(&toml::Table::try_from(whole).unwrap(), &shown, "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_tenant_changes_only_the_keys_it_names() {
    let config = read(
        "[tenants.defaults]\nwindow.max_age = '3s'\nretry.attempts = 9\n[tenants.by_id.acme]\nwindow.max_events = 10\n",
    )
    .unwrap();
    let (acme, other) = (config.effective_policy(&tenant("acme")), config.effective_policy(&tenant("other")));
    assert_eq!(other, config.tenants.defaults);
    let mut expected = other.clone();
    expected.window.max_events = 10;
    assert_eq!(acme, expected);
    assert_eq!((acme.window.max_age.as_secs(), acme.retry.attempts), (3, 9));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_the_valid_ones_and_a_guess() {
    let text = "[daemon]\n\ndat_dir = '/srv'\n";
    let why = read(text).unwrap_err();
    assert_eq!((why.line(), why.key()), (Some(3), Some("daemon.dat_dir")));
    assert_eq!(
        why.to_string(),
        "headworks.toml:3:1: daemon.dat_dir: there is no key \"dat_dir\" here; valid: data_dir, drain_deadline, \
         exit_when_hung, threads; did you mean \"data_dir\"?\n  |\n3 | dat_dir = '/srv'\n  | ^^^^^^^"
    );
    for (text, key, guess) in [
        ("[demon]\n", "demon", Some("daemon")),
        ("[tenants.defaults.window]\nmax_event = 1", "tenants.defaults.window.max_event", Some("max_events")),
        ("[tenants.by_id.acme]\nretry = { attempt = 1 }", "tenants.by_id.acme.retry.attempt", Some("attempts")),
        ("[sources.edge]\nmax-frame = 1", "sources.edge.max-frame", Some("max_frame")),
        ("[tenants.only.acme]", "tenants.only", None),
        ("[store]\ntype = 'sqllite'", "store.type", Some("sqlite")),
        ("[sources.a]\nframing = 'line'", "sources.a.framing", Some("lines")),
        ("[tenants.defaults]\noverflow.when_full = 'blok'", "tenants.defaults.overflow.when_full", Some("block")),
    ] {
        let why = read(text).unwrap_err();
        assert_eq!(why.key(), Some(key), "{why}");
        assert!(why.line().is_some() && why.to_string().contains("; valid: "), "{why}");
        let guessed = guess.map(|guess| format!("did you mean {guess:?}?"));
        assert!(guessed.map_or(!why.to_string().contains("did you mean"), |g| why.to_string().contains(&g)), "{why}");
    }
}

#[test]
fn to_spill_without_a_durable_journal_is_refused_at_its_key() {
    let why = read("journal.type = 'memory'\n[tenants.by_id.acme]\noverflow.when_full = 'spill'").unwrap_err();
    assert_eq!((why.line(), why.key()), (Some(3), Some("tenants.by_id.acme.overflow.when_full")), "{why}");
    assert!(why.to_string().contains("use a durable journal"), "{why}");
    read("[tenants.by_id.acme]\noverflow.when_full = 'spill'").unwrap();
}

#[test]
fn the_key_that_became_another_is_refused_with_its_new_name() {
    let why = read("[daemon]\nreport_every = '5s'").unwrap_err();
    assert_eq!((why.line(), why.key()), (Some(2), Some("daemon.report_every")), "{why}");
    assert!(why.to_string().contains("it is [report] every now"), "{why}");
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place_and_what_is_valid() {
    for (text, line, key, valid) in [
        ("[limits]\nmax_tenants = 'many'", 2, "limits.max_tenants", "a whole number"),
        ("[limits]\nmax_tenants = -1", 2, "limits.max_tenants", "a whole number"),
        ("daemon = 3", 1, "daemon", "a table"),
        ("[tenants.defaults]\nwindow = 3", 2, "tenants.defaults.window", "a table"),
        ("[daemon]\ndrain_deadline = 'soon'", 2, "daemon.drain_deadline", "\"500ms\""),
        ("[daemon]\ndata_dir = 3", 2, "daemon.data_dir", "in quotes"),
        ("\n[store]\ngroup_max_bytes = 'two'", 3, "store.group_max_bytes", "\"64KiB\""),
        ("[sources.a]\nlisten = 'localhost'", 2, "sources.a.listen", "127.0.0.1:7400"),
        ("[sources.a]\nallow_beyond_loopback = 1", 2, "sources.a.allow_beyond_loopback", "true or false"),
        ("[sources.a]\nframing = 3", 2, "sources.a.framing", "a string (in quotes)"),
        ("[tenants]\nmute = 'acme'", 2, "tenants.mute", "a list"),
        ("[tenants]\nmute = ['acme',\n '../etc']", 2, "tenants.mute", "letter or a digit"),
        ("[tenants.by_id.'a b']\n", 1, "tenants.by_id.\"a b\"", "only letters"),
        ("[tenants.by_id.acme]\nwindow.max_age = 1", 2, "tenants.by_id.acme.window.max_age", "string"),
    ] {
        let why = read(text).unwrap_err();
        assert_eq!((why.line(), why.key()), (Some(line), Some(key)), "{why}");
        assert!(why.to_string().contains(valid), "{why}");
    }
}

#[test]
fn a_value_out_of_bounds_is_refused_with_its_place_and_the_bounds() {
    for (text, line, key, valid) in [
        ("[daemon]\ndata_dir = ''", 2, "daemon.data_dir", "not empty"),
        ("[daemon]\ndrain_deadline = '0s'", 2, "daemon.drain_deadline", "from 1ms to 1day"),
        ("[tenants]\nstores = ['store', 'archive']", 2, "tenants.stores", "there is no [stores.archive]; valid: store"),
        ("[tenants]\nstores = ['store', 'store']", 2, "tenants.stores", "names store twice"),
        ("[tenants]\nstores = []", 2, "tenants.stores", "nothing could be stored"),
        ("[tenants.stores_by_id]\nacme = ['db']", 2, "tenants.stores_by_id.acme", "there is no [stores.db]"),
        ("[stores.store]\ntype = 'files'", 1, "stores.store", "[store] speaks of"),
        (
            "[store]\nlayout = 'rows'\nurl = 'postgres://db/x'",
            3,
            "store.url",
            "is for type = \"postgres\" or \"object\" or \"webhook\"",
        ),
        ("[stores.a]\ntype = 'files'\npool_size = 9", 3, "stores.a.pool_size", "is for type = \"postgres\""),
        ("[store]\nrotate_bytes = '1MiB'", 2, "store.rotate_bytes", "is for type = \"files\""),
        ("[store]\ntype = 'files'\nrotate_every = '1ms'", 3, "store.rotate_every", "from 1s to 3650days"),
        ("[store]\ncompression = 'zstd'", 2, "store.compression", "is for type = \"webhook\""),
        ("[store]\ntype = 'webhook'", 1, "store.url", "is missing"),
        ("[store]\ntype = 'webhook'\nurl = 'ftp://x/'", 3, "store.url", "http"),
        ("[store]\ntype = 'webhook'\nurl = 'http://me@x/'", 3, "store.url", "user"),
        ("[store]\nreplicas = 3", 2, "store.replicas", "is for type = \"nats\""),
        ("[store]\ntype = 'nats'", 1, "store.url", "is missing"),
        ("[store]\ntype = 'nats'\nurl = 'nats://u:p@h'", 3, "store.url", "credentials_file"),
        ("[store]\ntype = 'nats'\nurl = 'nats://h'", 1, "store.stream", "is missing"),
        ("[store]\ntype = 'nats'\nurl = 'nats://h'\nstream = 'a.b'", 4, "store.stream", "name of a stream"),
        #[cfg(feature = "nats")]
        (
            "[store]\ntype = 'nats'\nurl = 'nats://h'\nstream = 's'\nsubject = 'a.{tenant}'",
            5,
            "store.subject",
            "{batch} as one of its parts",
        ),
        ("[stores.a]\nbusy_timeout = '0s'", 2, "stores.a.busy_timeout", "from 1ms to 1m"),
        ("[report]\nevery = '1ms'", 2, "report.every", "from 1s to 1day, or 0s"),
        ("[report]\nto = 'file'\npath = ''", 3, "report.path", "must be the path of a file"),
        ("[report]\npath = 'headworks.db-wal'", 2, "report.path", "that the daemon keeps itself"),
        ("[report]\npath = 'journal/checkpoint'", 2, "report.path", "that the daemon keeps itself"),
        ("[report]\npath = '../headworks-data/stores.json'", 2, "report.path", "that the daemon keeps itself"),
        ("[report]\ntenant = '../etc'", 2, "report.tenant", "letter or a digit"),
        ("[log]\nsupervisor_max_bytes = '1KiB'", 2, "log.supervisor_max_bytes", "from 4KiB to 1GiB"),
        ("[log]\nsupervisor_files = 0", 2, "log.supervisor_files", "from 1 to 1000"),
        ("[daemon]\nexit_when_hung = '1ms'", 2, "daemon.exit_when_hung", "from 1s to 1day, or 0s"),
        ("[daemon]\nthreads = 65", 2, "daemon.threads", "from 0 to 64"),
        ("[log]\nlevel = 'inof'", 2, "log.level", "\"inof\" is no level"),
        ("[log]\nlevel = 'info,headworks=loud'", 2, "log.level", "valid is one of"),
        ("[limits]\nmax_tenants = 0", 2, "limits.max_tenants", "from 1 to"),
        ("[tenants]\nmax_spawn_burst = 0", 2, "tenants.max_spawn_burst", "from 1 to"),
        ("[tenants]\nmax_spawn_rate = 2000000", 2, "tenants.max_spawn_rate", "from 0 to"),
        (
            "[tenants.defaults]\nheartbeat.passivate_after = '1ms'",
            2,
            "tenants.defaults.heartbeat.passivate_after",
            "from 10ms",
        ),
        ("[limits]\nmax_in_flight = 1", 2, "limits.max_in_flight", "from 64KiB"),
        ("[limits]\nmax_in_flight = '64KiB'", 2, "limits.max_in_flight", "sources.tcp, 1MiB: one frame must fit"),
        ("[decoder]\ntenant_field = ''", 2, "decoder.tenant_field", "1 to 256"),
        ("[decoder]\ntime_field = 'tenant'", 2, "decoder.time_field", "cannot hold both"),
        ("[store]\nbusy_timeout = '1h'", 2, "store.busy_timeout", "to 1m"),
        ("[store]\ntype = 'files'\nlayout = 'index'", 3, "store.layout", "is for type = \"sqlite\""),
        ("[store]\nsegment_bytes = 1", 2, "store.segment_bytes", "from 64KiB to 1GiB"),
        ("[store]\ngroup_max_bytes = 1", 2, "store.group_max_bytes", "from 4KiB"),
        ("[stores.a]\nmax_concurrency = 0", 2, "stores.a.max_concurrency", "from 1 to 10000"),
        ("[tenants.defaults.priority]\nweight = 0", 2, "tenants.defaults.priority.weight", "from 1 to 1000"),
        ("[tenants.defaults.breaker]\nfailures = 1001", 2, "tenants.defaults.breaker.failures", "from 0 to 1000"),
        ("[sources]", 1, "sources", "is empty"),
        ("[sources.a]\nmax_frame = 15", 2, "sources.a.max_frame", "from 16B to 1GiB"),
        ("[sources.a]\nmax_connections = 0", 2, "sources.a.max_connections", "from 1"),
        ("[sources.a]\nmax_body = '1MiB'", 2, "sources.a.max_body", "is for type = \"http\""),
        ("[sources.a]\nframing = 'length_prefixed'\ntype = 'http'", 2, "sources.a.framing", "is for type = \"tcp\""),
        ("[sources.a]\ntype = 'http'\nmax_body = 1", 3, "sources.a.max_body", "from 1KiB"),
        ("[sources.'a/b']\n", 1, "sources.\"a/b\"", "no name for a source"),
        ("[sources.a]\n[sources.b]\nlisten = '127.0.0.1:7400'", 3, "sources.b.listen", "sources.a listens already"),
        ("[tenants.defaults.window]\nmax_events = 0", 2, "tenants.defaults.window.max_events", "from 1 to 1000000"),
        ("[tenants.by_id.'a.b']\nretry.attempts = 0", 2, "tenants.by_id.\"a.b\".retry.attempts", "from 1 to 1000"),
        // The key that is wrong is not set; the table is, that it is missing from.
        ("[tenants.defaults]\nretry.base = '1m'", 2, "tenants.defaults.retry.cap", "from 1m"),
    ] {
        let why = read(text).unwrap_err();
        assert_eq!((why.line(), why.key()), (Some(line), Some(key)), "{why}");
        assert!(why.to_string().contains(valid), "{why}");
    }
}

#[test]
fn the_bounds_themselves_are_valid() {
    read("[sources.a]\nmax_frame = 16\nmax_connections = 1\n[limits]\nmax_in_flight = '64KiB'\nmax_tenants = 1")
        .unwrap();
    read("[sources.a]\nmax_frame = '1GiB'\n[limits]\nmax_in_flight = '1GiB'\n[report]\nevery = '0s'").unwrap();
    read("[sources.a]\nlisten = '127.0.0.1:0'\n[sources.b]\nlisten = '127.0.0.1:0'").unwrap();
    read("[log]\nlevel = 'WARN,headworks=debug,other[span]=trace'").unwrap();
}

#[test]
fn a_source_beyond_loopback_needs_a_word_that_says_so() {
    for open in ["0.0.0.0:7400", "[::]:7400", "192.168.1.2:7400", "[::ffff:10.0.0.1]:7400"] {
        let text = format!("[sources.tcp]\nlisten = '{open}'");
        let why = read(&text).unwrap_err();
        assert_eq!((why.line(), why.key()), (Some(2), Some("sources.tcp.listen")));
        assert!(why.to_string().contains("sources.tcp.allow_beyond_loopback = true"), "{why}");
        read(&format!("{text}\nallow_beyond_loopback = true")).unwrap();
    }
    for closed in ["127.0.0.1:7400", "127.9.9.9:1", "[::1]:7400", "[::ffff:127.0.0.1]:7400"] {
        read(&format!("[sources.tcp]\nlisten = '{closed}'")).unwrap();
    }
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    for (text, place) in [
        ("[daemon]\ndata_dir = \n", "headworks.toml:2:"),
        ("[daemon\n", "headworks.toml:1:"),
        ("a = 1\na = 2", "headworks.toml:2:1: this is no valid TOML: \"a\" is there twice"),
    ] {
        assert!(error(text).starts_with(place), "{}", error(text));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let why = Config::load(Some(&path), []).unwrap_err().to_string();
    assert!(why.starts_with(&format!("{}: the configuration cannot be read: ", path.display())), "{why}");
    std::fs::write(&path, "[daemon]\ndata_dir = '/srv'").unwrap();
    assert_eq!(Config::load(Some(&path), []).unwrap().daemon.data_dir, Path::new("/srv"));
}

#[test]
fn the_excerpt_of_an_error_is_short_and_inert_however_the_file_looks() {
    let long = format!("[daemon]\nx = '{}' \u{1b}[31m", "é".repeat(100_000));
    let why = error(&long);
    assert!(why.len() < 2_000 && !why.contains('\u{1b}'), "{why}");
}

#[test]
fn variables_win_over_the_file_and_flags_over_both() {
    let layers = Layers::default().toml("f", "[log]\nlevel = 'warn'\nformat = 'json'\n[daemon]\ndata_dir = '/file'");
    let variables = [("LOG__LEVEL", "debug"), ("DAEMON__DATA_DIR", "/variable")];
    let variables = variables.map(|(name, value)| (format!("HEADWORKS__{name}"), value.to_owned()));
    let layers = layers.environment(variables).unwrap().flag("--data-dir", "daemon.data_dir", "/flag");
    let config = layers.read().unwrap();
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Json, "debug"));
    assert_eq!(config.daemon.data_dir, Path::new("/flag"));
    let names: Vec<_> = layers.overrides().unwrap().into_iter().map(|by| by.name).collect();
    assert_eq!(names, ["HEADWORKS__DAEMON__DATA_DIR", "HEADWORKS__LOG__LEVEL", "--data-dir"]);
}

#[test]
fn a_variable_is_toml_where_it_is_toml_and_a_string_otherwise() {
    let config = with(&[
        ("PATH", "/bin"),
        ("HEADWORKS__DAEMON__DATA_DIR", "/srv/x y"),
        ("HEADWORKS__DAEMON__DRAIN_DEADLINE", "1m 30s"),
        ("HEADWORKS__DECODER__TENANT_FIELD", "\"100\""),
        ("HEADWORKS__LIMITS__MAX_IN_FLIGHT", "32MiB"),
        ("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:9000"),
        ("HEADWORKS__SOURCES__TCP__MAX_FRAME", "65536"),
        ("HEADWORKS__TENANTS__DEFAULTS__WINDOW", "{ max_age = '2s', max_events = 1 }"),
        ("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "100"),
        ("HEADWORKS__TENANTS__BY_ID__ACME__RETRY__ATTEMPTS", "2"),
        ("HEADWORKS__TENANTS__MUTE", "[\"a\", 'b']"),
    ])
    .unwrap();
    assert_eq!(config.daemon.data_dir, Path::new("/srv/x y"));
    assert_eq!(config.daemon.drain_deadline.as_secs(), 90);
    assert_eq!(config.decoder.tenant_field, "100");
    assert_eq!(config.limits.max_in_flight, 32 << 20);
    assert_eq!(config.sources["tcp"].listen.port(), 9000);
    assert_eq!(config.sources["tcp"].max_frame, 65536);
    let acme = config.effective_policy(&tenant("acme"));
    assert_eq!((acme.window.max_events, acme.window.max_age.as_secs(), acme.retry.attempts), (100, 2, 2));
    assert_eq!(config.tenants.mute, ["a", "b"].map(tenant).into());
}

#[test]
fn a_variable_reaches_a_name_whatever_its_letter_case() {
    let file = "[sources.Edge]\n[tenants.by_id.Acme]\nwindow.max_age = '9s'";
    let layers = Layers::default().toml("f", file);
    let variables = [("SOURCES__EDGE__MAX_FRAME", "16"), ("tenants__by_id__acme__window__max_events", "3")];
    let variables = variables.map(|(name, value)| (format!("HEADWORKS__{name}"), value.to_owned()));
    let config = layers.environment(variables).unwrap().read().unwrap();
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["Edge"]);
    assert_eq!(config.sources["Edge"].max_frame, 16);
    let acme = config.effective_policy(&tenant("Acme"));
    assert_eq!((acme.window.max_events, acme.window.max_age.as_secs()), (3, 9));
}

#[test]
fn a_variable_that_could_be_two_names_must_say_which() {
    let layers = || Layers::default().toml("f", "[tenants.by_id.Acme]\n[tenants.by_id.acme]");
    let attempts = |id: &str, value: &str| {
        let variable = (format!("HEADWORKS__TENANTS__BY_ID__{id}__RETRY__ATTEMPTS"), value.to_owned());
        layers().environment([variable]).unwrap().read()
    };
    let why = attempts("ACME", "2").unwrap_err().to_string();
    assert!(why.starts_with("HEADWORKS__TENANTS__BY_ID__ACME__RETRY__ATTEMPTS: "), "{why}");
    assert!(why.contains("could be any of Acme, acme"), "{why}");
    let config = attempts("Acme", "2").unwrap();
    let of = |id| config.effective_policy(&tenant(id)).retry.attempts;
    assert_eq!((of("Acme"), of("acme")), (2, 5));
}

#[test]
fn a_bad_variable_is_named() {
    for (name, value, key, says) in [
        ("DAEMON__DRAIN_DEADLINE", "soon", "daemon.drain_deadline", "\"500ms\""),
        ("DAEMON__DATADIR", "/srv", "daemon.datadir", "did you mean \"data_dir\"?"),
        ("DEMON__DATA_DIR", "/srv", "demon.data_dir", "did you mean \"daemon\"?"),
        ("LIMITS__MAX_TENANTS", "0", "limits.max_tenants", "from 1 to"),
        ("LIMITS__MAX_TENANTS", "", "limits.max_tenants", "a whole number"),
        ("TENANTS__DEFAULTS__RETRY__BASE", "1m", "tenants.defaults.retry.cap", "from 1m"),
        ("TENANTS__BY_ID__A_B__WINDOW__MAX_EVENTS", "0", "tenants.by_id.a_b.window.max_events", "from 1 to"),
        ("TENANTS__DEFAULTS", "{ window.max_evnts = 3 }", "tenants.defaults", "did you mean \"max_events\"?"),
        ("SOURCES__TCP__LISTEN", "0.0.0.0:1", "sources.tcp.listen", "allow_beyond_loopback"),
        ("DAEMON", "x", "daemon", "a table"),
    ] {
        let name = format!("HEADWORKS__{name}");
        let why = with(&[(&name, value)]).unwrap_err();
        assert_eq!(why.key(), Some(key), "{why}");
        let why = why.to_string();
        assert!(why.starts_with(&format!("{name}: {key}")) && why.contains(says), "{why}");
    }
}

#[test]
fn the_file_is_not_blamed_for_a_variable_nor_a_variable_for_the_file() {
    let layers = Layers::default().toml("headworks.toml", "[limits]\nmax_tenants = 0\n[log]\nlevel = 'x'");
    let variable = ("HEADWORKS__LIMITS__MAX_TENANTS".to_owned(), "7".to_owned());
    let why = layers.environment([variable]).unwrap().read().unwrap_err();
    assert_eq!((why.line(), why.key()), (Some(4), Some("log.level")), "{why}");
}

#[test]
fn two_variables_for_one_key_are_refused() {
    let why = with(&[("HEADWORKS__LOG__LEVEL", "info"), ("HEADWORKS__log__level", "warn")]).unwrap_err().to_string();
    assert_eq!(why, "HEADWORKS__log__level: log.level is set by HEADWORKS__LOG__LEVEL as well");
}

#[test]
fn a_variable_that_looks_like_ours_and_is_not_is_refused_with_the_rule() {
    for (name, meant) in [
        ("HEADWORKS_DATA_DIR", Some("HEADWORKS__DAEMON__DATA_DIR")),
        ("HEADWORKS_DAEMON_DATA_DIR", Some("HEADWORKS__DAEMON__DATA_DIR")),
        ("HEADWORKS_DAEMON__DATA_DIR", Some("HEADWORKS__DAEMON__DATA_DIR")),
        ("HEADWORKS_LOG_LEVEL", Some("HEADWORKS__LOG__LEVEL")),
        ("HEADWORKS_PORT", None),
        ("HEADWORKS_", None),
        ("HEADWORKS__", None),
        ("HEADWORKS__DAEMON____DATA_DIR", Some("HEADWORKS__DAEMON__DATA_DIR")),
    ] {
        let why = with(&[(name, "1")]).unwrap_err().to_string();
        assert!(why.starts_with(&format!("{name}: ")) && why.contains("HEADWORKS__TABLE__KEY"), "{why}");
        assert_eq!(why.split_once("did you mean ").map(|(_, meant)| meant.trim_end_matches('?')), meant, "{why}");
    }
}

#[test]
fn what_kubernetes_says_of_a_service_of_that_name_is_passed_by() {
    let tcp = "tcp://10.0.0.1:7400";
    for name in ["HEADWORKS", "HEADWORKS_ADMIN"] {
        let variables = [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "7400"),
            ("SERVICE_PORT_INGEST", "7400"),
            ("PORT", tcp),
            ("PORT_7400_TCP", tcp),
            ("PORT_7400_TCP_PROTO", "tcp"),
            ("PORT_7400_TCP_PORT", "7400"),
            ("PORT_7400_TCP_ADDR", "10.0.0.1"),
        ];
        let variables = variables.map(|(end, value)| (format!("{name}_{end}"), value.to_owned()));
        assert_eq!(Config::load(None, variables).unwrap(), Config::default());
    }
    assert!(with(&[("HEADWORKS_PORT_7400", "1")]).is_err());
    assert!(with(&[("HEADWORKS_PORT", "7400")]).is_err());
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused() {
    let why = with(&[("HEADWORKS__DAEMON__DATA_DIR", "/srv/\u{fffd}")]).unwrap_err().to_string();
    assert_eq!(why, "HEADWORKS__DAEMON__DATA_DIR: the value is not UTF-8");
}

#[test]
fn a_config_made_by_hand_is_checked_alike() {
    let mut config = Config::default();
    config.limits.max_tenants = 0;
    let why = config.check().unwrap_err();
    assert_eq!((why.key(), why.line()), (Some("limits.max_tenants"), None));
    assert_eq!(why.to_string(), "limits.max_tenants is 0, but must be from 1 to 10000000");
}

prop_compose! {
    fn configs()(
        sizes in (64usize << 10..1 << 34, 16usize..64 << 10, 4usize << 10..1 << 30, 1usize..1 << 30),
        times in (1u64..86_400_000, 1u64..60_000, 1u64..86_400_000),
        events in 1usize..1_000_000,
        names in (".{0,10}", "[A-Za-z0-9][A-Za-z0-9._-]{0,9}", "[A-Za-z0-9][A-Za-z0-9._-]{0,9}"),
        time_field in prop::option::of(".{1,10}"),
    ) -> Config {
        let mut config = Config::default();
        config.daemon.data_dir = format!("/srv/{}", names.0.replace('\0', "")).into();
        config.daemon.drain_deadline = std::time::Duration::from_millis(times.0);
        config.limits.max_in_flight = sizes.0;
        config.decoder.time_field = time_field;
        config.store.group_max_bytes = sizes.2;
        config.store.segment_bytes = sizes.2;
        config.store.layout = if times.0 % 2 == 0 { Layout::Index } else { Layout::Rows };
        config.dead_letters.max_bytes_per_tenant = sizes.0;
        config.store.busy_timeout = std::time::Duration::from_millis(times.1);
        config.store.max_concurrency = 7;
        config.journal.commit_every = std::time::Duration::from_millis(times.1 % 1_000);
        config.journal.segment_bytes = sizes.2;
        config.journal.max_bytes = sizes.2 * 8;
        let source = SourceConfig { max_frame: sizes.1, framing: Framing::LengthPrefixed, ..SourceConfig::default() };
        config.sources = BTreeMap::from([(names.1, source)]);
        config.tenants.defaults.window.max_bytes = sizes.3;
        config.tenants.mute.insert(tenant(&names.2));
        let mut policy = Policy { ack: AckLevel::Stored, ..Policy::default() };
        policy.window.max_events = events;
        policy.window.max_age = std::time::Duration::from_millis(times.2);
        config.tenants.by_id.insert(tenant(&names.2), policy);
        config
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back_as_the_same(config in configs()) {
        prop_assume!(config.check().is_ok());
        let text = config.to_toml().unwrap();
        prop_assert_eq!(read(&text).unwrap(), config, "{}", text);
    }

    #[test]
    fn no_text_and_no_variable_makes_it_panic(text in "(\\[[a-z.]{0,12}\\]\n|[a-z_.]{1,9} = [^\n]{0,12}\n|.{0,9}\n){0,6}", name in ".{0,12}", value in ".{0,12}") {
        let _ = read(&text).map_err(|why| why.to_string());
        let _ = with(&[(&format!("HEADWORKS_{name}"), &value)]).map_err(|why| why.to_string());
    }
}

#[test]
fn further_stores_and_the_order_in_which_batches_go_through_them_are_read() {
    let config = read(
        "[stores.archive]\ntype = 'files'\n[tenants]\nstores = ['archive', 'store']\nstores_by_id.acme = ['store']\n",
    )
    .unwrap();
    let names = |id| config.effective_stores(&tenant(id)).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((names("acme"), names("other")), (vec!["store".to_owned()], vec!["archive".into(), "store".into()]));
    let (name, store) = config.stores.first_key_value().unwrap();
    assert!(config.further_store_path(name, store).ends_with("stores/archive/events"));
}

const LEVELS: &str = "\
[tenants.defaults]
window.max_events = 1
retry.attempts = 1
ack = 'received'
on_failure = 'retry'
[tenants.classes.gold]
retry.attempts = 2
ack = 'journaled'
window.max_bytes = '2MiB'
[tenants.classes.silver]
retry.attempts = 3
[[tenants.rules]]
match = 'acme-*'
class = 'gold'
ack = 'stored'
[[tenants.rules]]
match = 'acme-eu'
window.max_events = 99
[tenants.by_id.acme-us]
window.max_bytes = '3MiB'
[tenants.by_id.acme-de]
class = 'silver'
";

#[test]
fn a_tenant_goes_by_itself_over_the_first_rule_over_its_class_over_the_defaults() {
    let config = read(LEVELS).unwrap();
    let of = |id: &str| {
        let policy = config.effective_policy(&tenant(id));
        (policy.window.max_events, policy.window.max_bytes >> 20, policy.retry.attempts, policy.ack)
    };
    assert_eq!(of("other"), (1, 1, 1, AckLevel::Received));
    assert_eq!(of("acme-eu"), (1, 2, 2, AckLevel::Stored), "the second rule comes too late");
    assert_eq!(of("acme-us"), (1, 3, 2, AckLevel::Stored));
    assert_eq!(of("acme-de"), (1, 1, 3, AckLevel::Stored), "its own class, and the keys of the rule over that");
    for id in ["other", "acme-eu", "acme-us", "acme-de"] {
        let id = tenant(id);
        assert_eq!(**config.tenants.rules().of(&id), config.effective_policy(&id));
        assert_eq!(config.effective_policy(&id).on_failure, crate::OnFailure::Retry);
    }
    assert_eq!(read(&config.to_toml().unwrap()).unwrap(), config);
}

#[test]
fn what_is_wrong_in_a_rule_or_a_class_is_refused_with_its_place() {
    let rule = "[[tenants.rules]]\nmatch = 'a-*'\n";
    for (text, line, key, valid) in [
        (format!("{rule}window.max_event = 1"), 3, "tenants.rules[1].window.max_event", "did you mean \"max_events\"?"),
        (format!("{rule}windw.max_events = 1"), 3, "tenants.rules[1].windw", "did you mean \"window\"?"),
        (format!("{rule}{rule}"), 4, "tenants.rules[2].match", "is that of tenants.rules[1] too"),
        (format!("{rule}class = 'gold'"), 3, "tenants.rules[1].class", "and no other either"),
        (format!("{rule}class = 3"), 3, "tenants.rules[1].class", "expected a string"),
        (format!("{rule}retry.attempts = 0"), 3, "tenants.rules[1].retry.attempts", "from 1 to 1000"),
        ("[[tenants.rules]]\nmatch = 'a/*'".into(), 2, "tenants.rules[1].match", "is no pattern"),
        ("[[tenants.rules]]\nack = 'stored'".into(), 1, "tenants.rules", "missing field `match`"),
        ("[tenants.rules]\nmatch = 'a'".into(), 1, "tenants.rules", "a list"),
        ("[tenants.classes.gold]\nretry.attempts = 0".into(), 2, "tenants.classes.gold.retry.attempts", "from 1"),
        ("[tenants.classes.gold]\nclass = 'x'".into(), 2, "tenants.classes.gold.class", "there is no key"),
        ("[tenants.classes.'a b']".into(), 1, "tenants.classes.\"a b\"", "the name of a class"),
        (
            "[tenants.classes.gold]\n[tenants.by_id.a]\nclass = 'god'".into(),
            3,
            "tenants.by_id.a.class",
            "did you mean \"gold\"?",
        ),
    ] {
        let why = read(&text).unwrap_err();
        assert_eq!((why.line(), why.key()), (Some(line), Some(key)), "{why}");
        assert!(why.to_string().contains(valid), "{why}");
    }
}

#[test]
fn a_variable_sets_the_class_of_a_tenant() {
    let layers = Layers::default().toml("f", "[tenants.classes.gold]\nretry.attempts = 7");
    let variable = ("HEADWORKS__TENANTS__BY_ID__ACME__CLASS".to_owned(), "gold".to_owned());
    let config = layers.environment([variable]).unwrap().read().unwrap();
    assert_eq!(config.effective_policy(&tenant("acme")).retry.attempts, 7);
}
