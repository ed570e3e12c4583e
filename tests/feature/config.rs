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
