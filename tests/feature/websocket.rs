//! The listener for WebSocket, spoken to by two client libraries, and by clients that do not play fair.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use futures::{SinkExt, StreamExt};
use headworks::source::ack::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::rig::python::environment;
use crate::rig::{DEADLINE, Place, Process, connect, lines};

fn daemon(place: &Place, settings: &[(&str, &str)]) -> Command {
    let mut command = place.command(&["run", "--data", "data"]);
    command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__ADMIN__LISTEN", "");
    command.env("HEADWORKS__SOURCES__CHAT__TYPE", "websocket").env("HEADWORKS__SOURCES__CHAT__LISTEN", "127.0.0.1:0");
    for (key, value) in settings {
        command.env(format!("HEADWORKS__SOURCES__CHAT__{key}"), value);
    }
    command
}

fn start(place: &Place, settings: &[(&str, &str)]) -> (Process, SocketAddr) {
    let mut process = Process::spawn(&mut daemon(place, settings));
    let to = process.listens();
    (process, to)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

type Client = WebSocketStream<TcpStream>;

async fn open(to: SocketAddr, token: Option<&str>) -> Result<Client, tungstenite::Error> {
    let mut request = format!("ws://{to}/v1/ws").into_client_request().unwrap();
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let stream = TcpStream::connect(to).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.map(|(client, _)| client)
}

/// The next message that is none of the control.
async fn next(client: &mut Client) -> Message {
    loop {
        let message = timeout(DEADLINE, client.next()).await.unwrap().unwrap().unwrap();
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

async fn replies(client: &mut Client) -> Vec<Reply> {
    let message = next(client).await.into_text().unwrap();
    message.lines().map(|line| Reply::parse(line.as_bytes()).unwrap().unwrap()).collect()
}

async fn closed(client: &mut Client) -> (CloseCode, String) {
    loop {
        if let Message::Close(frame) = next(client).await {
            let frame = frame.unwrap();
            return (frame.code, frame.reason.to_string());
        }
    }
}

/// Reads until so many positions are acknowledged.
async fn acknowledged(client: &mut Client, mut positions: u64) {
    while positions > 0 {
        for reply in replies(client).await {
            match reply {
                Reply::Ack(range) => positions -= range.end() - range.start() + 1,
                Reply::Ok { .. } | Reply::Alive => {}
                other => panic!("{other}"),
            }
        }
    }
}

#[track_caller]
fn audited(place: &Place) {
    let audit = place.run(&["audit", "--data", "data"]);
    assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
}

#[test]
fn a_chat_of_200_clients_is_stored_to_the_last_line_each_in_its_order() {
    const CLIENTS: usize = 200;
    const MESSAGES: usize = 50;
    let place = Place::new();
    let (process, to) = start(&place, &[]);
    runtime().block_on(async {
        let clients = (0..CLIENTS).map(|id| async move {
            let mut client = open(to, None).await.unwrap();
            client.send(Message::text(format!("headworks-ack/1 stream=chat-{id} next=1 level=stored"))).await.unwrap();
            for n in 0..MESSAGES {
                let line = |n| format!("{{\"tenant\":\"room-{}\",\"from\":{id},\"n\":{n}}}", id % 10);
                // One line as text, and two as bytes.
                let message = match n % 2 {
                    0 => Message::text(line(n * 2)),
                    _ => Message::binary(format!("{}\n{}\n", line(n * 2), line(n * 2 + 1))),
                };
                client.send(message).await.unwrap();
            }
            acknowledged(&mut client, (MESSAGES + MESSAGES / 2) as u64).await;
            client.close(None).await.unwrap();
        });
        futures::future::join_all(clients).await;
    });
    let stored = place.stored();
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), CLIENTS * (MESSAGES + MESSAGES / 2));
    for id in 0..CLIENTS {
        let own = format!("\"from\":{id},");
        let numbers: Vec<u64> = stored[&format!("room-{}", id % 10)]
            .iter()
            .map(|body| str::from_utf8(body).unwrap())
            .filter(|body| body.contains(&own))
            .map(|body| serde_json::from_str::<serde_json::Value>(body).unwrap()["n"].as_u64().unwrap())
            .collect();
        let expected: Vec<u64> = (0..MESSAGES as u64 * 2).filter(|n| n % 4 != 1).collect();
        assert_eq!(numbers, expected, "{id}");
    }
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn a_client_goes_on_where_it_was_and_a_refused_line_is_named() {
    let place = Place::new();
    let (process, to) = start(&place, &[]);
    runtime().block_on(async {
        let hello = "headworks-ack/1 stream=s next=1 level=received";
        let mut client = open(to, None).await.unwrap();
        // The first message may go on after its first line.
        client.send(Message::text(format!("{hello}\n{{\"tenant\":\"acme\",\"n\":0}}"))).await.unwrap();
        assert_eq!(replies(&mut client).await, [Reply::Ok { last: 0, next: 1 }]);
        acknowledged(&mut client, 1).await;
        client.send(Message::text("oops")).await.unwrap();
        assert!(matches!(&*replies(&mut client).await, [Reply::Nack { positions, code, .. }] if *positions == (2..=2) && code == "bad_json"));
        drop(client);
        let mut again = open(to, None).await.unwrap();
        let all = format!("{hello}\n{{\"tenant\":\"acme\",\"n\":0}}\noops\n{{\"tenant\":\"acme\",\"n\":1}}");
        again.send(Message::text(all)).await.unwrap();
        assert_eq!(replies(&mut again).await, [Reply::Ok { last: 2, next: 1 }]);
        let mut answered = 0;
        while answered < 3 {
            for reply in replies(&mut again).await {
                let (Reply::Ack(range) | Reply::Nack { positions: range, .. }) = reply else { panic!("{reply}") };
                answered += range.end() - range.start() + 1;
            }
        }
        // Another connection takes the stream over.
        let mut third = open(to, None).await.unwrap();
        third.send(Message::text(hello)).await.unwrap();
        assert_eq!(replies(&mut third).await, [Reply::Ok { last: 3, next: 1 }]);
        let (code, why) = closed(&mut again).await;
        assert!(code == CloseCode::Policy && why.contains("taken this stream over"), "{code} {why}");
    });
    process.terminated().succeeded();
    assert_eq!(place.stored()["acme"], [b"{\"tenant\":\"acme\",\"n\":0}", b"{\"tenant\":\"acme\",\"n\":1}"]);
    audited(&place);
}

#[test]
fn connections_that_do_not_play_fair_are_closed_with_a_code_and_a_reason() {
    let place = Place::new();
    let (process, to) = start(&place, &[("MAX_FRAME", "1KiB"), ("MAX_MESSAGE", "4KiB")]);
    runtime().block_on(async {
        let closed_after = async |bytes: &[u8]| {
            let mut client = open(to, None).await.unwrap();
            client.get_mut().write_all(bytes).await.unwrap();
            closed(&mut client).await
        };
        let mut large = open(to, None).await.unwrap();
        large.send(Message::binary(vec![b'x'; 5_000])).await.unwrap();
        let (code, why) = closed(&mut large).await;
        assert!(code == CloseCode::Size && why.contains("4KiB (max_message)"), "{code} {why}");
        // In parts, each of which is small.
        let part = |first: u8| [&[first, 0xfe, 0x04, 0x00, 0, 0, 0, 0], &[b'x'; 1024][..]].concat();
        let (code, why) = closed_after(&[part(0x02), part(0), part(0), part(0), part(0)].concat()).await;
        assert!(code == CloseCode::Size && why.contains("max_message"), "{code} {why}");
        // Unmasked, of an unknown kind, and no UTF-8.
        assert_eq!(closed_after(&[0x82, 0x02, b'{', b'}']).await.0, CloseCode::Protocol);
        assert_eq!(closed_after(&[0x83, 0x80, 0, 0, 0, 0]).await.0, CloseCode::Protocol);
        assert_eq!(closed_after(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).await.0, CloseCode::Invalid);

        let mut wrong = open(to, None).await.unwrap();
        wrong.send(Message::text("headworks-ack/1 stream=s")).await.unwrap();
        assert!(matches!(&*replies(&mut wrong).await, [Reply::Error(why)] if why.contains("next= is missing")));
        let (code, why) = closed(&mut wrong).await;
        assert!(code == CloseCode::Policy && why.contains("next= is missing"), "{code} {why}");

        // A line that is too long costs its neighbours nothing.
        let mut acked = open(to, None).await.unwrap();
        let line = |n| format!("{{\"tenant\":\"acme\",\"n\":{n}}}");
        let message = format!("headworks-ack/1 stream=s next=1 level=stored\n{}\n{}\n{}", line(1), "x".repeat(1_100), line(2));
        acked.send(Message::text(message)).await.unwrap();
        let mut told = vec![];
        while told.len() < 4 {
            told.extend(replies(&mut acked).await);
        }
        assert!(
            told.iter().any(|reply| matches!(reply, Reply::Nack { positions, code, .. } if *positions == (2..=2) && code == "oversized")),
            "{told:?}"
        );
        // An empty message says nothing, and takes no position.
        acked.send(Message::text("")).await.unwrap();
        acked.send(Message::text(line(3))).await.unwrap();
        assert_eq!(replies(&mut acked).await, [Reply::Ack(4..=4)]);
    });
    process.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 3);
    audited(&place);
}

#[test]
fn what_is_no_websocket_is_answered_with_what_is_wrong() {
    let place = Place::new();
    let (process, to) = start(&place, &[]);
    let asked = |head: &str| {
        let mut connection = connect(to);
        connection.write_all(head.as_bytes()).unwrap();
        let (mut answer, mut byte) = (vec![], [0]);
        // The body of each answer is an object without another in it.
        let is_whole = |answer: &[u8]| match answer.starts_with(b"HTTP/1.1 101") {
            true => answer.ends_with(b"\r\n\r\n"),
            false => answer.ends_with(b"}"),
        };
        while !is_whole(&answer) && connection.read(&mut byte).is_ok_and(|read| read == 1) {
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    };
    let upgrade = "Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    for (head, status, word) in [
        ("\x16\x03\x01 a TLS hello\r\n\r\n".to_owned(), "400", ""),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "404", "GET /v1/ws"),
        ("GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426", "version 13"),
        (format!("POST /v1/ws HTTP/1.1\r\n{upgrade}{version}\r\n"), "426", "version 13"),
        (
            format!("GET /v1/ws HTTP/1.1\r\n{upgrade}Sec-WebSocket-Version: 8\r\n\r\n"),
            "426",
            "sec-websocket-version: 13",
        ),
        (format!("GET /v1/ws?tenant=a HTTP/1.1\r\n{upgrade}{version}\r\n"), "400", "tenant_from"),
        (
            format!("GET /v1/ws HTTP/1.1\r\n{upgrade}{version}Origin: http://evil.example\r\n\r\n"),
            "403",
            "needs a token",
        ),
        (
            format!("GET /v1/ws HTTP/1.1\r\n{upgrade}{version}\r\n"),
            "101",
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ),
    ] {
        let answer = asked(&head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(word), "{head}: {answer}");
    }
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn a_client_that_is_silent_also_to_pings_is_given_up_and_one_that_answers_them_is_not() {
    let place = Place::new();
    let (process, to) = start(&place, &[("IDLE_TIMEOUT", "600ms")]);
    runtime().block_on(async {
        let mut alive = open(to, None).await.unwrap();
        // It is there, and its program is not: nobody reads, and nobody answers.
        let mut dead = open(to, None).await.unwrap();
        // Half a message, and no more.
        let mut half = open(to, None).await.unwrap();
        half.get_mut().write_all(&[0x82, 0x90, 0, 0, 0, 0, b'{']).await.unwrap();
        // Not even a handshake.
        let mut mute = TcpStream::connect(to).await.unwrap();
        let mut pings = 0;
        while pings < 6 {
            let message = timeout(DEADLINE, alive.next()).await.unwrap().unwrap().unwrap();
            pings += usize::from(matches!(message, Message::Ping(_)));
        }
        alive.send(Message::text("{\"tenant\":\"acme\"}")).await.unwrap();
        for gone in [&mut dead, &mut half] {
            // What it was told is still there to be read, behind the pings.
            let mut told = vec![];
            let _ = timeout(DEADLINE, gone.get_mut().read_to_end(&mut told)).await.unwrap();
            let told = String::from_utf8_lossy(&told);
            assert!(told.ends_with("(idle_timeout), not even the answer to a ping"), "{told}");
        }
        let mut rest = vec![];
        let _ = timeout(DEADLINE, mute.read_to_end(&mut rest)).await.unwrap();
    });
    place.until("SELECT count(*) FROM events", 1);
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn a_client_that_never_reads_its_answers_is_read_from_so_far_and_given_up_and_costs_nobody_else_anything() {
    let place = Place::new();
    place.write("my.toml", "[tenants]\nmute = ['mute']\n");
    let mut command = daemon(&place, &[("IDLE_TIMEOUT", "1s")]);
    let mut process = Process::spawn(command.args(["--config", "my.toml"]));
    let to = process.listens();
    let before = process.memory();
    runtime().block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        // The kernel is to keep little for it.
        socket.set_recv_buffer_size(4_096).unwrap();
        let stream = socket.connect(to).await.unwrap();
        let (mut deaf, _) = tokio_tungstenite::client_async(format!("ws://{to}/v1/ws"), stream).await.unwrap();
        deaf.send(Message::text("headworks-ack/1 stream=deaf next=1 level=received")).await.unwrap();
        // Its answers cannot be told in ranges.
        let message = Message::binary("{\"tenant\":\"deaf\"}\n{\"tenant\":\"mute\"}\n".repeat(2_000).into_bytes());
        let mut other = open(to, None).await.unwrap();
        other.send(Message::text("headworks-ack/1 stream=other next=1 level=received")).await.unwrap();
        assert_eq!(replies(&mut other).await, [Reply::Ok { last: 0, next: 1 }]);
        let deafly = async {
            while deaf.send(message.clone()).await.is_ok() {
                other.send(Message::text("{\"tenant\":\"acme\"}")).await.unwrap();
                acknowledged(&mut other, 1).await;
            }
        };
        timeout(DEADLINE, deafly).await.expect("it is given up");
    });
    assert!(process.memory() < before + (96 << 20), "{} of {before}", process.memory());
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn pythons_websockets_is_acknowledged_and_told_of_what_is_refused_and_of_the_stop() {
    const CLIENT: &str = r#"
import asyncio, json, sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
async def answers(ws, positions):
    told = {}
    while len(told) < positions:
        for line in (await asyncio.wait_for(ws.recv(), 100)).splitlines():
            word, *rest = line.split()
            if word in ("ack", "nack"):
                a, _, b = rest[0].partition("-")
                told.update({n: " ".join([word, *rest[1:]]) for n in range(int(a), int(b or a) + 1)})
            else:
                assert word in ("ok", "alive"), line
    return told
async def main(url):
    async with connect(url) as ws:
        await ws.send("headworks-ack/1 stream=py next=1 level=stored")
        for part in range(50):
            lines = [json.dumps({"tenant": f"py-{n % 3}", "n": part * 20 + n}) for n in range(20)]
            await ws.send("\n".join(lines) if part % 2 else "\n".join(lines).encode() + b"\n")
        assert set((await answers(ws, 1000)).values()) == {"ack"}
        # In fragments.
        await ws.send(iter(['{"tenant":"py-0",', '"n":1000}\noo', 'ps\n{"tenant":"a/b"}']))
        assert await answers(ws, 3) == {1001: "ack", 1002: "nack bad_json", 1003: "nack bad_tenant"}
        await ws.ping()
        await ws.send('{"tenant":"py-0","n":1003}')
        assert await answers(ws, 1) == {1004: "ack"}
    async with connect(url) as plain:
        await plain.send('{"tenant":"plain","n":0}')
    async with connect(url) as ws:
        try:
            await ws.send("x" * 2_000_000)
            await asyncio.wait_for(ws.recv(), 100)
            assert False
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 1009 and "max_message" in closed.rcvd.reason, closed
    try:
        await connect(url, origin="http://localhost")
        assert False
    except InvalidStatus as refused:
        assert refused.response.status_code == 403, refused
    async with connect(url) as ws:
        await ws.send("headworks-ack/1 stream=py next=1005 level=stored skip=yes")
        assert await asyncio.wait_for(ws.recv(), 100) == "ok last=1004 next=1005"
        print("done", flush=True)
        assert await asyncio.wait_for(ws.recv(), 100) == "end"
        try:
            await asyncio.wait_for(ws.recv(), 100)
            assert False
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 1001 and closed.rcvd.reason == "the server stops", closed
    print("told", flush=True)
asyncio.run(main(sys.argv[1]))
"#;
    let python = environment(&["websockets==17.4"]).join("python");
    let place = Place::new();
    let (process, to) = start(&place, &[]);
    let script = place.write("client.py", CLIENT);
    let mut client =
        Command::new(python).arg(script).arg(format!("ws://{to}/v1/ws")).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "done");
    let ended = process.terminated();
    assert_eq!(said.next().unwrap().unwrap(), "told");
    assert!(client.wait().unwrap().success());
    ended.succeeded();
    let stored = place.stored();
    let numbers = |tenant: &str| -> Vec<u64> {
        let number = |body: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(body).unwrap()["n"].as_u64().unwrap();
        stored[tenant].iter().map(number).collect()
    };
    for tenant in ["py-0", "py-1", "py-2"] {
        assert!(numbers(tenant).is_sorted_by(|a, b| a < b), "{tenant}: in order, each once");
    }
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 1003);
    audited(&place);
}

