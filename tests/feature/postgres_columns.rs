//! Fields of events as columns on PostgreSQL, against a server: their types, what does not fit, tables that are there already, and
//! names and values that are meant to do harm.

use headworks::store::postgres::{BodyColumn, Partition, SchemaMode};
use headworks::store::{PostgresOptions, PostgresStore};
use headworks::{Attempt, Storage};

use crate::rig::batches::{assert_outage, batch, put, tenant};
use crate::rig::postgres::{Postgres, assert_refused, keeps_the_contract};

/// Every type, by path and by name.
const COLUMNS: [&str; 7] =
    ["level", "n:integer", "ms=http.took:number", "ok:boolean", "at:time", "http:json", "first=list.0:text"];

fn with(postgres: &Postgres, columns: &[&str]) -> PostgresOptions {
    let mut options = postgres.options("headworks");
    options.columns = columns.iter().map(ToString::to_string).collect();
    options
}

#[tokio::test]
async fn the_store_keeps_the_contract_with_columns_in_either_kind_of_body_and_in_parts() {
    let postgres = Postgres::start();
    for kind in ["text", "parts"] {
        let options = |namespace: &str| {
            let mut options = with(&postgres, &COLUMNS);
            options.namespace = namespace.to_owned();
            if kind == "parts" {
                options.partition = Partition::Month;
            }
            options
        };
        keeps_the_contract(kind, options).await;
    }
}

#[tokio::test]
async fn fields_are_in_columns_of_their_types_and_what_is_not_there_or_does_not_fit_is_null_and_whole_in_its_body() {
    for body in [BodyColumn::Text, BodyColumn::Jsonb] {
        let postgres = Postgres::start();
        let mut options = with(&postgres, &COLUMNS);
        options.body = body;
        let store = PostgresStore::open(options).unwrap();
        let bodies = [
            r#"{"level":"a\n\u00e9","n":-9223372036854775808,"http":{"took":1.5},"ok":true,"at":"2024-11-22T02:00:00.000007+02:00"}"#,
            r#"{"level":{"a":[1]},"n":7,"http":[1, 2],"ok":false,"at":1732233600007}"#,
            r#"{"level":null,"x":1}"#,
            r#"{"level":7,"n":1.5,"http":{"took":"fast"},"ok":"yes","at":"yesterday"}"#,
            r#"{"n":9223372036854775808,"http":{"took":1e300},"ok":null,"at":9223372036854775807,"list":["a"]}"#,
            "[]",
            "17",
        ];
        put(&store, &batch("acme", 1, &bodies), 1).await.unwrap();
        let rows =
            "SELECT idx, level, n, ms, ok, at AT TIME ZONE 'UTC', http, first FROM headworks.events ORDER BY idx";
        let expected = [
            "0|a\né|-9223372036854775808|1.5|t|2024-11-22 00:00:00.000007|{\"took\": 1.5}|",
            "1|{\"a\":[1]}|7||f|2024-11-22 00:00:00.007|[1, 2]|",
            "2|||||||",
            "3|7|||||{\"took\": \"fast\"}|",
            "4|||1e+300|||{\"took\": 1e300}|",
            "5|||||||",
            "6|||||||",
        ]
        .join("\n");
        let expected = expected.replace("1e300}", &format!("1{}}}", "0".repeat(300)));
        assert_eq!(postgres.ask(rows), expected);
        let read = postgres.reader("headworks").bodies(&tenant("acme")).unwrap();
        assert_eq!(read.len(), bodies.len());
        if body == BodyColumn::Text {
            assert_eq!(read, bodies.map(str::as_bytes));
        }
        store.rollback(batch("acme", 1, &bodies).id(), Attempt(1)).await.unwrap();
        assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events"), "0");
    }
}

/// Nothing that a column cannot take makes the server refuse a batch: it knows nothing of it.
#[tokio::test]
async fn what_a_column_of_the_server_cannot_hold_costs_no_event() {
    let postgres = Postgres::start();
    let store =
        PostgresStore::open(with(&postgres, &["v:json", "t=v", "n=v:number", "i=v:integer", "at=v:time"])).unwrap();
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let poisons = [
        r#""\u0000""#.to_owned(),
        r#""\ud800""#.into(),
        r#"{"\u0000":1}"#.into(),
        "1e400000".into(),
        "-1e-400000".into(),
        "9".repeat(200_000),
        format!("0.{}", "1".repeat(20_000)),
        deep(100_000),
        deep(501),
        "\"300000-01-01T00:00:00Z\"".into(),
        i64::MAX.to_string(),
    ];
    let sound = [
        "1e9999".to_owned(),
        "1e-9999".into(),
        "9".repeat(1000),
        deep(500),
        r#""\ud83d\ude00 \\u0000 \" \/""#.into(),
        r#"{"a":{"a":[null,true,false,-0.0]},"a":1}"#.into(),
        r#"-9223372036854775808"#.into(),
        "\"9999-12-31T23:59:60Z\"".into(),
        "8210298412799999".into(),
    ];
    let bodies: Vec<_> = poisons.iter().chain(&sound).map(|value| format!("{{\"v\":{value}}}")).collect();
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    put(&store, &batch("acme", 1, &bodies), 1).await.unwrap();
    // 8210298412799999 is the year 262143; a clock that is mad is none of a column's.
    let held = "SELECT count(v), count(*) FROM headworks.events";
    let refused = 9;
    assert_eq!(postgres.ask(held), format!("{}|{}", bodies.len() - refused, bodies.len()));
    assert_eq!(postgres.ask("SELECT count(*) FROM headworks.events WHERE at = 'infinity'"), "0");
    let read = postgres.reader("headworks").bodies(&tenant("acme")).unwrap();
    assert!(read.iter().zip(&bodies).all(|(read, body)| read == body.as_bytes()));
}

