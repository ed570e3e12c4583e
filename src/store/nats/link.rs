//! The connection to the stream, made when it is needed, and what is asked for over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{PurgeErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use headworks_actors::BatchId;
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::NatsStoreOptions;
use super::error::Failure;
use super::fit::{unfit, wanted, warnings};
use super::message::There;
use super::subject::Template;
use crate::nats::{Connection, Way};
use crate::store::postgres::SchemaMode;
use crate::text::chain;

/// What is asked of the server itself is on subjects that begin so.
const API: &str = "$JS.API.";

/// Where batches go, connected or not.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) options: NatsStoreOptions,
    pub(super) template: Template,
    /// The URL and the stream, for errors.
    pub(super) place: String,
    state: Mutex<State>,
    /// How often it was tried to connect.
    tried: AtomicU64,
    /// It was told what may lose batches.
    is_warned: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Arc<Open>>,
    /// Why the last try came to nothing, if it did.
    failed: Option<Failure>,
}

/// A stream that can be published to.
#[derive(Debug)]
pub(super) struct Open {
    connection: Connection,
    stream: Stream,
    request_timeout: Duration,
    /// The stream lets messages be purged.
    pub(super) can_purge: bool,
}

/// What the server says to something that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is there.
    Stored,
    /// It had one of that name lately.
    Known,
    /// The subject's last message is another one than was expected.
    Taken,
    /// Nothing, in time.
    Silence,
}

impl Link {
    pub(super) fn new(options: NatsStoreOptions) -> Result<Self, String> {
        let template = Template::new(&options.subject).map_err(|why| format!("subject {why}"))?;
        let place = format!("stream {} on {}", options.stream, options.url);
        let (state, tried, is_warned) = (Mutex::default(), AtomicU64::default(), AtomicBool::default());
        Ok(Self { options, template, place, state, tried, is_warned })
    }

    /// The stream, connected to anew where it has to be. Those who wait for one try share what becomes of it.
    pub(super) async fn open(&self) -> Result<Arc<Open>, Failure> {
        let seen = self.tried.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| open.is_there()) {
            return Ok(open.clone());
        }
        state.open = None;
        if seen != self.tried.load(Ordering::Acquire)
            && let Some(why) = &state.failed
        {
            return Err(why.clone());
        }
        let opened = self.connect().await;
        self.tried.fetch_add(1, Ordering::Release);
        match opened {
            Ok(open) => {
                let open = Arc::new(open);
                (state.open, state.failed) = (Some(open.clone()), None);
                Ok(open)
            }
            Err(why) => {
                state.failed = Some(why.clone());
                Err(why)
            }
        }
    }

    async fn connect(&self) -> Result<Open, Failure> {
        let options = &self.options;
        let way = Way {
            name: format!("headworks store {}", options.stream),
            url: &options.url,
            credentials: options.credentials_file.as_deref(),
            ca: options.ca_file.as_deref(),
            timeout: options.connect_timeout,
            is_shared: true,
        };
        let connection = way.connect().await.map_err(|not| match not.is_refusal {
            true => Failure::Unfit(format!("{}; check credentials_file and ca_file", not.why)),
            false => Failure::Away(not.why),
        })?;
        let mut context = jetstream::new(connection.client.clone());
        // Longer than any limit here, which are the ones that count.
        context.set_timeout(options.request_timeout * 2);
        let found = within(&connection, options.request_timeout, API, self.stream(&context)).await?;
        let stream = found.unwrap_or_else(|| Err(silent(&connection, options.request_timeout)))?;
        let config = &stream.cached_info().config;
        if let Some(why) = unfit(config, &self.template) {
            return Err(Failure::Unfit(why));
        }
        if !self.is_warned.swap(true, Ordering::Relaxed) {
            for warning in warnings(config, connection.client.max_payload(), options) {
                tracing::warn!(target: "headworks", place = self.place, "{warning}");
            }
        }
        let (can_purge, request_timeout) = (!config.deny_purge, options.request_timeout);
        Ok(Open { connection, stream, request_timeout, can_purge })
    }

    /// The stream as it is, or as it is made.
    async fn stream(&self, context: &Context) -> Result<Stream, Failure> {
        let name = &self.options.stream;
        let why = match context.get_stream(name).await {
            Ok(stream) => return Ok(stream),
            Err(why) => why,
        };
        match why.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND && self.options.schema == SchemaMode::Make =>
            {
                let made = context.create_stream(wanted(&self.options, &self.template)).await;
                made.map_err(|why| {
                    let told = format!("the stream {name} cannot be made: {}", chain(&why));
                    match why.kind() {
                        CreateStreamErrorKind::JetStream(error) if error.code() != 503 => Failure::Unfit(told),
                        _ => Failure::Away(told),
                    }
                })
            }
            GetStreamErrorKind::JetStream(error) => Err(Failure::from(&error)),
            GetStreamErrorKind::Request => {
                Err(Failure::Away(format!("the stream {name} cannot be read: {}", chain(&why))))
            }
            _ => Err(Failure::Unfit(format!("the stream {name} cannot be read: {}", chain(&why)))),
        }
    }
}

