//! Every source keeps the contract of sources, asked by clients of this test's own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use futures::{SinkExt, StreamExt};
use headworks::source::ack::Reply;
use headworks::source::{
    HttpOptions, HttpSource, PathPattern, SyslogDecoder, SyslogOptions, SyslogSource, SyslogTenant, TailOptions,
    TailSource, TcpOptions, TcpSource, Transport, WebSocketOptions, WebSocketSource,
};
use headworks::source_conformance::{self, Acknowledges, SourceTester, Told, Traits};
use headworks::{AckLevel, Framing, IngressSpec, Json, Source};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::rig::DEADLINE;

const MAX_FRAME: usize = 20_000;

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn traits() -> Traits {
    let (acknowledges, malformed) = (Acknowledges::Client, Some(b"no JSON".to_vec()));
    Traits { acknowledges, holds_back: true, malformed, max_frame: MAX_FRAME }
}

fn json() -> IngressSpec {
    IngressSpec::new("test", Framing::Lines { max_bytes: MAX_FRAME }, Json::new())
}

fn check(mut tester: impl SourceTester) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(source_conformance::source(&mut tester));
}

/// Each with its end.
fn lines(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [frame, &b"\n"[..]].concat()).collect()
}

/// What the words of the acknowledgement protocol come to.
fn count<'l>(lines: impl Iterator<Item = &'l str>, told: &mut Told) {
    for line in lines {
        let positions = |range: &std::ops::RangeInclusive<u64>| range.end() - range.start() + 1;
        match Reply::parse(line.as_bytes()).unwrap() {
            Some(Reply::Ack(range)) => told.acknowledged += positions(&range),
            Some(Reply::Nack { positions: range, .. }) => told.refused += positions(&range),
            Some(Reply::Ok { .. } | Reply::Alive) => {}
            other => panic!("{other:?}"),
        }
    }
}

struct Tcp(SocketAddr);

impl SourceTester for Tcp {
    type Connection = BufStream<TcpStream>;

    fn traits(&self) -> Traits {
        traits()
    }

    async fn source(&mut self, ack: AckLevel) -> Box<dyn Source> {
        let options = TcpOptions { ack, ..TcpOptions::default() };
        let source = TcpSource::bind("test", anywhere(), json(), options).unwrap();
        self.0 = source.local_addr().unwrap();
        Box::new(source)
    }

    async fn connect(&self, name: &str) -> Self::Connection {
        let mut connection = BufStream::new(TcpStream::connect(self.0).await.unwrap());
        let hello = format!("headworks-ack/1 stream={name} next=1 level=received\n");
        connection.write_all(hello.as_bytes()).await.unwrap();
        connection
    }

    async fn send(&self, connection: &mut Self::Connection, frames: &[Vec<u8>]) {
        let _ = connection.write_all(&lines(frames)).await;
        let _ = connection.flush().await;
    }

    async fn answers(&self, connection: &mut Self::Connection, frames: u64) -> Told {
        let mut told = Told::default();
        while told.acknowledged + told.refused < frames {
            let mut line = String::new();
            connection.read_line(&mut line).await.unwrap();
            count(line.lines(), &mut told);
        }
        told
    }

    async fn close(&self, mut connection: Self::Connection) {
        connection.shutdown().await.unwrap();
        let mut rest = String::new();
        connection.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("end\n"), "{rest}");
    }

    async fn cut(&self, mut connection: Self::Connection, beginning: &[u8]) {
        connection.write_all(beginning).await.unwrap();
        connection.flush().await.unwrap();
    }
}

struct Http(SocketAddr);

impl SourceTester for Http {
    type Connection = BufStream<TcpStream>;

    fn traits(&self) -> Traits {
        traits()
    }

