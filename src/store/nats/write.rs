use bytes::Bytes;
use headworks_actors::fault_point::fault_point;
use headworks_actors::{Attempt, Batch, BatchId, TenantId};

use super::error::Failure;
use super::link::{Answer, Link};
use super::message::{Message, There, What, fence};

/// So often somebody else may come in between.
const TRIES: u32 = 16;

/// Publishes batches and takes them back; see the [module](super) for how.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) link: Link,
}

impl Writer {
    /// Publishes the batch, once.
    pub(super) async fn store(&self, batch: &Batch, attempt: Attempt) -> Result<(), Failure> {
        let open = self.link.open().await?;
        let (id, subject) = (batch.id(), self.link.template.subject(batch.id()));
        let message = Message::new(batch, attempt);
        // Mostly there is nothing: that is found out by publishing.
        let (mut behind, mut is_named) = (0, true);
        for _ in 0..TRIES {
            let headers = message.headers(behind, is_named);
            let answer = open.publish(&subject, headers, message.body.clone()).await?;
            if answer == Answer::Stored {
                return Ok(());
            }
            let there = open.last(&subject, id).await?;
            match there.map(|there| there.what) {
                Some(What::Batch { hash, .. }) if hash == message.hash => return Ok(()),
                Some(What::Batch { .. }) => {
                    return Err(Failure::Refused(format!(
                        "batch {id} is already there with other content, on {subject}; nothing was changed. A batch id must never be used \
                         for other events"
                    )));
                }
                Some(What::Fence(fence)) if attempt <= fence => {
                    return Err(Failure::Refused(format!("attempt {attempt} of batch {id} was rolled back")));
                }
                Some(What::Other) => return Err(foreign(&subject, there)),
                Some(What::Fence(_)) | None => {}
            }
            if answer == Answer::Silence {
                let why = "the server did not acknowledge it in time, and does not have it";
                return Err(Failure::Passing(why.into()));
            }
            // What was known by its name is not there any more: it was taken back, or somebody deleted it.
            is_named = answer != Answer::Known || there.is_some_and(|there| there.sequence != behind);
            behind = there.map_or(0, |there| there.sequence);
        }
        Err(contested(&subject))
    }

    /// Takes away what attempts up to this one left, and fences them.
    pub(super) async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Result<(), Failure> {
        let open = self.link.open().await?;
        let subject = self.link.template.subject(id);
        for _ in 0..TRIES {
            let there = open.last(&subject, id).await?;
            match there.map(|there| there.what) {
                // There already, or not by now; one that was cut off may have left what lies before it.
                Some(What::Fence(fence)) if fence >= attempt => {
                    let before = there.map_or(0, |there| there.sequence);
                    if open.can_purge {
                        return open.purge(&subject, before).await.map(drop);
                    }
                    return Err(Failure::Refused(format!(
                        "the stream denies purges (deny_purge): the batch may be on {subject}, before message {before}, which takes it back"
                    )));
                }
                Some(What::Batch { attempt: later, .. }) if later > attempt => return Ok(()),
                Some(What::Other) => return Err(foreign(&subject, there)),
                Some(_) | None => {}
            }
            let behind = there.map_or(0, |there| there.sequence);
            let answer = open.publish(&subject, fence(id, attempt, behind), Bytes::new()).await?;
            if behind == 0 && answer == Answer::Stored {
                return Ok(());
            }
        }
        Err(contested(&subject))
    }

    /// The number that the next message of the stream will have.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "the daemon erases"))]
    pub(super) async fn mark(&self) -> Result<u64, Failure> {
        let open = self.link.open().await?;
        if !open.can_purge {
            return Err(Failure::Refused("the stream denies purges (deny_purge)".into()));
        }
        open.next_number().await
    }

    /// Takes away all messages of the tenant, fences too, with numbers below this one; how many there were. The server does it whole.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "the daemon erases"))]
    pub(super) async fn erase(&self, tenant: &TenantId, before: u64) -> Result<u64, Failure> {
        let open = self.link.open().await?;
        fault_point("in-erase");
        open.purge(&self.link.template.of_tenant(tenant), before).await
    }
}

fn contested(subject: &str) -> Failure {
    Failure::Passing(format!("somebody else publishes to {subject} at the same time"))
}

fn foreign(subject: &str, there: Option<There>) -> Failure {
    let number = there.map_or(0, |there| there.sequence);
    Failure::Unfit(format!(
        "message {number} of the stream, on {subject}, is none of this store's: nobody else may publish there; delete it, or set subject"
    ))
}
