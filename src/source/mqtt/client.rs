//! Connections to a broker, one after the other, for as long as the system runs.

use std::cell::RefCell;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headworks_actors::{AckLevel, Answers, Error, IngressHandle, Intake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::again::{Again, LASTS};
use super::intake::{Connection, End};
use super::packets::{self, Incoming};
use super::transport::{self, Transport};
use super::window::Window;
use super::{MqttOptions, MqttSource};
use crate::secret_file;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(10);

/// For so long at least what was fed last is answered for before the system goes on to close.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Takes messages in until the system closes; `fed` is told once nothing more will come.
pub(super) async fn run(source: MqttSource, intake: Intake, fed: oneshot::Sender<()>) {
    intake.begins("there is no connection to the broker yet");
    let mut client = Client {
        window: Window::new(source.options.unique),
        is_subscribed: false,
        is_away: false,
        was_there: false,
        again: Again::default(),
        rng: fastrand::Rng::new(),
        source,
        intake,
    };
    let mut fed = Some(fed);
    loop {
        let MqttSource { spec, stream, options, .. } = &client.source;
        let level = options.ack.max(AckLevel::Journaled);
        let opened = tokio::select! {
            biased;
            () = client.intake.closing() => return,
            opened = client.intake.open_stream(spec.clone(), stream.clone(), 1, level) => opened,
        };
        match opened {
            Ok((ingress, answers)) => {
                client.window.goes_on_after(answers.last());
                if client.serve(&ingress, answers, &mut fed).await {
                    return;
                }
            }
            Err(Error::Closed) => return,
            Err(why) => {
                if client.lost(why.to_string()).await {
                    return;
                }
            }
        }
    }
}

struct Client {
    source: MqttSource,
    intake: Intake,
    window: Window,
    /// The broker has the subscription, as long as it has the session.
    is_subscribed: bool,
    /// There was no connection, and that was told.
    is_away: bool,
    again: Again,
    /// Whether the last connection was there.
    was_there: bool,
    rng: fastrand::Rng,
}

impl Client {
    /// Feeds one ingress from one connection after the other. True once the system closes.
    async fn serve(
        &mut self,
        ingress: &IngressHandle,
        mut answers: Answers,
        fed: &mut Option<oneshot::Sender<()>>,
    ) -> bool {
        loop {
            let connected = tokio::select! {
                biased;
                () = self.intake.closing() => return true,
                connected = timeout(CONNECT, connect(&self.source.options)) => connected,
            };
            let connected = connected
                .unwrap_or_else(|_| Err(format!("it does not answer within {}", humantime::format_duration(CONNECT))));
            let end = match connected {
                Ok(connected) => self.connection(connected, ingress, &mut answers, fed).await,
                Err(why) => End::Broken(why),
            };
            let is_over = match end {
                End::Closing => true,
                End::Broken(why) => self.lost(why).await,
                // What of the last read was taken in is asked with the next one.
                End::Ingress(why) => return self.lost(format!("taking in failed: {why}")).await,
            };
            if is_over {
                return true;
            }
        }
    }

    async fn connection(
        &mut self,
        Connected { io, read, has_session, keep_alive }: Connected,
        ingress: &IngressHandle,
        answers: &mut Answers,
        fed: &mut Option<oneshot::Sender<()>>,
    ) -> End {
        self.window.connected(has_session);
        let connection = Connection::new(&self.source, &self.intake, ingress, &mut self.window, keep_alive);
        let asks = !(has_session && self.is_subscribed);
        let (mut is_away, mut is_subscribed, mut was_there) = (self.is_away, self.is_subscribed, false);
        let (again, connected) = (RefCell::new(&mut self.again), Notify::new());
        let (name, options, intake) = (&self.source.name, &self.source.options, &self.intake);
        let ready = |granted: Option<u8>| {
            let (broker, topic) = (format!("{}:{}", options.url.host, options.url.port), options.topic.filter());
            if granted.is_some_and(|granted| granted < options.qos) {
                tracing::warn!(target: "headworks", source = name, broker, topic, "the broker grants quality of service 0: what is on its way when a connection breaks is lost");
            }
            if std::mem::take(&mut is_away) {
                intake.reconnected(name);
                tracing::info!(target: "headworks", source = name, broker, topic, has_session, "connected to the broker again");
            } else {
                tracing::info!(target: "headworks", source = name, broker, topic, has_session, "connected to the broker");
            }
            if again.borrow_mut().connected() {
                intake.works(name);
            }
            (is_subscribed, was_there) = (true, true);
            connected.notify_one();
        };
        let end = {
            let lasts = async {
                connected.notified().await;
                sleep(LASTS).await;
            };
            let mut served = std::pin::pin!(connection.run(io, read, asks, answers, ready, fed, LAST_ANSWERS));
            tokio::select! {
                biased;
                end = &mut served => end,
                () = lasts => {
                    again.borrow_mut().lasted();
                    intake.works(name);
                    served.await
                }
            }
        };
        (self.is_away, self.is_subscribed, self.was_there) = (is_away, is_subscribed, was_there);
        end
    }

    /// There is no connection: tells it, and waits until it is to be tried again. True once the system closes.
    async fn lost(&mut self, why: String) -> bool {
        self.is_away = true;
        let MqttSource { name, options, .. } = &self.source;
        let was_there = std::mem::take(&mut self.was_there);
        let (why, wait) = self.again.lost(why, was_there, &options.client_id, &mut self.rng);
        let why = format!("there is no connection to the broker {}:{}: {why}", options.url.host, options.url.port);
        self.intake.fails(name, why, Some(wait));
        tokio::select! {
            biased;
            () = self.intake.closing() => true,
            () = sleep(wait) => false,
        }
    }
}

/// A connection that the broker has accepted.
struct Connected {
    io: Box<dyn Transport>,
    /// What it sent behind that.
    read: BytesMut,
    has_session: bool,
    keep_alive: Duration,
}

async fn connect(options: &MqttOptions) -> Result<Connected, String> {
    let password = match &options.password_file {
        None => None,
        Some(path) => {
            let read = secret_file::bytes(path, secret_file::MOST);
            let mut password = read.map_err(|why| format!("cannot read {} (password_file): {why}", path.display()))?;
            while password.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
                password.pop();
            }
            Some(Bytes::from(password))
        }
    };
    let mut io = transport::connect(&options.url, options.ca_file.as_deref()).await?;
    let broken = |why: std::io::Error| format!("it ended the connection: {why}");
    let mut bytes = BytesMut::new();
    packets::connect(options, password, &mut bytes)?;
    io.write_all(&bytes).await.map_err(broken)?;
    io.flush().await.map_err(broken)?;
    bytes.clear();
    loop {
        match packets::read(options.version, &mut bytes)? {
            Some(Incoming::Connected(Ok(has_session), asked)) => {
                let asked = asked.filter(|asked| *asked > 0).map(|asked| Duration::from_secs(asked.into()));
                let keep_alive = asked.unwrap_or(options.keep_alive);
                return Ok(Connected { io, read: bytes, has_session, keep_alive });
            }
            Some(Incoming::Connected(Err(why), _)) => return Err(format!("it refuses: {why}")),
            Some(Incoming::Disconnect(why)) => return Err(format!("it refuses: {why}")),
            Some(other) => return Err(format!("it answered with something else than was asked: {other:?}")),
            None if bytes.len() > 1 << 20 => return Err("its answer has no end".to_owned()),
            None => {}
        }
        if io.read_buf(&mut bytes).await.map_err(broken)? == 0 {
            return Err("it ended the connection without an answer".to_owned());
        }
    }
}
