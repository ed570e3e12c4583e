use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use headworks_actors::{TenantId, Uncompensated, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{Admin, Problem};
use crate::supervisor_log::{LogCause, rfc3339};

/// A compensation that could not be done, and is tried again and again: see [`Uncompensated`]. Until it is done, the store may hold
/// events of a batch that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UncompensatedRow {
    /// Whose batch.
    pub tenant: String,
    /// Which.
    pub batch: String,
    /// Which store may still hold it.
    pub store: String,
    /// What is to be done there: `rollback`, or an undo step by its name.
    pub what: String,
    /// Since when it stands here.
    #[serde(with = "rfc3339")]
    pub since: UnixMillis,
    /// How often it was tried from here; at rest that is not known.
    pub tries: u32,
    /// When it is tried again, where that is known.
    #[serde(with = "rfc3339::option")]
    pub next_at: Option<UnixMillis>,
    /// Why the last try failed.
    pub cause: LogCause,
}

impl From<Uncompensated> for UncompensatedRow {
    fn from(owed: Uncompensated) -> Self {
        Self {
            tenant: owed.batch.tenant.to_string(),
            batch: owed.batch.to_string(),
            store: owed.store.to_string(),
            what: owed.compensation.to_string(),
            since: owed.since,
            tries: owed.tries,
            next_at: owed.next_at,
            cause: LogCause { code: owed.cause.code.as_str().to_owned(), detail: owed.cause.detail.to_string() },
        }
    }
}

impl UncompensatedRow {
    /// What an audit cannot check because of them: a sentence for each tenant and store.
    #[must_use]
    pub fn unchecked(rows: &[Self]) -> Vec<String> {
        let mut batches: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for row in rows {
            let batches = batches.entry((&row.tenant, &row.store)).or_default();
            if !batches.contains(&&*row.batch) {
                batches.push(&row.batch);
            }
        }
        let say = |((tenant, store), batches): ((&String, &String), Vec<&str>)| {
            let which = match &batches[..] {
                [batch] => format!("batch {batch}, which was"),
                batches => format!("{} batches of {tenant}, which were", batches.len()),
            };
            format!(
                "what {store} may still hold of {which} given up and not undone there yet; see `headworks uncompensated`"
            )
        };
        batches.into_iter().map(say).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    tenant: Option<TenantId>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<UncompensatedRow>>, Problem> {
    let Query(Wanted { tenant }) = wanted?;
    let mut owed = admin.system.uncompensated();
    owed.retain(|owed| tenant.as_ref().is_none_or(|tenant| owed.batch.tenant == *tenant));
    Ok(Json(owed.into_iter().map(UncompensatedRow::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: &str, store: &str, batch: &str) -> UncompensatedRow {
        let text = str::to_owned;
        UncompensatedRow { tenant: text(tenant), store: text(store), batch: text(batch), ..UncompensatedRow::default() }
    }

    #[test]
    fn an_audit_is_told_once_for_each_tenant_and_store() {
        let rows = [row("a", "db", "1/a/1"), row("a", "db", "1/a/1"), row("b", "db", "1/b/1"), row("b", "db", "1/b/2")];
        let expected = [
            "what db may still hold of batch 1/a/1, which was given up and not undone there yet; see `headworks uncompensated`",
            "what db may still hold of 2 batches of b, which were given up and not undone there yet; see `headworks uncompensated`",
        ];
        assert_eq!(UncompensatedRow::unchecked(&rows), expected);
        assert_eq!(UncompensatedRow::unchecked(&[]), [""; 0]);
    }
}
