use std::sync::atomic::Ordering;

use tokio_postgres::Client;

use super::connect::Target;
use super::error::Failure;
use super::{Partition, PostgresOptions, SchemaMode, columns};

/// The version of the tables, in `headworks.version`.
pub(super) const VERSION: i32 = 3;

/// The tables. `@` is the namespace, `%` the type of a body, and `$`, `^` and `&` say how events are partitioned.
///
/// A batch is claimed by its row, which is also its fence: two transactions about one batch wait for each other there, be they of one
/// process, of two, or of one that is gone and whose server has not noticed yet. The key of `events` costs the server about 0.6 us
/// of CPU an event of 1.9; it is what a rollback and a reader find a batch by.
const TABLES: &str = "
CREATE TABLE @.headworks (
    version integer NOT NULL,
    body    text NOT NULL,     -- the type of events.body
    partition text NOT NULL    -- of events: none, day, month
);
INSERT INTO @.headworks VALUES (3, '%', '$');
CREATE SEQUENCE @.batch_numbers;
CREATE TABLE @.batches (
    id            text COLLATE \"C\" PRIMARY KEY,  -- opening/tenant/seq
    number        bigint NOT NULL DEFAULT nextval('@.batch_numbers'), -- in the order in which a tenant's were stored
    tenant        text COLLATE \"C\" NOT NULL,
    seq           bigint NOT NULL,
    attempt       bigint NOT NULL,               -- the last one that asked for it
    fence         bigint NOT NULL DEFAULT 0,     -- attempts up to this one were rolled back and must not land
    stored        boolean NOT NULL,              -- false: there is only the fence
    events        bigint NOT NULL,
    body_bytes    bigint NOT NULL,
    content_hash  bigint NOT NULL,
    first_arrived timestamptz,
    last_arrived  timestamptz,
    stored_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX batches_by_tenant ON @.batches (tenant, number);
CREATE TABLE @.events (
    batch      bigint NOT NULL,                  -- batches.number
    idx        integer NOT NULL,                 -- its place in the batch, from 0
    tenant     text COLLATE \"C\" NOT NULL,
    arrived_at timestamptz NOT NULL,
    event_time timestamptz,
    body       %,
    raw        bytea,                            -- the bytes of a body that text cannot be; body is NULL then
    PRIMARY KEY (batch, idx^)
)&;
CREATE VIEW @.events_with_batch AS
    SELECT e.batch AS number, e.idx, e.tenant, e.arrived_at, e.event_time, e.body, e.raw, b.id AS batch, b.attempt, b.stored_at
    FROM @.events e JOIN @.batches b ON b.number = e.batch;
";

/// What version 2 has beyond the first: events that were pruned, which the audit counts as there, and a way to the fences.
const PRUNED: &str = "
CREATE TABLE @.pruned (
    opening text COLLATE \"C\" NOT NULL,         -- of those that stored them
    tenant  text COLLATE \"C\" NOT NULL,
    events  bigint NOT NULL,
    PRIMARY KEY (opening, tenant)
);
CREATE INDEX fences ON @.batches (id) WHERE NOT stored;
";

/// What version 3 has beyond the second: events that were erased on an operator's word, which the audit tells apart from those.
const ERASED: &str = "
CREATE TABLE @.erased (
    opening text COLLATE \"C\" NOT NULL,         -- of those that stored them
    tenant  text COLLATE \"C\" NOT NULL,
    events  bigint NOT NULL,
    PRIMARY KEY (opening, tenant)
);
";

/// Tells our own making of tables from everybody else's locks: "hdwk".
pub(super) const LOCK: i64 = 0x6864_776b;

/// A statement on the tables.
pub(super) fn in_namespace(sql: &str, options: &PostgresOptions) -> String {
    sql.replace('@', &format!("\"{}\"", options.namespace)).replace('%', options.body.as_str())
}

/// Sees to it that the tables are there, and are those that this program knows. They are made once: where they vanish later,
/// nothing is begun anew behind their owner's back.
pub(super) async fn ready(client: &mut Client, target: &Target) -> Result<(), Failure> {
    let options = &target.options;
    let settings = "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int";
    let row = client.query_one(settings, &[]).await?;
    let (encoding, server): (&str, i32) = (row.try_get(0)?, row.try_get(1)?);
    if encoding != "UTF8" {
        let why = format!("the database has the encoding {encoding}, but must have UTF8: create one that has");
        return Err(Failure::Unfit(why));
    }
    if server < 120_000 {
        return Err(Failure::Unfit(format!("the server has version {}, but must have 12 or later", server / 10_000)));
    }
    let may_make = options.schema == SchemaMode::Make && !target.was_ready.load(Ordering::Relaxed);
    make(client, options, may_make).await?;
    columns::ready(client, options, &target.columns, may_make).await?;
    target.was_ready.store(true, Ordering::Relaxed);
    Ok(())
}

async fn make(client: &mut Client, options: &PostgresOptions, may_make: bool) -> Result<(), Failure> {
    match (found(client, options).await?, may_make) {
        (Some((1..VERSION, ..)), true) => {
            let transaction = client.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            // Another may have done it meanwhile.
            if let Some((before @ 1..VERSION, ..)) = found(transaction.client(), options).await? {
                let pruned = if before < 2 { PRUNED } else { "" };
                let sql = format!("{pruned} {ERASED} UPDATE @.headworks SET version = {VERSION}");
                transaction.batch_execute(&in_namespace(&sql, options)).await?;
            }
            transaction.commit().await?;
            match found(client, options).await? {
                Some(known) => fits(known, options),
                None => Err(Failure::Unfit("the tables have vanished meanwhile".into())),
            }
        }
        (Some(known), _) => fits(known, options),
        (None, false) => {
            let why = match options.schema {
                SchemaMode::Make => " any more: restore them, or start again to begin with new ones",
                SchemaMode::Check => {
                    ", and schema = \"check\": have them made once by a role that may, with schema = \"make\""
                }
            };
            Err(Failure::Unfit(format!("there are no tables of headworks in the schema {}{why}", options.namespace)))
        }
        (None, true) => {
            let transaction = client.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            // Another may have made them meanwhile.
            if let Some(known) = found(transaction.client(), options).await? {
                return fits(known, options);
            }
            // Who may not make one may yet have been given one.
            let there = "SELECT to_regnamespace($1::text) IS NOT NULL";
            if !transaction.query_one(there, &[&in_namespace("@", options)]).await?.try_get::<_, bool>(0)? {
                transaction.batch_execute(&in_namespace("CREATE SCHEMA @", options)).await?;
            }
            let (key, by) = match options.partition {
                Partition::None => ("", ""),
                _ => (", arrived_at", " PARTITION BY RANGE (arrived_at)"),
            };
            let tables = TABLES.replace('$', options.partition.as_str()).replace('^', key).replace('&', by);
            transaction.batch_execute(&in_namespace(&(tables + PRUNED + ERASED), options)).await?;
            Ok(transaction.commit().await?)
        }
    }
}

/// The version of the tables that are there, the type of bodies, and how events are partitioned.
async fn found(client: &Client, options: &PostgresOptions) -> Result<Option<(i32, String, String)>, Failure> {
    let name = format!("\"{}\".headworks", options.namespace);
    let there = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&name]).await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    // A later version may not have the other columns.
    let row = client.query_one(&format!("SELECT version FROM {name}"), &[]).await?;
    let version = row.try_get(0)?;
    if version != VERSION {
        return Ok(Some((version, String::new(), String::new())));
    }
    let row = client.query_one(&format!("SELECT body, partition FROM {name}"), &[]).await?;
    Ok(Some((version, row.try_get(0)?, row.try_get(1)?)))
}

