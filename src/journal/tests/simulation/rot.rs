//! The same lives on a disk that rots: while the machine is off, a chunk is damaged whose events the store has. Its batch may
//! still count as open, and cannot come again as it was. Events may be lost then, and are told to be; but the store must not
//! have one twice, nor one that is a dead letter too.

use std::collections::BTreeSet;
use std::io;

use super::*;

/// How long a life goes on without faults, in steps.
pub(super) const CALM: u64 = 600;

/// The most that one read brings.
pub(super) const READ: u64 = 8;

/// Damages a chunk with an event that is in the store.
///
/// In a segment that is not the last: of that one, nobody could tell its damage from a write that the loss of power tore. And in a
/// read that is acknowledged whole: with a read its mark is lost, and the sender would send again what it has no answer for.
pub(super) fn damage(world: &Arc<World>) {
    let acked = 1..world.next().saturating_sub(READ);
    let stored: Vec<String> = acked.filter(|at| is_stored(&world.store, *at)).map(line).collect();
    if stored.is_empty() || !world.chance(0.9) {
        return;
    }
    let body = &stored[world.draw(stored.len() as u64) as usize];
    match flip(&SimDisk(world.clone()), body.as_bytes()) {
        Ok(0) => {}
        Ok(times) => world.say(|| format!("{body} is damaged in {times} places")),
        Err(why) => panic!("a simulated disk must be readable while nobody uses it: {why}"),
    }
}

/// Changes a bit of each copy of the event.
fn flip(disk: &SimDisk, body: &[u8]) -> io::Result<usize> {
    let Ok(mut files) = disk.list() else { return Ok(0) };
    files.retain(|(name, _)| name.ends_with(".segment"));
    files.sort();
    files.pop();
    let mut times = 0;
    for (name, len) in files {
        let file = fs::OpenOptions::new().read(true).write(true).open(SimDisk::path(&name))?;
        let mut bytes = vec![0; len as usize];
        let len = file.read_at(&mut bytes, 0)?;
        let found: Vec<usize> = memchr::memmem::find_iter(&bytes[..len], body).collect();
        for at in found {
            file.write_at(&[bytes[at] ^ 1], at as u64)?;
            times += 1;
        }
        file.sync_all()?;
    }
    Ok(times)
}

/// No event is in the store twice, or in the store and among the dead letters.
pub(super) fn check(world: &World) -> Result<(), String> {
    let mut stored = BTreeSet::new();
    for name in TENANTS {
        for body in world.store.bodies(&TenantId::new(name).unwrap()) {
            let body = String::from_utf8_lossy(&body).into_owned();
            if !stored.insert(body.clone()) {
                return Err(format!("{body} is in the store twice"));
            }
        }
    }
    let letters = world.letters.all();
    world.say(|| dead_letters(letters.len()));
    let given_up = letters.iter().map(|letter| String::from_utf8_lossy(&letter.body));
    match given_up.into_iter().find(|body| stored.contains(&**body)) {
        Some(body) => Err(format!("{body} is in the store, and a dead letter")),
        None => Ok(()),
    }
}

fn dead_letters(count: usize) -> String {
    format!("{count} dead letters")
}

fn rot(seed: u64) -> Result<Life, String> {
    live_on(seed, true)
}

#[test]
fn what_the_store_may_have_of_a_damaged_batch_is_taken_back_before_the_rest_is_given_up() {
    let seeds = number("HEADWORKS_SIMULATION_SEEDS").unwrap_or(1_000);
    let (mut damaged, mut given_up) = (0, 0);
    for seed in 0..seeds {
        let life = rot(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        damaged += life.trace.iter().filter(|said| said.contains("is damaged in")).count();
        given_up += usize::from(!life.trace.contains(&dead_letters(0)));
    }
    eprintln!("{seeds} seeds, {damaged} chunks damaged, in {given_up} of the lives a batch given up, 0 violations");
    assert!(given_up > 0, "no batch that was tried lost events: that is nothing to look at");
}

#[test]
fn it_notices_a_journal_that_skips_the_intent() {
    assert!(noticed_in(rot, Step::Intent, 1_000).is_some());
}
