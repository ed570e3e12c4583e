use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{OpenError, SqliteOptions};

/// The version of the schema below, in `PRAGMA user_version`.
pub(super) const VERSION: i64 = 4;

/// `PRAGMA application_id`: "hdwk". It tells our databases from other people's.
const APPLICATION_ID: i64 = 0x6864_776b;

/// The tables of version 1.
///
/// `event_id` and `place` are written out, though they are only the rowid: a VACUUM may renumber a rowid without a
/// name, and a rollback finds its events by them. Batch numbers are never used twice, so that a range of events whose
/// rows were deleted by hand can never reach into another batch. Events have no index and no constraint beside that: it
/// would be paid once an event. Batches have one index, for their id and for their tenant.
const TABLES: &str = "
CREATE TABLE events (
    event_id   INTEGER PRIMARY KEY,
    tenant     TEXT,
    body       TEXT,    -- the bytes as they came: TEXT, or BLOB where they are not UTF-8 or hold a NUL
    batch_id   INTEGER, -- batches.batch_id
    idx        INTEGER, -- its place in the batch, from 0
    arrived_at INTEGER, -- ms since 1970
    event_time INTEGER  -- ms since 1970, or NULL
);
CREATE TABLE batches (
    batch_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL,    -- opening/tenant/seq
    tenant        TEXT NOT NULL,
    seq           INTEGER NOT NULL,
    attempt       INTEGER NOT NULL, -- the last one that asked for it
    events        INTEGER NOT NULL,
    body_bytes    INTEGER NOT NULL,
    content_hash  INTEGER NOT NULL,
    first_rowid   INTEGER NOT NULL, -- its events are events.event_id first_rowid..=last_rowid
    last_rowid    INTEGER NOT NULL,
    first_arrived INTEGER NOT NULL,
    last_arrived  INTEGER NOT NULL,
    stored_at     INTEGER NOT NULL,
    UNIQUE (tenant, id)             -- the id alone is unique too: the tenant is part of it
);
CREATE TABLE fences (
    id      TEXT PRIMARY KEY, -- a batch id
    attempt INTEGER NOT NULL  -- attempts up to this one were rolled back and must not land
) WITHOUT ROWID;
CREATE TABLE dead_letters (
    place          INTEGER PRIMARY KEY, -- the order in which they came
    id             TEXT NOT NULL UNIQUE,
    kind           TEXT NOT NULL,
    tenant         TEXT,
    source         TEXT,
    reason         TEXT NOT NULL,
    detail         TEXT NOT NULL,
    attempts       INTEGER NOT NULL,
    first_at       INTEGER NOT NULL,
    last_at        INTEGER NOT NULL,
    batch_id       TEXT,                -- opening/tenant/seq
    idx            INTEGER,
    original_bytes INTEGER NOT NULL,
    body           BLOB                 -- TEXT or BLOB, as in events
);
CREATE INDEX dead_letters_by_tenant ON dead_letters (tenant);
CREATE INDEX dead_letters_by_reason ON dead_letters (reason);
CREATE VIEW events_with_batch AS
    SELECT e.event_id, e.tenant, e.body, b.id AS batch, e.idx, e.arrived_at, e.event_time, b.attempt, b.stored_at
    FROM events e JOIN batches b ON b.batch_id = e.batch_id;
";

