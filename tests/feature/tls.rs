//! TLS of sources: clients that are not ours, certificates that count and others, and what becomes of those who do not play fair.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::rig::certificates::{authority, certificate, python};
use crate::rig::{DEADLINE, Place, Process, connect, lines, metric, send, until_metric};

const REFUSED: &str = "connection refused";

/// A place with an authority and a certificate for a server on this machine.
fn place() -> Place {
    let place = Place::new();
    authority(&place, "ca");
    certificate(&place, "ca", "server", "server", "IP:127.0.0.1,DNS:localhost", "30");
    place
}

/// A daemon with sources, each a name and its keys; and where they listen, by their names.
fn start(place: &Place, sources: &[(&str, &str)]) -> (Process, Vec<SocketAddr>) {
    let table = |(name, keys): &(&str, &str)| {
        format!(
            "[sources.{name}]\nlisten = '127.0.0.1:0'\n{keys}\ntls.cert_file = 'server.pem'\ntls.key_file = 'server.key'\n"
        )
    };
    place.write("my.toml", sources.iter().map(table).collect::<String>());
    let mut command = place.command(&["run", "--config", "my.toml", "--data", "data"]);
    command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__ADMIN__LISTEN", "");
    let mut process = Process::spawn(&mut command);
    let at = sources.iter().map(|_| process.listens()).collect();
    (process, at)
}

/// `openssl s_client`, which sends this and ends once the other side has; with more words, as its own certificate.
fn s_client(place: &Place, to: SocketAddr, input: &[u8], words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("openssl");
    command.current_dir(place.path("")).args(["s_client", "-connect", &to.to_string(), "-CAfile", "ca.pem"]);
    command.args(["-verify_return_error", "-quiet", "-no_ign_eof"]).args(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may be refused before it has said all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let ended = child.wait_with_output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

fn curl(place: &Place, to: SocketAddr, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("curl");
    command.current_dir(place.path("")).args(["-sS", "--max-time", "110", "--cacert", "ca.pem"]);
    command.args(["-H", "Content-Type: application/x-ndjson"]).args(words);
    let ended = command.arg(format!("https://{to}/v1/events")).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    (ended.status.code(), told)
}

/// Speaks the protocol of acknowledgements over TLS: each frame is acknowledged, and then the daemon says that this is the end.
const ACKED: &str = r#"
import socket, ssl, sys
port, count, tenant, cert = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
context = ssl.create_default_context(cafile="ca.pem")
if cert: context.load_cert_chain(cert[0] + ".pem", cert[0] + ".key")
tls = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=110), server_hostname="localhost")
answers = tls.makefile("r")
tls.sendall(b"headworks-ack/1 stream=s next=1 level=stored\n")
ok = answers.readline()
assert ok == "ok last=0 next=1\n", ok
for n in range(count):
    tls.sendall(b'{"tenant":"%s","n":%d}\n' % (tenant.encode(), n))
position, told = 0, []
while position < count:
    line = answers.readline()
    assert line, told
    if line.startswith("alive"): continue
    word, positions = line.split()[:2]
    told.append(line.strip())
    position = int(positions.split("-")[-1])
print(told[0].split()[0], told[-1].split()[2:] or "")
"#;

