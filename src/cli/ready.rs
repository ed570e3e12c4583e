//! `headworks ready`: whether a daemon does its work, for the health checks of containers.

use headworks::admin::Ready;

use super::data::{Data, Directory};
use super::exit::Exit;
use super::live::READY;
use super::say;
use super::table::{inert, json};

/// What `headworks ready` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReadyArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Asks on the control socket: it is there whether or not the API is served over TCP, and needs no token.
pub(crate) fn run(data: &Data, args: &ReadyArgs) -> Result<Exit, (Exit, String)> {
    let ready: Ready = match data.directory()? {
        (_, Directory::Live(live)) => live.get(READY)?,
        (path, Directory::Files(_)) => {
            return Err((Exit::Unavailable, format!("no daemon runs on {}", path.display())));
        }
    };
    let text = match args.json {
        true => json(&ready).map_err(|why| (Exit::Internal, why.to_string()))?,
        false => render(&ready),
    };
    match say(text.as_bytes()) {
        Exit::Ok if !ready.ready => Ok(Exit::Failure),
        said => Ok(said),
    }
}

fn render(ready: &Ready) -> String {
    let notes: String = ready.notes.iter().map(|note| format!("note: {}\n", inert(note))).collect();
    if ready.ready {
        return format!("ready\n{notes}");
    }
    let reasons = ready.checks.iter().filter(|check| !check.ok);
    let line = |why: &Option<String>| inert(why.as_deref().unwrap_or("it does not say why")).to_string();
    reasons.map(|check| format!("not ready: {}: {}\n", inert(&check.name), line(&check.why))).collect::<String>()
        + &notes
}

#[cfg(test)]
mod tests {
    use headworks::admin::Check;

    use super::*;

    #[test]
    fn every_check_that_fails_has_a_line_and_those_that_hold_have_none() {
        let check = |name: &str, why: Option<&str>| Check {
            name: name.to_owned(),
            ok: why.is_none(),
            why: why.map(str::to_owned),
        };
        let checks = vec![check("running", None), check("stores", Some("a\u{1b}[2J")), check("progress", Some("none"))];
        let told = render(&Ready { ready: false, checks, notes: vec![] });
        assert!(told.starts_with("not ready: stores: ") && told.ends_with("\nnot ready: progress: none\n"), "{told}");
        assert!(!told.contains('\u{1b}') && !told.contains("running"), "{told}");
        assert_eq!(render(&Ready { ready: true, checks: vec![], notes: vec![] }), "ready\n");
        let notes = vec!["events of tenant acme".to_owned()];
        assert_eq!(render(&Ready { ready: true, checks: vec![], notes }), "ready\nnote: events of tenant acme\n");
    }
}
