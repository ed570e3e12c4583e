use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use headworks_actors::{Attempt, Batch, BatchId, StorageError};
use tokio_postgres::{Client, Row, Statement, Transaction};

use super::columns;
use super::connect::Target;
use super::copy::{self, Rows, Timestamp};
use super::error::Failure;
use super::schema::in_namespace;
use crate::store::hash;

/// So much is handed to the connection at once.
const PIECE: usize = 256 << 10;

/// A batch to store.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) batch: Batch,
    pub(super) attempt: Attempt,
    id: String,
    content_hash: i64,
    /// When the first and the last of its events arrived.
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Store {
    pub(super) fn new(batch: &Batch, attempt: Attempt) -> Self {
        let content_hash = hash::content_hash(batch.events().map(|event| event.body)).cast_signed();
        let arrived = || batch.events().map(|event| event.arrived);
        let (first, last) = (arrived().min().map(Timestamp::from), arrived().max().map(Timestamp::from));
        Self { batch: batch.clone(), attempt, id: batch.id().to_string(), content_hash, first, last }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// About how much it writes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        const ROW: usize = 64;
        self.batch.body_bytes() + self.batch.len() * ROW
    }
}

/// What became of one batch of a group.
pub(super) type Outcome = Result<(), StorageError>;

/// The statements of a connection, prepared once.
pub(super) struct Statements {
    claim: Statement,
    look: Statement,
    raise: Statement,
    again: Statement,
    copy: Statement,
    fence: Statement,
    delete: Statement,
    clear: Statement,
    target: Arc<Target>,
}

/// Beside the row of a batch that is new, nothing is written about it: a crash leaves both or neither.
const CLAIM: &str = "
    INSERT INTO @.batches (id, tenant, seq, attempt, stored, events, body_bytes, content_hash, first_arrived, last_arrived)
    SELECT id, tenant, seq, attempt, true, events, body_bytes, content_hash, first_arrived, last_arrived
    FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[],
                $8::timestamptz[], $9::timestamptz[])
         AS t (id, tenant, seq, attempt, events, body_bytes, content_hash, first_arrived, last_arrived)
    ON CONFLICT (id) DO NOTHING RETURNING id, number";

const LOOK: &str = "
    SELECT id, attempt, fence, stored, content_hash, events FROM @.batches WHERE id = ANY($1) ORDER BY id FOR UPDATE";

const RAISE: &str = "UPDATE @.batches SET attempt = $2 WHERE id = $1 AND attempt < $2";

const AGAIN: &str = "
    UPDATE @.batches
    SET number = nextval('@.batch_numbers'), attempt = $2, stored = true, events = $3, body_bytes = $4, content_hash = $5,
        first_arrived = $6, last_arrived = $7, stored_at = clock_timestamp()
    WHERE id = $1 RETURNING number";

const FENCE: &str = "
    INSERT INTO @.batches AS b (id, tenant, seq, attempt, fence, stored, events, body_bytes, content_hash)
    VALUES ($1, $2, $3, 0, $4, false, 0, 0, 0)
    ON CONFLICT (id) DO UPDATE SET fence = greatest(b.fence, excluded.fence)
    RETURNING number, stored AND attempt <= $4";

const DELETE: &str = "DELETE FROM @.events WHERE batch = $1";

const CLEAR: &str = "UPDATE @.batches SET stored = false, events = 0, body_bytes = 0 WHERE number = $1 AND tenant = $2";

impl Statements {
    pub(super) async fn prepare(client: &Client, target: &Arc<Target>) -> Result<Self, Failure> {
        let prepare = async |sql: &str| client.prepare(&in_namespace(sql, &target.options)).await;
        // The names of columns may have anything in them, so that nothing is put in place behind them.
        let begin = in_namespace(&format!("COPY @.events ({}", copy::COLUMNS), &target.options);
        let copy = format!("{begin}{}) FROM STDIN (FORMAT binary)", columns::names(&target.columns));
        Ok(Self {
            claim: prepare(CLAIM).await?,
            look: prepare(LOOK).await?,
            raise: prepare(RAISE).await?,
            again: prepare(AGAIN).await?,
            copy: client.prepare(&copy).await?,
            fence: prepare(FENCE).await?,
            delete: prepare(DELETE).await?,
            clear: prepare(CLEAR).await?,
            target: target.clone(),
        })
    }

    /// Stores the batches, of which no two have one id, in one transaction: all of them but those that are refused by their
    /// outcome, or none.
    pub(super) async fn store(&self, client: &mut Client, group: &[&Store]) -> Result<Vec<Outcome>, Failure> {
        let transaction = client.transaction().await?;
        let mut fresh = self.claim(&transaction, group).await?;
        let mut outcomes: HashMap<&str, Outcome> = HashMap::new();
        let known: Vec<&Store> = group.iter().copied().filter(|store| !fresh.contains_key(store.id())).collect();
        if !known.is_empty() {
            let ids: Vec<&str> = known.iter().map(|store| store.id()).collect();
            let rows = transaction.query(&self.look, &[&ids]).await?;
            let rows: HashMap<&str, &Row> =
                rows.iter().map(|row| Ok((row.try_get(0)?, row))).collect::<Result<_, Failure>>()?;
            for store in known {
                let outcome = match rows.get(store.id()) {
                    None => Err(gone(store)),
                    Some(row) => match self.meet(&transaction, store, row).await? {
                        Met::Answer(outcome) => outcome,
                        Met::Fresh(number) => {
                            fresh.insert(store.id.clone(), number);
                            Ok(())
                        }
                    },
                };
                outcomes.insert(store.id(), outcome);
            }
        }
        let mut misfits = vec![];
        if !fresh.is_empty() {
            let mut numbered: Vec<_> =
                group.iter().filter_map(|store| Some((*fresh.get(store.id())?, *store))).collect();
            numbered.sort_by_key(|(number, _)| *number);
            misfits = self.copy(&transaction, &numbered).await?;
        }
        transaction.commit().await?;
        self.target.counts.misfit(&misfits, &self.target.place);
        Ok(group.iter().map(|store| outcomes.remove(store.id()).unwrap_or(Ok(()))).collect())
    }