#[test]
fn the_client_in_the_documentation_works() {
    let python = environment(&["websockets==17.4"]).join("python");
    let place = Place::new();
    let document = include_str!("../../docs/WEBSOCKET.md");
    let code = document.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let script = place.write("client.py", code);
    let (process, to) = start(&place, &[]);
    for end in [10, 25] {
        let input = place.write("input", lines("acme", 0..end));
        let mut client = Command::new(&python);
        client.arg(&script).arg(format!("ws://{to}/v1/ws")).arg("s").arg(input);
        let printed = Process::spawn(&mut client).ended().succeeded().text();
        let mut answered = 0;
        for line in printed.lines() {
            let Some(Reply::Ack(range)) = Reply::parse(line.as_bytes()).unwrap() else { panic!("{printed}") };
            answered += range.end() - range.start() + 1;
        }
        assert_eq!(answered, end as u64, "{printed}");
    }
    process.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 25);
}

#[test]
fn over_kills_of_the_daemon_everything_that_was_acknowledged_is_stored_once_and_in_order() {
    const KILLS: u64 = 10;
    const MESSAGES: u64 = 40;
    let place = Place::new();
    let line = |n: u64| format!("{{\"tenant\":\"acme\",\"n\":{n}}}");
    // The first position without an answer.
    let mut next = 1;
    for life in 0..=KILLS {
        let (process, to) = start(&place, &[]);
        let killed = runtime().block_on(async {
            let mut client = open(to, None).await.unwrap();
            let level = if life % 2 == 0 { "journaled" } else { "stored" };
            let hello = format!("headworks-ack/1 stream=s next={next} level={level} skip=yes");
            client.send(Message::text(hello)).await.unwrap();
            let Reply::Ok { last, next: first } = replies(&mut client).await.remove(0) else {
                panic!("it says ok first")
            };
            assert!(last + 1 >= next && first == last + 1, "what was acknowledged is there: {last} of {next}");
            for n in 0..MESSAGES {
                let lines: Vec<_> = (0..5).map(|m| line(first + n * 5 + m)).collect();
                client.send(Message::text(lines.join("\n"))).await.unwrap();
            }
            // It dies with answers outstanding, but for the last one.
            let wanted = if life < KILLS { first + life * 7 } else { first + MESSAGES * 5 - 1 };
            let mut answered = std::collections::BTreeSet::from_iter(next..first);
            while next <= wanted {
                for reply in replies(&mut client).await {
                    let Reply::Ack(range) = reply else { panic!("{reply}") };
                    answered.extend(range);
                }
                while answered.remove(&next) {
                    next += 1;
                }
            }
            life < KILLS
        });
        if killed { process.kill() } else { drop(process.terminated().succeeded()) }
    }
    let stored: Vec<_> = place.stored()["acme"].iter().map(|body| String::from_utf8(body.clone()).unwrap()).collect();
    let expected: Vec<_> = (1..next).map(line).collect();
    assert_eq!(stored, expected);
    audited(&place);
}

