//! The referee: starts the others, lets them run in pairs, verifies their counts and prints the figures.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::contest::{Contest, Contestant, Result};
use crate::report::{Counts, Report, Said};
use crate::system;
use crate::table::{Run, print};

/// Runs every contest and prints the table of all.
pub(crate) fn run(contests: &[Contest], pairs: u32) -> Result<()> {
    let mut contestants = vec![Contestant::Baseline];
    if system::TAKES_PART {
        contestants.push(Contestant::System);
    } else {
        println!("The system is not wired into this benchmark yet: the baseline runs alone.");
    }
    let mut results = Vec::new();
    for contest in contests {
        println!("{contest}: {} events over {} connections", contest.load.events, contest.load.connections);
        let mut sender = Process::start("sender", &contest.load.to_args())?;
        let sent: Counts = sender.hear()?;
        let mut runs = Vec::new();
        for pair in 1..=pairs {
            for &contestant in &contestants {
                let run = one_run(contest, contestant, &mut sender, &sent)?;
                println!("  pair {pair}: {contestant:8} {run}");
                runs.push((contestant, run));
            }
        }
        results.push((contest, runs));
    }
    print(&results);
    Ok(())
}

fn one_run(contest: &Contest, contestant: Contestant, sender: &mut Process, sent: &Counts) -> Result<Run> {
    let mut args = vec![contestant.to_string()];
    args.extend(contest.to_args());
    let mut process = Process::start("contestant", &args)?;
    let Said::Ready(address) = process.hear()? else {
        return Err(format!("the {contestant} was done before it listened").into());
    };
    sender.say(&address.to_string())?;
    let Said::Done(report) = process.hear()? else {
        return Err(format!("the {contestant} listened twice").into());
    };
    let began_at: u128 = sender.hear()?;
    verify(sent, &report.stored).map_err(|wrong| format!("the {contestant} failed: {wrong}"))?;
    let Report { finished_at, cpu, peak_rss_bytes, .. } = report;
    let wall = u64::try_from(finished_at.saturating_sub(began_at)).map(Duration::from_nanos)?;
    Ok(Run { events: contest.load.events, wall, cpu, peak_rss_bytes })
}

/// Whether exactly what was sent is stored.
fn verify(sent: &Counts, stored: &Counts) -> std::result::Result<(), String> {
    let tenants = sent.keys().chain(stored.keys());
    let count = |counts: &Counts, tenant: &String| counts.get(tenant).copied().unwrap_or(0);
    for tenant in tenants {
        let (sent, stored) = (count(sent, tenant), count(stored, tenant));
        if sent != stored {
            return Err(format!("of tenant {tenant} {sent} events were sent and {stored} stored"));
        }
    }
    Ok(())
}

/// This program in another role. It ends with the value.
struct Process {
    role: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &'static str, args: &[String]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { role, child, stdin, stdout })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("the {} ended without a word: {}", self.role, self.child.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whoever is done has ended already, and who is not will not be missed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
