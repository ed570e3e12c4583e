//! Columns of the table of events that come from fields of the events: what they are on the server, and what is written to them.

use bytes::{BufMut, BytesMut};
use tokio_postgres::Client;

use super::copy::{NULL, Timestamp, field, instant};
use super::error::Failure;
use super::schema::{LOCK, in_namespace};
use super::{PostgresOptions, SchemaMode};
use crate::store::columns::{Column, ColumnType, Columns, Value};

/// What PostgreSQL has in every table, whether it is asked to or not.
const OF_THE_SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// A longer name is cut short by the server, which may make two names one.
const MOST_BYTES: usize = 63;

/// What the options say.
pub(super) fn parse(columns: &[String]) -> Result<Columns, String> {
    let all = Column::parse_all(columns)?;
    for Column { name, path, .. } in &all {
        if name.len() > MOST_BYTES || name.contains('\0') {
            return Err(format!(
                "has {name:?}, but the name of a column has at most {MOST_BYTES} bytes, of which none is zero: name it, as \
                 in \"short={path}\""
            ));
        }
        if OF_THE_SYSTEM.contains(&name.as_str()) {
            return Err(format!(
                "has {name:?}, but PostgreSQL has a column of that name in every table: name it, as in \"the_{name}={path}\""
            ));
        }
    }
    Ok(Columns::new(all))
}

/// As [`format_type`](https://www.postgresql.org/docs/current/functions-info.html) says it.
fn sql_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text => "text",
        ColumnType::Integer => "bigint",
        ColumnType::Number => "double precision",
        ColumnType::Boolean => "boolean",
        ColumnType::Time => "timestamp with time zone",
        ColumnType::Json => "jsonb",
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The names, each with a comma before it, for a list of columns.
pub(super) fn names(columns: &Columns) -> String {
    columns.all.iter().map(|column| format!(", {}", quoted(&column.name))).collect()
}

/// A column of the table as it is there.
struct There {
    name: String,
    sql_type: String,
    is_generated: bool,
}

/// Sees to it that the columns are there, of their types. Those that nobody asks for are nobody's matter. They are made once: where
/// one vanishes later, it is not made anew behind its owner's back.
pub(super) async fn ready(
    client: &mut Client,
    options: &PostgresOptions,
    columns: &Columns,
    may_make: bool,
) -> Result<(), Failure> {
    if columns.all.is_empty() {
        return Ok(());
    }
    let missing = missing(client, options, columns).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let clauses: Vec<_> = missing
        .iter()
        .map(|column| format!("ADD COLUMN IF NOT EXISTS {} {}", quoted(&column.name), sql_type(column.kind)))
        .collect();
    // The names may have anything in them, so that nothing is put in place behind them.
    let alter = in_namespace("ALTER TABLE @.events ", options) + &clauses.join(", ");
    if !may_make {
        let why = match options.schema {
            SchemaMode::Make => {
                "any more, which a column of the configuration was at the start: restore it, or start again to have it made"
            }
            SchemaMode::Check => "and schema = \"check\": have it made by a role that may, by",
        };
        let named = missing.iter().map(|column| format!("{:?}", column.name)).collect::<Vec<_>>().join(", ");
        let statement = if options.schema == SchemaMode::Check { format!(" {alter}") } else { String::new() };
        return Err(Failure::Unfit(format!(
            "the table {}.events has no column {named} {why}{statement}",
            options.namespace
        )));
    }
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    transaction.batch_execute(&alter).await?;
    transaction.commit().await?;
    // Another may have made them meanwhile, of other types.
    self::missing(client, options, columns).await.map(drop)
}

/// Those that are not there; an error where one is there and cannot take what it is to.
async fn missing<'c>(
    client: &Client,
    options: &PostgresOptions,
    columns: &'c Columns,
) -> Result<Vec<&'c Column>, Failure> {
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod), attgenerated <> '' FROM pg_attribute
               WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped";
    let rows = client.query(sql, &[&in_namespace("@.events", options)]).await?;
    let there = rows
        .iter()
        .map(|row| Ok(There { name: row.try_get(0)?, sql_type: row.try_get(1)?, is_generated: row.try_get(2)? }));
    let there = there.collect::<Result<Vec<_>, Failure>>()?;
    let mut missing = vec![];
    for column in &columns.all {
        match there.iter().find(|there| there.name == column.name) {
            None => missing.push(column),
            Some(there) => fits(there, column, &options.namespace)?,
        }
    }
    Ok(missing)
}

