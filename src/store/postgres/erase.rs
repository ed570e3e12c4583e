//! What is kept of a tenant, taken away, in steps as small as those of retention.

use headworks_actors::fault_point::fault_point;
use headworks_actors::{StorageError, TenantId};

use super::PostgresStore;
use super::prune::{Why, oldest, take};
use super::schema::in_namespace;
use super::worker::Session;

/// So many events go in one transaction, at least where there are as many: others are stored in between.
const STEP: u64 = 10_000;

/// What is left of a tenant that has no batches: fences that are so old that no attempt before them is under way any more.
const FENCES: &str = "
    DELETE FROM @.batches WHERE tenant = $1 AND NOT stored AND stored_at < clock_timestamp() - interval '1 hour'";

impl PostgresStore {
    /// A number above those of all batches that there are.
    pub(crate) async fn mark_erasure(&self) -> Result<i64, StorageError> {
        let mark = async move |session: &mut Session| {
            let sql = in_namespace("SELECT nextval('@.batch_numbers')", session.options());
            Ok(session.client.query_one(&sql, &[]).await?.try_get(0)?)
        };
        self.on_connection("look for what is to be erased", mark).await
    }

    /// Erases the tenant's events of batches with numbers up to this one, and adds how many went to `events`. What is not erased yet where it
    /// fails is still there, and a second call goes on.
    pub(crate) async fn erase(&self, tenant: &TenantId, upto: i64, events: &mut u64) -> Result<(), StorageError> {
        loop {
            let id = tenant.clone();
            let step = async move |session: &mut Session| {
                let mut batches = vec![];
                let mut chosen = 0;
                for (number, _, events) in oldest(session, &id, 0, upto).await? {
                    if chosen < STEP {
                        chosen += events;
                        batches.push(number);
                    }
                }
                if batches.is_empty() {
                    let sql = in_namespace(FENCES, session.options());
                    session.client.execute(&sql, &[&id.as_str()]).await?;
                    return Ok(None);
                }
                take(session, &id, &batches, Why::Erased).await.map(Some)
            };
            match self.on_connection("erase a tenant's events", step).await? {
                Some(gone) => *events += gone.events,
                None => return Ok(()),
            }
            fault_point("in-erase");
        }
    }
}
