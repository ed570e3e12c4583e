use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use headworks_actors::{Opening, TenantId, UnixMillis};
use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::connect::Target;
use super::copy::Timestamp;
use super::error::{Failure, ReadError};
use super::schema::in_namespace;
use super::{OpenError, PostgresOptions};
use crate::store::events::{Span, StoredEvent};
use crate::store::sqlite::TenantTotals;

/// Reads what a store on PostgreSQL holds, also while a daemon writes to it; never writes to it. It connects when it is first asked
/// something.
///
/// For commands and tools: calls block.
pub struct PostgresReader {
    target: Target,
    link: Mutex<Option<Link>>,
}

/// A connection, and the runtime that drives it while somebody asks.
struct Link {
    client: Option<Client>,
    runtime: Option<Runtime>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.client = None;
        // Dropped otherwise, it would wait for its tasks, and panic where nobody may wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for PostgresReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresReader").field("place", &self.target.place).finish_non_exhaustive()
    }
}

/// Where somebody is who goes through a tenant's batches.
#[derive(Debug, Default)]
pub(in crate::store) struct Cursor {
    /// Everything up to this one was seen.
    seen: i64,
    /// Those at hand, in order.
    heads: VecDeque<Head>,
}

/// So many batches are looked up at once, not their events.
const HEADS: i64 = 256;

/// What is held of a tenant.
pub(in crate::store) struct HeldOnServer {
    pub(in crate::store) tenant: TenantId,
    /// By the word of the batches, and with those that were pruned.
    pub(in crate::store) events: u64,
    /// Those that are there, and those that were pruned.
    pub(in crate::store) rows: u64,
    pub(in crate::store) pruned: u64,
    /// On an operator's word. They count with the others, too.
    pub(in crate::store) erased: u64,
}

/// A batch, by its row.
#[derive(Debug)]
struct Head {
    number: i64,
    id: String,
    /// When its events arrived: the first, and the last. By it only the partitions are looked into that may have some.
    span: (Timestamp, Timestamp),
}

/// An event, away from its row.
struct Event {
    place: u64,
    arrived: Option<UnixMillis>,
    time: Option<UnixMillis>,
    body: Vec<u8>,
}

impl PostgresReader {
    /// Of the store with these options.
    ///
    /// # Errors
    /// [`OpenError::Options`]: they cannot work.
    pub fn new(options: PostgresOptions) -> Result<Self, OpenError> {
        let target = Target::new(options).map_err(OpenError::Options)?;
        Ok(Self { target, link: Mutex::new(None) })
    }

