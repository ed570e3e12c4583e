//! Erasing what is kept of a tenant, wherever its batches went, on an operator's word.
//!
//! ```text
//! nothing in flight  ->  how far each store has come  ->  that is taken down  ->  step, step, step, in each store
//! ```
//!
//! 1. Whoever asks sees to it that nothing of the tenant is in flight, and that all outcomes are on disk in the journal, so that nothing
//!    brings back what goes.
//! 2. Each store says how far it has come: the number of its newest batch, its last file, the next message. One that cannot say ends it
//!    here, with nothing changed.
//! 3. That is taken down in the databases on this machine. From here on the erasure is not given up before it is done, whatever becomes of
//!    the process or of a server: it goes on when the daemon starts, and before each pass of retention.
//! 4. Each store lets go of all that it has up to there, in small steps. What came later stays, however late that is.
//!
//! What was sent away cannot be taken back: a webhook, the standard output. All else is erased then, and whoever asked is told of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use headworks_actors::{StorageError, StoreName, TenantId};
use tokio::sync::Mutex;

#[cfg(feature = "nats")]
use crate::store::NatsStore;
#[cfg(feature = "object")]
use crate::store::ObjectStore;
#[cfg(feature = "postgres")]
use crate::store::PostgresStore;
use crate::store::manifest::Kind;
use crate::store::{FilesStore, SqliteStore};
use crate::text::count;

/// A store, as far as a tenant can be erased from it.
#[derive(Debug, Clone)]
pub(crate) enum Erasable {
    Sqlite(SqliteStore),
    Files(FilesStore),
    #[cfg(feature = "postgres")]
    Postgres(PostgresStore),
    #[cfg(feature = "object")]
    Object(ObjectStore),
    #[cfg(feature = "nats")]
    Nats(NatsStore),
    /// What went there is out of reach: why, in a sentence.
    #[cfg(any(feature = "stdout", feature = "webhook"))]
    Sent(String),
}

impl Erasable {
    /// How far it has come, where it is no database, of which the answer is none.
    async fn mark(&self, tenant: &TenantId) -> Result<Option<i64>, StorageError> {
        #[cfg(feature = "nats")]
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(match self {
            Self::Sqlite(_) => None,
            // One that has no file has nothing.
            Self::Files(store) => store.mark_erasure(tenant).await?.map(i64::from),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Some(store.mark_erasure().await?),
            #[cfg(feature = "object")]
            Self::Object(store) => store.mark_erasure(tenant).await?.then_some(0),
            #[cfg(feature = "nats")]
            Self::Nats(store) => Some(signed(store.mark_erasure().await?)),
            #[cfg(any(feature = "stdout", feature = "webhook"))]
            Self::Sent(_) => None,
        })
    }

    /// Erases what there is up to that mark; what went before it failed counts in `gone`, too.
    async fn erase(&self, tenant: &TenantId, upto: i64, gone: &mut Gone) -> Result<(), StorageError> {
        match self {
            Self::Sqlite(_) => {}
            Self::Files(store) => gone.events += store.erase(tenant, u32::try_from(upto).unwrap_or(u32::MAX)).await?,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.erase(tenant, upto, &mut gone.events).await?,
            #[cfg(feature = "object")]
            Self::Object(store) => store.erase(tenant, &mut gone.events).await?,
            #[cfg(feature = "nats")]
            Self::Nats(store) => gone.messages += store.erase(tenant, upto.cast_unsigned()).await?,
            #[cfg(any(feature = "stdout", feature = "webhook"))]
            Self::Sent(_) => {}
        }
        Ok(())
    }

    /// What is beyond its reach, in a sentence.
    fn remains(&self) -> Option<&'static str> {
        match self {
            Self::Sqlite(_) | Self::Files(_) => None,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Some(
                "the bytes of its rows in the files of the PostgreSQL server, until VACUUM has passed over them and others lie there; \
                 its WAL, replicas and backups",
            ),
            #[cfg(feature = "object")]
            Self::Object(_) => Some("earlier versions of its objects, and copies, where the bucket keeps some"),
            #[cfg(feature = "nats")]
            Self::Nats(_) => {
                Some("what consumers of the NATS stream, mirrors and streams that are sourced from it have of it")
            }
            #[cfg(any(feature = "stdout", feature = "webhook"))]
            Self::Sent(_) => None,
        }
    }
}

