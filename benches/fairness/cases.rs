//! The ways in which one tenant runs mad.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use headworks::{Hooks, OverflowPolicy, Policy, TenantSpec, WhenFull};

use crate::Result;
use crate::load::{BYTES, Cycle, Line, Load, Of, mixed, name};
use crate::sample::Bad;
use crate::shop::{Madness, PANIC, SPECIAL};

/// Tenants, the mad one among them.
pub(crate) const TENANTS: usize = 100;
/// Connections, each with events of all tenants, so that one that is held holds all of them.
const CONNECTIONS: u32 = 4;
/// How many of its shares the mad one sends.
const FLOOD: usize = 50;
const GARBAGE: usize = 10;
/// A million a minute.
const STRANGERS: usize = 84;
/// One large event in so many shares: five times the bytes of all others together.
const LARGE_EVERY: usize = 10;
const LARGE_BYTES: usize = 1_000_000;
/// So little memory that it is full within the warm-up of a run, as the default is after some minutes.
const LITTLE: usize = 64 << 10;

/// What is wrong with the mad tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Its calls of the store never end
    Hang,
    /// The same, with its memory full, and `block`
    HangFull,
    /// The same, with its memory full, and `reject`
    HangFullReject,
    /// The store refuses all it has
    Reject,
    /// Its calls of the store take a hundred times longer
    Slow,
    /// It sends fifty times its share
    Flood,
    /// Its calls of the store panic
    StorePanic,
    /// Its hook panics on every event
    HookPanic,
    /// It sends ten times its share, all garbage
    Garbage,
    /// Its events are of 1 MB
    Large,
    /// A million events a minute, each of a tenant that nobody knows, where no more tenants may become known
    Strangers,
}

impl Case {
    /// For how long, by its own rules, the mad one may hold the connections that it shares.
    pub(crate) fn may_hold(self) -> Duration {
        match self {
            Self::HangFull => OverflowPolicy::default().block_for,
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn madness(self) -> Madness {
        match self {
            Self::Hang | Self::HangFull | Self::HangFullReject => Madness::Hang,
            Self::Reject => Madness::Reject,
            Self::Slow => Madness::Slow,
            Self::StorePanic => Madness::Panic,
            Self::Flood | Self::HookPanic | Self::Garbage | Self::Large | Self::Strangers => Madness::None,
        }
    }

    /// The mad tenant's rules, where they differ from the others'.
    pub(crate) fn spec(self, policy: &Policy) -> Result<TenantSpec> {
        let full = |when_full| {
            let overflow = OverflowPolicy { max_in_flight: LITTLE, when_full, ..policy.overflow.clone() };
            Policy { overflow, ..policy.clone() }
        };
        let spec = TenantSpec::from(name(SPECIAL)?);
        Ok(match self {
            Self::HangFull => spec.policy(full(WhenFull::Block)),
            Self::HangFullReject => spec.policy(full(WhenFull::Reject)),
            Self::HookPanic => spec.hooks(Hooks::new().filter(|_| std::panic::panic_any(PANIC))),
            _ => spec,
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hang => "its store hangs",
            Self::HangFull => "hangs, memory full, block",
            Self::HangFullReject => "hangs, memory full, reject",
            Self::Reject => "its store rejects all",
            Self::Slow => "its store 100 times slower",
            Self::Flood => "sends 50 shares",
            Self::StorePanic => "its store panics",
            Self::HookPanic => "its hook panics",
            Self::Garbage => "sends 10 shares, garbage",
            Self::Large => "sends events of 1 MB",
            Self::Strangers => "a million ids a minute",
        })
    }
}

/// What all tenants send, `rate` events a second of each connection's share; nobody is mad where there is no case.
pub(crate) fn load(rate: u32, case: Option<Case>) -> Result<Load> {
    let mut lines = (0..TENANTS).map(|n| Line::event(n, BYTES)).collect::<Result<Vec<_>>>()?;
    let others: Vec<usize> = (0..TENANTS).filter(|n| *n != SPECIAL).collect();
    let rounds = if case == Some(Case::Large) { LARGE_EVERY } else { 1 };
    let mad: Vec<usize> = match case {
        Some(Case::Flood) => vec![SPECIAL; FLOOD],
        Some(Case::Garbage) => {
            let first = lines.len();
            for bad in Bad::ALL {
                let mut bytes = vec![];
                bad.write(name(SPECIAL)?.as_str().as_bytes(), &mut bytes);
                bytes.push(b'\n');
                lines.push(Line { bytes, of: Of::Nobody });
            }
            (first..lines.len()).cycle().take(GARBAGE).collect()
        }
        Some(Case::Large) => {
            lines[SPECIAL] = Line::event(SPECIAL, LARGE_BYTES)?;
            vec![SPECIAL]
        }
        Some(Case::Strangers) => {
            lines.extend(('a'..).take(CONNECTIONS as usize).map(Line::stranger));
            vec![TENANTS; STRANGERS]
        }
        _ => vec![SPECIAL],
    };
    let order = mixed(&others.repeat(rounds), &mad);
    let every = std::time::Duration::from_secs(1) * CONNECTIONS * TENANTS as u32 * rounds as u32 / rate;
    // Strangers of each connection are its own.
    let own = |line: usize, nth: usize| if lines[line].of == Of::Stranger { line + nth } else { line };
    let connection = |nth| Cycle { order: order.iter().map(|line| own(*line, nth)).collect(), every };
    let connections = (0..CONNECTIONS as usize).map(connection).collect();
    Ok(Load { tenants: TENANTS, connections, lines })
}
