//! What a JetStream holds, in memory, through a durable pull consumer; plain is the client of async-nats, which has each
//! acknowledgement confirmed, as many at once as the source.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, stream};
use futures::stream::{FuturesUnordered, StreamExt};
use headworks::source::{NatsOptions, NatsSource};
use headworks::{Json, Source};

use crate::listener::runtime;
use crate::load::{Load, pieces};
use crate::rig::nats::Nats;
use crate::side::{Counter, Feed, Plain, Result, Way};

const STREAM: &str = "EVENTS";

/// How much is under way at once: messages that are published, that are asked for, acknowledgements.
const AT_ONCE: usize = 256;

pub(crate) struct JetStream {
    server: Nats,
    events: u64,
    pair: u32,
}

impl JetStream {
    /// A stream that has them all.
    pub(crate) fn new(load: &Load) -> Result<Self> {
        let server = Nats::start();
        let url = server.url();
        runtime()?.block_on(async {
            let context = jetstream::new(async_nats::connect(url).await?);
            let (subjects, storage) = (vec!["events.>".to_owned()], stream::StorageType::Memory);
            let config = stream::Config { name: STREAM.to_owned(), subjects, storage, ..stream::Config::default() };
            context.create_stream(config).await?;
            let messages = load.json();
            let mut under_way = FuturesUnordered::new();
            for message in messages.iter().flat_map(|lines| pieces(lines, 1)) {
                let body = message.slice(..message.len() - 1);
                under_way.push(context.publish("events.bench", body).await?.into_future());
                if under_way.len() == AT_ONCE
                    && let Some(published) = under_way.next().await
                {
                    published?;
                }
            }
            while let Some(published) = under_way.next().await {
                published?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })?;
        Ok(Self { server, events: load.events, pair: 0 })
    }
}

impl Way for JetStream {
    fn prepare(&mut self) -> Result<()> {
        self.pair += 1;
        Ok(())
    }

    fn source(&mut self) -> Result<(Box<dyn Source>, Feed)> {
        let consumer = format!("source-{}", self.pair);
        let options = NatsOptions { consumer, ..NatsOptions::new(self.server.url(), STREAM) };
        Ok((Box::new(NatsSource::new("nats", Json::new(), options)), Box::new(|| Ok(()))))
    }

    fn plain(&mut self, came: &Counter) -> Result<Plain> {
        let (url, consumer, events) = (self.server.url(), format!("plain-{}", self.pair), self.events);
        let came = came.clone();
        let feed = move || runtime()?.block_on(consume(&url, consumer, events, &came));
        Ok(Plain { _server: None, feed: Box::new(feed) })
    }
}

async fn consume(url: &str, consumer: String, events: u64, came: &Counter) -> Result<()> {
    let client = async_nats::connect(url).await?;
    let stream = jetstream::new(client.clone()).get_stream(STREAM).await?;
    let (durable_name, ack_policy, max_ack_pending) = (Some(consumer), AckPolicy::Explicit, 1_024);
    let config = pull::Config { durable_name, ack_policy, max_ack_pending, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.stream().max_messages_per_batch(AT_ONCE).messages().await?;
    let (mut left, mut under_way) = (events, FuturesUnordered::new());
    while left > 0 || !under_way.is_empty() {
        tokio::select! {
            Some(message) = messages.next(), if left > 0 && under_way.len() < AT_ONCE => {
                let reply = message?.reply.clone().ok_or("a message has no reply")?;
                under_way.push(client.request(reply, "+ACK".into()));
                left -= 1;
                came.add(1);
            }
            Some(confirmed) = under_way.next() => drop(confirmed?),
            else => return Err("the server sends no more messages".into()),
        }
    }
    Ok(())
}