/// What was erased of a tenant, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// In all stores together.
    pub(crate) events: u64,
    /// Messages of NATS streams: batches, and the word that some were taken back.
    pub(crate) messages: u64,
    pub(crate) dead_letters: u64,
    /// Where it failed, and is tried again.
    pub(crate) waits: Vec<(StoreName, String)>,
    /// Where it cannot be done.
    pub(crate) refused: Vec<(StoreName, String)>,
}

impl Gone {
    /// What went, in words.
    pub(crate) fn in_words(&self) -> String {
        let messages = match self.messages {
            0 => String::new(),
            messages => format!("{} of NATS, ", count(messages, "message")),
        };
        let mut words =
            format!("{}, {messages}and {}", count(self.events, "event"), count(self.dead_letters, "dead letter"));
        if messages.is_empty() {
            words = words.replacen(", and", " and", 1);
        }
        let named =
            |of: &[(StoreName, String)]| of.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ");
        if !self.waits.is_empty() {
            words += &format!("; not yet from {}, which is tried again", named(&self.waits));
        }
        if !self.refused.is_empty() {
            words += &format!("; not from {}, where it cannot be done", named(&self.refused));
        }
        words
    }
}

/// Erases tenants, one at a time. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Eraser(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// With the dead letters; what is to be erased is taken down there.
    letters: SqliteStore,
    /// By name, of which one may have had several places.
    stores: Vec<(StoreName, Erasable)>,
    one_at_a_time: Mutex<()>,
}

impl Eraser {
    pub(crate) fn new(letters: SqliteStore, stores: Vec<(StoreName, Erasable)>) -> Self {
        Self(Arc::new(Shared { letters, stores, one_at_a_time: Mutex::default() }))
    }

    fn databases(&self) -> impl Iterator<Item = (&StoreName, &SqliteStore)> {
        self.0.stores.iter().filter_map(|(name, store)| match store {
            Erasable::Sqlite(store) => Some((name, store)),
            _ => None,
        })
    }

    /// Those that are elsewhere, as far as their names go.
    fn named(&self, wanted: &StoreName) -> Option<&Erasable> {
        let mut stores = self.0.stores.iter();
        stores.find(|(name, store)| name == wanted && !matches!(store, Erasable::Sqlite(_))).map(|(_, store)| store)
    }

    /// Which stores a tenant's batches may have been sent away to, and why they cannot be taken back.
    pub(crate) fn sent(&self) -> Vec<(StoreName, String)> {
        #[cfg(any(feature = "stdout", feature = "webhook"))]
        let sent = |(name, store): &(StoreName, Erasable)| match store {
            Erasable::Sent(why) => Some((name.clone(), why.clone())),
            _ => None,
        };
        #[cfg(not(any(feature = "stdout", feature = "webhook")))]
        let sent = |_: &(StoreName, Erasable)| None;
        self.0.stores.iter().filter_map(sent).collect()
    }

    /// Whether the store `store` is of that kind.
    pub(crate) fn is_now(&self, kind: Kind) -> bool {
        self.0.stores.iter().filter(|(name, _)| *name == StoreName::ONLY).any(|(_, store)| match store {
            Erasable::Sqlite(_) => kind == Kind::Sqlite,
            Erasable::Files(_) => kind == Kind::Files,
            #[cfg(feature = "postgres")]
            Erasable::Postgres(_) => kind == Kind::Postgres,
            #[cfg(feature = "object")]
            Erasable::Object(_) => kind == Kind::Object,
            #[cfg(feature = "nats")]
            Erasable::Nats(_) => kind == Kind::Nats,
            #[cfg(any(feature = "stdout", feature = "webhook"))]
            Erasable::Sent(_) => false,
        })
    }

