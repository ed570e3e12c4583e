mod order;
mod server;
mod session;
mod subject;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{AckLevel, Decoder, Framing, IngressSpec, Intake, Source};

use session::{Ended, Site};
pub use subject::{InvalidSubject, SubjectPattern};

/// After how long a connection that ended is tried again: at first, and at most.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// What a [`NatsSource`] reads, and how.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// The servers, as `nats://host:4222` or `tls://host:4222`, several with commas between them.
    pub url: String,
    /// The stream, which must be there.
    pub stream: String,
    /// The durable consumer, made if it is not there. Default `headworks`. No two programs may share one.
    pub consumer: String,
    /// Which subjects of the stream. Default all.
    pub subject: SubjectPattern,
    /// Who one is: a credentials file (JWT and seed), a file with the seed of an nkey, or one with `USER:PASSWORD`. Read anew for each
    /// connection. Default none.
    pub credentials: Option<PathBuf>,
    /// The certificates that the server's is to be signed by, in PEM. Default those of the system.
    pub ca: Option<PathBuf>,
    /// After how long without a sign of life the server delivers a message again. Default 30 s.
    pub ack_wait: Duration,
    /// How many messages may be delivered and not acknowledged: the server sends no more. All of them may lie in memory. Default 1,024.
    pub max_ack_pending: usize,
    /// When a message is acknowledged to the server, at the earliest. Default [`AckLevel::Journaled`].
    pub ack: AckLevel,
    /// The largest message, in bytes; a larger one is malformed. Default 1 MiB.
    pub max_frame: usize,
}

impl NatsOptions {
    /// All messages of a stream.
    #[must_use]
    pub fn new(url: impl Into<String>, stream: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            stream: stream.into(),
            consumer: "headworks".into(),
            subject: SubjectPattern::default(),
            credentials: None,
            ca: None,
            ack_wait: Duration::from_secs(5),
            max_ack_pending: 1_024,
            ack: AckLevel::Journaled,
            max_frame: 1 << 20,
        }
    }
}

/// Messages of a NATS JetStream, through a durable pull consumer: each is acknowledged once it is as safe as [`NatsOptions::ack`] says,
/// and the acknowledgement is confirmed by the server (`double ack`).
///
/// The number of a message in its stream is its position in a stream of numbered frames, so that the journal knows which messages it
/// has: one that is delivered again is acknowledged and not taken in again, and with a durable journal each is stored once however the
/// processes end. Messages are taken in in the order of the stream: where a delivery was lost, what lies between is read from the stream
/// itself rather than waited for. So is what was delivered to a process that died with it: no redelivery is waited for.
///
/// While it has no connection, or the stream is not there, it tries again, with growing delays, and says why by [`Intake::fails`].
#[derive(Debug)]
pub struct NatsSource {
    site: Site,
}

impl NatsSource {
    /// Reads what `options` say once it is added to a system. `decoder` reads the messages, but where the subject names the tenant: there
    /// they are taken as they are.
    pub fn new(name: impl Into<String>, decoder: impl Decoder, options: NatsOptions) -> Self {
        let name = name.into();
        // A tenant's name and a space stand before the message.
        let (decoder, before): (Arc<dyn Decoder>, _) = match options.subject.names_tenant() {
            true => (Arc::new(subject::OfSubject), 256),
            false => (Arc::new(decoder), 0),
        };
        let framing = Framing::LengthPrefixed { max_bytes: options.max_frame + before };
        let spec = IngressSpec::new(&name, framing, decoder);
        Self { site: Site { name, spec, options, is_warned: AtomicBool::new(false) } }
    }
}

impl Source for NatsSource {
    fn name(&self) -> &str {
        &self.site.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let site = self.site;
            intake.begins("it has no connection yet");
            let (mut delay, mut newest) = (FIRST_DELAY, None);
            loop {
                let why = match session::serve(&site, &intake, &mut newest).await {
                    Ended::Closing => return Ok(()),
                    Ended::Refused(why) => why,
                    Ended::Broken(why) => {
                        delay = FIRST_DELAY;
                        why
                    }
                };
                // Not all at once where many lost the same server.
                let jitter = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
                intake.fails(&site.name, why, Some(jitter));
                tokio::select! {
                    biased;
                    () = intake.closing() => return Ok(()),
                    () = tokio::time::sleep(jitter) => {}
                }
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
        .boxed_local()
    }
}
