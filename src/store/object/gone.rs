//! What is gone of a tenant on purpose: one object that says so, from when on it is so.
//!
//! ```text
//! _headworks/gone/acme.json     of each opening: up to which batch all are gone, and how many events went
//! ```
//!
//! Whoever lets batches go *first* writes here up to which one, with the number of their events, *if that is still as it was seen*, and
//! *then* deletes their objects; whoever counts reads the objects first, and this last, and counts nothing of what is gone by its word. So
//! each event is counted once, whatever dies in between, and an object that is left there, or that a request brings there late, is none:
//! whoever finds it takes it away. For that what goes is always the oldest of an opening, without a gap.

use std::collections::BTreeMap;

use bytes::Bytes;
use headworks_actors::{BatchId, Opening, TenantId};
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::key::{OWN, Place, parse_place, place_text};
use super::link::{Link, Seen};
use super::write::{conflict, damaged};

const VERSION: u32 = 1;

/// Why it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Pruned,
    Erased,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Gone {
    openings: BTreeMap<Opening, Of>,
}

/// What went of an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Of {
    /// All up to this one are gone.
    upto: Option<Place>,
    pruned: u64,
    erased: u64,
    /// All up to this one are to be erased.
    erasing: Option<Place>,
}

/// As it is there.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    version: u32,
    openings: BTreeMap<String, WrittenOf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenOf {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upto: Option<String>,
    #[serde(default)]
    pruned: u64,
    #[serde(default)]
    erased: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    erasing: Option<String>,
}

/// The folder of all of them.
pub(super) fn folder() -> String {
    format!("{OWN}/gone")
}

pub(super) fn key(tenant: &TenantId) -> String {
    format!("{}/{tenant}.json", folder())
}

/// Whose it is.
pub(super) fn tenant_of(key: &str) -> Option<TenantId> {
    TenantId::new(key.strip_prefix(&folder())?.strip_prefix('/')?.strip_suffix(".json")?).ok()
}

impl Gone {
    pub(super) fn has(&self, batch: &BatchId) -> bool {
        self.is_upto(batch.opening, batch.place())
    }

    /// Whether all up to there are gone.
    pub(super) fn is_upto(&self, opening: Opening, place: Place) -> bool {
        self.openings.get(&opening).is_some_and(|of| Some(place) <= of.upto)
    }

    /// Whether it is to be erased.
    pub(super) fn is_erasing(&self, batch: &BatchId) -> bool {
        self.openings.get(&batch.opening).is_some_and(|of| Some(batch.place()) <= of.erasing)
    }

    /// What is to be erased: of each opening up to which place.
    pub(super) fn erasing(&self) -> BTreeMap<Opening, Place> {
        self.openings.iter().filter_map(|(opening, of)| Some((*opening, of.erasing?))).collect()
    }

    /// How many events went, of one opening or of all: pruned, and erased.
    pub(super) fn events(&self, of: Option<Opening>) -> (u64, u64) {
        let all = self.openings.iter().filter(|(opening, _)| of.is_none_or(|of| of == **opening));
        all.fold((0, 0), |(pruned, erased), (_, of)| (pruned + of.pruned, erased + of.erased))
    }

    pub(super) fn take(&mut self, opening: Opening, upto: Place, events: u64, why: Why) {
        let of = self.openings.entry(opening).or_default();
        of.upto = of.upto.max(Some(upto));
        match why {
            Why::Pruned => of.pruned += events,
            Why::Erased => of.erased += events,
        }
    }

    pub(super) fn begin_erasing(&mut self, opening: Opening, upto: Place) {
        let of = self.openings.entry(opening).or_default();
        of.erasing = of.erasing.max(Some(upto));
    }

    pub(super) fn end_erasing(&mut self) {
        self.openings.values_mut().for_each(|of| of.erasing = None);
        self.openings.retain(|_, of| *of != Of::default());
    }

