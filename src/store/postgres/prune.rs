//! What a tenant's retention lets go of, deleted in small steps. All of it goes over the connections of the store, whose patience with
//! a server that says nothing has an end.

use std::sync::atomic::Ordering;

use headworks_actors::fault_point::fault_point;
use headworks_actors::{BatchId, StorageError, TenantId, UnixMillis};
use tokio_postgres::error::SqlState;

use super::copy::Timestamp;
use super::error::Failure;
use super::reader::tenant;
use super::schema::in_namespace;
use super::worker::Session;
use super::{PostgresStore, partition};
use crate::retention::{Asked, FENCES, Kept, LOOK, Listed, Pruned, Step, Stock, Walk};

/// All tenants, each by one look into the index.
const TENANTS: &str = "
    WITH RECURSIVE found AS (
        (SELECT tenant FROM @.batches ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT b.tenant FROM @.batches b WHERE b.tenant > found.tenant ORDER BY b.tenant LIMIT 1)
        FROM found WHERE found.tenant IS NOT NULL
    )
    SELECT tenant FROM found WHERE tenant IS NOT NULL";

/// Fences that are so old that no attempt before them is under way any more, whatever became of its process: attempts end with the
/// patience of their connection.
const OLD_FENCES: &str = "
    SELECT id FROM @.batches WHERE NOT stored AND stored_at < clock_timestamp() - interval '1 hour' ORDER BY id LIMIT $1";

const OLDEST: &str = "
    SELECT number, last_arrived, body_bytes, events FROM @.batches
    WHERE tenant = $1 AND stored AND number > $2 AND number <= $3 ORDER BY number LIMIT $4";

/// The rows of the ledger go, and are counted in the table `!`; when their events arrived.
const TAKE: &str = "
    WITH gone AS (
        DELETE FROM @.batches WHERE tenant = $1::text AND number = ANY($2) AND stored
        RETURNING split_part(id, '/', 1) AS opening, events, body_bytes, first_arrived, last_arrived
    ), counted AS (
        INSERT INTO @.! AS p (opening, tenant, events)
        SELECT opening, $1::text, sum(events)::int8 FROM gone GROUP BY opening
        ON CONFLICT (opening, tenant) DO UPDATE SET events = p.events + excluded.events
    )
    SELECT count(*), coalesce(sum(events), 0)::int8, coalesce(sum(body_bytes), 0)::int8, min(first_arrived), max(last_arrived)
    FROM gone";

/// By their times, too, only the partitions are looked into that have some.
const DELETE: &str = "DELETE FROM @.events WHERE batch = ANY($1) AND arrived_at BETWEEN $2 AND $3";

impl PostgresStore {
    /// What there is now.
    pub(crate) async fn stock(&self) -> Result<Stock, StorageError> {
        self.on_connection("look for what is to be pruned", stock).await
    }

    /// See [`Walk`].
    pub(crate) async fn walk(&self, newest: i64, asked: Asked) -> Result<Walk, StorageError> {
        let walk = Walk { asked, after: 0, upto: newest, bytes: 0 };
        let begin = async move |session: &mut Session| begin(session, walk).await;
        self.on_connection("look for what is to be pruned", begin).await
    }

    /// The next that are to go together; none where nothing more is due.
    pub(crate) async fn next_step(&self, walk: &mut Walk) -> Result<Option<Step>, StorageError> {
        let (tenant, after, upto) = (walk.asked.tenant.clone(), walk.after, walk.upto);
        let oldest = self.on_connection("look for what is to be pruned", async move |session: &mut Session| {
            oldest(session, &tenant, after, upto).await
        });
        Ok(walk.step(oldest.await?))
    }

    /// Deletes what is to go in one step, and counts it, in one transaction.
    pub(crate) async fn prune(&self, tenant: &TenantId, step: Step) -> Result<Pruned, StorageError> {
        let tenant = tenant.clone();
        let take = self.on_connection("prune a tenant's events", async move |session: &mut Session| {
            take(session, &tenant, &step.batches, Why::Pruned).await
        });
        let pruned = take.await?;
        fault_point("after-prune");
        Ok(pruned)
    }

    /// Forgets the fences of batches that will not come again.
    pub(crate) async fn forget_fences(&self, batches: Vec<BatchId>) -> Result<(), StorageError> {
        self.on_connection("forget fences", async move |session: &mut Session| {
            let ids: Vec<_> = batches.iter().map(ToString::to_string).collect();
            let sql = in_namespace("DELETE FROM @.batches WHERE id = ANY($1) AND NOT stored", session.options());
            session.client.execute(&sql, &[&ids]).await?;
            Ok(())
        })
        .await
    }

    /// Drops the partitions of the past that no batch is in any more, from the oldest on; not those that somebody else makes.
    pub(crate) async fn drop_empty_partitions(&self, now: UnixMillis) -> Result<(), StorageError> {
        self.on_connection("drop an empty partition", async move |session: &mut Session| tidy(session, now).await).await
    }
}

pub(super) async fn oldest(
    session: &mut Session,
    tenant: &TenantId,
    after: i64,
    upto: i64,
) -> Result<Vec<Listed>, Failure> {
    let sql = in_namespace(OLDEST, session.options());
    let rows = session.client.query(&sql, &[&tenant.as_str(), &after, &upto, &LOOK]).await?;
    let oldest = rows.iter().map(|row| {
        let number = |at| Ok::<_, Failure>(row.try_get::<_, i64>(at)?.cast_unsigned());
        // What came at a time that cannot be goes by its size alone, or with what was stored after it.
        let arrived = row.try_get::<_, Option<Timestamp>>(1)?.and_then(Timestamp::millis);
        let kept = Kept { arrived: arrived.unwrap_or(UnixMillis(i64::MAX)), bytes: number(2)? };
        Ok((row.try_get(0)?, kept, number(3)?))
    });
    oldest.collect()
}

