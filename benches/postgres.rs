//! How fast the store on PostgreSQL takes events, next to PostgreSQL's own ways to load the same rows into the same table:
//! `cargo bench --features postgres --bench postgres`.
//!
//! 20 writers keep one batch of 500 events of 200 bytes each in flight, as the tenants of a busy daemon do. The others have the rows
//! at hand: the client library copies them in transactions of 2 MiB on as many connections, `psql` copies a file in one. Says rows a
//! second of wall time, and CPU time of this process a row. The server is at `HEADWORKS_BENCH_POSTGRES`:
//!
//! ```sh
//! B=/usr/lib/postgresql/15/bin; D=$(mktemp -d)                                # not as root
//! $B/initdb -D $D/d -U app -A trust >/dev/null && $B/pg_ctl -w -D $D/d -o "-p 5499 -k $D" start
//! HEADWORKS_BENCH_POSTGRES=postgres://app@127.0.0.1:5499/postgres cargo bench --features postgres --bench postgres
//! ```
#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

mod batches;
mod cpu;

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use headworks::Batch;
use headworks::store::{PostgresOptions, PostgresStore};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use batches::{ARRIVED, EVENTS, TENANTS};
use cpu::cpu_micros;

const BATCHES: u64 = 40;
const CONNECTIONS: usize = 4;
/// As many batches as come to 2 MiB.
const GROUP: usize = 15;
const ROUNDS: usize = 3;

/// The store.
async fn store(url: &str, batches: &[Vec<Batch>]) -> Duration {
    let mut options = PostgresOptions::at(url);
    options.pool_size = CONNECTIONS;
    let store = PostgresStore::open(options).expect("a server");
    let began = Instant::now();
    batches::store(&store, batches).await;
    let took = began.elapsed();
    store.close().await.expect("closed");
    took
}

const COPY: &str =
    "COPY headworks.events (batch, idx, tenant, arrived_at, event_time, body, raw) FROM STDIN (FORMAT binary)";

/// The client library, without a ledger.
async fn copied(url: &str, batches: &[Vec<Batch>]) -> Duration {
    let all: Vec<(i64, &Batch)> = (1_000_000..).zip(batches.iter().flatten()).collect();
    let clients = join_all((0..CONNECTIONS).map(async |_| connect(url).await)).await;
    let began = Instant::now();
    join_all(clients.iter().enumerate().map(async |(nth, client)| {
        for group in all.chunks(GROUP).skip(nth).step_by(CONNECTIONS) {
            client.batch_execute("BEGIN").await.expect("begun");
            let sink = client.copy_in(COPY).await.expect("a copy");
            let types =
                [Type::INT8, Type::INT4, Type::TEXT, Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::TEXT, Type::BYTEA];
            let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &types));
            let arrived = SystemTime::UNIX_EPOCH + Duration::from_millis(ARRIVED.0.cast_unsigned());
            for (number, batch) in group {
                for (idx, event) in (0i32..).zip(batch.events()) {
                    let body = std::str::from_utf8(event.body).expect("text");
                    let (time, raw) = (None::<SystemTime>, None::<&[u8]>);
                    let row = writer.as_mut();
                    row.write(&[number, &idx, &batch.tenant().as_str(), &arrived, &time, &body, &raw])
                        .await
                        .expect("written");
                }
            }
            writer.finish().await.expect("copied");
            client.batch_execute("COMMIT").await.expect("committed");
        }
    }))
    .await;
    began.elapsed()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a server");
    tokio::spawn(connection);
    client
}

/// `psql`, from a file.
fn by_psql(url: &str, batches: &[Vec<Batch>]) -> Option<Duration> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let mut rows = std::io::BufWriter::new(file.as_file_mut());
    for (number, batch) in (1_000_000..).zip(batches.iter().flatten()) {
        for (idx, event) in (0..).zip(batch.events()) {
            let (tenant, body) = (batch.tenant(), String::from_utf8_lossy(event.body));
            writeln!(rows, "{number}\t{idx}\t{tenant}\t2024-11-22 00:00:00+00\t\\N\t{body}\t\\N").expect("a row");
        }
    }
    rows.flush().expect("rows");
    drop(rows);
    let copy = format!("\\copy headworks.events FROM '{}'", file.path().display());
    let began = Instant::now();
    let ended = Command::new("psql").args(["-X", "-q", "-d", url, "-c", &copy]).status().ok()?;
    ended.success().then(|| began.elapsed())
}

fn main() {
    let Ok(url) = std::env::var("HEADWORKS_BENCH_POSTGRES") else {
        println!("no server: set HEADWORKS_BENCH_POSTGRES to its URL, as the head of benches/postgres.rs says");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let batches = batches::batches(BATCHES);
    let events = (TENANTS * EVENTS) as f64 * BATCHES as f64;
    let clear = async || {
        let sql = "TRUNCATE headworks.events, headworks.batches; CHECKPOINT";
        connect(&url).await.batch_execute(sql).await.expect("empty tables");
    };
    runtime.block_on(async {
        // Makes the tables.
        let store = PostgresStore::open(PostgresOptions::at(&url)).expect("a server");
        store.close().await.expect("closed");
    });
    for round in 1..=ROUNDS {
        let say = |what: &str, took: Duration, cpu: Option<f64>| {
            let cpu =
                cpu.zip(cpu_micros()).map(|(before, after)| format!(", {:.2} us CPU a row", (after - before) / events));
            println!(
                "round {round}, {what}: {:.3} M rows/s{}",
                events / took.as_secs_f64() / 1e6,
                cpu.unwrap_or_default()
            );
        };
        runtime.block_on(clear());
        let cpu = cpu_micros();
        say("store", runtime.block_on(store(&url, &batches)), cpu);
        runtime.block_on(clear());
        let cpu = cpu_micros();
        say("tokio-postgres COPY", runtime.block_on(copied(&url, &batches)), cpu);
        runtime.block_on(clear());
        match by_psql(&url, &batches) {
            Some(took) => say("psql \\copy", took, None),
            None => println!("round {round}, psql \\copy: no psql, or it failed"),
        }
    }
}