    /// The totals of every tenant that has an event, by name.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub fn tenants(&self) -> Result<Vec<TenantTotals>, ReadError> {
        let sql = "SELECT tenant, sum(events)::int8, count(*), min(first_arrived), max(last_arrived)
                   FROM @.batches WHERE stored GROUP BY tenant ORDER BY tenant";
        self.ask(async |client, options| {
            let rows = client.query(&in_namespace(sql, options), &[]).await?;
            let totals = rows.iter().map(|row| {
                let millis =
                    |at| Ok::<_, Failure>(row.try_get::<_, Option<Timestamp>>(at)?.and_then(Timestamp::millis));
                Ok(TenantTotals {
                    events: row.try_get::<_, i64>(1)?.cast_unsigned(),
                    batches: row.try_get::<_, i64>(2)?.cast_unsigned(),
                    first_arrived: millis(3)?,
                    last_arrived: millis(4)?,
                    ..TenantTotals::none(tenant(row.try_get(0)?)?)
                })
            });
            totals.collect()
        })
    }

    /// What is held of every tenant, of one opening or of all, at one moment.
    pub(in crate::store) fn held(&self, opening: Option<Opening>) -> Result<Vec<HeldOnServer>, ReadError> {
        let sql = "SELECT tenant, sum(events)::int8, sum(there)::int8, sum(pruned)::int8, sum(erased)::int8 FROM (
                       SELECT b.tenant, b.events, (
                           SELECT count(*) FROM @.events e
                           WHERE e.batch = b.number AND e.arrived_at BETWEEN b.first_arrived AND b.last_arrived
                       ) AS there, 0 AS pruned, 0 AS erased
                       FROM @.batches b WHERE b.stored AND b.id >= $1 AND b.id < $2
                       UNION ALL
                       SELECT tenant, 0, 0, events, 0 FROM @.pruned WHERE opening || '/' >= $1 AND opening || '/' < $2
                       UNION ALL
                       SELECT tenant, 0, 0, 0, events FROM @.erased WHERE opening || '/' >= $1 AND opening || '/' < $2
                   ) AS held GROUP BY tenant";
        let (low, high) = match opening {
            // What follows the slash is the zero.
            Some(opening) => (format!("{opening}/"), format!("{opening}0")),
            None => (String::new(), char::MAX.to_string()),
        };
        self.ask(async |client, options| {
            let rows = client.query(&counting_gone(client, sql, options).await?, &[&low, &high]).await?;
            let held = rows.iter().map(|row| {
                let number = |at| Ok::<_, Failure>(row.try_get::<_, i64>(at)?.cast_unsigned());
                let (tenant, pruned, erased) = (tenant(row.try_get(0)?)?, number(3)?, number(4)?);
                let gone = pruned + erased;
                Ok(HeldOnServer { tenant, events: number(1)? + gone, rows: number(2)? + gone, pruned, erased })
            });
            held.collect()
        })
    }

    /// How many events of each tenant were pruned, since the tables were made.
    pub(in crate::store) fn pruned(&self) -> Result<Vec<(TenantId, u64)>, ReadError> {
        self.by_tenant("SELECT tenant, sum(events)::int8 FROM @.pruned GROUP BY tenant")
    }

    /// How many events of each tenant were stored and are gone since, pruned or erased.
    pub(in crate::store) fn gone(&self) -> Result<Vec<(TenantId, u64)>, ReadError> {
        let both = "(SELECT tenant, events FROM @.pruned UNION ALL SELECT tenant, events FROM @.erased) AS gone";
        self.by_tenant(&format!("SELECT tenant, sum(events)::int8 FROM {both} GROUP BY tenant"))
    }

    fn by_tenant(&self, sql: &str) -> Result<Vec<(TenantId, u64)>, ReadError> {
        self.ask(async |client, options| {
            let rows = client.query(&counting_gone(client, sql, options).await?, &[]).await?;
            let told = rows.iter().map(|row| Ok((tenant(row.try_get(0)?)?, row.try_get::<_, i64>(1)?.cast_unsigned())));
            told.collect()
        })
    }

    /// The bodies of the tenant's events, in the order they were stored; all of them at once, in memory.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub fn bodies(&self, tenant: &TenantId) -> Result<Vec<Vec<u8>>, ReadError> {
        let (mut cursor, mut bodies) = (Cursor::default(), vec![]);
        while self.peek(&mut cursor, tenant, Span::ALL)?.is_some() {
            self.read_next(&mut cursor, &mut |event| bodies.push(event.body.to_vec()))?;
        }
        Ok(bodies)
    }

    pub(in crate::store) fn knows(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM @.batches WHERE tenant = $1)
                       OR EXISTS (SELECT 1 FROM @.pruned WHERE tenant = $1) OR EXISTS (SELECT 1 FROM @.erased WHERE tenant = $1)";
        self.ask(async |client, options| {
            let sql = counting_gone(client, sql, options).await?;
            let row = client.query_one(&sql, &[&tenant.as_str()]).await?;
            Ok(row.try_get(0)?)
        })
    }

    /// Whether there are events of the tenant.
    pub(in crate::store) fn holds(&self, tenant: &TenantId) -> Result<bool, ReadError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM @.batches WHERE tenant = $1 AND stored)";
        self.ask(async |client, options| {
            let row = client.query_one(&in_namespace(sql, options), &[&tenant.as_str()]).await?;
            Ok(row.try_get(0)?)
        })
    }

    /// Makes sure that the next batch is at hand, if there is one; when its first event arrived.
    pub(in crate::store) fn peek(
        &self,
        cursor: &mut Cursor,
        tenant: &TenantId,
        span: Span,
    ) -> Result<Option<i64>, ReadError> {
        let sql = "SELECT number, id, first_arrived, last_arrived FROM @.batches
                   WHERE tenant = $1 AND stored AND number > $2 AND last_arrived >= $3 AND first_arrived <= $4
                   ORDER BY number LIMIT $5";
        if cursor.heads.is_empty() {
            let (since, until) = (Timestamp::from(UnixMillis(span.since)), Timestamp::from(UnixMillis(span.until)));
            let seen = cursor.seen;
            cursor.heads = self.ask(async |client, options| {
                let values: [(&(dyn ToSql + Sync), Type); 5] = [
                    (&tenant.as_str(), Type::TEXT),
                    (&seen, Type::INT8),
                    (&since, Type::TIMESTAMPTZ),
                    (&until, Type::TIMESTAMPTZ),
                    (&HEADS, Type::INT8),
                ];
                let rows = client.query_typed(&in_namespace(sql, options), &values).await?;
                let heads = rows.iter().map(|row| {
                    let span = (row.try_get(2)?, row.try_get(3)?);
                    Ok(Head { number: row.try_get(0)?, id: row.try_get(1)?, span })
                });
                heads.collect()
            })?;
        }
        Ok(cursor.heads.front().map(|head| head.span.0.millis().unwrap_or_default().0))
    }

    /// Visits the events of the batch at hand, and goes on to the next.
    pub(in crate::store) fn read_next(
        &self,
        cursor: &mut Cursor,
        visit: &mut dyn FnMut(StoredEvent<'_>),
    ) -> Result<(), ReadError> {
        let sql = "SELECT idx, arrived_at, event_time, coalesce(raw, convert_to(body::text, 'UTF8')) FROM @.events
                   WHERE batch = $1 AND arrived_at BETWEEN $2 AND $3 ORDER BY idx";
        let Some(head) = cursor.heads.pop_front() else { return Ok(()) };
        let events: Vec<Event> = self.ask(async |client, options| {
            let values: [(&(dyn ToSql + Sync), Type); 3] =
                [(&head.number, Type::INT8), (&head.span.0, Type::TIMESTAMPTZ), (&head.span.1, Type::TIMESTAMPTZ)];
            let rows = client.query_typed(&in_namespace(sql, options), &values).await?;
            let events = rows.iter().map(|row| {
                let millis =
                    |at| Ok::<_, Failure>(row.try_get::<_, Option<Timestamp>>(at)?.and_then(Timestamp::millis));
                Ok(Event {
                    place: u64::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default(),
                    arrived: millis(1)?,
                    time: millis(2)?,
                    body: row.try_get(3)?,
                })
            });
            events.collect()
        })?;
        cursor.seen = head.number;
        for Event { place, arrived, time, body } in &events {
            visit(StoredEvent { time: *time, arrived: *arrived, batch: &head.id, place: *place, body });
        }
        Ok(())
    }

    /// Asks the server, on a thread without a runtime of somebody else: whoever calls may be on one, where nobody may wait.
    fn ask<T: Send>(
        &self,
        question: impl AsyncFnOnce(&Client, &PostgresOptions) -> Result<T, Failure> + Send,
    ) -> Result<T, ReadError> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |detail: String| ReadError { place: self.target.place.clone(), detail };
        let link = &mut *link;
        let asked = std::thread::scope(|scope| scope.spawn(|| self.ask_here(link, question)).join());
        let answer = asked.unwrap_or_else(|_| Err(Failure::Unfit("the reader panicked".into())));
        if answer.is_err() {
            *link = None;
        }
        answer.map_err(|why| failed(why.explain()))
    }

    fn ask_here<T>(
        &self,
        link: &mut Option<Link>,
        question: impl AsyncFnOnce(&Client, &PostgresOptions) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|why| Failure::Unfit(format!("no runtime for it: {why}")))?;
            let (client, _) = runtime.block_on(self.target.connect())?;
            Ok::<_, Failure>(Link { client: Some(client), runtime: Some(runtime) })
        };
        let known = link.take().filter(|link| link.client.as_ref().is_some_and(|client| !client.is_closed()));
        let link = link.insert(known.map_or_else(open, Ok)?);
        match (&link.runtime, &link.client) {
            (Some(runtime), Some(client)) => runtime.block_on(question(client, &self.target.options)),
            _ => Err(Failure::Unfit("the connection is closed".into())),
        }
    }
}

pub(super) fn tenant(name: &str) -> Result<TenantId, Failure> {
    TenantId::new(name).map_err(|why| Failure::Unfit(format!("a batch there is of tenant {name:?}: {why}")))
}

/// A question about what was pruned and erased, of which tables know nothing that no later headworks has written to since.
async fn counting_gone(client: &Client, sql: &str, options: &PostgresOptions) -> Result<String, Failure> {
    let mut sql = sql.to_owned();
    for name in ["@.pruned", "@.erased"].into_iter().filter(|name| sql.contains(name)).collect::<Vec<_>>() {
        let place = in_namespace(name, options);
        let there = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&place]).await?;
        if !there.try_get::<_, bool>(0)? {
            let nothing = "(SELECT '' COLLATE \"C\" AS opening, '' COLLATE \"C\" AS tenant, 0::int8 AS events WHERE false) AS nothing";
            sql = sql.replace(name, nothing);
        }
    }
    Ok(in_namespace(&sql, options))
}
