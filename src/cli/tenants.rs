use headworks::admin::TenantRow;

use super::table::{Rows, json};

/// What `headworks tenants` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TenantsArgs {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `headworks tenants` prints.
pub(crate) fn render(args: &TenantsArgs, tenants: &[TenantRow]) -> Result<String, serde_json::Error> {
    if args.json {
        return json(&tenants);
    }
    let mut rows = Rows::new(&["tenant", "#events", "#batches", "#dead letters", "first arrived", "last arrived"]);
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
    for TenantRow { tenant, events, batches, dead_letters, first_arrived, last_arrived } in tenants {
        let (first, last) = (time(first_arrived), time(last_arrived));
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
    use headworks::TenantId;

    use super::*;

    fn rows() -> Vec<TenantRow> {
        let acme = TenantRow {
            tenant: TenantId::new("acme").ok(),
            events: 12_000,
            batches: 24,
            dead_letters: 0,
            first_arrived: Some("2024-11-22T00:00:00.007Z".into()),
            last_arrived: Some("2024-11-22T00:00:01.007Z".into()),
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
