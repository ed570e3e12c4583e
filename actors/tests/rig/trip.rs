//! Code of an embedder, all there can be, that panics where it is told.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{
    Attempt, Attempted, Batch, BatchId, Cause, DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, Decoded,
    Decoder, Failure, Flushed, Framing, Hooks, IngressSpec, Intake, Json, MemoryDeadLetters, MemoryStore, Observer,
    OnFailure, Seam, Settled, Source, Storage, StorageError, SupervisorEvent, TenantId, TypedJson, Undo, UndoStep,
    UnixMillis,
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{event, lines, millis, pass};

/// When the place panics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum When {
    /// At this pass alone, from 1.
    Nth(u64),
    /// At every pass, until it is healed.
    Always,
}

/// What every piece of user code passes with its name. Only passes on behalf of tenant `a`, or of none, count.
#[derive(Clone)]
pub(crate) struct Trip(Arc<Inner>);

struct Inner {
    place: &'static str,
    when: When,
    is_armed: AtomicBool,
    passed: AtomicU64,
}

impl Trip {
    pub(crate) fn new(place: &'static str, when: When) -> Self {
        Self(Arc::new(Inner { place, when, is_armed: AtomicBool::new(false), passed: AtomicU64::new(0) }))
    }

    pub(crate) fn arm(&self, is_armed: bool) {
        self.0.is_armed.store(is_armed, Ordering::Relaxed);
    }

    fn is_armed(&self) -> bool {
        self.0.is_armed.load(Ordering::Relaxed)
    }

    pub(crate) fn at(&self, place: &str, tenant: Option<&TenantId>) {
        let counts = place == self.0.place && tenant.is_none_or(|tenant| tenant.as_str() == "a");
        if !counts || !self.is_armed() {
            return;
        }
        let passed = self.0.passed.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(self.0.when != When::Always && self.0.when != When::Nth(passed), "a panic was asked for at {place}");
    }

    pub(crate) fn hooks(&self) -> Hooks {
        let at = |place: &'static str| {
            let trip = self.clone();
            move |tenant: &TenantId| trip.at(place, Some(tenant))
        };
        let (map, filter, on_failure) = (at("Hooks::map"), at("Hooks::filter"), at("Hooks::on_failure"));
        let (map_batch, filter_batch) = (at("Hooks::map_batch"), at("Hooks::filter_batch"));
        let (event_stored, event_failed) = (at("Hooks::on_event_stored"), at("Hooks::on_event_failed"));
        let (stored, failed) = (at("Hooks::on_stored"), at("Hooks::on_failed"));
        Hooks::new()
            .map(move |event| {
                map(event.tenant());
                event
            })
            .filter(move |event| {
                filter(event.tenant());
                true
            })
            .map_batch(move |batch| {
                map_batch(batch.tenant());
                batch
            })
            .filter_batch(move |batch| {
                filter_batch(batch.tenant());
                true
            })
            .on_event_stored(move |event| event_stored(event.tenant()))
            .on_event_failed(move |event, _| event_failed(event.tenant()))
            .on_stored(move |batch| stored(batch.tenant()))
            .on_failed(move |batch, _| failed(batch.tenant()))
            .on_failure(move |failure| {
                failure.tenant.iter().for_each(&on_failure);
                OnFailure::DeadLetter
            })
    }

    pub(crate) fn seam(&self) -> Seam {
        let (trip, start) = (self.clone(), Instant::now());
        let wall = move || {
            trip.at("Seam::new", None);
            UnixMillis(1_700_000_000_000).plus(start.elapsed())
        };
        Seam::new(wall, 7)
    }

    pub(crate) fn raw(&self) -> IngressSpec {
        IngressSpec::new("raw", Framing::lines(), UserDecoder(self.clone(), Json::new()))
    }

    /// Events of a type that is tripped by what is in it: it has no way to know of the trip otherwise.
    pub(crate) fn typed(&self) -> IngressSpec {
        let at = |place: &'static str| {
            let trip = self.clone();
            move |tenant: &str| trip.at(place, Some(&tenant.parse().unwrap()))
        };
        let (parsed, asked, timed) = (at("TypedJson"), at("TypedJson::new"), at("TypedJson::time"));
        let decoder = TypedJson::new(move |told: &Told| {
            asked(&told.tenant.0);
            told.tenant.0.clone()
        });
        let decoder = decoder.time(move |told: &Told| {
            timed(&told.tenant.0);
            None
        });
        Parsed::on_parse(Box::new(parsed));
        IngressSpec::new("typed", Framing::lines(), decoder)
    }
}

#[derive(Deserialize)]
struct Told {
    tenant: Parsed,
}

/// A name whose parsing is the user's own code.
struct Parsed(String);

type OnParse = Box<dyn Fn(&str)>;

thread_local! {
    static ON_PARSE: std::cell::RefCell<Option<OnParse>> = const { std::cell::RefCell::new(None) };
}

impl Parsed {
    fn on_parse(call: OnParse) {
        ON_PARSE.set(Some(call));
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        ON_PARSE.with_borrow(|call| call.iter().for_each(|call| call(&name)));
        Ok(Self(name))
    }
}

