//! The store on PostgreSQL, against a server: its contract, its tables, its errors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures::future::join_all;
use headworks::store::postgres::{BodyColumn, OpenError, Partition, SchemaMode, SslMode};
use headworks::store::{PostgresOptions, PostgresReader, PostgresStore};
use headworks::{Attempt, Batch, ChunkBuilder, Opening, Seq, Storage, StorageError, UnixMillis};

use crate::rig::batches::{assert_outage, batch, put, tenant};
use crate::rig::postgres::{Postgres, assert_refused, keeps_the_contract};

#[tokio::test]
async fn the_postgres_store_keeps_the_contract_and_so_it_does_with_one_connection_and_the_smallest_queue_and_groups() {
    let postgres = Postgres::start();
    for kind in ["whole", "small", "parts"] {
        let options = |namespace: &str| {
            let mut options = postgres.options(namespace);
            match kind {
                "small" => (options.queue, options.group_max_bytes, options.pool_size) = (1, 0, 1),
                "parts" => options.partition = Partition::Day,
                _ => {}
            }
            options
        };
        keeps_the_contract(kind, options).await;
    }
}

#[tokio::test]
async fn events_are_rows_that_sql_finds_with_their_times_and_a_rollback_leaves_none() {
    let postgres = Postgres::start();
    let store = postgres.open("headworks");
    let mut builder = ChunkBuilder::default();
    builder.push(b"{\"level\":\"error\"}", Some(UnixMillis(1_700_000_000_123)));
    builder.push(b"\xff", Some(UnixMillis(i64::MAX)));
    let chunk = builder.build(tenant("acme"), UnixMillis(1_732_233_600_007)).unwrap();
    let batch = Batch::of_chunk(Opening(1), Seq(1), chunk);
    put(&store, &batch, 1).await.unwrap();
    let level = "SELECT body::jsonb ->> 'level' FROM headworks.events WHERE tenant = 'acme' AND raw IS NULL";
    assert_eq!(postgres.ask(level), "error");
    let rows = "SELECT idx, extract(epoch from arrived_at), extract(epoch from event_time), encode(raw, 'hex')
                FROM headworks.events ORDER BY idx";
    assert_eq!(postgres.ask(rows), "0|1732233600.007000|1700000000.123000|\n1|1732233600.007000|Infinity|ff");
    assert_eq!(postgres.ask("SELECT batch FROM headworks.events_with_batch LIMIT 1"), batch.id().to_string());
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "0");
    assert!(postgres.reader("headworks").tenants().unwrap().is_empty());
}

#[tokio::test]
async fn a_late_rollback_does_not_take_away_what_a_later_attempt_was_told_is_stored_not_even_after_a_restart() {
    let postgres = Postgres::start();
    let batch = batch("acme", 1, &["a"]);
    let store = postgres.open("headworks");
    for attempt in [1, 2] {
        put(&store, &batch, attempt).await.unwrap();
    }
    store.close().await.unwrap();
    let store = postgres.open("headworks");
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    assert_eq!(postgres.reader("headworks").bodies(&tenant("acme")).unwrap(), [b"a"]);
    store.rollback(batch.id(), Attempt(2)).await.unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "0");
}

#[tokio::test]
async fn other_content_under_the_same_id_is_refused_for_good_and_its_neighbours_in_the_transaction_are_stored() {
    let postgres = Postgres::start();
    let mut options = postgres.options("headworks");
    options.pool_size = 1;
    let store = PostgresStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &["a", "b"]), 1).await.unwrap();
    let batches = [batch("zen", 1, &["z"]), batch("acme", 1, &["a", "c"]), batch("umbrella", 1, &["u"])];
    let mut answers = join_all(batches.iter().map(|batch| put(&store, batch, 1))).await;
    let refused = answers.remove(1).unwrap_err();
    assert!(matches!(refused, StorageError::Permanent { .. }), "{refused:?}");
    assert!(refused.to_string().contains("already stored with other content: 2 events there"), "{refused}");
    answers.into_iter().for_each(Result::unwrap);
    for (name, events) in [("acme", 2), ("zen", 1), ("umbrella", 1)] {
        assert_eq!(store.count(&tenant(name)).await, Some(events), "{name}");
    }
}

