//! `headworks check` looks at the files that the configuration names, and at no more of anything than a configuration has.

use std::os::unix::fs::PermissionsExt;

use crate::rig::{Place, Process};

#[test]
fn a_secret_that_cannot_be_read_is_told_by_check_as_by_run() {
    let place = Place::new();
    let open = place.write("open", "correct-horse-battery-staple\n");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut wrong = vec![
        ("[admin]\ntoken_file = 'none'", "cannot use the token in none (admin.token_file): No such file"),
        ("[admin]\ntoken_file = 'open'", "cannot use the token in open (admin.token_file): its mode is 0644"),
    ];
    if cfg!(feature = "http") {
        let text = "[sources.web]\ntype = 'http'\nlisten = '127.0.0.1:0'\ntokens_file = 'none'";
        wrong.push((text, "cannot use the tokens in none (sources.web.tokens_file): "));
    }
    if cfg!(feature = "postgres") {
        let text = "[stores.pg]\ntype = 'postgres'\nurl = 'postgres://app@db/events'\npassword_file = 'none'";
        wrong.push((text, "cannot use none (stores.pg.password_file): No such file"));
        let text = "[store]\ntype = 'postgres'\nurl = 'postgres://app@db/x'\nsslmode = 'verify_full'\nca_file = 'none'";
        wrong.push((text, "cannot use none (store.ca_file): No such file"));
    }
    if cfg!(feature = "otlp") {
        let text = "[telemetry]\nendpoint = 'http://127.0.0.1:4318'\nheaders_file = 'none'";
        wrong.push((text, "cannot use the headers in none (telemetry.headers_file): No such file"));
    }
    for (text, says) in wrong {
        place.write("my.toml", text);
        let told = place.run(&["check", "-c", "my.toml"]).with(78);
        assert!(told.err.contains(says) && told.out.is_empty(), "{text}: {}", told.err);
    }
    // What is not served needs no token.
    place.write("my.toml", "[admin]\nlisten = ''\ntoken_file = 'none'");
    place.run(&["check", "-c", "my.toml"]).succeeded();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o600)).unwrap();
    place.write("my.toml", "[admin]\ntoken_file = 'open'");
    place.run(&["check", "-c", "my.toml"]).succeeded();
}

