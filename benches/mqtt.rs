//! What a broker has queued, taken in: by the plain client library, which counts and acknowledges, and by a source with a journal on
//! disk and a store that keeps nothing. `cargo bench --features mqtt --bench mqtt [-- --quick]`. Needs Mosquitto and its clients.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headworks::journal::{DurableJournal, JournalOptions};
use headworks::source::{MqttOptions, MqttSource};
use headworks::{Json, NullStore, System};
use rumqttc_v4 as rumqttc;

const TOPIC: &str = "bench/events";

/// It does not outlive the benchmark.
struct Broker(Child, u16);

impl Broker {
    fn start(directory: &std::path::Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\nuser root\n"
        );
        let path = directory.join("mosquitto.conf");
        std::fs::write(&path, text).unwrap();
        let quiet = || Stdio::null();
        let child = Command::new("/usr/sbin/mosquitto").arg("-c").arg(&path).stdout(quiet()).stderr(quiet()).spawn();
        let broker = Self(child.unwrap(), port);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        broker
    }

    /// A session with the subscription, and messages that wait in it.
    fn queue(&self, client_id: &str, lines: &[u8]) {
        let port = self.1.to_string();
        let to = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", TOPIC];
        let asked = Command::new("mosquitto_sub").args(to).args(["-i", client_id, "-c", "-E"]).status().unwrap();
        assert!(asked.success());
        let mut client = Command::new("mosquitto_pub").args(to).arg("-l").stdin(Stdio::piped()).spawn().unwrap();
        client.stdin.take().unwrap().write_all(lines).unwrap();
        assert!(client.wait().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn plain(port: u16, messages: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = rumqttc::MqttOptions::new("plain", rumqttc::Broker::tcp("127.0.0.1", port));
        options.set_clean_session(false);
        let (_client, mut connection) = rumqttc::AsyncClient::builder(options).capacity(100).build();
        let (began, mut came) = (Instant::now(), 0);
        while came < messages {
            if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(_)) = connection.poll().await.unwrap() {
                came += 1;
            }
        }
        began.elapsed()
    })
}

fn source(port: u16, messages: usize, directory: &std::path::Path) -> Duration {
    let journal = DurableJournal::open(&directory.join("journal"), JournalOptions::default(), |_, _| {}).unwrap();
    let system = System::builder().store(NullStore::default()).journal(journal).start().unwrap();
    let url = format!("mqtt://127.0.0.1:{port}").parse().unwrap();
    let options = MqttOptions {
        version: headworks::source::MqttVersion::V311,
        ..MqttOptions::new(url, TOPIC.parse().unwrap(), "source")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        system.add_source(MqttSource::new("bus", Json::new(), options).unwrap()).await.unwrap();
        while system.sources().iter().map(|(_, counters)| counters.accepted).sum::<u64>() < messages as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = began.elapsed();
        system.drain(Duration::from_secs(30)).await;
        took
    })
}

fn main() {
    let messages = if std::env::args().any(|word| word == "--quick" || word == "--test") { 5_000 } else { 100_000 };
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path());
    let filler = "x".repeat(150);
    let lines: String =
        (0..messages).map(|n| format!("{{\"tenant\":\"t{}\",\"n\":{n},\"x\":\"{filler}\"}}\n", n % 10)).collect();
    broker.queue("plain", lines.as_bytes());
    let plain = plain(broker.1, messages);
    broker.queue("source", lines.as_bytes());
    let source = source(broker.1, messages, directory.path());
    #[expect(clippy::cast_precision_loss, reason = "for eyes")]
    let rate = |took: Duration| messages as f64 / took.as_secs_f64();
    println!("plain client {:>8.0} messages/s", rate(plain));
    println!("source       {:>8.0} messages/s, {:.2} of that", rate(source), rate(source) / rate(plain));
}
