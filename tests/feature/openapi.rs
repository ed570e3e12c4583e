//! The description of the API against a real daemon: what it says, and what schemathesis makes of it.

use std::process::{Command, Stdio};

use super::api::{asked, command, started};
use crate::rig::python::environment;
use crate::rig::{Place, lines, send};

/// Of the test's own: another version may find other faults.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

#[test]
fn every_route_that_is_described_is_there_and_no_method_that_is_not() {
    let place = Place::new();
    let (daemon, api, _) = started(&mut command(&place));
    let document = asked(api, "GET", "/openapi.json").json();
    assert_eq!(document, headworks::admin::openapi());
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 15, "{paths:?}");
    for (path, methods) in paths {
        let letter = "0123456789abcdef/acme/1";
        let target = path.replace("{id}", "acme").replace("{order}", "shoot").replace("{letter}", letter);
        // It would go on for ever.
        let target = target.replace("/v1/tap", "/v1/tap?limit=0");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = asked(api, method, &target);
            let is_described = methods.get(method.to_lowercase()).is_some();
            assert_eq!(answer.status != 405, is_described, "{method} {path}: {answer:?}");
            assert!(!answer.body.contains("this is headworks"), "{method} {path}: {answer:?}");
            if !is_described {
                assert!(answer.head.contains("allow: "), "{method} {path}: {answer:?}");
            }
        }
    }
    daemon.terminated().succeeded();
}

/// What never ends cannot be waited for; and which rules fit together, and what names a field, says no schema.
const SETTINGS: &str = r#"
[[operations]]
include-path = "/v1/log"
parameters = { "query.follow" = "false" }
[[operations]]
include-path = "/v1/tap"
parameters = { "query.limit" = "0" }
checks.positive_data_acceptance.enabled = false
[[operations]]
include-path = "/v1/tenants/{id}/events"
parameters = { "query.follow" = "false" }
[[operations]]
include-path = "/v1/tenants/{id}/policy"
include-method = "PATCH"
checks.positive_data_acceptance.enabled = false
"#;

#[test]
fn schemathesis_finds_no_fault() {
    let program = environment(&[SCHEMATHESIS]).join("schemathesis");
    let place = Place::new();
    let (daemon, api, source) = started(&mut command(&place));
    send(source, &[&lines("acme", 0..3)[..], b"no JSON\n", &lines("b", 0..2)].concat());
    place.until("SELECT count(*) FROM events", 5);
    place.write("schemathesis.toml", SETTINGS);
    let mut tested = Command::new("timeout");
    tested.arg("120").arg(program).arg("run").arg(format!("http://{api}/openapi.json"));
    tested.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--seed", "7"]);
    tested.args(["--request-timeout", "30", "--no-color", "--continue-on-failure"]);
    let ended = tested.current_dir(place.path("")).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains("Coverage") && said.contains("Fuzzing"), "{said}");
    assert!(asked(api, "GET", "/readyz").status == 200 || !asked(api, "GET", "/readyz").body.contains("hung"));
    daemon.terminated();
}
