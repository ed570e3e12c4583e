use headworks::admin::{EraseRequest, Erased, NotErased, Order, Ordered, PolicyChanged, PolicyRequest, TenantRow};
use headworks::text::count;
use headworks::{Policy, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::{Live, encoded};
use super::say;
use super::table::{Narrow, Rows, inert, json, screen};

/// `headworks tenants`: without a word more, the list.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Tenants {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Clone, clap::Args)]
struct List {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    args: TenantsArgs,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// List the tenants, stored and running; the same as no word at all
    List(List),
    /// Let a tenant go on that is in quarantine or was stopped; a store that is away, or asked to be left alone, is asked at once
    Resume(OrderArgs),
    /// End a tenant's actors until it is resumed or restarted; its events are accepted and wait
    Stop(OrderArgs),
    /// Replace a tenant's actors by fresh ones
    Restart(OrderArgs),
    /// End a tenant's actors and free their memory, until its next event; stores what is in flight first
    Passivate(OrderArgs),
    /// Close a tenant's open window now
    Flush(OrderArgs),
    /// Drop a tenant's events at the door, counted, until the daemon ends; `tenants.mute` of the configuration keeps it
    Mute(OrderArgs),
    /// Let a tenant's events in again
    Unmute(OrderArgs),
    /// Erase what is kept of a tenant: its events in the stores, its dead letters, what the journal has of it
    Erase(EraseArgs),
    /// Print the rules that a tenant lives by now
    Policy(PolicyArgs),
    /// Change rules of a tenant until the daemon ends; `tenants.by_id` of the configuration keeps them
    Set(SetArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct OrderArgs {
    #[command(flatten)]
    target: Target,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct EraseArgs {
    #[command(flatten)]
    target: Target,
    /// Yes, erase it: there is no way back
    #[arg(long)]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct PolicyArgs {
    #[command(flatten)]
    target: Target,
    /// Print JSON instead of TOML.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct SetArgs {
    /// The tenant; it need not be known yet
    tenant: TenantId,
    /// The rules and their values, like throttle.events_per_second=100 window.max_age=250ms
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    data: Data,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE, like window.max_age=250ms")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Whom a running daemon is to tell.
#[derive(Debug, Clone, clap::Args)]
struct Target {
    /// The tenant
    tenant: TenantId,
    #[command(flatten)]
    data: Data,
}

type Failure = (Exit, String);

/// Lists, or tells a tenant something.
pub(crate) fn run(tenants: &Tenants) -> Result<Exit, Failure> {
    let (order, OrderArgs { target, json: as_json }) = match &tenants.action {
        None => return list(&tenants.list),
        Some(Action::List(args)) => return list(args),
        Some(Action::Resume(args)) => (Order::Resume, args),
        Some(Action::Stop(args)) => (Order::Stop, args),
        Some(Action::Restart(args)) => (Order::Restart, args),
        Some(Action::Passivate(args)) => (Order::Passivate, args),
        Some(Action::Flush(args)) => (Order::Flush, args),
        Some(Action::Mute(args)) => (Order::Mute, args),
        Some(Action::Unmute(args)) => (Order::Unmute, args),
        Some(Action::Erase(args)) => return erase(args),
        Some(Action::Policy(args)) => return policy(args),
        Some(Action::Set(args)) => return set(args),
    };
    let live = live(&target.data, order.as_str())?;
    let told: Ordered = live.post(&format!("/v1/tenants/{}/{}", encoded(target.tenant.as_str()), order.as_str()))?;
    let remark = told.remark.as_ref().map_or(String::new(), |remark| format!(": {}", inert(remark)));
    said(*as_json, &told, || format!("{}: {}{remark}\n", told.tenant, told.order.done()))
}

/// As one document, or in words.
fn said(as_json: bool, what: &impl Serialize, words: impl FnOnce() -> String) -> Result<Exit, Failure> {
    let text = if as_json { json(what).map_err(|why| (Exit::Internal, why.to_string()))? } else { words() };
    Ok(say(text.as_bytes()))
}

/// The daemon that is to do something with a tenant.
fn live(data: &Data, verb: &str) -> Result<Live, Failure> {
    match data.directory()? {
        (_, Directory::Live(live)) => Ok(live),
        (path, Directory::Files(_)) => {
            let why = format!(
                "no daemon runs on {}, and only a running one can {verb} a tenant: start it with `headworks run --data DIR`, or name \
                 its directory with --data",
                path.display(),
            );
            Err((Exit::Unavailable, why))
        }
    }
}

fn erase(EraseArgs { target: Target { tenant, data }, yes, json: as_json }: &EraseArgs) -> Result<Exit, Failure> {
    if !yes {
        let why =
            format!("all that is kept of tenant {tenant} would be erased, and there is no way back: say --yes to that");
        return Err((Exit::Usage, why));
    }
    let request = EraseRequest { confirm: tenant.clone() };
    let path = format!("/v1/tenants/{}/erase", encoded(tenant.as_str()));
    let erased: Erased = live(data, "erase")?.send("POST", &path, &request)?;
    let done = said(*as_json, &erased, || {
        let Erased { events, messages, dead_letters, dropped, let_in, not_erased, remains, .. } = &erased;
        let messages = match messages {
            0 => String::new(),
            messages => format!(", {} of NATS", count(*messages, "message")),
        };
        let mut text = format!("{tenant}: {events} events{messages} and {dead_letters} dead letters erased\n");
        if *dropped > 0 {
            text += &format!("dropped at the door meanwhile: {}\n", count(*dropped, "frame"));
        }
        text += match let_in {
            true => {
                "its events are let in again: whoever still sends makes it a tenant anew; `headworks tenants mute` keeps them out\n"
            }
            false => "it stays muted: its events are dropped at the door\n",
        };
        text.extend(remains.iter().map(|what| format!("what remains: {}\n", inert(what))));
        for NotErased { store, why, is_tried_again } in not_erased {
            let (how, then) = match is_tried_again {
                true => (
                    "not yet erased",
                    "; the daemon goes on with it by itself, and the supervisor log says when it is done",
                ),
                false => ("NOT ERASED", ""),
            };
            text += &format!("{how} in {store}: {}{then}\n", inert(why));
        }
        if !not_erased.is_empty() {
            let names: Vec<_> = not_erased.iter().map(|of| of.store.as_str()).collect();
            text += &format!("{tenant} is erased everywhere but in {}\n", names.join(", "));
        }
        text
    })?;
    // A script that must see to it that nothing is left has to hear of this.
    Ok(if erased.not_erased.is_empty() { done } else { Exit::Failure })
}

fn route(tenant: &TenantId) -> String {
    format!("/v1/tenants/{}/policy", encoded(tenant.as_str()))
}

fn policy(PolicyArgs { target, json: as_json }: &PolicyArgs) -> Result<Exit, Failure> {
    let policy: Policy = live(&target.data, "tell the rules of")?.get(&route(&target.tenant))?;
    let failed = |why: String| (Exit::Internal, why);
    let text = match as_json {
        true => json(&policy).map_err(|why| failed(why.to_string()))?,
        false => toml::to_string(&policy).map_err(|why| failed(why.to_string()))?,
    };
    Ok(say(text.as_bytes()))
}

fn set(SetArgs { tenant, settings, data, json: as_json }: &SetArgs) -> Result<Exit, Failure> {
    let request = PolicyRequest { set: settings.iter().cloned().collect() };
    let told: PolicyChanged = live(data, "change the rules of")?.send("PATCH", &route(tenant), &request)?;
    said(*as_json, &told, || {
        let mut text: String = told.changes.iter().map(|change| format!("{tenant}: {change}\n")).collect();
        text += match told.changes.is_empty() {
            true => "nothing is changed: the rules were so before\n",
            false => "until the daemon ends; to keep it, write it into its configuration\n",
        };
        text
    })
}

fn list(List { data, args }: &List) -> Result<Exit, Failure> {
    let text = render(args, &data.open()?.tenants()?, screen()).map_err(|why| (Exit::Internal, why.to_string()))?;
    Ok(say(text.as_bytes()))
}

/// What `headworks tenants` takes.
#[derive(Debug, Clone, clap::Args)]
struct TenantsArgs {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// A tenant as it is listed: what the store holds of it, and how it is now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) row: TenantRow,
    /// By the daemon, in the words of a snapshot; by the journal at rest, what that has on record; nothing where neither knows it.
    pub(crate) live: Option<serde_json::Map<String, Value>>,
}

impl Listed {
    fn number(&self, name: &str) -> u64 {
        self.live.as_ref().and_then(|live| live.get(name)?.as_u64()).unwrap_or(0)
    }

    fn status(&self) -> String {
        let of = |name| self.live.as_ref().and_then(|live| live.get(name));
        let status = of("status").and_then(Value::as_str).unwrap_or("-");
        let muted = of("is_muted").and_then(Value::as_bool) == Some(true);
        if muted { format!("{status}, muted") } else { status.to_owned() }
    }
}

/// What a screen may do without.
const NARROW: Narrow<'_> = Narrow {
    names: &[("dead letters", "dead"), ("first arrived", "first"), ("last arrived", "last")],
    spare: &["first", "batches", "last"],
    long: &[("tenant", 12)],
};

type Cell = fn(&Listed) -> String;

/// What `headworks tenants` prints.
fn render(args: &TenantsArgs, tenants: &[Listed], width: Option<usize>) -> Result<String, serde_json::Error> {
    if args.json {
        return json(&tenants);
    }
    fn time(time: &Option<String>) -> String {
        time.clone().unwrap_or_else(|| "-".to_owned())
    }
    let has = |name: &str| tenants.iter().any(|tenant| tenant.number(name) > 0);
    let has_status = tenants.iter().any(|tenant| tenant.status() != "-");
    // Those that would be nothing but zeros are left out.
    let columns: [(bool, &str, Cell); 13] = [
        (true, "tenant", |one| one.row.tenant.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
        (has_status, "status", Listed::status),
        (true, "#events", |one| if one.row.unread { "-".to_owned() } else { one.row.events.to_string() }),
        (has("in_flight"), "#in flight", |one| one.number("in_flight").to_string()),
        (true, "#batches", |one| if one.row.unread { "-".to_owned() } else { one.row.batches.to_string() }),
        (true, "#dead letters", |one| one.row.dead_letters.to_string()),
        (has("muted"), "#muted", |one| one.number("muted").to_string()),
        (has("throttled"), "#throttled", |one| one.number("throttled").to_string()),
        (has("rejected"), "#rejected", |one| one.number("rejected").to_string()),
        (has("shed"), "#shed", |one| one.number("shed").to_string()),
        (has("spilled"), "#spilled", |one| one.number("spilled").to_string()),
        (true, "first arrived", |one| time(&one.row.first_arrived)),
        (true, "last arrived", |one| time(&one.row.last_arrived)),
    ];
    let columns: Vec<_> = columns.into_iter().filter(|(is_shown, ..)| *is_shown).collect();
    let mut rows = Rows::new(&columns.iter().map(|(_, name, _)| *name).collect::<Vec<_>>());
    for tenant in tenants {
        rows.push(columns.iter().map(|(.., cell)| cell(tenant)).collect());
    }
    Ok(rows.fit(width, &NARROW))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Listed> {
        let acme = TenantRow {
            tenant: TenantId::new("acme").ok(),
            events: 12_000,
            batches: 24,
            dead_letters: 0,
            first_arrived: Some("2024-11-22T00:00:00.007Z".into()),
            last_arrived: Some("2024-11-22T00:00:01.007Z".into()),
            unread: false,
        };
        let none =
            TenantRow { tenant: TenantId::new("b").ok(), events: 0, batches: 0, dead_letters: 3, ..acme.clone() };
        let none = TenantRow { first_arrived: None, last_arrived: None, ..none };
        [acme, none].map(|row| Listed { row, live: None }).into()
    }

    #[test]
    fn what_nobody_can_read_back_is_no_zero() {
        let [_, none] = <[Listed; 2]>::try_from(rows()).unwrap();
        let row = TenantRow { unread: true, ..none.row };
        let text = render(&TenantsArgs { json: false }, &[Listed { row, live: None }], None).unwrap();
        assert_eq!(text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(), ["b", "-", "-", "3", "-", "-"]);
    }

    #[test]
    fn every_tenant_has_a_line() {
        let text = render(&TenantsArgs { json: false }, &rows(), None).unwrap();
        let expected = "\
tenant  events  batches  dead letters  first arrived             last arrived
acme     12000       24             0  2024-11-22T00:00:00.007Z  2024-11-22T00:00:01.007Z
b            0        0             3  -                         -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn as_json_it_is_one_document_with_the_same_words() {
        let text = render(&TenantsArgs { json: true }, &rows(), None).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document[0]["tenant"], "acme");
        assert_eq!(document[0]["events"], 12_000);
        assert_eq!(document[0]["last_arrived"], "2024-11-22T00:00:01.007Z");
        assert_eq!(document[1]["first_arrived"], serde_json::Value::Null);
        assert_eq!(document[1]["dead_letters"], 3);
    }
    #[test]
    fn what_the_daemon_knows_of_a_tenant_has_its_columns_and_all_of_it_fits_a_screen() {
        let mut rows = rows();
        let live = serde_json::json!({ "status": "quarantined", "is_muted": true, "in_flight": 7, "throttled": 12_345, "shed": 1 });
        rows[1].live = live.as_object().cloned();
        let wide = render(&TenantsArgs { json: false }, &rows, None).unwrap();
        let expected = "\
tenant  status              events  in flight  batches  dead letters  throttled  shed  first arrived             last arrived
acme    -                    12000          0       24             0          0     0  2024-11-22T00:00:00.007Z  2024-11-22T00:00:01.007Z
b       quarantined, muted       0          7        0             3      12345     1  -                         -
";
        assert_eq!(wide, expected);
        let long = TenantId::new(&"x".repeat(64)).unwrap();
        rows[0].row.tenant = Some(long);
        let narrow = render(&TenantsArgs { json: false }, &rows, Some(80)).unwrap();
        assert!(narrow.lines().all(|line| console::measure_text_width(line) <= 80), "{narrow}");
        assert!(narrow.contains("quarantined, muted") && narrow.contains("12345"), "{narrow}");
        assert!(narrow.ends_with("not shown on so narrow a screen: first, batches, last\n"), "{narrow}");
    }
}