#[test]
fn a_stop_is_told_after_what_is_owed() {
    let place = Place::new();
    let (process, to) = start(&place, &[]);
    runtime().block_on(async {
        let mut client = open(to, None).await.unwrap();
        client.send(Message::text("headworks-ack/1 stream=s next=1 level=stored")).await.unwrap();
        client.send(Message::binary(lines("acme", 0..100))).await.unwrap();
        acknowledged(&mut client, 100).await;
        process.signal("TERM");
        assert_eq!(replies(&mut client).await, [Reply::End]);
        assert_eq!(closed(&mut client).await.0, CloseCode::Away);
    });
    process.ended().succeeded();
    assert_eq!(place.stored()["acme"].len(), 100);
    audited(&place);
}

#[test]
fn a_stop_that_stores_what_is_waited_for_tells_each_client_to_the_last() {
    const CLIENTS: u64 = 40;
    let place = Place::new();
    let mut command = daemon(&place, &[]);
    // Nothing but the stop closes a window.
    let process = Process::spawn(command.env("HEADWORKS__TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h"));
    let (mut process, mut clients) = (process, vec![]);
    let to = process.listens();
    let runtime = runtime();
    runtime.block_on(async {
        for id in 0..CLIENTS {
            let mut client = open(to, None).await.unwrap();
            let message =
                format!("headworks-ack/1 stream=s-{id} next=1 level=stored\n{{\"tenant\":\"acme\",\"id\":{id}}}");
            client.send(Message::text(message)).await.unwrap();
            assert_eq!(replies(&mut client).await, [Reply::Ok { last: 0, next: 1 }]);
            clients.push(client);
        }
    });
    let accepted = || place.json(&["tenants", "--data", "data", "--json"])[0]["live"]["accepted"].clone();
    let began = Instant::now();
    while accepted() != CLIENTS {
        assert!(began.elapsed() < DEADLINE, "{}", accepted());
    }
    process.signal("TERM");
    runtime.block_on(async {
        for client in &mut clients {
            assert_eq!(replies(client).await, [Reply::Ack(1..=1)]);
            assert_eq!(replies(client).await, [Reply::End]);
            assert_eq!(closed(client).await.0, CloseCode::Away);
        }
    });
    process.ended().succeeded();
    assert_eq!(place.stored()["acme"].len() as u64, CLIENTS);
    audited(&place);
}

