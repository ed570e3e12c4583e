use std::time::Duration;

use axum::Json;
use axum::extract::State;
use headworks_actors::System;

use super::{Admin, Problem, UncompensatedRow};
use crate::audit::{Account, Audit, Books, Frames, Scope, Sources, audit};

/// A difference is told when it is there so many times in a row: between two counters there are moments at which they do
/// not agree, and an audit that cries wolf is none.
const TIMES: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(100);

pub(super) async fn show(State(admin): State<Admin>) -> Result<Json<Audit>, Problem> {
    let mut times = 1;
    loop {
        let audit = once(&admin).await?;
        if audit.holds || times == TIMES {
            return Ok(Json(audit));
        }
        times += 1;
        tokio::time::sleep(BETWEEN).await;
    }
}

/// What is on record: with a durable journal from its first opening on, else from this start on. Of frames as they came
/// there is no other record than the counters of this run.
async fn once(admin: &Admin) -> Result<Audit, Problem> {
    let system = &admin.system;
    let before = Moment::of(system);
    let run = Some(system.opening());
    let (scope, events) = if admin.journal.is_some() { (Scope::Journal, None) } else { (Scope::Run, run) };
    let holdings = admin.read(move |store| store.holdings(events, run)).await?;
    let after = Moment::of(system);
    // A tenant never goes, and may have come meanwhile.
    let mut known = before.tenants.into_iter().peekable();
    let accounts =
        after.tenants.into_iter().map(|(tenant, after)| match known.next_if(|(known, _)| *known == tenant) {
            Some((_, before)) => Account { tenant, before, after },
            None => Account { tenant, before: Books::default(), after },
        });
    let letters_pending = before.letters_pending;
    let waiting = before.waiting.max(after.waiting);
    let sources = Sources { before: before.frames, after: after.frames, letters_pending, waiting };
    let mut audit = audit(scope, Some(accounts.collect()), Some(sources), &holdings);
    let owed: Vec<_> = system.uncompensated().into_iter().map(UncompensatedRow::from).collect();
    audit.unchecked.extend(UncompensatedRow::unchecked(&owed));
    Ok(audit)
}

/// What the counters say now.
struct Moment {
    /// By name.
    tenants: Vec<(headworks_actors::TenantId, Books)>,
    frames: Frames,
    letters_pending: u64,
    waiting: u64,
}

impl Moment {
    fn of(system: &System) -> Self {
        let mut frames = Frames::default();
        for (_, source) in system.sources() {
            let one = Frames::from(&source);
            frames.received += one.received;
            frames.accepted += one.accepted;
            frames.duplicate += one.duplicate;
            frames.muted += one.muted;
            frames.throttled += one.throttled;
            frames.rejected += one.rejected;
            frames.malformed += one.malformed;
        }
        let tenants = system.tenants().iter().map(|now| (now.tenant.clone(), Books::from(now))).collect();
        Self { tenants, frames, letters_pending: system.dead_letters_pending(), waiting: system.frames_waiting() }
    }
}
