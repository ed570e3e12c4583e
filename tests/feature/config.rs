//! What the configuration changes, and what a wrong one does.

use crate::rig::{Place, Process, lines, sorted};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/headworks.example.toml");

#[test]
fn a_wrong_configuration_ends_with_78_names_file_line_and_key_and_leaves_nothing_behind() {
    let place = Place::new();
    place.write("my.toml", "[daemon]\ndata_dir = \"data\"\ndrain_deadlin = \"1s\"\n");
    for command in ["run", "check"] {
        let ended = place.run(&[command, "--config", "my.toml"]).with(78);
        assert!(ended.err.contains("my.toml:3:1: daemon.drain_deadlin: "), "{}", ended.err);
        assert!(ended.err.contains("did you mean \"drain_deadline\"?"), "{}", ended.err);
        assert!(ended.out.is_empty());
    }
    assert!(!place.data().exists());
}

#[test]
fn the_example_is_valid_and_says_what_it_means() {
    let place = Place::new();
    let text = place.run(&["check", "--config", EXAMPLE]).succeeded().text();
    assert!(text.contains("headworks.example.toml is valid."), "{text}");
    let effective = place.json(&["check", "--config", EXAMPLE, "--json"]);
    assert_eq!(effective["tenants"]["by_id"]["example.bulk"]["window"]["max_events"], 10_000);
}

/// Each fenced piece of TOML on the pages is a configuration of its own.
#[cfg(all(
    feature = "mqtt",
    feature = "nats",
    feature = "parquet",
    feature = "postgres",
    feature = "syslog",
    feature = "tls",
    feature = "webhook",
    feature = "websocket"
))]
#[test]
fn every_configuration_that_the_pages_show_is_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain([root.join("README.md")]).filter(|page| page.extension().is_some_and(|is| is == "md"));
    let mut shown = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for piece in text.split("```toml\n").skip(1) {
            let piece = piece.split("```").next().unwrap();
            // How a program has the crate is not for the daemon.
            if piece.contains("[dependencies]") {
                continue;
            }
            let read = headworks::config::Layers::default().toml(&page, piece).read();
            assert!(read.is_ok(), "{}: {}\n{piece}", page.display(), read.unwrap_err());
            shown += 1;
        }
    }
    assert!(shown >= 10, "the pages show {shown} pieces of configuration");
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let place = Place::new();
    place.write("my.toml", "[daemon]\ndata_dir = \"from-file\"\n[tenants.defaults]\nwindow.max_events = 7\n");
    place.write("input", lines("acme", 0..20));
    let words = ["run", "--config", "my.toml", "--input", "input"];
    for (variable, flag, expected) in [
        (None, None, "from-file"),
        (Some("from-env"), None, "from-env"),
        (Some("from-env-too"), Some("from-flag"), "from-flag"),
    ] {
        let mut command = place.command(&words);
        variable.map(|data| command.env("HEADWORKS__DAEMON__DATA_DIR", data));
        flag.map(|data| command.args(["--data", data]));
        Process::spawn(&mut command).ended().succeeded();
        let tenants = place.json(&["tenants", "--data", expected, "--json"]);
        assert_eq!((&tenants[0]["events"], &tenants[0]["batches"]), (&20.into(), &3.into()), "{expected}");
    }
    assert!(!place.path("from-env-too").exists());
}

#[test]
fn a_variable_that_looks_like_ours_but_is_not_is_refused() {
    let place = Place::new();
    for (name, says) in [
        ("HEADWORKS_DATA_DIR", "did you mean HEADWORKS__DAEMON__DATA_DIR?"),
        ("HEADWORKS__DAEMON__DATADIR", "there is no key"),
    ] {
        let ended = Process::spawn(place.daemon().env(name, "x")).ended().with(78);
        assert!(ended.err.contains(name) && ended.err.contains(says), "{}", ended.err);
    }
    assert!(!place.data().exists());
}

#[test]
fn a_listener_that_other_machines_can_reach_must_be_asked_for_in_words() {
    let place = Place::new();
    let open = || {
        let mut command = place.command(&["check"]);
        command.env("HEADWORKS__SOURCES__TCP__LISTEN", "0.0.0.0:0");
        command
    };
    let refused = Process::spawn(place.daemon().env("HEADWORKS__SOURCES__TCP__LISTEN", "0.0.0.0:0")).ended().with(78);
    assert!(refused.err.contains("set sources.tcp.allow_beyond_loopback = true"), "{}", refused.err);
    Process::spawn(&mut open()).ended().with(78);
    let mut allowed = open();
    let text = Process::spawn(allowed.env("HEADWORKS__SOURCES__TCP__ALLOW_BEYOND_LOOPBACK", "true")).ended();
    assert!(text.succeeded().text().contains("other machines can reach it"));
}

