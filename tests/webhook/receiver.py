"""What stands behind a webhook in tests: it keeps batches in SQLite by their idempotency key, and verifies signatures by PyPI's
`standardwebhooks`.

    receiver.py PORT DATABASE [SECRET]

PORT 0 takes any that is free. Says what it does as JSON lines on stderr. What is POSTed to /mode as JSON changes how it behaves:
"answers" is a list of answers to the next requests, each with a status and perhaps headers and a body; "refuse" a text that no event may
have; "poison" refuses events whose n is 7 modulo 211; "lose" is how many batches it keeps without an answer; "hang" has it never answer.
"""

import gzip
import json
import sqlite3
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import standardwebhooks
import trustme
import zstandard

port, path = int(sys.argv[1]), sys.argv[2]
secret = sys.argv[3] if len(sys.argv) > 3 and sys.argv[3] else None
is_tls = "--tls" in sys.argv
lock = threading.Lock()
mode = {}


def say(message, **more):
    sys.stderr.write(json.dumps({"message": message, **more}) + "\n")
    sys.stderr.flush()


database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
database.executescript(
    """
    PRAGMA journal_mode = WAL;
    -- It is killed, and its machine is not.
    PRAGMA synchronous = OFF;
    CREATE TABLE IF NOT EXISTS batches (key TEXT PRIMARY KEY, attempt INTEGER, fence INTEGER NOT NULL DEFAULT 0, stored INTEGER);
    CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, tenant TEXT, body BLOB);
    CREATE TABLE IF NOT EXISTS requests (key TEXT, status INTEGER);
    """
)


def body_of(line):
    """As headworks escapes them: a line that begins with a backslash is a body with backslashes and newlines in it."""
    if not line.startswith(b"\\"):
        return line
    out, at = bytearray(), 1
    while at < len(line):
        if line[at : at + 1] == b"\\":
            out += b"\n" if line[at + 1 : at + 2] == b"n" else b"\\"
            at += 2
        else:
            out.append(line[at])
            at += 1
    return bytes(out)


def keep(key, tenant, attempt, events):
    """The answer to a batch."""
    with lock:
        database.execute("BEGIN IMMEDIATE")
        try:
            database.execute("INSERT OR IGNORE INTO batches VALUES (?, 0, 0, 0)", (key,))
            fence, stored = database.execute("SELECT fence, stored FROM batches WHERE key = ?", (key,)).fetchone()
            if attempt <= fence:
                return 409
            database.execute("UPDATE batches SET attempt = max(attempt, ?), stored = 1 WHERE key = ?", (attempt, key))
            if not stored:
                rows = [(key, tenant, event) for event in events]
                database.executemany("INSERT INTO events (key, tenant, body) VALUES (?, ?, ?)", rows)
            return 200
        finally:
            database.execute("COMMIT")


def take_back(key, attempt):
    with lock:
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT OR IGNORE INTO batches VALUES (?, 0, 0, 0)", (key,))
        database.execute("UPDATE batches SET fence = max(fence, ?) WHERE key = ?", (attempt, key))
        undone = database.execute("UPDATE batches SET stored = 0 WHERE key = ? AND attempt <= ?", (key, attempt))
        if undone.rowcount:
            database.execute("DELETE FROM events WHERE key = ?", (key,))
        database.execute("COMMIT")


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/mode":
            mode.clear()
            mode.update(json.loads(sent))
            return self.answer(204)
        encoding = self.headers.get("content-encoding")
        body = {None: bytes, "gzip": gzip.decompress, "zstd": zstandard.ZstdDecompressor().decompressobj().decompress}[encoding](sent)
        key = self.headers["idempotency-key"]
        if secret is not None:
            try:
                standardwebhooks.Webhook(secret).verify(body, dict(self.headers))
            except (json.JSONDecodeError, UnicodeDecodeError):
                # It verifies first, and then wants one document; ours are lines.
                pass
            except standardwebhooks.WebhookVerificationError as why:
                say("refused", why=str(why))
                return self.answer(401, body=b"who are you?\x1b[31m")
        answer = None
        with lock:
            if mode.get("answers"):
                answer = mode["answers"].pop(0)
        if self.path == "/rollback":
            wish = json.loads(body)
            assert self.headers["content-type"] == "application/json"
            assert wish["tenant"] == self.headers["headworks-tenant"]
            take_back(wish["batch"], wish["attempt"])
            say("rolled back", key=wish["batch"], attempt=wish["attempt"])
            return self.answer(204)
        assert self.path == "/batches" and self.headers["content-type"] == "application/x-ndjson"
        lines = body.removesuffix(b"\n").split(b"\n")
        assert len(lines) == int(self.headers["headworks-events"])
        if mode.get("hang"):
            say("hanging", key=key)
            threading.Event().wait()
        if answer is not None:
            say("answered", key=key, status=answer["status"], headers={k.lower(): v for k, v in self.headers.items()})
            return self.answer(answer["status"], answer.get("headers", {}), answer.get("body", "").encode())
        if mode.get("poison") and any(json.loads(line)["n"] % 211 == 7 for line in lines):
            return self.answer(422, body=b"it is poison")
        if mode.get("refuse") and mode["refuse"].encode() in body:
            return self.answer(422, body=b"one of them is bad")
        status = keep(key, self.headers["headworks-tenant"], int(self.headers["headworks-attempt"]), map(body_of, lines))
        if mode.get("lose"):
            # It has the batch, and the sender never hears of it.
            mode["lose"] -= 1
            say("lost", key=key)
            self.close_connection = True
            return self.connection.close()
        say("kept", key=key, status=status, headers={k.lower(): v for k, v in self.headers.items()}, bytes=len(sent))
        self.answer(status)

    def answer(self, status, headers={}, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", port), Receiver)
if is_tls:
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
say("listening", address="%s:%d" % server.server_address)
server.serve_forever()