#[test]
fn check_and_run_refuse_the_same_secrets_of_sources_and_stores_by_one_rule() {
    let place = Place::new();
    let open = place.write("open", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    place.secret("words", "no base64 at all\n");
    let mqtt =
        "[sources.a]\ntype = 'mqtt'\nurl = 'mqtt://127.0.0.1:1'\ntopic = '{tenant}/#'\nusername = 'x'\npassword_file";
    let nats = "[sources.a]\ntype = 'nats'\nurl = 'nats://127.0.0.1:1'\nstream = 'S'\ncredentials_file";
    let postgres = "[store]\ntype = 'postgres'\nurl = 'postgres://app@127.0.0.1:1/x'\npassword_file";
    let object = "[store]\ntype = 'object'\nurl = 's3://bucket/x'\nendpoint = 'http://127.0.0.1:1'\ncredentials_file";
    let webhook = "[store]\ntype = 'webhook'\nurl = 'http://127.0.0.1:1/x'\nsecret_file";
    let built = [
        (cfg!(feature = "mqtt"), mqtt),
        (cfg!(feature = "nats"), nats),
        (cfg!(feature = "postgres"), postgres),
        (cfg!(feature = "object"), object),
        (cfg!(feature = "webhook"), webhook),
    ];
    for key in built.iter().filter_map(|(is_built, key)| is_built.then_some(*key)) {
        let mut files = vec![("none", "No such file"), ("open", "chmod 600")];
        if key == webhook {
            files.push(("words", "line 1 is not base64"));
        }
        for (file, says) in files {
            place.write("my.toml", format!("[admin]\nlisten = ''\n{key} = '{file}'\n"));
            for words in [&["check", "-c", "my.toml"][..], &["run", "-c", "my.toml", "--data", "data"]] {
                let ended = place.run(words).with(78);
                assert!(ended.err.contains(says), "{words:?} {key} {file}: {}", ended.err);
            }
        }
    }
    if cfg!(feature = "object") {
        let url = format!("file://{}", open.display());
        place.write("my.toml", format!("[admin]\nlisten = ''\n[store]\ntype = 'object'\nurl = '{url}'\n"));
        place.run(&["run", "-c", "my.toml", "--data", "data"]).with(78);
    }
    if cfg!(feature = "webhook") {
        let text = "[admin]\nlisten = ''\n[store]\ntype = 'webhook'\nurl = 'https://127.0.0.1:1/x'\nca_file = 'none'\n";
        place.write("my.toml", text);
        place.run(&["run", "-c", "my.toml", "--data", "data"]).with(78);
    }
}

#[test]
fn a_configuration_without_an_end_is_refused_and_not_read_to_it() {
    let place = Place::new();
    for words in [&["check", "-c", "/dev/zero"][..], &["run", "-c", "/dev/zero", "--data", "data"]] {
        let told = place.run(words).with(78);
        assert!(told.err.contains("/dev/zero") && told.err.contains("more than 64 MiB"), "{}", told.err);
    }
    // One that comes through a pipe is as good as another.
    let mut command = place.command(&["check", "-c", "/dev/stdin"]);
    Process::spawn(&mut command).feed(b"[limits]\nmax_tenants = 7\n").ended().succeeded();
}

#[test]
fn what_is_spilled_must_fit_the_journal_where_a_tenant_is_promised_that_it_is() {
    let place = Place::new();
    let spill = "[tenants.defaults]\noverflow.when_full = 'spill'\noverflow.max_spilled = ";
    place.write("my.toml", format!("[journal]\nmax_bytes = '1GiB'\n{spill}'2GiB'"));
    let told = place.run(&["check", "-c", "my.toml"]).with(78);
    let says = "tenants.defaults.overflow.max_spilled is 2GiB, but must be at most journal.max_bytes, 1GiB";
    assert!(told.err.contains(says), "{}", told.err);
    place.write("my.toml", format!("[journal]\nmax_bytes = '1GiB'\n{spill}'1GiB'"));
    place.run(&["check", "-c", "my.toml"]).succeeded();
}

#[test]
fn an_option_before_the_subcommand_of_tenants_is_told_where_it_goes() {
    let place = Place::new();
    let told = place.run(&["tenants", "-c", "my.toml", "mute", "acme"]).with(2);
    assert!(told.err.contains("goes behind it: `headworks tenants mute acme --config FILE`"), "{}", told.err);
}

#[test]
fn a_rule_of_retention_that_no_store_obeys_is_refused_while_the_daemon_runs_too() {
    let place = Place::new();
    let set = |rule: &str| place.run(&["tenants", "set", "acme", rule, "--data", "data"]);
    if cfg!(feature = "webhook") {
        let mut command = place.daemon();
        command.env("HEADWORKS__STORE__TYPE", "webhook").env("HEADWORKS__STORE__URL", "http://127.0.0.1:1/x");
        let mut daemon = Process::spawn(&mut command);
        daemon.listens();
        let refused = set("retention.max_age=1day").with(1);
        assert!(
            refused.err.contains("its batches go to store, which is of a type that prunes nothing"),
            "{}",
            refused.err
        );
        daemon.terminated().succeeded();
    }
    let mut daemon = Process::spawn(place.daemon().env("HEADWORKS__STORE__TYPE", "files"));
    daemon.listens();
    set("retention.max_age=1day").succeeded();
    set("window.max_age=250ms").succeeded();
    // Dead letters lie in the database, whatever the store is.
    set("retention.dead_letters_max_age=1day").succeeded();
    daemon.terminated().succeeded();
}