/// What version 2 adds: dead letters can be edited, replayed and purged. `dead_letter_bytes` is kept by whatever changes the
/// letters, so that a quota costs one row to look at.
const VERSION_2: &str = "
ALTER TABLE dead_letters ADD COLUMN event_time INTEGER;
ALTER TABLE dead_letters ADD COLUMN edited_at INTEGER;
ALTER TABLE dead_letters ADD COLUMN original_body BLOB;
ALTER TABLE dead_letters ADD COLUMN replayed_at INTEGER;
ALTER TABLE dead_letters ADD COLUMN replay TEXT;
ALTER TABLE dead_letters ADD COLUMN replay_position INTEGER;
CREATE UNIQUE INDEX dead_letters_by_replay ON dead_letters (replay, replay_position) WHERE replay IS NOT NULL;
CREATE TABLE dead_letter_bytes (
    tenant  TEXT PRIMARY KEY,  -- '' for letters without one
    letters INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE purged_letters (
    opening TEXT NOT NULL,     -- what the ids of the letters begin with
    tenant  TEXT NOT NULL,     -- '' for letters without one
    kind    TEXT NOT NULL,
    letters INTEGER NOT NULL,
    PRIMARY KEY (opening, tenant, kind)
) WITHOUT ROWID;
INSERT INTO dead_letter_bytes
    SELECT coalesce(tenant, ''), count(*), sum(256 + octet_length(detail) + octet_length(body)) FROM dead_letters GROUP BY 1;
";

/// What version 3 adds: batches may lie in a segment, and then have no rows in `events`. Triggers keep what is indexed of
/// each segment, so that batches deleted by hand count as well. 28 is the head of a segment.
const VERSION_3: &str = "
ALTER TABLE batches ADD COLUMN first_time INTEGER; -- of its events that have a time, ms since 1970
ALTER TABLE batches ADD COLUMN last_time INTEGER;
ALTER TABLE batches ADD COLUMN segment INTEGER;    -- where it lies, if not in `events`
ALTER TABLE batches ADD COLUMN offset INTEGER;
ALTER TABLE batches ADD COLUMN length INTEGER;
CREATE TABLE segments (
    segment INTEGER PRIMARY KEY,
    upto    INTEGER NOT NULL, -- where the last record ends that was ever indexed
    batches INTEGER NOT NULL, -- those that are indexed now
    bytes   INTEGER NOT NULL  -- and their records
);
CREATE TABLE segments_id (id INTEGER NOT NULL);
INSERT INTO segments_id VALUES (random());
CREATE TRIGGER batch_indexed AFTER INSERT ON batches WHEN NEW.segment IS NOT NULL BEGIN
    INSERT INTO segments VALUES (NEW.segment, NEW.offset + NEW.length, 1, NEW.length)
    ON CONFLICT (segment) DO UPDATE
    SET upto = max(upto, excluded.upto), batches = batches + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER batch_removed AFTER DELETE ON batches WHEN OLD.segment IS NOT NULL BEGIN
    UPDATE segments SET batches = batches - 1, bytes = bytes - OLD.length WHERE segment = OLD.segment;
END;
CREATE VIEW stored_batches AS
    SELECT tenant, id AS batch, substr(id, 1, 16) AS opening, seq, events, body_bytes AS bytes, first_arrived, last_arrived,
           first_time, last_time, segment, offset, length, stored_at
    FROM batches;
CREATE VIEW stored_segments AS
    SELECT segment, upto AS length, batches, bytes, upto - 28 - bytes AS garbage FROM segments;
";

/// What version 4 adds: erasures that are under way, so that one that is cut short goes on; and what is oldest of a tenant, and how much there is of it, is found without a look at all of it, so that
/// pruning costs what it prunes. Triggers keep the sums, so that batches deleted by hand count as well.
const VERSION_4: &str = "
CREATE INDEX batches_in_order ON batches (tenant); -- and by batch_id, which every index ends with
CREATE TABLE stored_totals (
    tenant  TEXT PRIMARY KEY,
    batches INTEGER NOT NULL,
    events  INTEGER NOT NULL,
    bytes   INTEGER NOT NULL -- of bodies
) WITHOUT ROWID;
CREATE TABLE erasing (
    tenant TEXT NOT NULL,
    what   TEXT NOT NULL,    -- 'events' or 'letters': what is being erased of it; or 'store:' and the name of a store elsewhere
    upto   INTEGER NOT NULL, -- batches or letters with numbers up to this one; elsewhere as that store counts
    PRIMARY KEY (tenant, what)
) WITHOUT ROWID;
INSERT INTO stored_totals SELECT tenant, count(*), sum(events), sum(body_bytes) FROM batches GROUP BY tenant;
CREATE TRIGGER batch_counted AFTER INSERT ON batches BEGIN
    INSERT INTO stored_totals VALUES (NEW.tenant, 1, NEW.events, NEW.body_bytes)
    ON CONFLICT (tenant) DO UPDATE
    SET batches = batches + 1, events = events + excluded.events, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER batch_gone AFTER DELETE ON batches BEGIN
    UPDATE stored_totals SET batches = batches - 1, events = events - OLD.events, bytes = bytes - OLD.body_bytes
    WHERE tenant = OLD.tenant;
    DELETE FROM stored_totals WHERE tenant = OLD.tenant AND batches <= 0;
END;
";

/// What a reader needs to read version 3 as if it were version 4.
const VERSION_3_READ_AS_4: &str = "
CREATE TEMP VIEW stored_totals AS
    SELECT tenant, count(*) AS batches, sum(events) AS events, sum(body_bytes) AS bytes FROM batches GROUP BY tenant;
";

/// What a reader needs to read version 2 as if it were version 3.
const VERSION_2_READ_AS_3: &str = "
CREATE TEMP VIEW batches AS
    SELECT *, NULL AS first_time, NULL AS last_time, NULL AS segment, NULL AS offset, NULL AS length FROM main.batches;
";

/// What a reader needs to read version 1 as if it were version 2: it must not write to it.
const VERSION_1_READ_AS_2: &str = "
CREATE TEMP VIEW dead_letters AS
    SELECT *, NULL AS event_time, NULL AS edited_at, NULL AS original_body, NULL AS replayed_at, NULL AS replay,
           NULL AS replay_position
    FROM main.dead_letters;
CREATE TEMP TABLE purged_letters (opening TEXT, tenant TEXT, kind TEXT, letters INTEGER);
";

/// What kind of file it is.
enum Kind {
    /// Ours, of this version or an earlier one.
    Ours {
        version: i64,
    },
    Empty,
}

/// Opens the database for writing and brings it to the schema; creates it, with mode 0600, where there is none.
pub(super) fn open_for_writing(path: &Path, options: &SqliteOptions) -> Result<Connection, OpenError> {
    let failed = |error| OpenError::sqlite(path, &error);
    create(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(options.busy_timeout).map_err(failed)?;
    if let Kind::Empty = kind(path, &conn)? {
        // Both only take effect before the first page is written.
        conn.pragma_update(None, "page_size", options.page_bytes).map_err(failed)?;
    }
    configure(&conn, options).map_err(failed)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::NoWal { path: path.to_owned(), mode });
    }
    // Asked again under the lock: another process may have created it meanwhile.
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let steps: &[&str] = match kind(path, &transaction)? {
        Kind::Empty => &[TABLES, VERSION_2, VERSION_3, VERSION_4],
        Kind::Ours { version: 1 } => &[VERSION_2, VERSION_3, VERSION_4],
        Kind::Ours { version: 2 } => &[VERSION_3, VERSION_4],
        Kind::Ours { version: 3 } => &[VERSION_4],
        Kind::Ours { .. } => &[],
    };
    for step in steps {
        transaction.execute_batch(step).map_err(failed)?;
    }
    if !steps.is_empty() {
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .and_then(|()| transaction.pragma_update(None, "user_version", VERSION))
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(conn)
}

/// Opens an existing database of ours for reading alone.
pub(super) fn open_for_reading(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    let failed = |error| OpenError::sqlite(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(busy_timeout).map_err(failed)?;
    let steps: &[&str] = match kind(path, &conn)? {
        Kind::Ours { version: 1 } => &[VERSION_1_READ_AS_2, VERSION_2_READ_AS_3, VERSION_3_READ_AS_4],
        Kind::Ours { version: 2 } => &[VERSION_2_READ_AS_3, VERSION_3_READ_AS_4],
        Kind::Ours { version: 3 } => &[VERSION_3_READ_AS_4],
        Kind::Ours { .. } => &[],
        Kind::Empty => return Err(OpenError::Foreign { path: path.to_owned() }),
    };
    steps.iter().try_for_each(|step| conn.execute_batch(step)).map_err(failed)?;
    Ok(conn)
}

/// SQLite gives its own files the mode of the database, so the database must have the right one before SQLite sees it.
fn create(path: &Path) -> Result<(), OpenError> {
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    match file.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(OpenError::Create { path: path.to_owned(), source }),
    }
}

fn kind(path: &Path, conn: &Connection) -> Result<Kind, OpenError> {
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let read = || {
        let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((number("application_id")?, number("user_version")?, objects))
    };
    match read().map_err(|error| OpenError::sqlite(path, &error))? {
        (APPLICATION_ID, version @ 1..=VERSION, _) => Ok(Kind::Ours { version }),
        (APPLICATION_ID, found, _) if found > VERSION => {
            Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION })
        }
        (0, 0, 0) => Ok(Kind::Empty),
        _ => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

fn configure(conn: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    let page_bytes: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let wal_bytes = i64::try_from(options.wal_bytes).unwrap_or(i64::MAX);
    let cache_kib = i64::try_from(options.cache_bytes / 1024).unwrap_or(i64::MAX);
    // FULL: a commit is on the disk when it returns.
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.pragma_update(None, "wal_autocheckpoint", (wal_bytes / page_bytes.max(512)).max(1))?;
    // A reader can hold up checkpoints and make the log grow; afterwards it is cut back.
    conn.pragma_update(None, "journal_size_limit", wal_bytes.saturating_mul(4))?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(())
}