struct UserDecoder(Trip, Json);

impl Decoder for UserDecoder {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let decoded = self.1.decode(frame)?;
        self.0.at("Decoder::decode", decoded.tenant.parse().ok().as_ref());
        Ok(decoded)
    }
}

/// A store that takes a while for `a`, fails now and then while it is armed, refuses poison for good, and has something to undo.
#[derive(Clone)]
pub(crate) struct UserStore {
    pub(crate) trip: Trip,
    pub(crate) kept: MemoryStore,
    /// What was stored, when.
    pub(crate) stored_at: Arc<Mutex<Vec<(String, Instant)>>>,
    pub(crate) calls: Arc<AtomicU64>,
}

pub(crate) fn is_poison(body: &[u8]) -> bool {
    body.ends_with(b"7}")
}

impl Storage for UserStore {
    fn store(&self, batch: &Batch, undo: &Undo) -> impl Future<Output = Result<(), StorageError>> + Send {
        self.trip.at("Storage::store", Some(batch.tenant()));
        async move {
            if batch.tenant().as_str() == "a" {
                undo.push(UndoStep { name: "a".to_owned(), data: vec![] }).await;
                pass(millis(1)).await;
                self.trip.at("Storage::store, later", Some(batch.tenant()));
                if self.trip.is_armed() && self.calls.fetch_add(1, Ordering::Relaxed) % 5 == 1 {
                    return Err(StorageError::transient("now and then"));
                }
                if batch.events().any(|event| is_poison(event.body)) {
                    return Err(StorageError::permanent("poison"));
                }
            }
            self.kept.store(batch, undo).await?;
            let bodies = batch.events().map(|event| (String::from_utf8_lossy(event.body).into_owned(), Instant::now()));
            self.stored_at.lock().unwrap().extend(bodies);
            Ok(())
        }
    }

    fn rollback(&self, id: &BatchId, attempt: Attempt) -> impl Future<Output = Result<(), StorageError>> + Send {
        self.trip.at("Storage::rollback", Some(&id.tenant));
        async move {
            self.trip.at("Storage::rollback, later", Some(&id.tenant));
            self.kept.rollback(id, attempt).await
        }
    }

    fn undo(&self, _: &UndoStep) -> impl Future<Output = Result<(), StorageError>> + Send {
        self.trip.at("Storage::undo", None);
        async move {
            self.trip.at("Storage::undo, later", None);
            Ok(())
        }
    }

    fn takes_pieces(&self) -> bool {
        self.trip.at("Storage::takes_pieces", None);
        true
    }
}

pub(crate) struct UserLetters(pub(crate) Trip, pub(crate) MemoryDeadLetters);

impl DeadLetters for UserLetters {
    fn put(&self, letters: &[DeadLetter]) -> impl Future<Output = Result<(), StorageError>> + Send {
        // Frames that were bad at the door, and what was given up behind it, come from different places.
        let is_frame = letters.iter().any(|letter| letter.kind == DeadLetterKind::Frame);
        self.0.at(if is_frame { "DeadLetters::put" } else { "DeadLetters::put of a batch" }, None);
        async move {
            self.0.at(if is_frame { "DeadLetters::put, later" } else { "DeadLetters::put of a batch, later" }, None);
            self.1.put(letters).await
        }
    }

    fn list(&self, query: &DeadLetterQuery) -> impl Future<Output = Result<Vec<DeadLetter>, StorageError>> + Send {
        self.1.list(query)
    }
}

pub(crate) struct UserObserver(pub(crate) Trip);

impl Observer for UserObserver {
    fn flushed(&self, tenant: &TenantId, _: &Flushed) {
        self.0.at("Observer::flushed", Some(tenant));
    }

    fn attempted(&self, tenant: &TenantId, _: &Attempted) {
        self.0.at("Observer::attempted", Some(tenant));
    }

    fn settled(&self, tenant: &TenantId, _: &Settled) {
        self.0.at("Observer::settled", Some(tenant));
    }

    fn failed(&self, failure: &Failure) {
        // A system-wide failure is nobody's.
        failure.tenant.iter().for_each(|tenant| self.0.at("Observer::failed", Some(tenant)));
    }

    fn supervised(&self, event: &SupervisorEvent) {
        event.tenant.iter().for_each(|tenant| self.0.at("Observer::supervised", Some(tenant)));
    }
}

/// Brings one event of `a` in.
pub(crate) struct UserSource(pub(crate) Trip, pub(crate) usize);

impl Source for UserSource {
    fn name(&self) -> &str {
        self.0.at("Source::name", None);
        "user"
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        self.0.at("Source::run", None);
        async move {
            self.0.at("Source::run, later", None);
            let ingress = intake.open(self.0.raw()).await.map_err(|why| why.to_string())?;
            ingress.feed(lines([event("a", self.1)])).await.map_err(|why| why.to_string())?;
            Ok(())
        }
        .boxed_local()
    }
}
