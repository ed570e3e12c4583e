//! The connection, the stream and the consumer: made or checked, and what of them may lose messages.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, Config as AnyConsumer, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, message::StreamMessage};
use headworks_actors::StreamId;
use tokio::sync::watch;

use super::NatsOptions;
use crate::nats::{Connection, Way, risks};
use crate::text::chain;

/// How often the server says that it is there while it has nothing else to say.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long a server may take for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many messages are asked for at once.
const ASKED: usize = 256;

/// A connection to a stream, as one finds it.
pub(super) struct Server {
    pub(super) client: Client,
    stream: Stream,
    consumer: Consumer<pull::Config>,
    /// Why the connection is gone, once it is.
    pub(super) gone: watch::Receiver<Option<String>>,
    filter: String,
}

impl Server {
    /// Connects, and makes the consumer if it is not there.
    pub(super) async fn connect(name: &str, options: &NatsOptions) -> Result<Self, String> {
        let way = Way {
            name: format!("headworks {name}"),
            url: &options.url,
            credentials: options.credentials.as_deref(),
            ca: options.ca.as_deref(),
            timeout: PATIENCE,
            is_shared: false,
        };
        let Connection { client, gone, .. } = way.connect().await.map_err(|refused| refused.why)?;
        let context = jetstream::new(client.clone());
        let said = |why: String| match &*gone.borrow() {
            Some(told) => format!("{why} ({told})"),
            None => why,
        };
        let stream = context.get_stream(&options.stream).await.map_err(|why| {
            said(format!("the stream {} cannot be read; does it exist? {}", options.stream, chain(&why)))
        })?;
        let consumer = consumer(&context, &stream, options).await.map_err(said)?;
        let filter = match consumer.cached_info().config.filter_subject.as_str() {
            "" => ">".to_owned(),
            filter => filter.to_owned(),
        };
        Ok(Self { client, stream, consumer, gone: gone.subscribe(), filter })
    }

    /// The numbers of its messages, as a stream of numbered frames. One that was made anew, or whose consumer was, begins again.
    pub(super) fn stream_id(&self, options: &NatsOptions) -> Result<StreamId, String> {
        let made = [self.stream.cached_info().created, self.consumer.cached_info().created];
        let [stream, consumer] = made.map(|at| at.unix_timestamp_nanos());
        // FNV-1a: it stays the same in every version of everything.
        let hash = format!("{stream} {consumer}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        StreamId::new(&format!("nats:{}:{}:{hash:x}", options.stream, options.consumer)).map_err(|why| why.to_string())
    }

    /// All messages up to this one are acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.consumer.cached_info().ack_floor.stream_sequence
    }

    /// The last message that was delivered to anybody, as it was when it connected.
    pub(super) fn delivered(&self) -> u64 {
        self.consumer.cached_info().delivered.stream_sequence
    }

    /// The last message there is.
    pub(super) fn last(&self) -> u64 {
        self.stream.cached_info().state.last_sequence
    }

    /// After how long without a sign of life a message comes again.
    pub(super) fn ack_wait(&self) -> Duration {
        self.consumer.cached_info().config.ack_wait.max(Duration::from_millis(100))
    }

    pub(super) async fn messages(&self) -> Result<pull::Stream, String> {
        let asked = self.consumer.stream().max_messages_per_batch(ASKED).heartbeat(HEARTBEAT).expires(HEARTBEAT * 4);
        asked.messages().await.map_err(|why| format!("messages cannot be asked for: {}", chain(&why)))
    }

