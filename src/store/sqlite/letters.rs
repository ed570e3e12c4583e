use headworks_actors::{
    Cause, Code, DeadLetter, DeadLetterKind, DeadLetterPage, DeadLetterQuery, Edit, EditAnswer, TenantId, UnixMillis,
};
use rusqlite::types::{FromSqlError, ToSqlOutput, Type, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

/// The bytes as TEXT, so that SQL and people can read them, or as a BLOB where SQLite's text functions could not: where
/// they are not UTF-8, or hold a NUL.
pub(super) fn body_value(body: &[u8]) -> ToSqlOutput<'_> {
    let is_text = memchr::memchr(0, body).is_none() && std::str::from_utf8(body).is_ok();
    ToSqlOutput::Borrowed(if is_text { ValueRef::Text(body) } else { ValueRef::Blob(body) })
}

/// A body as it came.
pub(super) fn body_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    body_bytes(row, column).map(<[u8]>::to_vec)
}

/// The same, where it lies.
pub(super) fn body_bytes<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r [u8]> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes),
        other => {
            Err(rusqlite::Error::FromSqlConversionFailure(column, other.data_type(), FromSqlError::InvalidType.into()))
        }
    }
}

/// What a letter counts against its tenant's quota: `HEAD`, its reason, its body, and the bytes as they came beside it.
pub(super) fn cost(letter: &DeadLetter) -> u64 {
    let original = letter.edit.as_ref().map_or(0, |edit| edit.original.len());
    HEAD + (letter.cause.detail.len() + letter.body.len() + original) as u64
}

const HEAD: u64 = 256;
/// The same, by the row.
const COST: &str = "(256 + octet_length(detail) + octet_length(body) + coalesce(octet_length(original_body), 0))";

/// Whose quota it counts against.
pub(super) fn owner(letter: &DeadLetter) -> &str {
    letter.tenant.as_ref().map_or("", TenantId::as_str)
}

/// Keeps a letter, unless one with its id is there. Says how many bytes the letters of its tenant take now.
pub(super) fn put(conn: &Connection, letter: &DeadLetter) -> rusqlite::Result<u64> {
    let (batch, idx) = letter.batch.as_ref().map(|(id, idx)| (id.to_string(), *idx)).unzip();
    let (edited_at, original) = letter.edit.as_ref().map(|edit| (edit.at.0, body_value(&edit.original))).unzip();
    let is_new = conn
        .prepare_cached(
            "INSERT INTO dead_letters (id, kind, tenant, source, reason, detail, attempts, first_at, last_at, batch_id,
                                   idx, original_bytes, body, event_time, edited_at, original_body, replayed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            letter.id,
            letter.kind.as_str(),
            letter.tenant.as_ref().map(TenantId::as_str),
            letter.source,
            letter.cause.code.as_str(),
            letter.cause.detail,
            letter.attempts,
            letter.first_at.0,
            letter.last_at.0,
            batch,
            idx,
            letter.original_bytes.cast_signed(),
            body_value(&letter.body),
            letter.time.map(|time| time.0),
            edited_at,
            original,
            letter.replayed_at.map(|at| at.0),
        ])?;
    let (letters, bytes) = if is_new == 1 { (1, cost(letter).cast_signed()) } else { (0, 0) };
    account(conn, owner(letter), letters, bytes)
}

/// Adds to what a tenant's letters take, and says what that is now.
fn account(conn: &Connection, owner: &str, letters: i64, bytes: i64) -> rusqlite::Result<u64> {
    let add = "INSERT INTO dead_letter_bytes (tenant, letters, bytes) VALUES (?1, ?2, ?3)
               ON CONFLICT (tenant) DO UPDATE SET letters = letters + excluded.letters, bytes = bytes + excluded.bytes
               RETURNING bytes";
    conn.prepare_cached(add)?.query_row(params![owner, letters, bytes], |row| row.get(0)).map(i64::cast_unsigned)
}

/// Whether there is a letter of this id.
pub(super) fn is_there(conn: &Connection, id: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM dead_letters WHERE id = ?1")?.exists([id])
}

/// How many bytes the letters of a tenant take.
pub(super) fn bytes(conn: &Connection, owner: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT bytes FROM dead_letter_bytes WHERE tenant = ?1";
    let bytes: Option<i64> = conn.prepare_cached(sql)?.query_row([owner], |row| row.get(0)).optional()?;
    Ok(bytes.unwrap_or(0).cast_unsigned())
}

/// The columns of a letter, in the order in which [`from_row`] reads them.
pub(super) const COLUMNS: &str = "id, kind, tenant, source, reason, detail, attempts, first_at, last_at, batch_id, idx, \
                                  original_bytes, body, event_time, edited_at, original_body, replayed_at";
/// How many they are: what stands behind them has this number.
pub(super) const WIDTH: usize = 17;

/// A query as a condition, and its parameters.
struct Filter {
    condition: String,
    values: Vec<Value>,
}