#[tokio::test]
async fn what_jsonb_cannot_hold_is_refused_for_good_and_its_neighbours_in_the_transaction_are_stored() {
    let postgres = Postgres::start();
    let mut options = postgres.options("headworks");
    (options.pool_size, options.body) = (1, BodyColumn::Jsonb);
    let store = PostgresStore::open(options.clone()).unwrap();
    let poisons = ["no json", "{\"a\":\"\\u0000\"}", "[1e400000]", &"[".repeat(100_000), "\"\\ud800\""];
    for (seq, poison) in (1..).zip(poisons) {
        let batches =
            [batch("zen", seq, &["{\"z\":1}"]), batch("acme", seq, &["{\"a\":1}", poison]), batch("b", seq, &["1"])];
        let mut answers = join_all(batches.iter().map(|batch| put(&store, batch, 1))).await;
        let refused = answers.remove(1).unwrap_err();
        assert!(matches!(refused, StorageError::Permanent { .. }), "{refused:?}");
        answers.into_iter().for_each(Result::unwrap);
        // The batch is not there, so that it can come again in pieces.
        assert_eq!(store.count(&tenant("acme")).await, Some(0));
    }
    assert_eq!(postgres.ask("SELECT sum((body ->> 'z')::int) FROM headworks.events WHERE tenant = 'zen'"), "5");
    let reader = PostgresReader::new(options.clone()).unwrap();
    assert_eq!(reader.bodies(&tenant("zen")).unwrap()[0], b"{\"z\": 1}");
    options.body = BodyColumn::Text;
    assert_refused(PostgresStore::open(options), "made with body = \"jsonb\", but body = \"text\"");
}

#[tokio::test]
async fn a_day_has_a_table_of_its_own_which_is_made_once_by_many_and_a_day_is_gone_with_it() {
    const DAY: u64 = 86_400;
    let postgres = Postgres::start();
    let mut options = postgres.options("headworks");
    (options.partition, options.group_max_bytes) = (Partition::Day, 0);
    let store = PostgresStore::open(options.clone()).unwrap();
    // The second of the arrival is the seq.
    let batches: Vec<_> = (0..40).map(|n| batch(&format!("t{}", n % 10), n / 10 * DAY + 1, &["a", "b"])).collect();
    // Of one tenant one after the other.
    for day in batches.chunks(10) {
        join_all(day.iter().map(|batch| put(&store, batch, 1))).await.into_iter().for_each(Result::unwrap);
    }
    let tables = "SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY 1) FROM pg_inherits
                  WHERE inhparent = 'headworks.events'::regclass";
    let expected: Vec<_> = (1..5).map(|day| format!("headworks.events_1970_01_0{day}")).collect();
    assert_eq!(postgres.ask(tables), expected.join(" "));
    store.rollback(batches[10].id(), Attempt(1)).await.unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events_1970_01_02"), "18");
    postgres.ask("DROP TABLE headworks.events_1970_01_01");
    let reader = PostgresReader::new(options.clone()).unwrap();
    assert_eq!(reader.bodies(&tenant("t1")).unwrap().len(), 6);
    store.close().await.unwrap();
    options.schema = SchemaMode::Check;
    let store = PostgresStore::open(options.clone()).unwrap();
    let next = batch("t1", 9 * DAY, &["a"]);
    assert_outage(put(&store, &next, 1).await, "make the partition");
    postgres.ask(
        "CREATE TABLE headworks.tenth PARTITION OF headworks.events FOR VALUES FROM ('1970-01-10Z') TO ('1970-01-11Z')",
    );
    put(&store, &next, 1).await.unwrap();
    options.partition = Partition::Month;
    assert_refused(PostgresStore::open(options), "choose partition = \"day\"");
}

#[tokio::test]
async fn what_a_constraint_or_a_trigger_refuses_is_refused_for_good() {
    let postgres = Postgres::start();
    let store = postgres.open("headworks");
    postgres.ask("ALTER TABLE headworks.events ADD CHECK (body <> 'bad')");
    let refused = put(&store, &batch("acme", 1, &["good", "bad"]), 1).await.unwrap_err();
    assert!(matches!(refused, StorageError::Permanent { .. }) && refused.to_string().contains("23514"), "{refused:?}");
    put(&store, &batch("acme", 2, &["good"]), 1).await.unwrap();
    // The server has refused it long before all of it was sent.
    let large = "x".repeat(1 << 20);
    let refused = put(&store, &batch("acme", 3, &["bad", &large, &large, &large]), 1).await.unwrap_err();
    assert!(matches!(refused, StorageError::Permanent { .. }) && refused.to_string().contains("23514"), "{refused:?}");
    assert_eq!(store.count(&tenant("acme")).await, Some(1));
}

