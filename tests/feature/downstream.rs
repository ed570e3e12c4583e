//! Silences and heartbeats that the daemon's configuration has become events of the tenant, in its store.

use serde_json::Value;

use crate::rig::{Place, Process, metric, send};

const CONFIG: &str = "
[decoder]
tenant_field = 'device'
[tenants.by_id.acme]
window.max_age = '50ms'
silence.after = '300ms'
silence.downstream = true
heartbeat.every = '200ms'
heartbeat.downstream_every = '1s'
";

fn told(what: &str) -> String {
    format!("SELECT count(*) FROM events WHERE tenant = 'acme' AND body ->> 'headworks' = '{what}'")
}

#[test]
fn what_is_known_of_a_sender_is_stored_in_its_stream_over_a_kill_and_every_sum_holds() {
    let place = Place::new();
    place.write("my.toml", CONFIG);
    let mut command = place.command(&["run", "--config", "my.toml", "--data", "data"]);
    command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__SOURCES__TCP__LISTEN", "127.0.0.1:0");
    command.env("HEADWORKS__ADMIN__LISTEN", "");
    let event = b"{\"device\":\"acme\",\"n\":1}\n";

    let mut daemon = Process::spawn(&mut command);
    send(daemon.listens(), event);
    place.until(&told("silent"), 1);
    place.until(&told("heartbeat"), 2);
    daemon.kill();
    place.run(&["audit", "--data", "data"]).succeeded();

    let mut daemon = Process::spawn(&mut command);
    let address = daemon.listens();
    // It is named, so it is expected.
    place.until(&told("silent"), 2);
    send(address, event);
    place.until(&told("heard"), 1);
    let audit = place.json(&["audit", "--data", "data", "--json"]);
    assert_eq!((&audit["holds"], &audit["differences"]), (&true.into(), &Value::Array(vec![])), "{audit}");
    assert!(metric(&place, "headworks_source_accepted_total{source=\"headworks\"}") >= 2);
    assert_eq!(metric(&place, "headworks_source_accepted_total{source=\"tcp\"}"), 1);
    daemon.terminated().succeeded();
    place.run(&["audit", "--data", "data"]).succeeded();

    let printed = place.run(&["query", "acme", "--data", "data"]).succeeded().text();
    let bodies: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(bodies.iter().filter(|body| body.get("headworks").is_none()).count(), 2, "the sender's own");
    for body in bodies.iter().filter(|body| body["headworks"] == "silent") {
        assert_eq!((&body["device"], &body["expected_within_ms"]), (&"acme".into(), &300.into()));
        assert!(body["silent_for_ms"].as_u64().unwrap() >= 300 && body["at"].is_string(), "{body}");
    }
}