impl Filter {
    fn of(query: &DeadLetterQuery) -> Self {
        let mut filter = Self { condition: "true".to_owned(), values: vec![] };
        if !query.ids.is_empty() {
            let ids = serde_json::Value::from_iter(query.ids.iter().map(|id| &**id));
            filter.and("id IN (SELECT value FROM json_each(?))", Some(ids.to_string()));
        }
        filter.and("tenant = ?", query.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()));
        filter.and("reason = ?", query.code.map(|code| code.as_str().to_owned()));
        filter.and("last_at >= ?", query.since.map(|at| at.0));
        filter.and("last_at < ?", query.until.map(|at| at.0));
        filter.and("(replayed_at IS NOT NULL) = ?", query.replayed);
        filter
    }

    fn and(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.condition += " AND ";
            self.condition += condition;
            self.values.push(value.into());
        }
    }
}

/// The newest letters that match, oldest first.
pub(super) fn list(conn: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<Vec<DeadLetter>> {
    let Filter { condition, mut values } = Filter::of(query);
    values.push(i64::try_from(query.limit).unwrap_or(i64::MAX).into());
    let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE {condition} ORDER BY place DESC LIMIT ?");
    let mut statement = conn.prepare_cached(&sql)?;
    let found = statement.query_map(params_from_iter(values), from_row)?;
    let mut found: Vec<_> = found.collect::<Result<_, _>>()?;
    found.reverse();
    Ok(found)
}

/// A page ends once its letters take so many bytes.
pub(super) const PAGE_BYTES: u64 = 4 << 20;

/// Letters that match, in the order of their places.
pub(super) fn page(conn: &Connection, query: &DeadLetterQuery, after: u64) -> rusqlite::Result<DeadLetterPage> {
    let Filter { condition, mut values } = Filter::of(query);
    values.push(i64::try_from(after).unwrap_or(i64::MAX).into());
    let sql = format!("SELECT {COLUMNS}, place FROM dead_letters WHERE {condition} AND place > ? ORDER BY place");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut page, mut bytes) = (DeadLetterPage::default(), 0);
    while let Some(row) = rows.next()? {
        if page.letters.len() >= query.limit || bytes >= PAGE_BYTES {
            return Ok(page);
        }
        let letter = from_row(row)?;
        bytes += cost(&letter);
        page.letters.push(letter);
        page.next = Some(row.get::<_, i64>(WIDTH)?.cast_unsigned());
    }
    page.next = None;
    Ok(page)
}

/// How many match.
pub(super) fn count(conn: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<u64> {
    let Filter { condition, values } = Filter::of(query);
    let sql = format!("SELECT count(*) FROM dead_letters WHERE {condition}");
    conn.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0)).map(i64::cast_unsigned)
}

/// One letter.
pub(super) fn get(conn: &Connection, id: &str) -> rusqlite::Result<Option<DeadLetter>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM dead_letters WHERE id = ?1"))?
        .query_row([id], from_row)
        .optional()
}

/// Replaces a body.
pub(super) fn edit(conn: &Connection, id: &str, body: &[u8], at: UnixMillis) -> rusqlite::Result<EditAnswer> {
    let Some(before) = get(conn, id)? else { return Ok(EditAnswer::Missing) };
    let in_replay = "SELECT 1 FROM dead_letters WHERE id = ?1 AND replay IS NOT NULL";
    if conn.prepare_cached(in_replay)?.exists([id])? {
        return Ok(EditAnswer::InReplay);
    }
    if before.replayed_at.is_some() {
        return Ok(EditAnswer::Replayed);
    }
    conn.prepare_cached(
        "UPDATE dead_letters SET original_body = CASE WHEN edited_at IS NULL THEN body ELSE original_body END,
                edited_at = ?2, body = ?3
         WHERE id = ?1",
    )?
    .execute(params![id, at.0, body_value(body)])?;
    let original = if before.edit.is_some() { 0 } else { signed(before.body.len()) };
    let bytes = signed(body.len()) - signed(before.body.len()) + original;
    account(conn, owner(&before), 0, bytes)?;
    Ok(EditAnswer::Edited)
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Forgets what matches, and counts it.
pub(super) fn purge(conn: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<u64> {
    let Filter { condition, values } = Filter::of(query);
    purge_where(conn, &condition, values)
}

/// Forgets the oldest letters of a tenant, so many bytes of them, but for the one that came last; says how many they were.
pub(super) fn purge_oldest(conn: &Connection, owner: &str, mut bytes: u64) -> rusqlite::Result<u64> {
    let tenant = (!owner.is_empty()).then_some(owner);
    let mut last = None;
    {
        let sql = format!("SELECT place, {COST} FROM dead_letters WHERE tenant IS ?1 ORDER BY place");
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([tenant])?;
        while let Some(row) = rows.next()?.filter(|_| bytes > 0) {
            last = Some(row.get::<_, i64>(0)?);
            bytes = bytes.saturating_sub(row.get::<_, i64>(1)?.cast_unsigned());
        }
    }
    let newest = "(SELECT max(place) FROM dead_letters WHERE tenant IS ?)";
    let condition = format!("tenant IS ? AND place <= ? AND place < {newest}");
    let tenant = || tenant.map_or(Value::Null, |tenant| tenant.to_owned().into());
    purge_where(conn, &condition, vec![tenant(), last.unwrap_or(0).into(), tenant()])
}

/// Forgets the letters of a tenant up to a place.
pub(super) fn purge_upto(conn: &Connection, tenant: &str, upto: i64) -> rusqlite::Result<u64> {
    purge_where(conn, "tenant = ? AND place <= ?", vec![tenant.to_owned().into(), upto.into()])
}

/// Forgets those of the oldest letters that were given up before then and are in no replay; says how many they were.
pub(super) fn purge_old(conn: &Connection, before: UnixMillis, most: i64) -> rusqlite::Result<u64> {
    let condition =
        "place IN (SELECT place FROM (SELECT place, last_at, replay FROM dead_letters ORDER BY place LIMIT ?)
                     WHERE last_at < ? AND replay IS NULL)";
    purge_where(conn, condition, vec![most.into(), before.0.into()])
}

/// The same of one tenant.
pub(super) fn purge_old_of(conn: &Connection, tenant: &str, before: UnixMillis, most: i64) -> rusqlite::Result<u64> {
    let condition = "place IN (SELECT place FROM dead_letters WHERE tenant = ? AND last_at < ? AND replay IS NULL
                               ORDER BY place LIMIT ?)";
    purge_where(conn, condition, vec![tenant.to_owned().into(), before.0.into(), most.into()])
}

