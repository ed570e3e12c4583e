use bytes::{BufMut, BytesMut};
use headworks_actors::{EventRef, TenantId, UnixMillis};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use super::{BodyColumn, columns};
use crate::store::columns::{Columns, Found};

/// The columns that every row has, in their order.
pub(super) const COLUMNS: &str = "batch, idx, tenant, arrived_at, event_time, body, raw";

const FIELDS: i16 = 7;
pub(super) const NULL: i32 = -1;

/// A point in time as PostgreSQL has it: microseconds since 2000. What it cannot hold is its infinity, before or after all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp(i64);

impl Timestamp {
    const EPOCH_MILLIS: i64 = 946_684_800_000;
    const EPOCH_MICROS: i64 = Self::EPOCH_MILLIS * 1000;
    /// What `timestamptz` can hold, from the year 4714 BC to 294276.
    const FIRST: i64 = -211_813_488_000_000_000;
    const END: i64 = 9_223_371_331_200_000_000;

    /// None where PostgreSQL cannot hold it.
    pub(super) fn from_unix_micros(micros: i64) -> Option<Self> {
        let micros = micros.checked_sub(Self::EPOCH_MICROS)?;
        (Self::FIRST..Self::END).contains(&micros).then_some(Self(micros))
    }

    /// None of what is infinite.
    pub(super) fn millis(self) -> Option<UnixMillis> {
        let is_finite = (Self::FIRST..Self::END).contains(&self.0);
        is_finite.then(|| UnixMillis(self.0.div_euclid(1000) + Self::EPOCH_MILLIS))
    }
}

impl From<UnixMillis> for Timestamp {
    fn from(at: UnixMillis) -> Self {
        let micros = at.0.checked_sub(Self::EPOCH_MILLIS).and_then(|millis| millis.checked_mul(1000));
        Self(match micros {
            Some(micros) if (Self::FIRST..Self::END).contains(&micros) => micros,
            _ if at.0 < 0 => i64::MIN,
            _ => i64::MAX,
        })
    }
}

type Failed = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Timestamp {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failed> {
        self.0.to_sql(kind, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        i64::from_sql(kind, raw).map(Self)
    }

    accepts!(TIMESTAMPTZ);
}

/// What stands before all rows: the signature, no flags, no extension.
pub(super) fn head(out: &mut BytesMut) {
    out.put_slice(b"PGCOPY\n\xff\r\n\0");
    out.put_i32(0);
    out.put_i32(0);
}

/// What stands behind them.
pub(super) fn end(out: &mut BytesMut) {
    out.put_i16(-1);
}

/// Rows of events.
pub(super) struct Rows<'c, 'b> {
    body: BodyColumn,
    columns: &'c Columns,
    found: Found<'b>,
    /// How many values did not fit their columns, by column.
    pub(super) misfits: Vec<u64>,
}

impl<'c, 'b> Rows<'c, 'b> {
    pub(super) fn new(body: BodyColumn, columns: &'c Columns) -> Self {
        Self { body, columns, found: vec![], misfits: vec![0; columns.all.len()] }
    }

    /// The row of an event.
    pub(super) fn row(&mut self, out: &mut BytesMut, batch: i64, idx: i32, tenant: &TenantId, event: EventRef<'b>) {
        out.reserve(event.body.len() + tenant.as_str().len() + 64);
        // There are at most a hundred more.
        out.put_i16(FIELDS + i16::try_from(self.columns.all.len()).unwrap_or_default());
        out.put_i32(8);
        out.put_i64(batch);
        out.put_i32(4);
        out.put_i32(idx);
        field(out, &[], tenant.as_str().as_bytes());
        time(out, Some(event.arrived));
        time(out, event.time);
        match self.body {
            BodyColumn::Jsonb => {
                // The version of its format.
                field(out, &[1], event.body);
                out.put_i32(NULL);
            }
            BodyColumn::Text if is_text(event.body) => {
                field(out, &[], event.body);
                out.put_i32(NULL);
            }
            BodyColumn::Text => {
                out.put_i32(NULL);
                field(out, &[], event.body);
            }
        }
        if !self.columns.all.is_empty() {
            self.columns.find(event.body, &mut self.found);
            for ((column, found), misfits) in self.columns.all.iter().zip(&self.found).zip(&mut self.misfits) {
                *misfits += u64::from(columns::write(out, column.kind, *found));
            }
        }
    }
}

/// Whether `text` can be these bytes.
fn is_text(body: &[u8]) -> bool {
    memchr::memchr(0, body).is_none() && std::str::from_utf8(body).is_ok()
}

pub(super) fn field(out: &mut BytesMut, before: &[u8], bytes: &[u8]) {
    // A body is no larger than a frame may be, which is less.
    out.put_i32(i32::try_from(before.len() + bytes.len()).unwrap_or(i32::MAX));
    out.put_slice(before);
    out.put_slice(bytes);
}

fn time(out: &mut BytesMut, at: Option<UnixMillis>) {
    match at {
        Some(at) => instant(out, at.into()),
        None => out.put_i32(NULL),
    }
}

pub(super) fn instant(out: &mut BytesMut, Timestamp(at): Timestamp) {
    out.put_i32(8);
    out.put_i64(at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_to_the_millisecond_and_those_that_postgresql_cannot_hold_are_infinite() {
        for millis in [0, 1, -1, 1_732_233_600_007, 946_684_800_000, -62_135_596_800_001, 253_402_300_800_000] {
            assert_eq!(Timestamp::from(UnixMillis(millis)).millis(), Some(UnixMillis(millis)));
        }
        for (millis, infinite) in
            [(i64::MAX, i64::MAX), (i64::MIN, i64::MIN), (1 << 60, i64::MAX), (-1 << 60, i64::MIN)]
        {
            assert_eq!(Timestamp::from(UnixMillis(millis)), Timestamp(infinite));
            assert_eq!(Timestamp::from(UnixMillis(millis)).millis(), None);
        }
    }
}