#[test]
fn a_bearer_is_let_in_and_speaks_for_its_own_tenants_alone() {
    let place = Place::new();
    let file = place.write("tokens", "acme-token-0123456789 acme\nzen-token-00123456789 zen\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (process, to) = start(&place, &[("TOKENS_FILE", "tokens")]);
    runtime().block_on(async {
        for wrong in [None, Some("acme-token-0123456780")] {
            let why = open(to, wrong).await.unwrap_err();
            assert!(matches!(&why, tungstenite::Error::Http(answer) if answer.status() == 401), "{why}");
        }
        let mut client = open(to, Some("acme-token-0123456789")).await.unwrap();
        client.send(Message::text("headworks-ack/1 stream=s next=1 level=received")).await.unwrap();
        assert_eq!(replies(&mut client).await, [Reply::Ok { last: 0, next: 1 }]);
        client.send(Message::binary(lines("other", 0..1))).await.unwrap();
        let told = replies(&mut client).await;
        assert!(matches!(&*told, [Reply::Nack { code, .. }] if code == "tenant_not_allowed"), "{told:?}");
        client.send(Message::binary(lines("acme", 0..1))).await.unwrap();
        acknowledged(&mut client, 1).await;

        // As a page in a browser does.
        let mut request = format!("ws://{to}/v1/ws").into_client_request().unwrap();
        request.headers_mut().insert("origin", "http://chat.example".parse().unwrap());
        let protocols = "headworks, bearer.acme-token-0123456789";
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut page, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "headworks");
        // Its streams are those of the bearer.
        page.send(Message::text("headworks-ack/1 stream=s next=1 level=received skip=yes")).await.unwrap();
        assert_eq!(replies(&mut page).await, [Reply::Ok { last: 2, next: 3 }]);
        // Those of another bearer are others.
        let mut other = open(to, Some("zen-token-00123456789")).await.unwrap();
        other.send(Message::text("headworks-ack/1 stream=s next=1 level=received skip=yes")).await.unwrap();
        assert_eq!(replies(&mut other).await, [Reply::Ok { last: 0, next: 1 }]);
    });
    process.terminated().succeeded();
    let stored = place.stored();
    assert_eq!((stored["acme"].len(), stored.contains_key("other")), (1, false));
    audited(&place);
}