#[test]
fn openssl_curl_and_python_bring_events_over_tls_to_each_source_and_what_is_sent_is_stored() {
    let place = place();
    let (process, at) = start(
        &place,
        &[("a", ""), ("b", "type = 'http'\nack = 'stored'"), ("c", "type = 'syslog'\ntransport = 'tcp'")],
    );
    let (code, told) = s_client(&place, at[0], &lines("openssl", 0..100), &["-tls1_3"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = s_client(&place, at[0], &lines("openssl", 100..200), &["-tls1_2"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(python(&place, ACKED, &[&at[0].port().to_string(), "500", "python"]).trim(), "ack");
    place.write("body", lines("curl", 0..1_000));
    let (code, told) = curl(&place, at[1], &["--data-binary", "@body"]);
    assert_eq!((code, &serde_json::from_str::<Value>(&told).unwrap()["accepted"]), (Some(0), &1_000.into()), "{told}");
    let syslog: String = (0..50).map(|n| format!("<13>1 2026-01-02T03:04:05Z logs app - - - {n}\n")).collect();
    let (code, told) = s_client(&place, at[2], syslog.as_bytes(), &[]);
    assert_eq!(code, Some(0), "{told}");
    let counted = "<13>1 2026-01-02T03:04:05Z logs app - - - counted";
    s_client(&place, at[2], format!("{} {counted}", counted.len()).as_bytes(), &[]);
    // More than fits into any buffer on the way.
    let mut much = vec![];
    (0..20_000).for_each(|n| {
        much.extend(format!("{{\"tenant\":\"much\",\"n\":{n},\"x\":\"{}\"}}\n", "x".repeat(500)).bytes())
    });
    assert_eq!(s_client(&place, at[0], &much, &[]).0, Some(0));
    place.until("SELECT count(*) FROM events", 200 + 500 + 1_000 + 51 + 20_000);
    process.terminated().succeeded();
    let stored = place.stored();
    assert_eq!(stored["openssl"].concat(), lines("openssl", 0..200).replace_newlines());
    assert_eq!(stored["curl"].concat(), lines("curl", 0..1_000).replace_newlines());
    assert!(
        stored["much"]
            .iter()
            .enumerate()
            .all(|(n, body)| body.starts_with(format!("{{\"tenant\":\"much\",\"n\":{n},").as_bytes()))
    );
}

trait ReplaceNewlines {
    fn replace_newlines(self) -> Vec<u8>;
}

impl ReplaceNewlines for Vec<u8> {
    fn replace_newlines(self) -> Self {
        self.into_iter().filter(|byte| *byte != b'\n').collect()
    }
}

const MUTUAL: &str = "tls.client_ca_file = 'ca.pem'";

#[test]
fn a_certificate_lets_its_client_speak_for_the_tenants_it_names_and_who_has_none_that_counts_is_refused() {
    let place = place();
    authority(&place, "other");
    certificate(&place, "ca", "acme", "acme", "DNS:acme.eu", "30");
    certificate(&place, "ca", "expired", "acme", "", "-1");
    certificate(&place, "other", "stranger", "acme", "", "30");
    certificate(&place, "ca", "nobody", "No Tenant", "", "30");
    let keys = format!("{MUTUAL}\ntls.tenants = 'certificate'");
    let (mut process, at) = start(&place, &[("a", &keys), ("b", &format!("{keys}\ntype = 'http'\nack = 'stored'"))]);
    let mixed = [lines("acme", 0..2), lines("other", 0..3), lines("acme.eu", 0..1)].concat();

    let (code, told) = s_client(&place, at[0], &mixed, &["-cert", "acme.pem", "-key", "acme.key"]);
    assert_eq!(code, Some(0), "{told}");
    place.until("SELECT count(*) FROM events", 3);
    until_metric(&place, "headworks_source_rejected_total{source=\"a\"}", 3);
    let mut refused = 3;
    for (client, code, word) in [
        (None, "handshake_failed", "it shows no certificate"),
        (Some("expired"), "handshake_failed", "its certificate has expired"),
        (Some("stranger"), "handshake_failed", "signed by none of those in tls.client_ca_file"),
        (Some("nobody"), "tenant_not_allowed", "\"No Tenant\", none of which is a tenant's"),
    ] {
        let files = client.map(|name| [format!("{name}.pem"), format!("{name}.key")]);
        let words: Vec<_> = files.iter().flat_map(|[cert, key]| ["-cert", cert, "-key", key]).collect();
        s_client(&place, at[0], &lines("acme", 2..3), &words);
        let entry = process.says(REFUSED);
        assert!(entry["code"] == code && entry["why"].as_str().unwrap().contains(word), "{entry}");
        refused += 1;
        until_metric(&place, "headworks_source_rejected_total{source=\"a\"}", refused);
    }

    // By requests: what is refused is said of each line.
    place.write("body", &mixed);
    let (code, told) = curl(&place, at[1], &["--cert", "acme.pem", "--key", "acme.key", "--data-binary", "@body"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["accepted"], &told["rejected_count"]), (Some(0), &3.into(), &3.into()), "{told}");
    let (code, told) = curl(&place, at[1], &["--data-binary", "@body"]);
    assert!(code != Some(0), "{told}");

    // And with acknowledgements; a stream of one client is not that of another of the same name.
    assert!(
        python(&place, ACKED, &[&at[0].port().to_string(), "5", "other", "acme"])
            .contains("nack ['tenant_not_allowed']")
    );
    process.terminated().succeeded();
    let stored = place.stored();
    assert_eq!((stored["acme"].len(), stored["acme.eu"].len(), stored.len()), (4, 2, 2));
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0, "nothing is kept of what a client may not say");
    let audit = place.run(&["audit", "--data", "data"]);
    assert_eq!(audit.code, Some(0), "{}{}", audit.text(), audit.err);
}

#[cfg(feature = "websocket")]
#[test]
fn a_websocket_over_tls_speaks_for_the_tenants_of_its_certificate_and_its_streams_are_its_own() {
    const CLIENT: &str = r#"
import asyncio, json, ssl, sys
from websockets.asyncio.client import connect
async def main(port, own, other):
    context = ssl.create_default_context(cafile="ca.pem")
    try:
        async with connect(f"wss://127.0.0.1:{port}/v1/ws", ssl=context) as ws:
            await asyncio.wait_for(ws.recv(), 100)
        assert False, "who shows no certificate is let in"
    except Exception as refused:
        assert not isinstance(refused, (AssertionError, TimeoutError)), refused
    context.load_cert_chain(own + ".pem", own + ".key")
    async with connect(f"wss://127.0.0.1:{port}/v1/ws", ssl=context) as ws:
        await ws.send("headworks-ack/1 stream=s next=1 level=stored")
        # That another client has a stream of that name is nothing to this one.
        assert await asyncio.wait_for(ws.recv(), 100) == "ok last=0 next=1"
        await ws.send("\n".join(json.dumps({"tenant": tenant, "n": n}) for n, tenant in enumerate([own, other] * 50)))
        told = {}
        while len(told) < 100:
            for line in (await asyncio.wait_for(ws.recv(), 100)).splitlines():
                word, *rest = line.split()
                if word != "alive":
                    first, _, last = rest[0].partition("-")
                    told.update({n: [word, *rest[1:]] for n in range(int(first), int(last or first) + 1)})
        words = [["ack"], ["nack", "tenant_not_allowed"]] * 50
        assert [told[n] for n in range(1, 101)] == words, told
asyncio.run(main(*sys.argv[1:]))
"#;
    let place = place();
    for name in ["acme", "zen"] {
        certificate(&place, "ca", name, name, "", "30");
    }
    let keys = format!("{MUTUAL}\ntls.tenants = 'certificate'\ntype = 'websocket'");
    let (process, at) = start(&place, &[("a", &keys)]);
    let script = place.write("client.py", CLIENT);
    for (own, other) in [("acme", "zen"), ("zen", "acme")] {
        let python = crate::rig::python::environment(&["websockets==17.4"]).join("python");
        let mut client = Command::new(python);
        client.current_dir(place.path("")).arg(&script).args([&at[0].port().to_string(), own, other]);
        let ended = client.output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    until_metric(&place, "headworks_source_rejected_total{source=\"a\"}", 2 + 2 * 50);
    process.terminated().succeeded();
    let stored = place.stored();
    assert_eq!((stored["acme"].len(), stored["zen"].len(), stored.len()), (50, 50, 2));
    assert_eq!(place.number("SELECT count(*) FROM dead_letters"), 0, "nothing is kept of what a client may not say");
}

#[test]
fn a_file_says_whom_clients_may_speak_for_and_a_stream_belongs_to_its_client() {
    let place = place();
    certificate(&place, "ca", "one", "Sensor 1", "", "30");
    certificate(&place, "ca", "two", "", "URI:spiffe://example.org/two", "30");
    place.write("clients", "# who\n\"Sensor 1\" acme-*\nspiffe://example.org/two zen acme-eu\n");
    let (mut process, at) = start(&place, &[("a", &format!("{MUTUAL}\ntls.tenants_file = 'clients'"))]);
    let port = at[0].port().to_string();
    // Each begins its own stream "s".
    assert_eq!(python(&place, ACKED, &[&port, "3", "acme-eu", "one"]).trim(), "ack");
    assert_eq!(python(&place, ACKED, &[&port, "3", "acme-eu", "two"]).trim(), "ack");
    let mixed = [lines("zen", 0..1), lines("acme-us", 0..1)].concat();
    s_client(&place, at[0], &mixed, &["-cert", "two.pem", "-key", "two.key"]);
    place.until("SELECT count(*) FROM events", 7);

    // Another file counts for new connections once it is read again; one that is wrong does not.
    place.write("clients", "\"Sensor 1\" zen\n");
    process.signal("HUP");
    process.says("the certificates were read again");
    s_client(&place, at[0], &lines("zen", 1..2), &["-cert", "two.pem", "-key", "two.key"]);
    assert!(process.says(REFUSED)["why"].as_str().unwrap().contains("none of which is in tls.tenants_file"));
    place.write("clients", "\"Sensor 1\n");
    process.signal("HUP");
    let why = process.says("the certificates cannot be used, and those from before stay")["why"].to_string();
    assert!(why.contains("tls.tenants_file") && why.contains("line 1"), "{why}");
    s_client(&place, at[0], &lines("zen", 1..2), &["-cert", "one.pem", "-key", "one.key"]);
    place.until("SELECT count(*) FROM events", 8);
    process.terminated().succeeded();
    assert_eq!((place.stored()["acme-eu"].len(), place.stored()["zen"].len()), (6, 2));
}

#[test]
fn another_certificate_is_shown_once_it_is_read_again_and_no_connection_ends() {
    let place = place();
    let (mut process, at) = start(&place, &[("a", "")]);
    let shown = |place: &Place| {
        let out = python(
            place,
            "import ssl, sys\nprint(ssl.get_server_certificate(('127.0.0.1', int(sys.argv[1])), timeout=110))",
            &[&at[0].port().to_string()],
        );
        place.write("shown.pem", out);
        let out = Command::new("openssl")
            .args(["x509", "-in", "shown.pem", "-noout", "-subject"])
            .current_dir(place.path(""))
            .output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    assert!(shown(&place).contains("CN = server"));
    let mut command = Command::new("openssl");
    command.current_dir(place.path("")).args([
        "s_client",
        "-connect",
        &at[0].to_string(),
        "-CAfile",
        "ca.pem",
        "-quiet",
        "-no_ign_eof",
    ]);
    let mut staying = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = staying.stdin.take().unwrap();
    input.write_all(&lines("acme", 0..1)).unwrap();
    place.until("SELECT count(*) FROM events", 1);
    certificate(&place, "ca", "server", "renewed", "IP:127.0.0.1", "30");
    process.signal("HUP");
    process.says("the certificates were read again");
    assert!(shown(&place).contains("CN = renewed"));
    input.write_all(&lines("acme", 1..2)).unwrap();
    place.until("SELECT count(*) FROM events", 2);
    drop(input);
    assert!(staying.wait().unwrap().success());
    process.terminated().succeeded();
}

#[test]
fn plain_bytes_to_tls_and_tls_to_a_plain_port_are_refused_with_a_reason_and_counted_and_others_go_on() {
    let place = place();
    let (mut process, at) = start(&place, &[("a", ""), ("b", "type = 'http'")]);
    let plain_file = "[sources.c]\nlisten = '127.0.0.1:0'\n[sources.d]\nlisten = '127.0.0.1:0'\ntype = 'http'\n";
    let other = Place::new();
    other.write("my.toml", plain_file);
    other.write("ca.pem", std::fs::read(place.path("ca.pem")).unwrap());
    let mut command = other.command(&["run", "--config", "my.toml", "--data", "data"]);
    let mut plain = Process::spawn(command.env("HEADWORKS__LOG__FORMAT", "json").env("HEADWORKS__ADMIN__LISTEN", ""));
    let plain_at = [plain.listens(), plain.listens()];

    for (to, said) in [(at[0], lines("acme", 0..5)), (at[1], b"POST /v1/events HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())] {
        let mut connection = connect(to);
        connection.write_all(&said).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "error this port speaks TLS, and nothing else\n");
        let entry = process.says(REFUSED);
        assert!(entry["why"].as_str().unwrap().contains("it does not speak TLS"), "{entry}");
    }
    let mut garbage = connect(at[0]);
    garbage.write_all(b"\x16\x03\x01\x00\x05\x01rest of what is no hello, by far not").unwrap();
    let mut answer = vec![];
    let _ = garbage.read_to_end(&mut answer);
    assert!(process.says(REFUSED)["why"].as_str().unwrap().contains("the TLS handshake failed"));
    assert_eq!(metric(&place, "headworks_source_rejected_total{source=\"a\"}"), 2);
    // Whoever says nothing and goes, as a health check does, is none.
    drop(connect(at[0]));
    assert_eq!(s_client(&place, at[0], &lines("acme", 0..3), &[]).0, Some(0));
    place.until("SELECT count(*) FROM events", 3);
    assert_eq!(metric(&place, "headworks_source_rejected_total{source=\"a\"}"), 2);
    process.terminated().succeeded();

    for (nth, to) in plain_at.into_iter().enumerate() {
        let (code, told) = s_client(&other, to, b"", &[]);
        assert!(code != Some(0) && told.contains("alert handshake failure"), "{told}");
        let entry = plain.says(REFUSED);
        assert!(entry["why"].as_str().unwrap().contains("it speaks TLS, which this source does not"), "{entry}");
        assert_eq!(metric(&other, &format!("headworks_source_rejected_total{{source=\"{}\"}}", ["c", "d"][nth])), 1);
    }
    send(plain_at[0], &lines("acme", 0..3));
    other.until("SELECT count(*) FROM events", 3);
    plain.terminated().succeeded();
    assert_eq!(other.number("SELECT count(*) FROM dead_letters"), 0);
}

#[test]
fn who_never_ends_its_handshake_gives_way_to_who_does() {
    const IDLE: usize = 600;
    let place = place();
    let (mut process, at) = start(&place, &[("a", "")]);
    // A beginning of a hello, and no more of it: far more than may shake hands at a time.
    let idle: Vec<_> = (0..IDLE)
        .map(|_| {
            let mut connection = connect(at[0]);
            connection.write_all(b"\x16\x03\x01").unwrap();
            connection
        })
        .collect();
    let began = Instant::now();
    assert_eq!(s_client(&place, at[0], &lines("acme", 0..3), &[]).0, Some(0));
    place.until("SELECT count(*) FROM events", 3);
    let why = process.says(REFUSED)["why"].to_string();
    // While others wait for its turn, long before the ten seconds that it would have alone.
    assert!(why.contains("its TLS handshake was not done after") && !why.contains("after 10 s"), "{why}");
    for mut connection in idle {
        let mut answer = vec![];
        let _ = connection.read_to_end(&mut answer);
    }
    assert!(began.elapsed() < DEADLINE);
    until_metric(&place, "headworks_source_rejected_total{source=\"a\"}", IDLE as u64);
    process.terminated().succeeded();
}

#[test]
fn files_that_cannot_be_used_end_the_start_with_78_and_the_file_and_its_key() {
    let place = place();
    certificate(&place, "ca", "another", "another", "", "30");
    for (keys, word) in [
        (
            "tls.cert_file = 'none.pem'\ntls.key_file = 'server.key'",
            "cannot read certificates (PEM) from none.pem (tls.cert_file)",
        ),
        ("tls.cert_file = 'server.pem'\ntls.key_file = 'server.pem'", "server.pem (tls.key_file)"),
        (
            "tls.cert_file = 'server.pem'\ntls.key_file = 'another.key'",
            "it is not that of the certificate in server.pem",
        ),
        (
            "tls.cert_file = 'server.pem'\ntls.key_file = 'server.key'\ntls.client_ca_file = 'server.key'",
            "there is none in it",
        ),
    ] {
        place.write("my.toml", format!("[sources.a]\nlisten = '127.0.0.1:0'\n{keys}"));
        let mut command = place.command(&["run", "--config", "my.toml", "--data", "data"]);
        let ended = Process::spawn(command.env("HEADWORKS__ADMIN__LISTEN", "")).ended().with(78);
        assert!(ended.err.contains(word) && ended.err.contains("source a cannot speak TLS"), "{}", ended.err);
    }
}

#[test]
fn a_certificate_that_clients_refuse_or_soon_will_is_told_of_at_the_start_by_check_and_by_ready() {
    let place = place();
    let told_of = |place: &Place| {
        let ready = place.run(&["ready", "--data", "data"]).succeeded().text();
        let check = place.run(&["check", "-c", "my.toml"]).succeeded().text();
        let [ready, check] = [ready, check].map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        (ready, check)
    };
    certificate(&place, "ca", "server", "server", "IP:127.0.0.1", "-1");
    let (process, _) = start(&place, &[("a", "")]);
    let (ready, check) = told_of(&place);
    let expired = "source a: the certificate in server.pem (tls.cert_file) has expired, at 2";
    assert!(ready.contains(&format!("ready note: {expired}")) && check.contains(expired), "{ready}\n{check}");
    let ended = process.terminated().succeeded();
    assert!(ended.err.contains("has expired, at "), "{}", ended.err);

    certificate(&place, "ca", "server", "server", "IP:127.0.0.1", "30");
    let (mut process, _) = start(&place, &[("a", "")]);
    let (ready, check) = told_of(&place);
    assert!(ready == "ready" && !check.contains("expire"), "{ready}\n{check}");
    certificate(&place, "ca", "server", "server", "IP:127.0.0.1", "13");
    process.signal("HUP");
    process.says("the certificates were read again");
    process.says("the configuration was read again");
    let (ready, check) = told_of(&place);
    let soon = "the certificate in server.pem (tls.cert_file) expires soon, at 2";
    assert!(ready.contains(soon) && check.contains(soon), "{ready}\n{check}");
    place.write("server.pem", "no certificate");
    process.signal("HUP");
    process.says("the certificates cannot be used, and those from before stay");
    let told = process.says("the configuration was read again, but not all of its files");
    let says = "nothing is changed; 1 file of a source cannot be used, and what was read of it before stays";
    assert_eq!((told["report"].as_str(), told["level"].as_str()), (Some(says), Some("WARN")));
    assert!(process.terminated().succeeded().err.contains("expires soon"));
}