    async fn source(&mut self, ack: AckLevel) -> Box<dyn Source> {
        let options = HttpOptions { ack, max_frame: MAX_FRAME, answer_within: DEADLINE, ..HttpOptions::default() };
        let source = HttpSource::bind("test", anywhere(), Json::new(), options).unwrap();
        self.0 = source.local_addr().unwrap();
        Box::new(source)
    }

    async fn connect(&self, _name: &str) -> Self::Connection {
        BufStream::new(TcpStream::connect(self.0).await.unwrap())
    }

    /// A request, which is answered in its turn.
    async fn send(&self, connection: &mut Self::Connection, frames: &[Vec<u8>]) {
        let body = lines(frames);
        let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: ";
        let request = [format!("{head}{}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        let _ = connection.write_all(&request).await;
        let _ = connection.flush().await;
    }

    async fn answers(&self, connection: &mut Self::Connection, frames: u64) -> Told {
        let mut told = Told::default();
        while told.acknowledged + told.refused < frames {
            let mut length = 0;
            loop {
                let mut line = String::new();
                assert!(connection.read_line(&mut line).await.unwrap() > 0, "it has closed the connection");
                match line.trim_end().to_ascii_lowercase().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(_) => {}
                    None if line == "\r\n" => break,
                    None => assert!(line.starts_with("HTTP/1.1 200 "), "{line}"),
                }
            }
            let mut body = vec![0; length];
            connection.read_exact(&mut body).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            told.acknowledged += body["accepted"].as_u64().unwrap();
            told.refused += body["rejected_count"].as_u64().unwrap();
        }
        told
    }

    async fn close(&self, mut connection: Self::Connection) {
        connection.shutdown().await.unwrap();
        let mut rest = vec![];
        connection.read_to_end(&mut rest).await.unwrap();
    }

    async fn cut(&self, mut connection: Self::Connection, beginning: &[u8]) {
        let head =
            "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 999\r\n\r\n";
        connection.write_all(&[head.as_bytes(), beginning].concat()).await.unwrap();
        connection.flush().await.unwrap();
    }
}

struct WebSocket(SocketAddr);

impl SourceTester for WebSocket {
    type Connection = WebSocketStream<TcpStream>;

    fn traits(&self) -> Traits {
        traits()
    }

    async fn source(&mut self, ack: AckLevel) -> Box<dyn Source> {
        let options = WebSocketOptions { ack, max_frame: MAX_FRAME, ..WebSocketOptions::default() };
        let source = WebSocketSource::bind("test", anywhere(), Json::new(), options).unwrap();
        self.0 = source.local_addr().unwrap();
        Box::new(source)
    }

    async fn connect(&self, name: &str) -> Self::Connection {
        let stream = TcpStream::connect(self.0).await.unwrap();
        let (mut client, _) = tokio_tungstenite::client_async(format!("ws://{}/v1/ws", self.0), stream).await.unwrap();
        client.send(Message::text(format!("headworks-ack/1 stream={name} next=1 level=received"))).await.unwrap();
        client
    }

    async fn send(&self, connection: &mut Self::Connection, frames: &[Vec<u8>]) {
        let _ = connection.send(Message::binary(lines(frames))).await;
    }

    async fn answers(&self, connection: &mut Self::Connection, frames: u64) -> Told {
        let mut told = Told::default();
        while told.acknowledged + told.refused < frames {
            if let Message::Text(text) = connection.next().await.unwrap().unwrap() {
                count(text.lines(), &mut told);
            }
        }
        told
    }

    async fn close(&self, mut connection: Self::Connection) {
        connection.close(None).await.unwrap();
        while let Some(Ok(_)) = connection.next().await {}
    }

    async fn cut(&self, mut connection: Self::Connection, beginning: &[u8]) {
        // A message of which more is to come, with a mask that changes nothing.
        let head = [0x82, 0x80 | u8::try_from(beginning.len() + 10).unwrap(), 0, 0, 0, 0];
        connection.get_mut().write_all(&[&head, beginning].concat()).await.unwrap();
    }
}

struct Syslog(SocketAddr);

impl SourceTester for Syslog {
    type Connection = TcpStream;