#[test]
fn muted_tenants_are_dropped_and_counted_and_a_tenants_own_window_applies() {
    let place = Place::new();
    let config = "[tenants]\nmute = ['spam']\n[tenants.by_id.small]\nwindow.max_events = 10\n";
    place.write("my.toml", config);
    place.write("input", [lines("small", 0..95), lines("spam", 0..30), lines("usual", 0..95)].concat());
    let summary = place.json(&["run", "--config", "my.toml", "--data", "data", "--input", "input", "--json"]);
    assert_eq!(place.stored(), sorted(&[lines("small", 0..95), lines("usual", 0..95)].concat()).0);

    let sizes = |tenant: &str| {
        let sql = format!(
            "SELECT group_concat(events) FROM (SELECT events FROM batches WHERE tenant = '{tenant}' ORDER BY seq)"
        );
        place.database().query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    assert_eq!(sizes("small"), "10,10,10,10,10,10,10,10,10,5");
    assert_eq!(sizes("usual"), "95");

    assert_eq!(summary["source"]["muted"], 30);
    let spam = summary["tenants"].as_array().unwrap().iter().find(|tenant| tenant["tenant"] == "spam").unwrap();
    assert_eq!((&spam["received"], &spam["accepted"], &spam["stored"]), (&30.into(), &0.into(), &0.into()));
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
}

#[test]
fn tenant_and_time_are_found_under_the_fields_of_the_configuration() {
    let place = Place::new();
    place.write("my.toml", "[decoder]\ntenant_field = 'room'\ntime_field = 'at'\n");
    place.write("input", "{\"room\":\"lobby\",\"at\":1732233600007}\n{\"tenant\":\"lobby\"}\n");
    place.run(&["run", "--config", "my.toml", "--data", "data", "--input", "input"]).succeeded();
    assert_eq!(place.number("SELECT event_time FROM events"), 1_732_233_600_007);
    assert_eq!(place.number("SELECT count(*) FROM dead_letters WHERE reason = 'no_tenant'"), 1);
}

const LEVELS: &str = "\
[daemon]
data_dir = 'data'
[tenants.classes.gold]
retry.attempts = 9
[[tenants.rules]]
match = 'acme-*'
class = 'gold'
window.max_age = '2s'
[tenants.by_id.acme-us]
ack = 'stored'
";

#[test]
fn check_says_what_a_tenant_would_get_and_where_each_value_comes_from() {
    let place = Place::new();
    place.write("my.toml", LEVELS);
    let mut command = place.command(&["check", "--config", "my.toml", "--tenant", "acme-us"]);
    command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "7");
    let told = Process::spawn(&mut command).ended().succeeded().text();
    for line in [
        "Tenant acme-us by this configuration:",
        "  known   by this configuration, which names it",
        "  rule    the 1st of them, match = \"acme-*\", my.toml:5",
        "  class   gold, my.toml:7",
        "  stores  store",
    ] {
        assert!(told.lines().any(|told| told == line), "{line:?} is not in:\n{told}");
    }
    let words: Vec<_> = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "ack \"stored\" its own, my.toml:10",
        "retry.attempts 9 class, my.toml:4",
        "retry.base \"200ms\" built in",
        "window.max_age \"2s\" rule, my.toml:8",
        "window.max_events 7 defaults, HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_EVENTS",
    ] {
        assert!(words.iter().any(|told| told == line), "{line:?} is not in:\n{told}");
    }
    let told = place.json(&["check", "--config", "my.toml", "--tenant", "acme-eu", "--json"]);
    let origin = told["settings"].as_array().unwrap().iter().find(|origin| origin["key"] == "window.max_age").unwrap();
    assert_eq!(
        (&origin["value"], &origin["from"], &origin["place"]),
        (&"2s".into(), &"rule".into(), &"my.toml:8".into())
    );
    assert_eq!((&told["is_named"], &told["class"]["name"]), (&false.into(), &"gold".into()));
    place.run(&["check", "--tenant", "../etc"]).with(2);
}

#[test]
fn check_says_in_what_the_running_daemon_differs_and_what_was_set_by_hand() {
    let place = Place::new();
    place.write("my.toml", LEVELS);
    let check = |file: &str| place.run(&["check", "--config", file]).succeeded().text();
    assert!(!check("my.toml").contains("The running daemon"));
    assert!(!place.data().exists(), "nothing is made");
    let mut command = place.command(&["run", "--config", "my.toml"]);
    command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:0");
    command.env("HEADWORKS__ADMIN__LISTEN", "");
    let mut daemon = Process::spawn(&mut command);
    daemon.listens();
    place.run(&["tenants", "set", "acme-eu", "window.max_age=5s", "--data", "data"]).succeeded();
    place.write("other.toml", LEVELS.replace("attempts = 9", "attempts = 8"));
    let told = check("other.toml");
    let (_, running) = told.split_once("\nThe running daemon\n").unwrap();
    for line in [
        "  differs  log.format = \"human\", was \"json\"",
        "  differs  sources.tcp.listen = \"127.0.0.1:7400\", was \"127.0.0.1:0\"",
        "  differs  tenants.classes.gold.retry.attempts = 8, was 9",
        "  by hand  tenant acme-eu: window.max_age = \"5s\", was \"2s\", until its end",
    ] {
        assert!(running.lines().any(|told| told == line), "{line:?} is not in:\n{running}");
    }
    daemon.terminated().succeeded();
}

#[test]
fn the_schema_and_the_reference_are_printed() {
    let place = Place::new();
    let schema = place.json(&["config", "schema"]);
    assert_eq!(schema["properties"]["tenants"]["properties"]["rules"]["items"]["required"][0], "match");
    assert_eq!(schema["properties"]["log"]["properties"]["level"]["default"], "info");
    let page = place.run(&["config", "reference"]).succeeded().text();
    assert!(page.contains("| `max_events` | whole number | 1 to 1000000 | `500` | R | At so many events."), "{page}");
}