fn fits((version, body, partition): (i32, String, String), options: &PostgresOptions) -> Result<(), Failure> {
    let namespace = &options.namespace;
    if version < VERSION {
        return Err(Failure::Unfit(format!(
            "the tables in the schema {namespace} have version {version}, and this headworks needs {VERSION}: have them brought to it \
             once by their owner, with schema = \"make\""
        )));
    }
    if version != VERSION {
        return Err(Failure::Unfit(format!(
            "the tables in the schema {namespace} have version {version}, but this headworks knows only {VERSION}; they were \
             left as they are: run the newer headworks, or choose another namespace"
        )));
    }
    let decided = [("body", body, options.body.as_str()), ("partition", partition, options.partition.as_str())];
    for (key, there, asked) in decided {
        if there != asked {
            return Err(Failure::Unfit(format!(
                "the tables in the schema {namespace} were made with {key} = \"{there}\", but {key} = \"{asked}\"; that is \
                 decided when they are made: choose {key} = \"{there}\", or another namespace"
            )));
        }
    }
    Ok(())
}

/// What a connection is to be like, whatever the defaults of the server are.
pub(super) async fn settle(client: &Client, options: &PostgresOptions) -> Result<(), Failure> {
    let millis = options.statement_timeout.as_millis();
    let settings = format!(
        "SET statement_timeout = {millis}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET client_min_messages = warning",
        (millis / 2).max(1),
        millis * 2
    );
    client.batch_execute(&settings).await?;
    let row = client.query_one("SELECT current_setting('synchronous_commit'), current_setting('fsync')", &[]).await?;
    // What is answered as stored is to survive the server.
    if row.try_get::<_, &str>(0)? == "off" {
        client.batch_execute("SET synchronous_commit = on").await?;
    }
    if row.try_get::<_, &str>(1)? == "off" {
        tracing::warn!(target: "headworks", "the PostgreSQL server runs with fsync = off: what is stored there may be lost with its machine");
    }
    Ok(())
}