async fn stock(session: &mut Session) -> Result<Stock, Failure> {
    let (client, options) = (&session.client, session.options());
    // Whatever was claimed before has a smaller one. A role that only writes may ask for it.
    let newest =
        client.query_one(&in_namespace("SELECT nextval('@.batch_numbers')", options), &[]).await?.try_get(0)?;
    let rows = client.query(&in_namespace(TENANTS, options), &[]).await?;
    let tenants = rows.iter().map(|row| tenant(row.try_get(0)?)).collect::<Result<_, Failure>>()?;
    let rows = client.query(&in_namespace(OLD_FENCES, options), &[&FENCES]).await?;
    let fences = rows.iter().map(|row| {
        let id: &str = row.try_get(0)?;
        id.parse().map_err(|why| Failure::Unfit(format!("a batch there has the id {id:?}: {why}")))
    });
    Ok(Stock { newest, tenants, fences: fences.collect::<Result<_, Failure>>()? })
}

async fn begin(session: &mut Session, mut walk: Walk) -> Result<Walk, Failure> {
    let (client, options) = (&session.client, session.options());
    let tenant = walk.asked.tenant.as_str();
    if walk.asked.rules.max_bytes > 0 {
        let sql =
            "SELECT coalesce(sum(body_bytes), 0)::int8 FROM @.batches WHERE tenant = $1 AND stored AND number <= $2";
        let row = client.query_one(&in_namespace(sql, options), &[&tenant, &walk.upto]).await?;
        walk.bytes = row.try_get::<_, i64>(0)?.cast_unsigned();
    }
    if walk.asked.in_flight {
        let sql = "SELECT coalesce(max(number) - 1, 0) FROM @.batches WHERE tenant = $1 AND stored AND number <= $2";
        walk.upto = client.query_one(&in_namespace(sql, options), &[&tenant, &walk.upto]).await?.try_get(0)?;
    }
    Ok(walk)
}

/// Why events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Pruned,
    Erased,
}

pub(super) async fn take(
    session: &mut Session,
    tenant: &TenantId,
    batches: &[i64],
    why: Why,
) -> Result<Pruned, Failure> {
    let target = session.target.clone();
    let transaction = session.client.transaction().await?;
    let counted = if why == Why::Pruned { "pruned" } else { "erased" };
    let sql = in_namespace(&TAKE.replace('!', counted), &target.options);
    let row = transaction.query_one(&sql, &[&tenant.as_str(), &batches]).await?;
    let number = |at| Ok::<_, Failure>(row.try_get::<_, i64>(at)?.cast_unsigned());
    // Where one is not there, it was rolled back meanwhile, and is not counted.
    let pruned = Pruned { batches: number(0)?, events: number(1)?, bytes: number(2)? };
    let span: (Option<Timestamp>, Option<Timestamp>) = (row.try_get(3)?, row.try_get(4)?);
    transaction.execute(&in_namespace(DELETE, &target.options), &[&batches, &span.0, &span.1]).await?;
    if why == Why::Pruned {
        fault_point("in-prune");
    }
    transaction.commit().await?;
    if why == Why::Pruned {
        target.counts.prune(pruned.events);
    }
    Ok(pruned)
}

async fn tidy(session: &mut Session, now: UnixMillis) -> Result<(), Failure> {
    let target = session.target.clone();
    for (name, end) in partition::past(&session.client, &target.options, now).await? {
        if !drop_empty(session, &name, end.into()).await? {
            break;
        }
        target.dropped.fetch_add(1, Ordering::Relaxed);
        let place = &target.place;
        tracing::info!(target: "headworks", place, partition = name, "a partition was dropped: retention has let go of all that was in it");
    }
    Ok(())
}

/// Whether it is gone. The lock waits for those who write, and they for it: what comes late into the partition is seen, or meets
/// that it is gone, and comes again.
async fn drop_empty(session: &mut Session, name: &str, end: Timestamp) -> Result<bool, Failure> {
    let options = &session.target.options;
    let holds = in_namespace("SELECT EXISTS (SELECT 1 FROM @.batches WHERE stored AND first_arrived < $1)", options);
    if session.client.query_one(&holds, &[&end]).await?.try_get(0)? {
        return Ok(false);
    }
    let transaction = session.client.transaction().await?;
    // Who reads for long is not to hold up all who write.
    let lock = in_namespace(
        &format!(
            "SET LOCAL lock_timeout = '250ms'; LOCK TABLE ONLY @.events IN ACCESS EXCLUSIVE MODE; LOCK TABLE @.{name}"
        ),
        options,
    );
    match transaction.batch_execute(&lock).await {
        // The next pass tries again.
        Err(why) if why.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => return Ok(false),
        locked => locked?,
    }
    if transaction.query_one(&holds, &[&end]).await?.try_get(0)? {
        return Ok(false);
    }
    transaction.batch_execute(&in_namespace(&format!("DROP TABLE @.{name}"), options)).await?;
    transaction.commit().await?;
    Ok(true)
}