#[tokio::test]
async fn names_and_values_that_are_meant_to_do_harm_are_names_and_values() {
    let postgres = Postgres::start();
    let names = [
        r#"x" text); DROP TABLE @.events; --"#,
        "@.events % $ ^ &",
        "'; DELETE FROM headworks.events; --",
        "select",
        "Level",
        "level",
        "\u{202e}\n\t",
        "tab\\.",
    ];
    let columns: Vec<_> = names.iter().map(|name| format!("{name}=v")).collect();
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    let mut options = with(&postgres, &columns);
    options.partition = Partition::Day;
    let value = "\\N\t'); DROP TABLE headworks.events; --\u{202e}";
    let body = serde_json::json!({ "v": value }).to_string();
    for attempt in 1..=2 {
        let store = PostgresStore::open(options.clone()).unwrap();
        put(&store, &batch("acme", 1, &[&body]), attempt).await.unwrap();
        store.close().await.unwrap();
    }
    for name in names {
        let sql = format!("SELECT \"{}\" FROM headworks.events", name.replace('"', "\"\""));
        assert_eq!(postgres.ask(&sql), value, "{name}");
    }
    assert_eq!(postgres.reader("headworks").bodies(&tenant("acme")).unwrap(), [body.as_bytes()]);
}

#[tokio::test]
async fn a_column_that_is_new_is_added_to_the_table_that_is_there_and_one_that_is_left_out_stays() {
    for partition in [Partition::None, Partition::Day] {
        let postgres = Postgres::start();
        let open = |columns: &[&str]| {
            let mut options = with(&postgres, columns);
            options.partition = partition;
            PostgresStore::open(options)
        };
        let lines = [r#"{"level":"error","n":1}"#];
        for (seq, columns) in (1..).zip([&[][..], &["level"], &["level", "n:integer"], &["n:integer"], &["level"]]) {
            let store = open(columns).unwrap();
            put(&store, &batch("acme", seq, &lines), 1).await.unwrap();
            store.close().await.unwrap();
            postgres.ask("ALTER TABLE headworks.events ADD COLUMN IF NOT EXISTS of_the_operator text DEFAULT 'mine'");
        }
        let rows = "SELECT batch, level, n, of_the_operator FROM headworks.events ORDER BY batch";
        let expected = "1|||mine\n2|error||mine\n3|error|1|mine\n4||1|mine\n5|error||mine";
        assert_eq!(postgres.ask(rows), expected);
        assert_eq!(postgres.reader("headworks").bodies(&tenant("acme")).unwrap(), [lines[0].as_bytes(); 5]);
        let why = assert_refused(open(&["level", "n:number"]), "");
        for says in ["\"n\"", "headworks.events", "is of type bigint", "asks for double precision", "other_name=n"] {
            assert!(why.contains(says), "{says}: {why}");
        }
        postgres.ask("ALTER TABLE headworks.events ADD COLUMN made text GENERATED ALWAYS AS ('x') STORED");
        assert_refused(open(&["made"]), "is generated by the server");
    }
}

#[tokio::test]
async fn many_that_add_the_same_column_at_once_add_it_once() {
    let postgres = Postgres::start();
    drop(postgres.open("headworks"));
    let opened = (0..8).map(|_| {
        let options = with(&postgres, &COLUMNS);
        std::thread::spawn(move || PostgresStore::open(options).map(drop))
    });
    opened.collect::<Vec<_>>().into_iter().for_each(|opened| opened.join().unwrap().unwrap());
}

#[tokio::test]
async fn with_schema_check_it_says_which_statement_makes_the_column_and_that_makes_it() {
    let postgres = Postgres::start();
    drop(postgres.open("headworks"));
    let mut options = with(&postgres, &["level", "ms=http.took:number"]);
    options.schema = SchemaMode::Check;
    let why = assert_refused(PostgresStore::open(options.clone()), "");
    assert!(why.contains("has no column \"level\", \"ms\" and schema = \"check\""), "{why}");
    let statement = &why[why.find("ALTER TABLE").unwrap()..];
    postgres.ask(statement);
    let store = PostgresStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &[r#"{"http":{"took":2}}"#]), 1).await.unwrap();
    assert_eq!(postgres.ask("SELECT ms FROM headworks.events"), "2");
}

#[tokio::test]
async fn a_column_that_vanishes_is_an_outage_and_is_not_made_anew_behind_its_owners_back() {
    let postgres = Postgres::start();
    let mut options = with(&postgres, &["level"]);
    options.pool_size = 1;
    let store = PostgresStore::open(options).unwrap();
    put(&store, &batch("acme", 1, &["{}"]), 1).await.unwrap();
    postgres.ask("ALTER TABLE headworks.events RENAME COLUMN level TO aside");
    assert_outage(put(&store, &batch("acme", 2, &["{}"]), 1).await, "the tables were changed");
    assert_outage(put(&store, &batch("acme", 2, &["{}"]), 1).await, "has no column \"level\" any more");
    postgres.ask("ALTER TABLE headworks.events RENAME COLUMN aside TO level");
    put(&store, &batch("acme", 2, &["{}"]), 2).await.unwrap();
}
