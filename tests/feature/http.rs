//! The listener for HTTP, spoken to by curl and by Python's urllib, and by clients that do not play fair.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::rig::{DEADLINE, Place, Process, connect, lines, sorted};

/// A daemon whose only source is HTTP, with more settings of that.
fn daemon(place: &Place, settings: &[(&str, &str)]) -> Command {
    let mut command = place.command(&["run", "--data", "data"]);
    command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__ADMIN__LISTEN", "");
    command.env("HEADWORKS__SOURCES__WEB__TYPE", "http").env("HEADWORKS__SOURCES__WEB__LISTEN", "127.0.0.1:0");
    for (key, value) in settings {
        command.env(format!("HEADWORKS__{key}"), value);
    }
    command
}

fn start(place: &Place, settings: &[(&str, &str)]) -> (Process, SocketAddr) {
    let mut process = Process::spawn(&mut daemon(place, settings));
    let to = process.listens();
    (process, to)
}

/// What a server answered.
#[derive(Debug)]
struct Told {
    status: u16,
    head: String,
    body: Value,
}

impl Told {
    #[track_caller]
    fn is(self, status: u16, accepted: u64, rejected: &[(u64, &str)]) -> Self {
        let list = self.body["rejected"].as_array().cloned().unwrap_or_default();
        let told: Vec<_> =
            list.iter().map(|line| (line["line"].as_u64().unwrap(), line["reason"].as_str().unwrap())).collect();
        assert_eq!(
            (self.status, self.body["accepted"].as_u64(), &*told),
            (status, Some(accepted), rejected),
            "{self:?}"
        );
        assert!(list.iter().all(|line| !line["detail"].as_str().unwrap().is_empty()));
        self
    }

    #[track_caller]
    fn refused(self, status: u16, word: &str) -> Self {
        let why = self.body["detail"].as_str().unwrap_or_default();
        assert!(self.status == status && why.contains(word), "{self:?}");
        self
    }
}

