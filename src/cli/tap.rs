//! `headworks tap`: events as they pass a running daemon.

use std::io::{self, Write};

use headworks::TenantId;

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::encoded;

/// What `headworks tap` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TapArgs {
    /// Only events of this tenant, which need not be known yet
    #[arg(long, value_name = "T")]
    tenant: Option<TenantId>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How many events a second at the most; those that are passed over are counted in `skipped` of the next
    #[arg(long, value_name = "R", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Fields that are not shown, beside those of the configuration, with commas between them: password,card.number
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    redact: Vec<String>,
}

impl TapArgs {
    fn url(&self) -> String {
        let parts = [
            self.tenant.as_ref().map(|tenant| format!("&tenant={}", encoded(tenant.as_str()))),
            self.limit.map(|limit| format!("&limit={limit}")),
            Some(self.redact.join(","))
                .filter(|fields| !fields.is_empty())
                .map(|fields| format!("&redact={}", encoded(&fields))),
        ];
        let parts: String = parts.into_iter().flatten().collect();
        format!("/v1/tap?rate={}{parts}", self.rate)
    }
}

/// Ends with 0 once all that was asked for was told, or the daemon has ended.
pub(crate) fn run(data: &Data, args: &TapArgs) -> Result<Exit, (Exit, String)> {
    let live = match data.directory()? {
        (_, Directory::Live(live)) => live,
        (path, Directory::Files(_)) => {
            let path = path.display();
            let why = format!(
                "no daemon runs on {path}, so that nothing passes: start it with `headworks run --data {path}`, or see what is stored with `headworks query`"
            );
            return Err((Exit::Unavailable, why));
        }
    };
    let copied = live.copy(&args.url(), &mut io::stdout())?;
    if copied.is_ok() && args.limit.is_none() {
        // Where stderr is gone, there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "headworks: nothing follows: the daemon has ended, or allows no taps any more (tap.enabled)"
        );
    }
    let why = copied.as_ref().err().map(ToString::to_string);
    match (Exit::after_writing(copied), why) {
        (Exit::Ok, _) => Ok(Exit::Ok),
        (exit, why) => Err((exit, format!("cannot write to stdout: {}", why.unwrap_or_default()))),
    }
}