/// As of a process that is gone, and whose server has not noticed: its transaction is open, and may yet commit.
#[tokio::test]
async fn an_attempt_that_nobody_knows_the_end_of_is_waited_for_by_a_rollback_which_then_takes_it_away() {
    let postgres = Postgres::start();
    let mut options = postgres.options("headworks");
    options.statement_timeout = Duration::from_millis(400);
    let store = PostgresStore::open(options).unwrap();
    let batch = batch("acme", 1, &["a"]);
    let mut late = postgres.session();
    late.run(&format!(
        "BEGIN; INSERT INTO headworks.batches (id, tenant, seq, attempt, stored, events, body_bytes, content_hash)
         VALUES ('{}', 'acme', 1, 1, true, 1, 1, 7); INSERT INTO headworks.events SELECT number, 0, 'acme', now(), NULL, 'a'
         FROM headworks.batches",
        batch.id()
    ));
    assert_outage(store.rollback(batch.id(), Attempt(1)).await, "somebody holds a lock");
    assert_outage(put(&store, &batch, 2).await, "somebody holds a lock");
    late.run("COMMIT");
    store.rollback(batch.id(), Attempt(1)).await.unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "0");
    let fenced = put(&store, &batch, 1).await.unwrap_err();
    assert!(matches!(fenced, StorageError::Permanent { .. }), "{fenced:?}");
    put(&store, &batch, 2).await.unwrap();
}

#[tokio::test]
async fn a_table_that_somebody_has_locked_is_an_outage_and_passes() {
    let postgres = Postgres::start();
    let mut options = postgres.options("headworks");
    options.statement_timeout = Duration::from_millis(400);
    let store = PostgresStore::open(options).unwrap();
    let mut other = postgres.session();
    other.run("BEGIN; LOCK TABLE headworks.events");
    for seq in 1..=2 {
        assert_outage(put(&store, &batch("acme", seq, &["a"]), 1).await, "see pg_locks");
    }
    other.run("ROLLBACK");
    for seq in 1..=2 {
        put(&store, &batch("acme", seq, &["a"]), 2).await.unwrap();
    }
    assert_eq!(store.count(&tenant("acme")).await, Some(2));
}

#[tokio::test]
async fn tables_that_vanish_are_an_outage_and_nothing_is_begun_anew_behind_their_owners_back() {
    let postgres = Postgres::start();
    let store = postgres.open("headworks");
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    postgres.ask("ALTER SCHEMA headworks RENAME TO aside");
    for _ in 0..3 {
        assert_outage(put(&store, &batch("acme", 2, &["b"]), 1).await, "tables");
    }
    assert_eq!(postgres.ask("SELECT to_regnamespace('headworks') IS NULL"), "t");
    postgres.ask("ALTER SCHEMA aside RENAME TO headworks");
    put(&store, &batch("acme", 2, &["b"]), 2).await.unwrap();
    assert_eq!(store.count(&tenant("acme")).await, Some(2));
}

#[tokio::test]
async fn with_schema_check_a_role_that_may_make_nothing_stores_and_where_there_are_no_tables_it_says_what_to_do() {
    let postgres = Postgres::start();
    postgres.ask("CREATE ROLE writer LOGIN");
    let mut options = postgres.options("headworks");
    (options.schema, options.url) = (SchemaMode::Check, options.url.replace("app@", "writer@"));
    assert_refused(
        PostgresStore::open(options.clone()),
        "no tables of headworks in the schema headworks, and schema = \"check\"",
    );
    let mut making = options.clone();
    making.schema = SchemaMode::Make;
    assert_refused(PostgresStore::open(making), "permission denied");
    drop(postgres.open("headworks"));
    assert_refused(PostgresStore::open(options.clone()), "permission denied");
    postgres.ask(
        "GRANT USAGE ON SCHEMA headworks TO writer;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA headworks TO writer;
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA headworks TO writer",
    );
    let store = PostgresStore::open(options.clone()).unwrap();
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    postgres.ask("REVOKE INSERT ON headworks.events FROM writer");
    assert_outage(put(&store, &batch("acme", 2, &["b"]), 1).await, "grant it to the user in url");
    postgres.ask("GRANT INSERT ON headworks.events TO writer");
    put(&store, &batch("acme", 2, &["b"]), 1).await.unwrap();
    postgres.ask("UPDATE headworks.headworks SET version = 4");
    assert_refused(PostgresStore::open(options), "have version 4, but this headworks knows only 3");
}

