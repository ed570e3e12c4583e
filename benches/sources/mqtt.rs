//! What Mosquitto has kept for a session, at quality of service 1, MQTT 3.1.1; plain is the client of rumqttc, which acknowledges
//! each message as it comes.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use headworks::source::{MqttOptions, MqttSource, MqttVersion};
use headworks::{Json, Source};
use rumqttc_v4 as rumqttc;
use tempfile::TempDir;

use crate::listener::runtime;
use crate::load::{Load, pieces};
use crate::side::{Counter, Feed, Plain, Result, Way};

const TOPIC: &str = "bench/events";

/// How many messages `mosquitto_pub` is given: it ends once the number of its last one is acknowledged, and has 65,535 numbers.
const AT_ONCE: usize = 50_000;

/// It does not outlive the benchmark.
struct Broker(Child, u16);

impl Broker {
    fn start(folder: &TempDir) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\nuser root\n"
        );
        let path = folder.path().join("mosquitto.conf");
        std::fs::write(&path, text)?;
        let mut command = Command::new("/usr/sbin/mosquitto");
        let child = command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let broker = Self(child.map_err(|why| format!("Mosquitto, of Debian's package mosquitto: {why}"))?, port);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }

    /// A client of the broker's makers, which is to do what it is told.
    fn client(&self, program: &str, words: &[&str], input: &[u8]) -> Result<()> {
        let port = self.1.to_string();
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", TOPIC]).args(words).stdin(Stdio::piped());
        let why = |why| format!("{program}, of Debian's package mosquitto-clients: {why}");
        let mut client = command.spawn().map_err(why)?;
        client.stdin.take().ok_or("it has no input")?.write_all(input)?;
        if client.wait()?.success() { Ok(()) } else { Err(format!("{program} failed").into()) }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Mqtt {
    broker: Broker,
    events: u64,
    lines: Vec<Bytes>,
    pair: u32,
    _folder: TempDir,
}

impl Mqtt {
    pub(crate) fn new(load: &Load) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let broker = Broker::start(&folder)?;
        Ok(Self { broker, events: load.events, lines: load.json(), pair: 0, _folder: folder })
    }
}

impl Way for Mqtt {
    /// Sessions of both sides, in which the same messages wait.
    fn prepare(&mut self) -> Result<()> {
        self.pair += 1;
        for side in ["source", "plain"] {
            self.broker.client("mosquitto_sub", &["-i", &format!("{side}-{}", self.pair), "-c", "-E"], &[])?;
        }
        let mut pieces = self.lines.iter().flat_map(|stream| pieces(stream, AT_ONCE));
        pieces.try_for_each(|lines| self.broker.client("mosquitto_pub", &["-l"], &lines))
    }

    fn source(&mut self) -> Result<(Box<dyn Source>, Feed)> {
        let url = format!("mqtt://127.0.0.1:{}", self.broker.1).parse()?;
        let options = MqttOptions::new(url, TOPIC.parse()?, format!("source-{}", self.pair));
        let options = MqttOptions { version: MqttVersion::V311, ..options };
        Ok((Box::new(MqttSource::new("mqtt", Json::new(), options)?), Box::new(|| Ok(()))))
    }

    fn plain(&mut self, came: &Counter) -> Result<Plain> {
        let (port, session, events, came) = (self.broker.1, format!("plain-{}", self.pair), self.events, came.clone());
        let feed = move || {
            runtime()?.block_on(async {
                let mut options = rumqttc::MqttOptions::new(session, rumqttc::Broker::tcp("127.0.0.1", port));
                options.set_clean_session(false);
                let (_client, mut connection) = rumqttc::AsyncClient::builder(options).capacity(100).build();
                connection.network_options.set_tcp_nodelay(true);
                let mut left = events;
                while left > 0 {
                    if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(_)) = connection.poll().await? {
                        left -= 1;
                        came.add(1);
                    }
                }
                Ok(())
            })
        };
        Ok(Plain { _server: None, feed: Box::new(feed) })
    }
}
