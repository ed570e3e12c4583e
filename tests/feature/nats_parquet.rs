//! From a NATS JetStream to Parquet, which a tool reads that is not ours.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::rig::nats::Nats;
use crate::rig::s3::objects;
use crate::rig::{DEADLINE, Place, Process, python};

/// The numbers of each tenant, in the order that the columns say.
const READ: &str = "
import duckdb, json, sys
rows = f\"read_parquet('{sys.argv[1]}/*/*/*.parquet')\"
print(json.dumps(dict(duckdb.sql(f'SELECT tenant, list(n ORDER BY seq, idx) FROM {rows} GROUP BY tenant').fetchall())))
";

fn start(place: &Place, nats: &Nats) -> Process {
    let lake = format!("file://{}", place.path("lake").display());
    let mut command = place.daemon();
    command.env_remove("HEADWORKS__SOURCES__TCP__LISTEN");
    for (key, value) in [
        ("SOURCES__BUS__TYPE", "nats"),
        ("SOURCES__BUS__URL", &nats.url()),
        ("SOURCES__BUS__STREAM", "EVENTS"),
        ("SOURCES__BUS__SUBJECT", "events.{tenant}.>"),
        ("SOURCES__BUS__ACK", "stored"),
        ("SOURCES__BUS__ACK_WAIT", "2s"),
        ("SOURCES__BUS__MAX_ACK_PENDING", "400"),
        ("STORE__TYPE", "object"),
        ("STORE__URL", &lake),
        ("STORE__FORMAT", "parquet"),
        ("STORE__COLUMNS", "['n:integer']"),
        ("TENANTS__DEFAULTS__WINDOW__MAX_EVENTS", "50"),
        ("TENANTS__DEFAULTS__WINDOW__MAX_AGE", "100ms"),
    ] {
        command.env(format!("HEADWORKS__{key}"), value);
    }
    Process::spawn(&mut command)
}

#[test]
fn messages_of_several_tenants_are_in_parquet_once_and_in_order_though_the_daemon_is_killed_among_them() {
    const MESSAGES: u64 = 6000;
    const TENANTS: u64 = 4;
    let (place, nats) = (Place::new(), Nats::start());
    nats.run("make", &["EVENTS", "events.>"]);
    let subjects = (0..TENANTS).map(|n| format!("events.t{n}.x")).collect::<Vec<_>>().join(",");
    let publish = |from: u64, to: u64| nats.client("publish", &[&subjects, &from.to_string(), &to.to_string()]);

    let process = start(&place, &nats);
    let client = publish(0, MESSAGES / 2);
    let began = Instant::now();
    // With some of them in their objects, some in the journal and some not delivered yet.
    while objects(&place.path("lake")).keys().filter(|key| key.ends_with(".parquet")).count() < 12 {
        assert!(began.elapsed() < DEADLINE, "nothing is stored");
        std::thread::sleep(Duration::from_millis(5));
    }
    process.kill();
    client.ended().succeeded();
    let client = publish(MESSAGES / 2, MESSAGES);
    let process = start(&place, &nats);
    client.ended().succeeded();
    // Each is acknowledged once it is stored.
    nats.until("floor", usize::try_from(MESSAGES).unwrap());
    process.terminated().succeeded();

    let python = python::environment(&["duckdb==1.4.2", "pytz==2025.2"]).join("python");
    let ended = Command::new(python).args(["-c", READ]).arg(place.path("lake")).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let found: BTreeMap<String, Vec<u64>> = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(found.len() as u64, TENANTS);
    for tenant in 0..TENANTS {
        let (found, expected) = (&found[&format!("t{tenant}")], (tenant..MESSAGES).step_by(4).collect::<Vec<_>>());
        let differ = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert!(
            *found == expected,
            "t{tenant}: {} of {}, the first that differs: {differ:?}",
            found.len(),
            expected.len()
        );
    }
}