fn fits(there: &There, column: &Column, namespace: &str) -> Result<(), Failure> {
    let (name, asked) = (&column.name, sql_type(column.kind));
    let what = if there.sql_type != asked {
        format!("is of type {}, but columns asks for {asked}", there.sql_type)
    } else if there.is_generated {
        "is generated by the server, and takes nothing".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::Unfit(format!(
        "the column {name:?} of the table {namespace}.events {what}: choose the type in columns that it has (text, integer for \
         bigint, number for double precision, boolean, time for timestamp with time zone, json for jsonb), change it there, or give \
         the field another name, as in \"other_name={}\"",
        column.path
    )))
}

/// What a column takes of an event: nothing is lost by what does not fit, since the body has it. Whether there was such a thing.
pub(super) fn write(out: &mut BytesMut, kind: ColumnType, found: Option<&str>) -> bool {
    let value = match found.map_or(Ok(None), |json| kind.read(json)) {
        Ok(None) => {
            out.put_i32(NULL);
            return false;
        }
        Ok(Some(value)) => value,
        Err(_) => {
            out.put_i32(NULL);
            return true;
        }
    };
    match value {
        Value::Text(text) if !text.contains('\0') => field(out, &[], text.as_bytes()),
        Value::Json(json) if is_jsonb(json) => field(out, &[1], json.as_bytes()),
        Value::Integer(number) => field(out, &[], &number.to_be_bytes()),
        Value::Number(number) => field(out, &[], &number.to_be_bytes()),
        Value::Boolean(is_true) => field(out, &[], &[u8::from(is_true)]),
        Value::Time(micros) => match Timestamp::from_unix_micros(micros) {
            Some(at) => instant(out, at),
            None => {
                out.put_i32(NULL);
                return true;
            }
        },
        Value::Text(_) | Value::Json(_) => {
            out.put_i32(NULL);
            return true;
        }
    }
    false
}

/// Whether `jsonb` certainly takes this sound JSON: no `\u0000` and no half surrogates, no number that is very large, very small or
/// very long, and nothing that is nested deeper than the server's stack is sure to reach.
fn is_jsonb(json: &str) -> bool {
    const DEEPEST: u32 = 500;
    const LONGEST: usize = 1_000;
    const MOST_DIGITS_OF_EXPONENT: usize = 4;
    let bytes = json.as_bytes();
    let (mut at, mut depth) = (0, 0_u32);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let Some(end) = end_of_text(bytes, at) else { return false };
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let rest = &bytes[at..];
                let more = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let length = rest.iter().take_while(more).count();
                let number = &rest[..length];
                let exponent = number.iter().position(|byte| matches!(byte, b'e' | b'E'));
                let digits = exponent
                    .map_or(0, |at| number[at..].iter().skip_while(|byte| !matches!(byte, b'1'..=b'9')).count());
                if length > LONGEST || digits > MOST_DIGITS_OF_EXPONENT {
                    return false;
                }
                at += length;
            }
            _ => {}
        }
    }
    true
}

/// The place behind a text that begins at `at`; none where `jsonb` does not take it.
fn end_of_text(bytes: &[u8], mut at: usize) -> Option<usize> {
    let unit = |at: usize| u32::from_str_radix(std::str::from_utf8(bytes.get(at..at + 4)?).ok()?, 16).ok();
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        if bytes.get(at + 1) != Some(&b'u') {
            at += 2;
            continue;
        }
        match unit(at + 2)? {
            0 | 0xdc00..=0xdfff => return None,
            0xd800..=0xdbff => {
                let is_pair = bytes.get(at + 6..at + 8)? == b"\\u" && matches!(unit(at + 8)?, 0xdc00..=0xdfff);
                if !is_pair {
                    return None;
                }
                at += 12;
            }
            _ => at += 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_postgresql_cannot_have_is_refused_with_what_helps() {
        let long = "n".repeat(64);
        for (column, says) in [(&*long, "\"short=nnn"), ("a\0b", "zero"), ("ctid:text", "\"the_ctid=ctid\"")] {
            let why = parse(&[column.to_owned()]).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(names(&parse(&["a\"; DROP TABLE x; --=b".to_owned()]).unwrap()), ", \"a\"\"; DROP TABLE x; --\"");
    }

    #[test]
    fn what_jsonb_may_refuse_is_known() {
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        for sound in
            [r#"{"a":[1e9999,-0.5,"\\u0000 \" \ud83d\ude00"]}"#, &deep(500), "1e00000001", &"9".repeat(1000), "\"é\""]
        {
            assert!(is_jsonb(sound), "{sound}");
        }
        for not in
            [r#""\u0000""#, r#"{"\u0000":1}"#, r#"["\ud83d"]"#, r#""\ude00""#, "1e10000", &deep(501), &"9".repeat(1002)]
        {
            assert!(!is_jsonb(not), "{not}");
        }
    }
}