    fn traits(&self) -> Traits {
        Traits { acknowledges: Acknowledges::No, malformed: Some(b"\xff\xfe no UTF-8".to_vec()), ..traits() }
    }

    async fn source(&mut self, _ack: AckLevel) -> Box<dyn Source> {
        let options = SyslogOptions { transport: Transport::Tcp, max_frame: MAX_FRAME, ..SyslogOptions::default() };
        let source = SyslogSource::bind("test", anywhere(), SyslogDecoder::new(SyslogTenant::Host), options).unwrap();
        self.0 = source.local_addr().unwrap();
        Box::new(source)
    }

    async fn connect(&self, _name: &str) -> Self::Connection {
        TcpStream::connect(self.0).await.unwrap()
    }

    fn event(&self, tenant: &str, text: &str) -> Vec<u8> {
        format!("<14>1 2026-11-22T00:00:00Z {tenant} app - - - {text}").into_bytes()
    }

    fn text(&self, body: &[u8]) -> String {
        let event: Value = serde_json::from_slice(body).unwrap();
        event["message"].as_str().unwrap().to_owned()
    }

    async fn send(&self, connection: &mut Self::Connection, frames: &[Vec<u8>]) {
        let counted = frames.iter().flat_map(|frame| [format!("{} ", frame.len()).as_bytes(), frame].concat());
        let _ = connection.write_all(&counted.collect::<Vec<_>>()).await;
    }

    async fn close(&self, mut connection: Self::Connection) {
        connection.shutdown().await.unwrap();
        let mut rest = vec![];
        connection.read_to_end(&mut rest).await.unwrap();
    }

    async fn cut(&self, mut connection: Self::Connection, beginning: &[u8]) {
        let begun = [format!("{} ", 2 * beginning.len() + 1).as_bytes(), beginning].concat();
        connection.write_all(&begun).await.unwrap();
    }
}

/// A directory for each source, and how many sources there were.
struct Tail(TempDir, usize);

impl Tail {
    fn directory(&self) -> PathBuf {
        self.0.path().join(self.1.to_string())
    }
}

impl SourceTester for Tail {
    type Connection = PathBuf;

    fn traits(&self) -> Traits {
        Traits { acknowledges: Acknowledges::No, holds_back: false, ..traits() }
    }

    async fn source(&mut self, _ack: AckLevel) -> Box<dyn Source> {
        self.1 += 1;
        std::fs::create_dir(self.directory()).unwrap();
        let pattern = PathPattern::new(self.directory().join("*.log").to_str().unwrap()).unwrap();
        let options = TailOptions::new(pattern, self.directory().join("positions.json"));
        Box::new(TailSource::open("test", json(), options).unwrap())
    }

    async fn connect(&self, name: &str) -> Self::Connection {
        self.directory().join(format!("{name}.log"))
    }

    async fn send(&self, connection: &mut Self::Connection, frames: &[Vec<u8>]) {
        self.cut(connection.clone(), &lines(frames)).await;
    }

    async fn close(&self, _connection: Self::Connection) {}

    async fn cut(&self, connection: Self::Connection, beginning: &[u8]) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(connection).unwrap();
        file.write_all(beginning).unwrap();
    }
}

#[test]
fn the_tcp_source_keeps_the_contract() {
    check(Tcp(anywhere()));
}

#[test]
fn the_http_source_keeps_the_contract() {
    check(Http(anywhere()));
}

#[test]
fn the_websocket_source_keeps_the_contract() {
    check(WebSocket(anywhere()));
}

#[test]
fn the_syslog_source_keeps_the_contract() {
    check(Syslog(anywhere()));
}

#[test]
fn the_tail_source_keeps_the_contract() {
    check(Tail(TempDir::new().unwrap(), 0));
}