/// What comes of it, unless the connection is lost meanwhile, or the server does not allow it; `None` where nothing does in time.
async fn within<T>(
    connection: &Connection,
    limit: Duration,
    subject: &str,
    work: impl Future<Output = T>,
) -> Result<Option<T>, Failure> {
    let mut denied = connection.denied.subscribe();
    let refused = async move {
        loop {
            match denied.recv().await {
                // Without the right to hear answers nobody gets any.
                Ok(why) if why.contains(subject) || why.contains("Subscription") => break why,
                Err(RecvError::Closed) => std::future::pending::<()>().await,
                _ => {}
            }
        }
    };
    let mut gone = connection.gone.subscribe();
    let lost = async move { gone.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()).unwrap_or_default() };
    tokio::select! {
        biased;
        why = lost => Err(Failure::Away(why)),
        why = refused => Err(Failure::Unfit(format!("the server says: {why}; grant the right to whoever credentials_file is"))),
        done = timeout(limit, work) => Ok(done.ok()),
    }
}

/// A server that hangs is away, and its connection of no use.
fn silent(connection: &Connection, limit: Duration) -> Failure {
    let why = format!("the server did not answer within {}", humantime::format_duration(limit));
    connection.gone.send_replace(Some(why.clone()));
    Failure::Away(why)
}

impl Open {
    fn is_there(&self) -> bool {
        self.connection.gone.borrow().is_none()
    }

    /// What comes of a question that any server that is there answers.
    async fn asked<T>(&self, question: impl Future<Output = T>) -> Result<T, Failure> {
        let answer = within(&self.connection, self.request_timeout, API, question).await?;
        answer.ok_or_else(|| silent(&self.connection, self.request_timeout))
    }

    pub(super) async fn publish(&self, subject: &str, mut headers: HeaderMap, body: Bytes) -> Result<Answer, Failure> {
        headers.insert(async_nats::header::NATS_EXPECTED_STREAM, self.stream.cached_info().config.name.as_str());
        let (client, length) = (&self.connection.client, body.len());
        // The time is kept here.
        let request = Request::new().headers(headers).payload(body).timeout(None);
        let asked = client.send_request(subject.to_owned(), request);
        let Some(answer) = within(&self.connection, self.request_timeout, subject, asked).await? else {
            return Ok(Answer::Silence);
        };
        let answer = answer.map_err(|why| match why.kind() {
            RequestErrorKind::MaxPayloadExceeded => Failure::Refused(format!(
                "it has {length} bytes, and the server takes messages of {}, headers included: raise its max_payload, or lower \
                 window.max_bytes",
                client.max_payload()
            )),
            // The stream may be gone, or somebody changed what it takes: it is looked at anew.
            RequestErrorKind::NoResponders => {
                let why = format!("no stream takes {subject}; was it changed or deleted?");
                self.connection.gone.send_replace(Some(why.clone()));
                Failure::Away(why)
            }
            _ => Failure::Away(chain(&why)),
        })?;
        match serde_json::from_slice::<Response<PublishAck>>(&answer.payload) {
            Ok(Response::Ok(ack)) if ack.duplicate => Ok(Answer::Known),
            Ok(Response::Ok(_)) => Ok(Answer::Stored),
            Ok(Response::Err { error }) => match error.error_code() {
                ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                    Ok(Answer::Taken)
                }
                _ => Err(Failure::from(&error)),
            },
            Err(why) => Err(Failure::Passing(format!("the server's answer cannot be read: {why}"))),
        }
    }

    /// The last message on a batch's subject.
    pub(super) async fn last(&self, subject: &str, id: &BatchId) -> Result<Option<There>, Failure> {
        match self.asked(self.stream.raw_message_builder().last_by_subject(subject).send()).await? {
            Ok(message) => Ok(Some(There::of(id, &message))),
            Err(why) => match why.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                RawMessageErrorKind::JetStream(error) => Err(Failure::from(&error)),
                _ => Err(Failure::Away(format!("the last message on {subject} cannot be read: {}", chain(&why)))),
            },
        }
    }

    /// The number that the next message will have.
    pub(super) async fn next_number(&self) -> Result<u64, Failure> {
        match self.asked(self.stream.get_info()).await? {
            Ok(info) => Ok(info.state.last_sequence + 1),
            Err(why) => Err(Failure::Away(format!("the stream cannot be looked at: {}", chain(&why)))),
        }
    }

    /// Purges what lies on a subject, which may have wildcards, before the message of this number; how many messages went.
    pub(super) async fn purge(&self, subject: &str, before: u64) -> Result<u64, Failure> {
        match self.asked(self.stream.purge().filter(subject).sequence(before).into_future()).await? {
            Ok(purged) => Ok(purged.purged),
            Err(why) => match why.kind() {
                PurgeErrorKind::JetStream(error) => Err(Failure::from(&error)),
                _ => Err(Failure::Away(format!("what lies on {subject} cannot be purged: {}", chain(&why)))),
            },
        }
    }
}
