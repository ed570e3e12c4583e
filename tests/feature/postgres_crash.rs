//! The daemon is killed at its fault points and at any moment, with its store on PostgreSQL: see `crash_acks`.

use super::crash_acks::{MORE_POINTS, POINTS, assert_told, daemon, killed};
use crate::rig::Place;
use crate::rig::crash::Daemon;
use crate::rig::postgres::Postgres;

fn on<'p>(daemon: Daemon<'p>, postgres: &Postgres, store: &str) -> Daemon<'p> {
    daemon.with(&format!("{store}.type"), "postgres").with(&format!("{store}.url"), &postgres.url())
}

#[test]
fn killed_a_hundred_times_over_postgresql_all_that_was_acknowledged_is_stored_once_and_the_audit_says_what_is_taken_away()
 {
    let (place, postgres) = (Place::new(), Postgres::start());
    let run = killed(&place, "postgres", on(daemon(&place, "sqlite"), &postgres, "store"), &POINTS);
    assert_eq!((run.acknowledged, run.stored), (run.events, run.events));
    assert_eq!(place.number("SELECT count(*) FROM batches"), 0);
    postgres.ask(
        "DELETE FROM headworks.events WHERE (batch, idx) IN (SELECT batch, idx FROM headworks.events WHERE tenant = 'stored-zen' LIMIT 3)",
    );
    assert_told(
        &place,
        "\nstored-zen: the store holds 3 events fewer than the journal says were stored: 3 rows were deleted from its \
         batches (",
    );
}

#[test]
fn killed_a_hundred_times_over_sqlite_and_postgresql_both_hold_the_same_and_what_one_refuses_is_in_neither() {
    let (place, postgres) = (Place::new(), Postgres::start());
    let daemon = on(daemon(&place, "sqlite"), &postgres, "stores.pg")
        .with("tenants.stores", "['store', 'pg']")
        .with("tenants.defaults.overflow.max_in_flight", "64KiB")
        .with("daemon.drain_deadline", "2m");
    let (first, _) = daemon.start();
    first.terminated().succeeded();
    postgres.ask("ALTER TABLE headworks.events ADD CHECK ((body::jsonb ->> 'n')::int % 211 <> 7)");
    let points: Vec<_> = POINTS.into_iter().chain(MORE_POINTS).collect();
    let run = killed(&place, "sqlite, then postgres", daemon, &points);
    assert_eq!((run.acknowledged, run.stored + run.dead.len() as u64), (run.events, run.events));
    assert!(!run.dead.is_empty());
    for (tenant, bodies) in place.stored() {
        let text: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body)).collect();
        let all = format!("SELECT body FROM headworks.events WHERE tenant = '{tenant}' ORDER BY batch, idx");
        assert!(postgres.ask(&all) == text.join("\n"), "of {tenant} the two hold the same");
    }
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), run.stored.to_string());
}
