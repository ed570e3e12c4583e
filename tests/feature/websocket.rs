//! The listener for WebSocket, spoken to by a client library.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use futures::{SinkExt, StreamExt};
use headworks::source::ack::Reply;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::rig::{DEADLINE, Place, Process, lines};

fn start(place: &Place, settings: &[(&str, &str)]) -> (Process, SocketAddr) {
    let mut command = place.command(&["run", "--data", "data"]);
    command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__ADMIN__LISTEN", "");
    command.env("HEADWORKS__SOURCES__CHAT__TYPE", "websocket").env("HEADWORKS__SOURCES__CHAT__LISTEN", "127.0.0.1:0");
    for (key, value) in settings {
        command.env(format!("HEADWORKS__SOURCES__CHAT__{key}"), value);
    }
    let mut process = Process::spawn(&mut command);
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
        let message = timeout(DEADLINE, client.next()).await.expect("it says something").expect("it is open").unwrap();
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
    let (process, to) = start(&place, &[("MAX_FRAME", "1KiB"), ("IDLE_TIMEOUT", "600ms")]);
    runtime().block_on(async {
        let mut large = open(to, None).await.unwrap();
        large.send(Message::binary(vec![b'x'; 2_000])).await.unwrap();
        let (code, why) = closed(&mut large).await;
        assert!(code == CloseCode::Size && why.contains("max_frame"), "{code} {why}");

        let mut wrong = open(to, None).await.unwrap();
        wrong.send(Message::text("headworks-ack/1 stream=s")).await.unwrap();
        let (code, why) = closed(&mut wrong).await;
        assert!(code == CloseCode::Policy && why.contains("next= is missing"), "{code} {why}");

        // One that answers pings stays; one that does not is given up. It is not read, so it answers none.
        let mut alive = open(to, None).await.unwrap();
        let mut dead = open(to, None).await.unwrap();
        let mut pings = 0;
        while pings < 6 {
            let message = timeout(DEADLINE, alive.next()).await.unwrap().unwrap().unwrap();
            pings += usize::from(matches!(message, Message::Ping(_)));
        }
        alive.send(Message::text("{\"tenant\":\"acme\"}")).await.unwrap();
        let ended = loop {
            match timeout(DEADLINE, dead.next()).await.unwrap() {
                Some(Ok(Message::Close(Some(frame)))) => break Some(frame.code),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break None,
            }
        };
        assert!(ended.is_none_or(|code| code == CloseCode::Policy), "{ended:?}");
        place.until("SELECT count(*) FROM events", 1);
    });
    process.terminated().succeeded();
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
fn a_bearer_is_let_in_and_speaks_for_its_own_tenants_alone() {
    let place = Place::new();
    let file = place.write("tokens", "acme-token-0123456789 acme\n");
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
    });
    process.terminated().succeeded();
    let stored = place.stored();
    assert_eq!((stored["acme"].len(), stored.contains_key("other")), (1, false));
    audited(&place);
}
