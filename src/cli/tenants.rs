use headworks::admin::{EraseRequest, Erased, Order, Ordered, PolicyChanged, PolicyRequest, TenantRow};
use headworks::{Policy, TenantId};

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::{Live, encoded};
use super::say;
use super::table::{Rows, json};

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
    /// List the tenants in the store; the same as no word at all
    List(List),
    /// Let a tenant go on that is in quarantine or was stopped
    Resume(Target),
    /// End a tenant's actors until it is resumed or restarted; its events are accepted and wait
    Stop(Target),
    /// Replace a tenant's actors by fresh ones
    Restart(Target),
    /// End a tenant's actors and free their memory, until its next event; stores what is in flight first
    Passivate(Target),
    /// Close a tenant's open window now
    Flush(Target),
    /// Drop a tenant's events at the door, counted, until the daemon ends; `tenants.mute` of the configuration keeps it
    Mute(Target),
    /// Let a tenant's events in again
    Unmute(Target),
    /// Erase what is kept of a tenant: its events in the stores, its dead letters, what the journal has of it
    Erase(EraseArgs),
    /// Print the rules that a tenant lives by now
    Policy(PolicyArgs),
    /// Change rules of a tenant until the daemon ends; `tenants.by_id` of the configuration keeps them
    Set(SetArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct EraseArgs {
    #[command(flatten)]
    target: Target,
    /// Yes, erase it: there is no way back
    #[arg(long)]
    yes: bool,
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
    let (order, target) = match &tenants.action {
        None => return list(&tenants.list),
        Some(Action::List(args)) => return list(args),
        Some(Action::Resume(target)) => (Order::Resume, target),
        Some(Action::Stop(target)) => (Order::Stop, target),
        Some(Action::Restart(target)) => (Order::Restart, target),
        Some(Action::Passivate(target)) => (Order::Passivate, target),
        Some(Action::Flush(target)) => (Order::Flush, target),
        Some(Action::Mute(target)) => (Order::Mute, target),
        Some(Action::Unmute(target)) => (Order::Unmute, target),
        Some(Action::Erase(args)) => return erase(args),
        Some(Action::Policy(args)) => return policy(args),
        Some(Action::Set(args)) => return set(args),
    };
    let live = live(&target.data, order.as_str())?;
    let told: Ordered = live.post(&format!("/v1/tenants/{}/{}", encoded(target.tenant.as_str()), order.as_str()))?;
    Ok(say(format!("{}: {}\n", told.tenant, told.order.done()).as_bytes()))
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

fn erase(EraseArgs { target: Target { tenant, data }, yes }: &EraseArgs) -> Result<Exit, Failure> {
    if !yes {
        let why =
            format!("all that is kept of tenant {tenant} would be erased, and there is no way back: say --yes to that");
        return Err((Exit::Failure, why));
    }
    let request = EraseRequest { confirm: tenant.clone() };
    let path = format!("/v1/tenants/{}/erase", encoded(tenant.as_str()));
    let Erased { events, dead_letters, remains, .. } = live(data, "erase")?.send("POST", &path, &request)?;
    let mut text = format!("{tenant}: {events} events and {dead_letters} dead letters erased\n");
    text.extend(remains.iter().map(|what| format!("what remains: {what}\n")));
    Ok(say(text.as_bytes()))
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

fn set(SetArgs { tenant, settings, data }: &SetArgs) -> Result<Exit, Failure> {
    let request = PolicyRequest { set: settings.iter().cloned().collect() };
    let told: PolicyChanged = live(data, "change the rules of")?.send("PATCH", &route(tenant), &request)?;
    let mut text: String = told.changes.iter().map(|change| format!("{tenant}: {change}\n")).collect();
    text += match told.changes.is_empty() {
        true => "nothing is changed: the rules were so before\n",
        false => "until the daemon ends; to keep it, write it into its configuration\n",
    };
    Ok(say(text.as_bytes()))
}

fn list(List { data, args }: &List) -> Result<Exit, Failure> {
    let text = render(args, &data.open()?.tenants()?).map_err(|why| (Exit::Internal, why.to_string()))?;
    Ok(say(text.as_bytes()))
}

/// What `headworks tenants` takes.
#[derive(Debug, Clone, clap::Args)]
struct TenantsArgs {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// What `headworks tenants` prints.
fn render(args: &TenantsArgs, tenants: &[TenantRow]) -> Result<String, serde_json::Error> {
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