fn read_answer(stream: &mut impl Read) -> Told {
    let mut bytes = vec![];
    // A server that closes with something unread resets the connection; what it said counts.
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if head.starts_with("HTTP/1.1 100") {
                continue;
            }
            if length.is_some_and(|length| body.len() >= length.parse().unwrap()) {
                break;
            }
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Told { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
}

/// A request of our own, over a connection of its own.
fn post(to: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Told {
    let mut connection = connect(to);
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    // It may be answered before it is read to its end.
    let _ = connection.write_all(&[head.as_bytes(), body].concat());
    read_answer(&mut connection)
}

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

/// `curl` with these arguments, which prints the answer and then the status.
fn curl(place: &Place, to: SocketAddr, path: &str, words: &[&str]) -> (u16, Value) {
    let mut command = Command::new("curl");
    command.current_dir(place.path("")).args(["-sS", "--max-time", "110", "-w", "\n%{http_code}"]).args(words);
    let out = command.arg(format!("http://{to}{path}")).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

fn run(place: &Place, program: &str, words: &[&str]) -> Vec<u8> {
    let out = Command::new(program).current_dir(place.path("")).args(words).output().unwrap();
    assert!(out.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[track_caller]
fn audited(place: &Place) {
    let audit = place.run(&["audit", "--data", "data"]);
    assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
}

#[test]
fn curl_brings_lines_an_array_gzip_zstd_and_chunks_and_all_of_it_is_stored_once_in_order() {
    let place = Place::new();
    let (process, to) = start(&place, &[("SOURCES__WEB__ACK", "stored")]);
    let input = place.generated(&["--events", "4000", "--tenants", "5"]);
    let quarter =
        input.split_inclusive(|b| *b == b'\n').collect::<Vec<_>>().chunks(1000).map(<[_]>::concat).collect::<Vec<_>>();
    let (good, bad) = sorted(&input);
    let mut accepted = 0;
    let mut rejected = 0;
    let mut add = |(status, body): (u16, Value)| {
        assert_eq!(status, 200, "{body}");
        accepted += body["accepted"].as_u64().unwrap();
        rejected += body["rejected_count"].as_u64().unwrap();
    };
    place.write("a", &quarter[0]);
    add(curl(&place, to, "/v1/events", &["-H", "Content-Type: application/x-ndjson", "--data-binary", "@a"]));
    place.write("b", &quarter[1]);
    place.write("b.gz", run(&place, "gzip", &["-c", "b"]));
    let gzip = ["-H", "Content-Type: text/plain", "-H", "Content-Encoding: gzip", "--data-binary", "@b.gz"];
    add(curl(&place, to, "/v1/events", &gzip));
    // As a stream of which nobody knows the length.
    place.write("c", &quarter[2]);
    let chunked =
        ["-H", "Content-Type: application/x-ndjson", "-H", "Transfer-Encoding: chunked", "-T", "c", "-X", "POST"];
    add(curl(&place, to, "/v1/events", &chunked));
    place.write("d", &quarter[3]);
    place.write("d.zst", zstd(&quarter[3]));
    let zstd = ["-H", "Content-Type: application/x-ndjson", "-H", "Content-Encoding: zstd", "--data-binary", "@d.zst"];
    add(curl(&place, to, "/v1/events", &zstd));
    let events = good.values().map(Vec::len).sum::<usize>();
    assert_eq!((accepted, rejected), (events as u64, bad.len() as u64));
    assert_eq!(place.stored(), good, "answered as stored");
    let array = r#"[ {"tenant":"array","n":1}, {"tenant":"array","s":"],[\n"}, 7 ]"#;
    let (status, body) = curl(&place, to, "/v1/events", &["-H", "Content-Type: application/json", "-d", array]);
    assert_eq!((status, &body["accepted"], &body["rejected"][0]["line"]), (200, &2.into(), &3.into()), "{body}");
    assert_eq!(body["rejected"][0]["reason"], "bad_event");
    let array = [&br#"{"tenant":"array","n":1}"#[..], br#"{"tenant":"array","s":"],[\n"}"#];
    assert_eq!(place.stored()["array"], array);
    process.terminated().succeeded();
    audited(&place);
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    use async_compression::tokio::write::ZstdEncoder;
    use tokio::io::AsyncWriteExt;
    futures::executor::block_on(async {
        let mut encoder = ZstdEncoder::new(vec![]);
        encoder.write_all(bytes).await.unwrap();
        encoder.shutdown().await.unwrap();
        encoder.into_inner()
    })
}

#[test]
fn pythons_urllib_brings_lines_and_reads_what_was_refused_line_by_line() {
    const CLIENT: &str = r#"
import json, sys, urllib.request
def post(body, kind="application/x-ndjson", path="/v1/events", **headers):
    request = urllib.request.Request(sys.argv[1] + path, data=body, headers={"Content-Type": kind, **headers})
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)
accepted = 0
for part in range(20):
    lines = [json.dumps({"tenant": f"py-{n % 3}", "n": part * 100 + n}) for n in range(100)]
    status, answer = post("\n".join(lines).encode())
    assert (status, answer["accepted"], answer["rejected"]) == (200, 100, []), answer
status, answer = post(b'{"tenant":"py-0","n":2000}\noops\n\n{"n":1}\n{"tenant":"a/b"}\n{"tenant":"py-1","n":2001}')
assert status == 200 and answer["accepted"] == 2, answer
assert [(l["line"], l["reason"]) for l in answer["rejected"]] == [(2, "bad_json"), (3, "empty"), (4, "no_tenant"), (5, "bad_tenant")], answer
status, answer = post(json.dumps([{"tenant": "py-2", "n": n} for n in range(2002, 2005)]).encode(), "application/json")
assert (status, answer["accepted"]) == (200, 3), answer
assert post(b"oops\n")[0] == 400
assert post(b"x" * 3000000, "application/xml")[0] == 415
print("done")
"#;
    let place = Place::new();
    let (process, to) = start(&place, &[("SOURCES__WEB__ACK", "stored")]);
    place.write("client.py", CLIENT);
    let said = run(&place, "python3", &["client.py", &format!("http://{to}")]);
    assert_eq!(String::from_utf8_lossy(&said).trim(), "done");
    let stored = place.stored();
    let numbers = |tenant: &str| -> Vec<u64> {
        stored[tenant]
            .iter()
            .map(|body| serde_json::from_slice::<Value>(body).unwrap()["n"].as_u64().unwrap())
            .collect()
    };
    for tenant in ["py-0", "py-1", "py-2"] {
        assert!(numbers(tenant).is_sorted_by(|a, b| a < b), "{tenant}: in order, each once");
    }
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 2005);
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn a_client_that_is_gone_in_mid_body_has_its_whole_lines_taken_in_and_nothing_else() {
    let place = Place::new();
    let (process, to) = start(&place, &[]);
    let mut connection = connect(to);
    let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{NDJSON}Content-Length: 1000000\r\n\r\n");
    connection.write_all(&[head.as_bytes(), &lines("acme", 0..500), b"{\"tenant\":\"acme\",\"cut"].concat()).unwrap();
    connection.shutdown(Shutdown::Both).unwrap();
    place.until("SELECT count(*) FROM events", 500);
    // And the next one is served.
    post(to, "/v1/events", NDJSON, &lines("acme", 500..501)).is(200, 1, &[]);
    process.terminated().succeeded();
    assert_eq!(place.stored()["acme"].len(), 501);
    audited(&place);
}

#[test]
fn a_bomb_a_large_body_garbage_and_a_strange_type_are_refused_with_their_status() {
    let place = Place::new();
    let (process, to) = start(&place, &[("SOURCES__WEB__MAX_BODY", "1MiB"), ("SOURCES__WEB__MAX_FRAME", "1KiB")]);
    // 1 GiB of it.
    let script = "head -c 1073741824 /dev/zero | gzip -1 > bomb.gz";
    run(&place, "sh", &["-c", script]);
    let bomb = std::fs::read(place.path("bomb.gz")).unwrap();
    let before = process.memory();
    post(to, "/v1/events", &format!("{NDJSON}Content-Encoding: gzip\r\n"), &bomb).refused(413, "max_body");
    let zeros = vec![0; 64 << 20];
    post(to, "/v1/events", &format!("{NDJSON}Content-Encoding: zstd\r\n"), &zstd(&zeros)).refused(413, "max_body");
    assert!(process.memory() < before + (64 << 20), "{} of {before}", process.memory());
    post(to, "/v1/events", NDJSON, &lines("acme", 0..100_000)).refused(413, "max_body");
    // Of unknown length: what came before the limit is accepted.
    let mut chunked =
        format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{NDJSON}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for from in (0..100_000).step_by(1000) {
        let piece = lines("acme", from..from + 1000);
        chunked.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    let mut connection = connect(to);
    let _ = connection.write_all(&chunked);
    let told = read_answer(&mut connection).refused(413, "max_body");
    let accepted = told.body["accepted"].as_u64().unwrap();
    assert!((1..50_000).contains(&accepted), "{told:?}");

    post(to, "/v1/events", &format!("{NDJSON}Content-Encoding: gzip\r\n"), b"no gzip at all")
        .refused(400, "cannot be read");
    post(to, "/v1/events", &format!("{NDJSON}Content-Encoding: zstd\r\n"), b"no zstd at all")
        .refused(400, "cannot be read");
    post(to, "/v1/events", &format!("{NDJSON}Content-Encoding: br\r\n"), b"x").refused(415, "gzip and zstd");
    post(to, "/v1/events", "", b"x").refused(415, "application/x-ndjson");
    post(to, "/", NDJSON, b"x").refused(404, "POST /v1/events");
    post(to, "/v1/events", JSON, br#"[{"tenant":"acme"},"#).refused(400, "does not end");
    post(to, "/v1/events", JSON, br#"[{"tenant":"acme"}] x"#).refused(400, "follows");
    let oversized = [b"x".repeat(5_000), b"\n".to_vec(), lines("acme", 0..1)].concat();
    post(to, "/v1/events", NDJSON, &oversized).is(200, 1, &[(1, "oversized")]);
    let mut garbage = connect(to);
    garbage.write_all(b"\x16\x03\x01\x02\x00\x02\x00\x01\xfc\x03\x03garbage\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut garbage).status, 400);
    // That one is a client that speaks TLS, and is told that nobody does here in its own words: an alert.
    let mut hello = connect(to);
    hello.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    let mut alert = vec![];
    hello.read_to_end(&mut alert).unwrap();
    assert_eq!(alert, [21, 3, 1, 0, 2, 2, 40]);
    let mut header = connect(to);
    let _ = header.write_all(format!("POST /v1/events HTTP/1.1\r\nX: {}", "x".repeat(200 << 10)).as_bytes());
    assert_eq!(read_answer(&mut header).status, 431);
    process.terminated().succeeded();
    let stored = place.stored()["acme"].len() as u64;
    assert_eq!(stored, accepted + 3, "and one each of the arrays that broke, and of the oversized");
    audited(&place);
}

#[test]
fn a_slow_client_is_told_so_while_others_are_served() {
    let place = Place::new();
    let (process, to) = start(&place, &[("SOURCES__WEB__IDLE_TIMEOUT", "400ms")]);
    // One that does not finish its head, one that is idle, and one whose line never ends.
    let mut head = connect(to);
    head.write_all(b"POST /v1/ev").unwrap();
    let mut idle = connect(to);
    let mut body = connect(to);
    let start = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{NDJSON}Content-Length: 100000\r\n\r\n");
    body.write_all(&[start.as_bytes(), &lines("slow", 0..3)].concat()).unwrap();
    // It goes on byte by byte, while others are served, until it is told.
    let (began, mut served) = (Instant::now(), 0);
    body.set_nonblocking(true).unwrap();
    while body.peek(&mut [0]).is_err_and(|why| why.kind() == ErrorKind::WouldBlock) {
        assert!(began.elapsed() < DEADLINE, "a line that never ends is never given up");
        post(to, "/v1/events", NDJSON, &lines("acme", served..served + 1)).is(200, 1, &[]);
        served += 1;
        let _ = body.write_all(b"x");
    }
    body.set_nonblocking(false).unwrap();
    let told = read_answer(&mut body);
    assert_eq!((told.status, told.body["accepted"].as_u64()), (408, Some(3)), "{told:?}");
    assert!(served > 0);
    drop(body);
    for connection in [&mut head, &mut idle] {
        let mut rest = vec![];
        // Closed, with or without a word.
        let _ = connection.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }
    process.terminated().succeeded();
    assert_eq!((place.stored()["acme"].len(), place.stored()["slow"].len()), (served, 3));
    audited(&place);
}

#[test]
fn a_client_that_never_reads_its_answers_is_given_up_and_costs_nobody_else_anything() {
    let place = Place::new();
    let settings = [("SOURCES__WEB__IDLE_TIMEOUT", "500ms"), ("SOURCES__WEB__MAX_CONNECTIONS", "2")];
    place.write("my.toml", "[tenants]\nmute = ['mute']\n");
    let mut process = Process::spawn(daemon(&place, &settings).args(["--config", "my.toml"]));
    let to = process.listens();
    // The kernel is to keep little for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deaf = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(to).await.unwrap()
    });
    let mut deaf = deaf.into_std().unwrap();
    deaf.set_nonblocking(false).unwrap();
    deaf.set_write_timeout(Some(DEADLINE)).unwrap();
    // Each line of it is answered with one that is longer.
    let body = b"{\"tenant\":\"mute\"}\n".repeat(1_000);
    let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{NDJSON}Content-Length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), &body].concat();
    let before = process.memory();
    let began = Instant::now();
    let mut sent = 0;
    while deaf.write_all(&request).is_ok() {
        assert!(began.elapsed() < DEADLINE, "it is never given up");
        sent += 1;
        if sent % 50 == 0 {
            post(to, "/v1/events", NDJSON, &lines("acme", sent..sent + 1)).is(200, 1, &[]);
        }
    }
    assert!(process.memory() < before + (64 << 20), "{} of {before}", process.memory());
    // Its place is free.
    let (_one, _two) = (post(to, "/v1/events", NDJSON, &lines("acme", 0..1)), connect(to));
    post(to, "/v1/events", NDJSON, &lines("acme", 0..1)).is(200, 1, &[]);
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn where_there_is_no_room_or_the_store_is_away_for_too_long_the_answer_is_429_and_later_it_is_not() {
    let place = Place::new();
    let settings = [
        ("SOURCES__WEB__ANSWER_WITHIN", "300ms"),
        ("LIMITS__MAX_IN_FLIGHT", "64KiB"),
        ("SOURCES__WEB__MAX_FRAME", "16KiB"),
        ("STORE__BUSY_TIMEOUT", "20ms"),
        ("TENANTS__DEFAULTS__RETRY__BASE", "10ms"),
        ("TENANTS__DEFAULTS__RETRY__CAP", "100ms"),
    ];
    let (process, to) = start(&place, &settings);
    post(to, "/v1/events", NDJSON, &lines("acme", 0..1)).is(200, 1, &[]);
    place.until("SELECT count(*) FROM events", 1);
    let lock = place.database();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // It is taken in, and not stored in time.
    let told =
        post(to, "/v1/events?ack=stored", NDJSON, &lines("acme", 1..2)).refused(429, "not all events are stored");
    assert!(told.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", told.head);
    // More than there is room for.
    let body = lines("acme", 2..10_000);
    let key = format!("{NDJSON}Idempotency-Key: k\r\n");
    let told = post(to, "/v1/events", &key, &body).refused(429, "there was no room");
    assert!(told.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", told.head);
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    // The same again, as often as it takes, is stored once.
    let began = Instant::now();
    while post(to, "/v1/events", &key, &body).status != 200 {
        assert!(began.elapsed() < DEADLINE);
    }
    process.terminated().succeeded();
    assert_eq!(place.stored()["acme"], sorted(&lines("acme", 0..10_000)).0["acme"]);
    audited(&place);
}

#[test]
fn a_stop_that_stores_what_is_waited_for_answers_each_request_to_the_last() {
    const CLIENTS: usize = 40;
    let place = Place::new();
    // Nothing but the stop closes a window.
    let settings = [("SOURCES__WEB__ACK", "stored"), ("TENANTS__DEFAULTS__WINDOW__MAX_AGE", "1h")];
    let (process, to) = start(&place, &settings);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(to)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let body = lines("acme", n..n + 1);
        let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{NDJSON}Content-Length: {}\r\n\r\n", body.len());
        client.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    }
    let accepted = || place.json(&["tenants", "--data", "data", "--json"])[0]["live"]["accepted"].clone();
    let began = Instant::now();
    while accepted() != CLIENTS {
        assert!(began.elapsed() < DEADLINE, "{}", accepted());
    }
    process.signal("TERM");
    for client in &mut clients {
        read_answer(client).is(200, 1, &[]);
    }
    process.ended().succeeded();
    assert_eq!(place.stored()["acme"].len(), CLIENTS);
    audited(&place);
}

#[test]
fn a_tenant_above_its_rate_is_answered_with_429_and_when_to_come_again() {
    let place = Place::new();
    let throttle = "TENANTS__BY_ID__ACME__THROTTLE__";
    let settings = [
        (&*format!("{throttle}EVENTS_PER_SECOND"), "1"),
        (&*format!("{throttle}BURST_EVENTS"), "1"),
        (&*format!("{throttle}WHEN_OVER"), "reject"),
    ];
    let (process, to) = start(&place, &settings);
    let told = post(to, "/v1/events", NDJSON, &lines("acme", 0..3)).is(200, 1, &[(2, "throttled"), (3, "throttled")]);
    assert!(told.head.to_ascii_lowercase().contains("retry-after: "), "{}", told.head);
    let told = post(to, "/v1/events", NDJSON, &lines("acme", 0..3));
    // On a slow machine one more may pass.
    if told.body["accepted"] == 0 {
        assert_eq!(told.status, 429, "{told:?}");
    }
    post(to, "/v1/events", NDJSON, &lines("other", 0..3)).is(200, 3, &[]);
    process.terminated().succeeded();
    audited(&place);
}

#[test]
fn a_bearer_speaks_for_its_own_tenants_and_what_it_says_for_others_is_refused_and_counted() {
    const ACME: &str = "Authorization: Bearer acme-token-0123456789\r\n";
    let place = Place::new();
    let file = place.write("tokens", "acme-token-0123456789 acme acme-*\nother-token-0123456789 other\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let settings = [("SOURCES__WEB__TOKENS_FILE", "tokens")];
    let ended = Process::spawn(&mut daemon(&place, &settings)).ended();
    assert!(
        ended.code != Some(0) && ended.err.contains("tokens_file") && ended.err.contains("chmod 600"),
        "{}",
        ended.err
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();

    let (process, to) = start(&place, &settings);
    let body = lines("acme", 0..2);
    let told = post(to, "/v1/events", NDJSON, &body).refused(401, "Bearer");
    assert!(told.head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{}", told.head);
    let wrong = "Authorization: Bearer acme-token-0123456780\r\n";
    post(to, "/v1/events", &format!("{NDJSON}{wrong}"), &body).refused(401, "the token is not known");
    post(to, "/v1/events", &format!("{NDJSON}{ACME}"), &body).is(200, 2, &[]);
    let mixed = [body, lines("other", 0..1), lines("acme-eu", 0..1)].concat();
    post(to, "/v1/events", &format!("{NDJSON}{ACME}"), &mixed).is(200, 3, &[(3, "tenant_not_allowed")]);
    post(to, "/v1/events", &format!("{NDJSON}{ACME}"), &lines("other", 0..2)).is(
        403,
        0,
        &[(1, "tenant_not_allowed"), (2, "tenant_not_allowed")],
    );
    process.terminated().succeeded();
    let stored = place.stored();
    assert_eq!((stored["acme"].len(), stored["acme-eu"].len(), stored.contains_key("other")), (4, 1, false));
    // Nothing is kept of what it may not say.
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0);
    audited(&place);
}

#[test]
fn tokens_that_are_changed_count_from_the_signal_on_and_a_file_that_cannot_be_used_keeps_those_from_before() {
    let place = Place::new();
    place.secret("tokens", "first-token-0123456789 *\n");
    let (mut process, to) = start(&place, &[("SOURCES__WEB__TOKENS_FILE", "tokens")]);
    let status = |token: &str| {
        let headers = format!("{NDJSON}Authorization: Bearer {token}-token-0123456789\r\n");
        post(to, "/v1/events", &headers, &lines("acme", 0..1)).status
    };
    assert_eq!((status("first"), status("second")), (200, 401));
    place.write("tokens", "second-token-0123456789 *\n");
    assert_eq!((status("first"), status("second")), (200, 401));
    process.signal("HUP");
    process.says("the tokens were read again");
    assert_eq!((status("first"), status("second")), (401, 200));
    place.write("tokens", "short *\n");
    process.signal("HUP");
    let told = process.says("the tokens cannot be used, and those from before stay");
    assert!(told["why"].as_str().unwrap().contains("tokens (tokens_file): line 1: a token has from 16"), "{told}");
    let told = process.says("the configuration was read again, but not all of its files");
    assert!(
        told["report"]
            .as_str()
            .unwrap()
            .ends_with("1 file of a source cannot be used, and what was read of it before stays")
    );
    assert_eq!((status("first"), status("second")), (401, 200));
    process.terminated().succeeded();
}

#[test]
fn a_tenant_from_the_query_or_a_header_counts_for_every_line() {
    for (from, path, header) in
        [("query", "/v1/events?tenant=acme", ""), ("header", "/v1/events", "Headworks-Tenant: acme\r\n")]
    {
        let place = Place::new();
        place.write("tokens", "acme-token-0123456789 acme\n");
        std::fs::set_permissions(place.path("tokens"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = [("SOURCES__WEB__TENANT_FROM", from), ("SOURCES__WEB__TOKENS_FILE", "tokens")];
        let (process, to) = start(&place, &settings);
        let head = format!("{NDJSON}{header}Authorization: Bearer acme-token-0123456789\r\n");
        post(to, path, &head, b"{\"n\":1}\n{\"tenant\":\"other\"}\noops").is(200, 2, &[(3, "bad_json")]);
        post(to, "/v1/events", &head.replace("acme\r", "other\r").replace("=acme", "=other"), b"{}").refused(
            if from == "query" { 400 } else { 403 },
            if from == "query" { "?tenant=" } else { "may not speak" },
        );
        process.terminated().succeeded();
        assert_eq!(place.stored()["acme"], [&b"{\"n\":1}"[..], b"{\"tenant\":\"other\"}"]);
        audited(&place);
    }
}

#[test]
fn a_request_that_is_repeated_under_its_key_is_stored_once_also_over_a_killed_daemon() {
    let place = Place::new();
    let settings = [("SOURCES__WEB__ACK", "journaled")];
    let (process, to) = start(&place, &settings);
    let key = format!("{NDJSON}Idempotency-Key: \"2f6a\"\r\n");
    let body = [lines("acme", 0..700), b"oops\n".to_vec(), lines("acme", 700..1000)].concat();
    // The first one is cut off in its middle.
    let mut connection = connect(to);
    let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{key}Content-Length: {}\r\n\r\n", body.len());
    connection.write_all(&[head.as_bytes(), &body[..10_000]].concat()).unwrap();
    connection.shutdown(Shutdown::Both).unwrap();
    post(to, "/v1/events", &key, &body).is(200, 1000, &[(701, "bad_json")]);
    post(to, "/v1/events", &key, &body).is(200, 1000, &[(701, "bad_json")]);
    process.kill();

    let (process, to) = start(&place, &settings);
    post(to, "/v1/events", &key, &body).is(200, 1000, &[(701, "bad_json")]);
    let unended = body.strip_suffix(b"\n").unwrap();
    post(to, "/v1/events?ack=stored", &key, unended).is(200, 1000, &[(701, "bad_json")]);
    post(to, "/v1/events", &key, &lines("acme", 0..10)).refused(422, "another body");
    post(to, "/v1/events", &key.replace("2f6a", "2f6b"), &lines("acme", 1000..1001)).is(200, 1, &[]);
    process.terminated().succeeded();
    assert_eq!(place.stored()["acme"], sorted(&lines("acme", 0..1001)).0["acme"]);
    audited(&place);
}

#[test]
fn a_stop_answers_for_what_was_taken_in_of_a_request_and_refuses_the_rest() {
    let place = Place::new();
    let (process, to) = start(&place, &[("SOURCES__WEB__ACK", "stored")]);
    let mut connection = connect(to);
    let head = format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{NDJSON}Content-Length: 100000\r\n\r\n");
    connection.write_all(&[head.as_bytes(), &lines("acme", 0..10)].concat()).unwrap();
    place.until("SELECT count(*) FROM events", 10);
    process.signal("TERM");
    let told = read_answer(&mut connection).is(503, 10, &[]);
    assert!(told.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", told.head);
    drop(connection);
    process.ended().succeeded();
    audited(&place);
}

#[test]
fn tokens_that_cannot_be_used_end_the_start_with_their_file_and_key() {
    let place = Place::new();
    let mut command = place.daemon();
    command
        .env("HEADWORKS__SOURCES__WEB__TYPE", "http")
        .env("HEADWORKS__SOURCES__WEB__LISTEN", "127.0.0.1:0")
        .env("HEADWORKS__SOURCES__WEB__TOKENS_FILE", place.path("nothing"));
    let err = Process::spawn(&mut command).ended().with(78).err;
    assert!(err.contains("nothing (sources.web.tokens_file): ") && !err.contains("cannot listen"), "{err}");
}
