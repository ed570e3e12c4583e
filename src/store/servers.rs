use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use headworks_actors::StoreName;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// For so long an answer is taken for true: whoever asks more often asks no server.
const FRESH: Duration = Duration::from_secs(1);

/// The stores on servers, for whoever wants to know whether these are there, also where no batch is on its way to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Servers {
    pub(crate) named: Vec<(StoreName, Server)>,
    last: Arc<Mutex<Option<Looked>>>,
}

/// When it was looked, and what came of it.
type Looked = (Instant, Option<String>);

/// One of them.
#[derive(Debug, Clone)]
pub(crate) enum Server {
    #[cfg(feature = "postgres")]
    Postgres(super::PostgresStore),
    #[cfg(feature = "nats")]
    Nats(super::NatsStore),
    #[cfg(feature = "object")]
    Object(super::ObjectStore),
    #[cfg(feature = "webhook")]
    Webhook(super::WebhookStore),
}

impl Server {
    /// Asks it something that changes nothing.
    async fn look(&self) -> Result<(), String> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref store) => store.look().await,
            #[cfg(feature = "nats")]
            Self::Nats(ref store) => store.look().await,
            #[cfg(feature = "object")]
            Self::Object(ref store) => store.look().await,
            #[cfg(feature = "webhook")]
            Self::Webhook(ref store) => store.look().await,
        }
    }
}

impl Servers {
    pub(crate) fn new(named: Vec<(StoreName, Server)>) -> Self {
        Self { named, ..Self::default() }
    }

    /// Which of them are away, and why; none where all answer within `patience`.
    pub(crate) async fn away(&self, patience: Duration) -> Option<String> {
        let mut last = self.last.lock().await;
        if let Some((_, away)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return away.clone();
        }
        let looks = self.named.iter().map(async |(name, server)| {
            let late = |_| Err(format!("it does not answer within {}", humantime::format_duration(patience)));
            let why = timeout(patience, server.look()).await.unwrap_or_else(late).err()?;
            // An only store needs no name.
            let store = if *name == StoreName::ONLY { "the store".to_owned() } else { format!("the store {name}") };
            Some(format!("{store} cannot be reached: {why}"))
        });
        let away: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
        let away = (!away.is_empty()).then(|| away.join("; "));
        *last = Some((Instant::now(), away.clone()));
        away
    }
}
