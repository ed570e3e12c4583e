//! `headworks query`: the stored events of a tenant, live or at rest.

use std::io::{BufWriter, Write};

use headworks::admin::{EventsAs, EventsRequest, write_events};
use headworks::store::EventReader;
use headworks::{StoreName, TenantId, UnixMillis};

use super::data::{Data, Directory, database};
use super::exit::Exit;
use super::journal::Stdout;
use super::live::{Live, NoAnswer, encoded};
use super::log::moment;

const EXAMPLES: &str = "Examples:
  headworks query acme                                    # all of it, oldest first, as it came
  headworks query acme --since 10m --json                 # what arrived in the last 10 minutes
  headworks query acme --since 2026-11-22T09:00:00Z --until 2026-11-22T10:00:00Z | jq .level
  headworks query acme --follow | grep error              # and what is stored from now on

A body with a newline in it takes several lines; --json keeps each event on one.";

/// What `headworks query` takes.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QueryArgs {
    /// Whose events
    #[arg(value_name = "TENANT")]
    tenant: TenantId,
    /// Only what arrived then or later: a time like 2026-11-22T09:00:00Z, or how long ago, like 10m
    #[arg(long, value_name = "TIME|AGO", value_parser = moment)]
    since: Option<UnixMillis>,
    /// Only what arrived then or earlier
    #[arg(long, value_name = "TIME|AGO", value_parser = moment)]
    until: Option<UnixMillis>,
    /// How many at the most, the oldest
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// In this store [default: the first that the tenant's batches go through]
    #[arg(long, value_name = "NAME")]
    store: Option<StoreName>,
    /// Go on with what is stored, until the daemon ends
    #[arg(long)]
    follow: bool,
    /// Print one JSON object a line: tenant, time, arrived, batch, place, body
    #[arg(long)]
    json: bool,
}

type Failure = (Exit, String);

impl QueryArgs {
    fn request(&self) -> EventsRequest {
        EventsRequest {
            since: self.since.map(|at| at.0),
            until: self.until.map(|at| at.0),
            limit: self.limit,
            store: self.store.clone(),
            follow: self.follow,
            form: if self.json { EventsAs::Json } else { EventsAs::Lines },
        }
    }

    fn url(&self) -> String {
        let EventsRequest { since, until, limit, store, follow, .. } = self.request();
        let parts = [
            since.map(|at| format!("&since={at}")),
            until.map(|at| format!("&until={at}")),
            limit.map(|limit| format!("&limit={limit}")),
            store.map(|store| format!("&store={}", encoded(store.as_str()))),
        ];
        let parts: String = parts.into_iter().flatten().collect();
        let form = if self.json { "json" } else { "lines" };
        format!("/v1/tenants/{}/events?as={form}&follow={follow}{parts}", encoded(self.tenant.as_str()))
    }
}

/// Ends with 1 where nothing is known of the tenant.
pub(crate) fn run(data: &Data, args: &QueryArgs) -> Result<Exit, Failure> {
    let (path, directory) = data.directory()?;
    match directory {
        Directory::Live(live) => {
            if args.follow {
                tell_of_nobody(&live, &args.tenant)?;
            }
            Ok(Exit::after_writing(live.copy(&args.url(), &mut Unbuffered)?))
        }
        Directory::Files(_) if args.follow => {
            let why = "no daemon writes to it, so that nothing will follow; leave --follow out to see what there is";
            Err((Exit::Failure, format!("cannot follow tenant {} in {}: {why}", args.tenant, path.display())))
        }
        Directory::Files(_at_rest) => {
            database(&path)?;
            let request = args.request();
            let unread = |why: &dyn std::fmt::Display| (Exit::Io, why.to_string());
            let mut reader = EventReader::open(&path, request.query(args.tenant.clone()))
                .map_err(|why| (Exit::Failure, why.to_string()))?;
            if !reader.knows().map_err(|why| unread(&why))? {
                let why = format!("there is no tenant {}: no event and no dead letter of it", args.tenant);
                return Err((Exit::Failure, why));
            }
            let mut out = BufWriter::with_capacity(64 << 10, Stdout::default());
            let written = write_events(&mut reader, request.form, &args.tenant, &mut out).and_then(|()| out.flush());
            // A reader that has had enough is no failure.
            if out.get_ref().is_left { Ok(Exit::Ok) } else { written.map(|()| Exit::Ok).map_err(|why| unread(&why)) }
        }
    }
}

/// Says so where one waits for a tenant that may not come.
fn tell_of_nobody(live: &Live, tenant: &TenantId) -> Result<(), Failure> {
    match live.get::<serde_json::Value>(&format!("/v1/tenants/{}", encoded(tenant.as_str()))) {
        Ok(_) => Ok(()),
        Err(NoAnswer::Refused(problem)) if problem.status == 404 => {
            // Where stderr is gone, there is nobody to tell.
            let _ = writeln!(
                std::io::stderr(),
                "headworks: no event of a tenant {tenant} has come so far; waiting for the first (`headworks tenants` lists those that are known)"
            );
            Ok(())
        }
        Err(why) => Err(why.into()),
    }
}

/// Stdout, with nothing kept back: whoever follows sees each event as it comes.
struct Unbuffered;

impl Write for Unbuffered {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}