fn purge_where(conn: &Connection, condition: &str, values: Vec<Value>) -> rusqlite::Result<u64> {
    // What an id begins with, up to the slash, is its opening.
    let count = format!(
        "INSERT INTO purged_letters (opening, tenant, kind, letters)
         SELECT substr(id, 1, max(instr(id, '/') - 1, 0)), coalesce(tenant, ''), kind, count(*)
         FROM dead_letters WHERE {condition} GROUP BY 1, 2, 3
         ON CONFLICT (opening, tenant, kind) DO UPDATE SET letters = letters + excluded.letters"
    );
    conn.prepare_cached(&count)?.execute(params_from_iter(&values))?;
    let account = format!(
        "UPDATE dead_letter_bytes SET letters = letters - gone.count, bytes = bytes - gone.sum
         FROM (SELECT coalesce(tenant, '') AS owner, count(*) AS count, sum({COST}) AS sum
               FROM dead_letters WHERE {condition} GROUP BY 1) AS gone
         WHERE tenant = gone.owner"
    );
    conn.prepare_cached(&account)?.execute(params_from_iter(&values))?;
    let gone = format!("DELETE FROM dead_letters WHERE {condition}");
    conn.prepare_cached(&gone)?.execute(params_from_iter(&values)).map(|gone| gone as u64)
}

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let body = body_of(row, 12)?;
    let batch = match row.get::<_, Option<String>>(9)? {
        Some(id) => Some((parsed(9, &id, "batch id", |id| id.parse().ok())?, row.get(10)?)),
        None => None,
    };
    let edit = match row.get::<_, Option<i64>>(14)? {
        Some(at) => Some(Edit { at: UnixMillis(at), original: body_of(row, 15)?.into() }),
        None => None,
    };
    Ok(DeadLetter {
        id: row.get(0)?,
        kind: parsed(1, &row.get::<_, String>(1)?, "kind", kind)?,
        tenant: row.get::<_, Option<String>>(2)?.map(|name| tenant(2, &name)).transpose()?,
        source: row.get(3)?,
        cause: Cause::new(parsed(4, &row.get::<_, String>(4)?, "reason", code)?, row.get::<_, String>(5)?),
        attempts: row.get(6)?,
        first_at: UnixMillis(row.get(7)?),
        last_at: UnixMillis(row.get(8)?),
        batch,
        original_bytes: row.get::<_, i64>(11)?.cast_unsigned(),
        time: row.get::<_, Option<i64>>(13)?.map(UnixMillis),
        body: body.into(),
        edit,
        replayed_at: row.get::<_, Option<i64>>(16)?.map(UnixMillis),
    })
}

pub(super) fn tenant(column: usize, name: &str) -> rusqlite::Result<TenantId> {
    parsed(column, name, "tenant id", |name| TenantId::new(name).ok())
}

/// What `text` stands for; it may be a word that only a later version writes.
pub(super) fn parsed<T>(
    column: usize,
    text: &str,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    parse(text).ok_or_else(|| {
        let problem = format!("a row has the {what} {text:?}, which this version of headworks does not know");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, problem.into())
    })
}

fn kind(word: &str) -> Option<DeadLetterKind> {
    [DeadLetterKind::Frame, DeadLetterKind::Event].into_iter().find(|kind| kind.as_str() == word)
}

fn code(word: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.as_str() == word)
}
