use headworks_actors::{Cause, Code, DeadLetter, DeadLetterKind, DeadLetterQuery, TenantId, UnixMillis};
use rusqlite::types::{FromSqlError, ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The bytes as TEXT, so that SQL and people can read them, or as a BLOB where SQLite's text functions could not: where
/// they are not UTF-8, or hold a NUL.
pub(super) fn body_value(body: &[u8]) -> ToSqlOutput<'_> {
    let is_text = memchr::memchr(0, body).is_none() && std::str::from_utf8(body).is_ok();
    ToSqlOutput::Borrowed(if is_text { ValueRef::Text(body) } else { ValueRef::Blob(body) })
}

/// A body as it came.
pub(super) fn body_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes.to_vec()),
        other => {
            Err(rusqlite::Error::FromSqlConversionFailure(column, other.data_type(), FromSqlError::InvalidType.into()))
        }
    }
}

/// Keeps a letter, unless one with its id is there.
pub(super) fn put(conn: &Connection, letter: &DeadLetter) -> rusqlite::Result<()> {
    let (batch, idx) = letter.batch.as_ref().map(|(id, idx)| (id.to_string(), *idx)).unzip();
    conn.prepare_cached(
        "INSERT INTO dead_letters (id, kind, tenant, source, reason, detail, attempts, first_at, last_at, batch_id,
                                   idx, original_bytes, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
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
    ])?;
    Ok(())
}

const COLUMNS: &str = "id, kind, tenant, source, reason, detail, attempts, first_at, last_at, batch_id, idx, \
                       original_bytes, body";

/// The newest letters that match, oldest first.
pub(super) fn list(conn: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<Vec<DeadLetter>> {
    let tenant = query.tenant.as_ref().map(|tenant| ("tenant = ?", tenant.as_str()));
    let code = query.code.map(|code| ("reason = ?", code.as_str()));
    let (conditions, mut values): (Vec<_>, Vec<_>) = [tenant, code].into_iter().flatten().unzip();
    let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let limit = query.limit.min(i64::MAX as usize).to_string();
    values.push(&limit);
    let sql = format!("SELECT {COLUMNS} FROM dead_letters {filter} ORDER BY place DESC LIMIT CAST(? AS INTEGER)");
    let mut statement = conn.prepare_cached(&sql)?;
    let found = statement.query_map(rusqlite::params_from_iter(values), from_row)?;
    let mut found: Vec<_> = found.collect::<Result<_, _>>()?;
    found.reverse();
    Ok(found)
}

/// One letter.
pub(super) fn get(conn: &Connection, id: &str) -> rusqlite::Result<Option<DeadLetter>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM dead_letters WHERE id = ?1"))?
        .query_row([id], from_row)
        .optional()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let body = body_of(row, 12)?;
    let batch = match row.get::<_, Option<String>>(9)? {
        Some(id) => Some((parsed(9, &id, "batch id", |id| id.parse().ok())?, row.get(10)?)),
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
        body: body.into(),
    })
}

pub(super) fn tenant(column: usize, name: &str) -> rusqlite::Result<TenantId> {
    parsed(column, name, "tenant id", |name| TenantId::new(name).ok())
}

/// What `text` stands for; it may be a word that only a later version writes.
fn parsed<T>(column: usize, text: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
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