    /// The first message from a number on that the consumer would be given.
    pub(super) async fn message_from(&self, number: u64) -> Result<Option<StreamMessage>, String> {
        match self.stream.raw_message_builder().sequence(number).next_by_subject(&*self.filter).send().await {
            Ok(message) => Ok(Some(message)),
            Err(why) if matches!(why.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(why) => Err(format!("message {number} of the stream cannot be read: {}", chain(&why))),
        }
    }

    /// What may lose messages that were acknowledged to their publishers, or differs from what is configured.
    pub(super) fn warnings(&self, options: &NatsOptions) -> Vec<String> {
        let mut all = risks(&self.stream.cached_info().config);
        all.extend(differences(&self.consumer.cached_info().config, options));
        all
    }
}

/// The consumer, as it is, or as it is made.
async fn consumer(
    context: &jetstream::Context,
    stream: &Stream,
    options: &NatsOptions,
) -> Result<Consumer<pull::Config>, String> {
    let name = &options.consumer;
    let info = match stream.consumer_info(name).await {
        Ok(info) => info,
        Err(why) if matches!(why.kind(), ConsumerInfoErrorKind::NotFound) => {
            let made = stream.create_consumer(wanted(options)).await;
            let made = made.map_err(|why| format!("the consumer {name} cannot be made: {}", chain(&why)))?;
            made.cached_info().clone()
        }
        Err(why) => return Err(format!("the consumer {name} cannot be read: {}", chain(&why))),
    };
    let found = &info.config;
    let unusable = if found.deliver_subject.is_some() {
        Some("pushes, and is not to be pulled from".to_owned())
    } else if found.ack_policy != AckPolicy::Explicit {
        Some(format!("has the acknowledgement policy {:?}, and not Explicit", found.ack_policy))
    } else if found.headers_only {
        Some("gives headers alone".to_owned())
    } else if found.filter_subjects.len() > 1 || found.filter_subject != options.subject.filter() {
        Some(format!(
            "reads {:?}{}, and is configured to read {:?}",
            found.filter_subject,
            found.filter_subjects.join(", "),
            options.subject.filter()
        ))
    } else {
        None
    };
    if let Some(why) = unusable {
        return Err(format!(
            "the consumer {name} of the stream {} {why}: name another one, or delete it to have it made anew",
            options.stream
        ));
    }
    let config = pull::Config { ack_wait: found.ack_wait, ..wanted(options) };
    Ok(Consumer::new(config, info, context.clone()))
}

fn wanted(options: &NatsOptions) -> pull::Config {
    pull::Config {
        durable_name: Some(options.consumer.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: options.ack_wait,
        max_ack_pending: i64::try_from(options.max_ack_pending).unwrap_or(i64::MAX),
        filter_subject: options.subject.filter().to_owned(),
        ..pull::Config::default()
    }
}

/// What a consumer has that is otherwise than configured, and does no harm.
fn differences(found: &AnyConsumer, options: &NatsOptions) -> Vec<String> {
    let mut all = vec![];
    let mut differ = |what: &str, found: String, wanted: String| {
        if found != wanted {
            all.push(format!(
                "the consumer {} has {what} {found}, and not {wanted}: it is used as it is",
                options.consumer
            ));
        }
    };
    let time = |time: Duration| humantime::format_duration(time).to_string();
    differ("ack_wait", time(found.ack_wait), time(options.ack_wait));
    differ("max_ack_pending", found.max_ack_pending.to_string(), options.max_ack_pending.to_string());
    if found.max_deliver > 0 {
        all.push(format!(
            "the consumer {} gives a message up after {} deliveries (max_deliver): what is not stored by then is lost to it",
            options.consumer, found.max_deliver
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_differs_is_told_of() {
        let options = NatsOptions::new("nats://x", "s");
        let like = AnyConsumer {
            ack_wait: options.ack_wait,
            max_ack_pending: 1_024,
            max_deliver: -1,
            ..AnyConsumer::default()
        };
        assert_eq!(differences(&like, &options), Vec::<String>::new());
        let other = AnyConsumer { ack_wait: Duration::from_secs(1), max_ack_pending: 7, max_deliver: 3, ..like };
        let told = differences(&other, &options).join("\n");
        for says in ["ack_wait 1s, and not 5s", "max_ack_pending 7, and not 1024", "after 3 deliveries"] {
            assert!(told.contains(says), "{told}");
        }
    }
}