#[tokio::test]
async fn a_wrong_password_is_said_and_never_shown_and_a_new_one_counts_without_a_restart() {
    let postgres = Postgres::start();
    postgres.ask("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'hunter2'");
    postgres.own("pg_hba.conf", "host all guarded all scram-sha-256\nhost all all all trust\n");
    postgres.ask("SELECT pg_reload_conf()");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let mut options = postgres.options("headworks");
    options.url = options.url.replace("app@", "guarded@");
    // The server looks at its file in its own time.
    while PostgresStore::open(options.clone()).is_ok() {}
    assert_refused(PostgresStore::open(options.clone()), "name a password_file");
    options.password_file = Some(file.clone());
    assert_refused(PostgresStore::open(options.clone()), "password_file");
    std::fs::write(&file, "hunter3\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_refused(PostgresStore::open(options.clone()), "chmod 600");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let told = assert_refused(PostgresStore::open(options.clone()), "check the password in password_file");
    assert!(told.contains("28P01") && !told.contains("hunter"), "{told}");
    std::fs::write(&file, "hunter2\n").unwrap();
    let store = PostgresStore::open(options.clone()).unwrap();
    put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
    postgres.ask("ALTER ROLE guarded PASSWORD 'hunter4'");
    postgres.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'");
    let mut answer = put(&store, &batch("acme", 2, &["b"]), 1).await;
    // The first may still meet the connection that is gone.
    if answer.as_ref().is_err_and(|why| !why.to_string().contains("28P01")) {
        answer = put(&store, &batch("acme", 2, &["b"]), 1).await;
    }
    assert_outage(answer, "check the password in password_file");
    std::fs::write(&file, "hunter4").unwrap();
    put(&store, &batch("acme", 2, &["b"]), 1).await.unwrap();
    assert!(!format!("{store:?}{options:?}").contains("hunter"));
}

/// A certificate for 127.0.0.1, signed by a CA of its own; and another CA.
fn certificates(postgres: &Postgres, directory: &std::path::Path) {
    let openssl = |words: &str| {
        let made =
            std::process::Command::new("openssl").args(words.split(' ')).current_dir(directory).output().unwrap();
        assert!(made.status.success(), "{words}: {}", String::from_utf8_lossy(&made.stderr));
    };
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"
        ));
    }
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db -keyout server.key -out server.csr");
    std::fs::write(directory.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out server.crt");
    for name in ["server.crt", "server.key"] {
        postgres.own(name, std::fs::read(directory.join(name)).unwrap());
    }
}

#[tokio::test]
async fn connections_are_encrypted_as_asked_and_with_verify_full_the_server_must_be_who_it_says() {
    let mut postgres = Postgres::prepared(&["ssl=on"]);
    let directory = tempfile::tempdir().unwrap();
    certificates(&postgres, directory.path());
    postgres.own("pg_hba.conf", "hostssl all all all trust\n");
    postgres.restart();
    let options = |sslmode, ca: Option<&str>| {
        let mut options = postgres.options("headworks");
        (options.sslmode, options.ca_file) = (sslmode, ca.map(|ca| directory.path().join(ca)));
        options
    };
    for (sslmode, ca) in [(SslMode::Prefer, None), (SslMode::Require, None), (SslMode::VerifyFull, Some("ca.pem"))] {
        let store = PostgresStore::open(options(sslmode, ca)).unwrap();
        put(&store, &batch("acme", 1, &["a"]), 1).await.unwrap();
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                         WHERE application_name = 'headworks'";
        assert_eq!(postgres.ask(encrypted), "t");
        store.close().await.unwrap();
    }
    assert_refused(PostgresStore::open(options(SslMode::Disable, None)), "pg_hba.conf");
    assert_refused(PostgresStore::open(options(SslMode::VerifyFull, Some("other.pem"))), "certificate");
    let mut other_name = options(SslMode::VerifyFull, Some("ca.pem"));
    other_name.url = other_name.url.replace("127.0.0.1", "localhost");
    assert_refused(PostgresStore::open(other_name), "certificate");
    let missing = PostgresStore::open(options(SslMode::VerifyFull, Some("missing.pem"))).unwrap_err();
    assert!(matches!(missing, OpenError::Options(_)) && missing.to_string().contains("missing.pem"), "{missing}");
}

#[tokio::test]
async fn an_address_that_cannot_be_is_refused_without_showing_a_password() {
    for (url, says) in [
        ("postgres://app:hunter2@db/x", "password_file"),
        ("host=db password=hunter2", "password_file"),
        ("http://db/x hunter2", "postgres://USER@HOST:PORT/DATABASE"),
        ("postgres://db/x?sslmode=require", "key of that name"),
        ("user=hunter2", "names no host"),
    ] {
        let why = PostgresStore::open(PostgresOptions::at(url)).unwrap_err().to_string();
        assert!(why.contains(says) && !why.contains("hunter2"), "{why}");
    }
}

#[tokio::test]
async fn a_closed_store_has_no_connections_and_says_that_it_is_closed() {
    let postgres = Postgres::start();
    let store = postgres.open("headworks");
    let batches: Vec<_> = (0..50).map(|n| batch(&format!("t{n}"), 1, &["a"])).collect();
    let answers = join_all(batches.iter().map(|batch| put(&store, batch, 1)));
    let (answers, ()) = futures::join!(answers, async { store.close().await.unwrap() });
    assert!(answers.iter().all(Result::is_ok), "what was handed over before is stored: {answers:?}");
    assert_eq!(postgres.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'headworks'"), "0");
    assert_outage(put(&store, &batch("acme", 9, &["a"]), 1).await, "closed");
    store.close().await.unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "50");
}