    /// Writes the rows of the batches that have none, and waits where another transaction is at it; the numbers of those.
    async fn claim(&self, transaction: &Transaction<'_>, group: &[&Store]) -> Result<HashMap<String, i64>, Failure> {
        // In one order, so that no two transactions wait for each other.
        let mut sorted = group.to_vec();
        sorted.sort_by_key(|store| store.id());
        let ids: Vec<&str> = sorted.iter().map(|store| store.id()).collect();
        let tenants: Vec<&str> = sorted.iter().map(|store| store.batch.tenant().as_str()).collect();
        let numbers = |of: &dyn Fn(&Store) -> i64| -> Vec<i64> { sorted.iter().map(|store| of(store)).collect() };
        let seqs = numbers(&|store| store.batch.id().seq.0.cast_signed());
        let attempts = numbers(&|store| store.attempt.0.into());
        let events = numbers(&|store| signed(store.batch.len()));
        let body_bytes = numbers(&|store| signed(store.batch.body_bytes()));
        let hashes = numbers(&|store| store.content_hash);
        let firsts: Vec<_> = sorted.iter().map(|store| store.first).collect();
        let lasts: Vec<_> = sorted.iter().map(|store| store.last).collect();
        let rows = transaction
            .query(&self.claim, &[&ids, &tenants, &seqs, &attempts, &events, &body_bytes, &hashes, &firsts, &lasts])
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// A batch of which there is a row: it came before, or was rolled back before it came.
    async fn meet(&self, transaction: &Transaction<'_>, store: &Store, row: &Row) -> Result<Met, Failure> {
        let (attempt, id) = (i64::from(store.attempt.0), store.id());
        let (known_attempt, fence): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        let (is_stored, content_hash, events): (bool, i64, i64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        if attempt <= fence {
            let detail = format!("attempt {} of batch {id} was rolled back", store.attempt);
            return Ok(Met::Answer(Err(StorageError::permanent(detail))));
        }
        if !is_stored {
            let (len, bytes) = (signed(store.batch.len()), signed(store.batch.body_bytes()));
            let row = transaction
                .query_one(&self.again, &[&id, &attempt, &len, &bytes, &store.content_hash, &store.first, &store.last])
                .await?;
            return Ok(Met::Fresh(row.try_get(0)?));
        }
        if content_hash != store.content_hash {
            let detail = format!(
                "batch {id} is already stored with other content: {events} events there, {} events now, and their hashes \
                 differ; nothing was changed. A batch id must never be used for other events",
                store.batch.len()
            );
            return Ok(Met::Answer(Err(StorageError::permanent(detail))));
        }
        if known_attempt < attempt {
            // A rollback of an earlier attempt must not take away what this one was told is there.
            transaction.execute(&self.raise, &[&id, &attempt]).await?;
        }
        Ok(Met::Answer(Ok(())))
    }

    /// The answer is how many values did not fit their columns, by column.
    async fn copy(&self, transaction: &Transaction<'_>, numbered: &[(i64, &Store)]) -> Result<Vec<u64>, Failure> {
        let sink = transaction.copy_in::<_, Bytes>(&self.copy).await?;
        let mut sink = std::pin::pin!(sink);
        let mut piece = BytesMut::with_capacity(PIECE + (16 << 10));
        let mut rows = Rows::new(self.target.options.body, &self.target.columns);
        copy::head(&mut piece);
        for (number, store) in numbered {
            for (idx, event) in (0..).zip(store.batch.events()) {
                rows.row(&mut piece, *number, idx, store.batch.tenant(), event);
                if piece.len() >= PIECE {
                    sink.send(piece.split().freeze()).await?;
                }
            }
        }
        copy::end(&mut piece);
        sink.send(piece.freeze()).await?;
        sink.finish().await?;
        Ok(rows.misfits)
    }

    pub(super) async fn rollback(&self, client: &mut Client, id: &BatchId, attempt: Attempt) -> Result<(), Failure> {
        let (name, tenant, seq) = (id.to_string(), id.tenant.as_str(), id.seq.0.cast_signed());
        let transaction = client.transaction().await?;
        let row = transaction.query_one(&self.fence, &[&name, &tenant, &seq, &i64::from(attempt.0)]).await?;
        let (number, is_to_go): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
        // What a later attempt has stored since stays.
        if is_to_go {
            transaction.execute(&self.delete, &[&number]).await?;
            transaction.execute(&self.clear, &[&number, &tenant]).await?;
        }
        Ok(transaction.commit().await?)
    }
}

enum Met {
    Answer(Outcome),
    /// It is to be written, under this number.
    Fresh(i64),
}

fn gone(store: &Store) -> StorageError {
    StorageError::transient(format!("the row of batch {} was there a moment ago; was it deleted by hand?", store.id))
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