    /// What is beyond the reach of these stores, in sentences.
    pub(crate) fn remains(&self) -> Vec<&'static str> {
        let mut remains: Vec<_> = self.0.stores.iter().filter_map(|(_, store)| store.remains()).collect();
        remains.sort_unstable();
        remains.dedup();
        remains
    }

    /// Erases what there is of the tenant. Nothing of it may be in flight, nor come before this is done.
    ///
    /// # Errors
    /// Nothing was changed, or a database on this machine cannot be written; what fails elsewhere is in the answer.
    pub(crate) async fn erase(&self, tenant: &TenantId) -> Result<Gone, StorageError> {
        let _one = self.0.one_at_a_time.lock().await;
        let (mut gone, mut marks) = (Gone::default(), vec![]);
        for (name, store) in &self.0.stores {
            match store.mark(tenant).await {
                Ok(mark) => marks.extend(mark.map(|mark| (name.clone(), mark))),
                // It will not do so tomorrow either.
                Err(why @ StorageError::Permanent { .. }) => gone.refused.push((name.clone(), why.to_string())),
                Err(why) => return Err(why),
            }
        }
        // Taken down everywhere before anything goes: the next start goes on where a crash cut this short.
        self.0.letters.begin_erasing_letters(tenant).await?;
        for (_, store) in self.databases() {
            store.begin_erasure(tenant).await?;
        }
        self.0.letters.begin_elsewhere(tenant, marks.clone()).await?;
        for (_, store) in self.databases() {
            gone.events += store.go_on_erasing(tenant).await?;
        }
        for (name, upto) in marks {
            self.elsewhere(tenant, &name, upto, &mut gone).await?;
        }
        gone.dead_letters = self.0.letters.erase_letters(tenant).await?;
        Ok(gone)
    }

    async fn elsewhere(
        &self,
        tenant: &TenantId,
        name: &StoreName,
        upto: i64,
        gone: &mut Gone,
    ) -> Result<(), StorageError> {
        let Some(store) = self.named(name) else {
            gone.waits.push((name.clone(), "the configuration has no such store any more".to_owned()));
            return Ok(());
        };
        match store.erase(tenant, upto, gone).await {
            Ok(()) => self.0.letters.end_elsewhere(tenant, name).await,
            Err(why @ StorageError::Permanent { .. }) => {
                gone.refused.push((name.clone(), why.to_string()));
                self.0.letters.end_elsewhere(tenant, name).await
            }
            Err(why) => {
                gone.waits.push((name.clone(), why.to_string()));
                Ok(())
            }
        }
    }

    /// Goes on in the databases on this machine with what was begun and not ended; what it came to, by tenant, and of which databases it is
    /// not known whether it had ended there, or not begun. To be called before anything is stored.
    pub(crate) async fn finish_here(&self) -> Result<BTreeMap<TenantId, (Gone, Vec<StoreName>)>, StorageError> {
        let letters = &self.0.letters;
        let (_, mut begun) = letters.erasures().await?;
        let mut known = vec![];
        for (name, store) in self.databases() {
            let (of_events, _) = store.erasures().await?;
            begun.extend(of_events.iter().cloned());
            known.push((name, store, of_events));
        }
        let mut told = BTreeMap::new();
        for tenant in begun {
            let (mut gone, mut unknown) = (Gone::default(), vec![]);
            for (name, store, of_events) in &known {
                if of_events.contains(&tenant) {
                    gone.events += store.go_on_erasing(&tenant).await?;
                } else {
                    unknown.push((*name).clone());
                }
            }
            if letters.erasures().await?.1.contains(&tenant) {
                gone.dead_letters = letters.erase_letters(&tenant).await?;
            }
            told.insert(tenant, (gone, unknown));
        }
        Ok(told)
    }

    /// Goes on elsewhere with what was begun and not ended; what it came to, by tenant.
    pub(crate) async fn finish_elsewhere(&self) -> Result<BTreeMap<TenantId, Gone>, StorageError> {
        let _one = self.0.one_at_a_time.lock().await;
        let mut told = BTreeMap::<TenantId, Gone>::new();
        for (tenant, name, upto) in self.0.letters.elsewhere().await? {
            let gone = told.entry(tenant.clone()).or_default();
            self.elsewhere(&tenant, &name, upto, gone).await?;
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_did_not_is_told_in_words() {
        let named = |name: &str| vec![(StoreName::new(name).unwrap(), "because".to_owned())];
        let mut gone = Gone { events: 3, ..Gone::default() };
        assert_eq!(gone.in_words(), "3 events and 0 dead letters");
        (gone.messages, gone.waits, gone.refused) = (1, named("pg"), named("bus"));
        let expected = "3 events, 1 message of NATS, and 0 dead letters; not yet from pg, which is tried again; not from bus, where it cannot \
                        be done";
        assert_eq!(gone.in_words(), expected);
    }
}
