//! The daemon is killed at its fault points and at any moment, with its store in objects: see `crash_acks`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use headworks::store::{ObjectOptions, ObjectReader};

use super::crash_acks::{MORE_POINTS, POINTS, assert_told, daemon, killed};
use crate::rig::crash::Daemon;
use crate::rig::s3::objects;
use crate::rig::sender::POISON;
use crate::rig::{Bodies, Place};

fn url(place: &Place) -> String {
    format!("file://{}", place.path("objects").display())
}

fn on<'p>(daemon: Daemon<'p>, place: &Place, store: &str) -> Daemon<'p> {
    daemon.with(&format!("{store}.type"), "object").with(&format!("{store}.url"), &url(place))
}

/// What is in the objects, counted past the store: how many lines of each tenant.
fn counted(place: &Place) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::<_, usize>::new();
    for (key, bytes) in objects(&place.path("objects")) {
        let tenant = key.split('/').next().unwrap().to_owned();
        let text = zstd::stream::decode_all(&*bytes).unwrap();
        *lines.entry(tenant).or_default() += text.iter().filter(|byte| **byte == b'\n').count();
    }
    lines.retain(|_, lines| *lines > 0);
    lines
}

fn numbers(stored: &Bodies) -> BTreeMap<String, usize> {
    stored.iter().map(|(tenant, bodies)| (tenant.clone(), bodies.len())).collect()
}

#[test]
fn killed_a_hundred_times_over_objects_all_that_was_acknowledged_is_stored_once_and_the_audit_says_what_is_taken_away()
{
    let place = Place::new();
    let run = killed(&place, "object", on(daemon(&place, "sqlite"), &place, "store"), &POINTS);
    assert_eq!((run.acknowledged, run.stored), (run.events, run.events));
    assert_eq!(place.number("SELECT count(*) FROM batches"), 0);
    assert_eq!(counted(&place).values().sum::<usize>() as u64, run.events);
    let key = objects(&place.path("objects")).into_keys().find(|key| key.starts_with("stored-zen/")).unwrap();
    std::fs::remove_file(place.path("objects").join(key)).unwrap();
    assert_told(&place, "\nstored-zen: the store holds ");
}

#[test]
fn killed_a_hundred_times_over_objects_that_are_put_together_and_sqlite_both_hold_the_same_and_others_find_each_event_once()
 {
    let place = Place::new();
    let daemon = on(daemon(&place, "sqlite"), &place, "stores.objects")
        .with("stores.objects.compact_after", "1s")
        .with("stores.objects.compact_bytes", "4KiB")
        .with("tenants.stores", "['objects', 'store']")
        .with("tenants.defaults.overflow.max_in_flight", "64KiB")
        .with("daemon.drain_deadline", "2m");
    let (first, _) = daemon.start();
    first.terminated().succeeded();
    place.database().execute_batch(POISON).unwrap();
    let points: Vec<_> = POINTS.into_iter().chain(MORE_POINTS).collect();
    let run = killed(&place, "objects put together, then sqlite", daemon, &points);
    assert_eq!((run.acknowledged, run.stored + run.dead.len() as u64), (run.events, run.events));
    let stored = place.stored();
    let mut options = ObjectOptions::at(url(&place));
    options.compact_after = Some(Duration::from_secs(1));
    let reader = ObjectReader::new(options).unwrap();
    for (tenant, bodies) in &stored {
        assert!(reader.bodies(&tenant.parse().unwrap()).unwrap() == *bodies, "of {tenant} the two hold the same");
    }
    // At the stop nothing was left waiting.
    assert_eq!(counted(&place), numbers(&stored));
    let batches = place.number("SELECT count(*) FROM batches") as usize;
    let many = objects(&place.path("objects")).len();
    eprintln!("{batches} batches in {many} objects");
    assert!(many < batches);
}

#[test]
fn killed_a_hundred_times_over_objects_and_sqlite_both_hold_the_same_and_what_one_refuses_is_in_neither() {
    let place = Place::new();
    let daemon = on(daemon(&place, "sqlite"), &place, "stores.objects")
        .with("tenants.stores", "['objects', 'store']")
        .with("tenants.defaults.overflow.max_in_flight", "64KiB")
        .with("daemon.drain_deadline", "2m");
    let (first, _) = daemon.start();
    first.terminated().succeeded();
    place.database().execute_batch(POISON).unwrap();
    let points: Vec<_> = POINTS.into_iter().chain(MORE_POINTS).collect();
    let run = killed(&place, "objects, then sqlite", daemon, &points);
    assert_eq!((run.acknowledged, run.stored + run.dead.len() as u64), (run.events, run.events));
    assert!(!run.dead.is_empty());
    let stored = place.stored();
    let reader = ObjectReader::new(ObjectOptions::at(url(&place))).unwrap();
    for (tenant, bodies) in &stored {
        assert!(reader.bodies(&tenant.parse().unwrap()).unwrap() == *bodies, "of {tenant} the two hold the same");
    }
    assert_eq!(counted(&place), numbers(&stored));
}