    fn written(&self) -> Result<Bytes, Failure> {
        let text = |place: Option<Place>| place.map(place_text);
        let of = |(opening, of): (&Opening, &Of)| {
            let Of { upto, pruned, erased, erasing } = *of;
            (opening.to_string(), WrittenOf { upto: text(upto), pruned, erased, erasing: text(erasing) })
        };
        let written = Written { version: VERSION, openings: self.openings.iter().map(of).collect() };
        serde_json::to_vec(&written).map(Bytes::from).map_err(|why| Failure::Unfit(why.to_string()))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
        if written.version > VERSION {
            return Err(format!(
                "it has version {}, and this headworks knows {VERSION} only; run the newer one",
                written.version
            ));
        }
        let place = |text: Option<String>| match text {
            Some(text) => parse_place(&text).map(Some).ok_or_else(|| format!("{text:?} is no batch")),
            None => Ok(None),
        };
        let mut gone = Self::default();
        for (opening, WrittenOf { upto, pruned, erased, erasing }) in written.openings {
            let id: BatchId = format!("{opening}/a/0").parse().map_err(|why| format!("{opening:?}: {why}"))?;
            gone.openings.insert(id.opening, Of { upto: place(upto)?, pruned, erased, erasing: place(erasing)? });
        }
        Ok(gone)
    }
}

/// What is gone of a tenant, and what there was to say so.
pub(super) async fn of(link: &Link, tenant: &TenantId) -> Result<(Gone, Option<Seen>), Failure> {
    let key = key(tenant);
    let Some(seen) = link.look(&key).await? else { return Ok((Gone::default(), None)) };
    let gone = Gone::parse(&seen.bytes).map_err(|why| damaged(&key, &why))?;
    Ok((gone, Some(seen)))
}

/// What is gone of all tenants.
pub(super) async fn of_all(link: &Link) -> Result<BTreeMap<TenantId, Gone>, Failure> {
    let mut all = BTreeMap::new();
    for (key, _) in link.list(&folder()).await? {
        if let Some(tenant) = tenant_of(&key) {
            all.insert(tenant.clone(), of(link, &tenant).await?.0);
        }
    }
    Ok(all)
}

/// Says what is gone, if nobody else has said something since.
pub(super) async fn write(link: &Link, tenant: &TenantId, seen: Option<Seen>, gone: &Gone) -> Result<(), Failure> {
    let (key, bytes) = (key(tenant), gone.written()?);
    let is_done = match seen {
        Some(seen) => link.replace_seen(&key, seen, bytes).await?,
        None => link.create(&key, bytes).await?,
    };
    if is_done { Ok(()) } else { Err(conflict(&key)) }
}

#[cfg(test)]
mod tests {
    use headworks_actors::{Piece, Seq};

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_says_what_is_gone() {
        let place = |seq| (Seq(seq), Piece::WHOLE);
        let id = |seq| BatchId::new(Opening(7), TenantId::new("acme").unwrap(), Seq(seq));
        let mut gone = Gone::default();
        gone.take(Opening(7), place(3), 10, Why::Pruned);
        gone.take(Opening(7), place(5), 2, Why::Erased);
        gone.take(Opening(u64::MAX), (Seq(1), Piece::of_number(3).unwrap()), 1, Why::Pruned);
        gone.begin_erasing(Opening(7), place(9));
        assert_eq!(Gone::parse(&gone.written().unwrap()).unwrap(), gone);
        assert_eq!((gone.events(None), gone.events(Some(Opening(7)))), ((11, 2), (10, 2)));
        assert_eq!([5, 6].map(|seq| gone.has(&id(seq))), [true, false]);
        assert_eq!([9, 10].map(|seq| gone.is_erasing(&id(seq))), [true, false]);
        gone.end_erasing();
        assert!(gone.erasing().is_empty() && gone.has(&id(5)) && !gone.is_upto(Opening(8), place(0)));
        assert!(Gone::parse(b"{\"version\":2,\"openings\":{}}").unwrap_err().contains("run the newer one"));
    }

    #[test]
    fn each_tenant_has_one_of_a_name_of_its_own() {
        let tenant = TenantId::new("a.json").unwrap();
        assert_eq!(key(&tenant), "_headworks/gone/a.json.json");
        assert_eq!(tenant_of(&key(&tenant)), Some(tenant));
        assert_eq!(tenant_of("_headworks/pages/a.json"), None);
    }
}
