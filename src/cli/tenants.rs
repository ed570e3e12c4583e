use std::collections::BTreeMap;

use headworks::store::{FilesReader, SqliteReader};
use headworks::{TenantId, UnixMillis};
use serde::{Serialize, Serializer};

use super::table::{Rows, json};

/// What `headworks tenants` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TenantsArgs {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the store knows of a tenant.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TenantRow {
    /// None for dead letters of frames that name no tenant.
    pub(crate) tenant: Option<TenantId>,
    /// Events in the store.
    pub(crate) events: u64,
    /// Batches in the store.
    pub(crate) batches: u64,
    /// Dead letters of the tenant.
    pub(crate) dead_letters: u64,
    /// When the first of its events arrived, if any did.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) first_arrived: Option<UnixMillis>,
    /// When the last one did.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) last_arrived: Option<UnixMillis>,
}

fn rfc3339<S: Serializer>(time: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}

impl TenantRow {
    fn of_dead_letters(tenant: Option<TenantId>, dead_letters: u64) -> Self {
        Self { tenant, events: 0, batches: 0, dead_letters, first_arrived: None, last_arrived: None }
    }

    /// Adds what is stored elsewhere.
    fn add(&mut self, events: u64, batches: u64, first: Option<UnixMillis>, last: Option<UnixMillis>) {
        self.events += events;
        self.batches += batches;
        self.first_arrived = self.first_arrived.into_iter().chain(first).min();
        self.last_arrived = self.last_arrived.max(last);
    }
}

/// What the database and the files know, by tenant; last the dead letters of no tenant, if there are any.
pub(crate) fn rows(store: &SqliteReader, files: Option<&FilesReader>) -> Result<Vec<TenantRow>, String> {
    let mut rows = BTreeMap::new();
    let row = |tenant: TenantId| TenantRow::of_dead_letters(Some(tenant), 0);
    for totals in store.tenants().map_err(|why| why.to_string())? {
        let row: &mut TenantRow = rows.entry(totals.tenant.clone()).or_insert_with(|| row(totals.tenant));
        row.add(totals.events, totals.batches, totals.first_arrived, totals.last_arrived);
        row.dead_letters = totals.dead_letters;
    }
    let files = files.map_or_else(|| Ok(vec![]), FilesReader::tenants).map_err(|why| why.to_string())?;
    for totals in files {
        let row = rows.entry(totals.tenant.clone()).or_insert_with(|| row(totals.tenant));
        row.add(totals.events, totals.batches, totals.first_arrived, totals.last_arrived);
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    let dead_letters = store.dead_letters_without_tenant().map_err(|why| why.to_string())?;
    if dead_letters > 0 {
        rows.push(TenantRow::of_dead_letters(None, dead_letters));
    }
    Ok(rows)
}

/// What `headworks tenants` prints.
pub(crate) fn render(args: &TenantsArgs, tenants: &[TenantRow]) -> Result<String, serde_json::Error> {
    if args.json {
        return json(&tenants);
    }
    let mut rows = Rows::new(&["tenant", "#events", "#batches", "#dead letters", "first arrived", "last arrived"]);
    let time = |time: Option<UnixMillis>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    for TenantRow { tenant, events, batches, dead_letters, first_arrived, last_arrived } in tenants {
        let (first, last) = (time(*first_arrived), time(*last_arrived));
        rows.push(vec![
            tenant.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            events.to_string(),
            batches.to_string(),
            dead_letters.to_string(),
            first,
            last,
        ]);
    }
    // Nothing here is long enough to be shortened, on a screen or in a pipe.
    Ok(rows.render(Some(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<TenantRow> {
        let acme = TenantRow {
            tenant: TenantId::new("acme").ok(),
            events: 12_000,
            batches: 24,
            dead_letters: 0,
            first_arrived: Some(UnixMillis(1_732_233_600_007)),
            last_arrived: Some(UnixMillis(1_732_233_601_007)),
        };
        let none =
            TenantRow { tenant: TenantId::new("b").ok(), events: 0, batches: 0, dead_letters: 3, ..acme.clone() };
        vec![acme, TenantRow { first_arrived: None, last_arrived: None, ..none }]
    }

    #[test]
    fn every_tenant_has_a_line() {
        let text = render(&TenantsArgs { json: false }, &rows()).unwrap();
        let expected = "\
tenant  events  batches  dead letters  first arrived             last arrived
acme     12000       24             0  2024-11-22T00:00:00.007Z  2024-11-22T00:00:01.007Z
b            0        0             3  -                         -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn as_json_it_is_one_document_with_the_same_words() {
        let text = render(&TenantsArgs { json: true }, &rows()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document[0]["tenant"], "acme");
        assert_eq!(document[0]["events"], 12_000);
        assert_eq!(document[0]["last_arrived"], "2024-11-22T00:00:01.007Z");
        assert_eq!(document[1]["first_arrived"], serde_json::Value::Null);
        assert_eq!(document[1]["dead_letters"], 3);
    }
}
