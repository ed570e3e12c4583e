//! The table of all cases.

use comfy_table::{CellAlignment, Table, presets};

use crate::cases::Case;
use crate::isolation::{Mad, Run};
use crate::stats::{median, millis, range};

/// What the mad one may add to the others' p99, where the quiet runs do not differ by more among themselves.
const BOUND: f64 = 0.10;

/// One row a case. The quiet runs are in the order of time, each before its case: pair after pair. The cases that exceed the bound,
/// where there are enough runs to tell.
pub(crate) fn print(quiet: &[Run], results: &[(Case, Vec<Run>)]) -> Vec<Case> {
    let quiet_p99: Vec<_> = quiet.iter().map(|run| millis(run.p99)).collect();
    let middle = median(quiet_p99.clone());
    let (least, most) = range(&quiet_p99);
    let noise = (most - middle).max(middle - least) / middle;
    let bound = 1.0 + noise.max(BOUND);
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "the mad one",
        "others' p50 ms",
        "p99 ms",
        "p99 / quiet (range)",
        "within the bound",
        "lost",
        "restarts",
        "sent",
        "stored",
        "dead letters",
        "rejected",
        "in flight",
    ]);
    let bound_of = |case: Case| bound + millis(case.may_hold()) / middle;
    let row = |name: String, runs: &[&Run], ratios: Option<Vec<f64>>, bound: f64| {
        let all = |figure: fn(&Run) -> f64| median(runs.iter().map(|run| figure(run)).collect());
        let mut cells =
            vec![name, format!("{:.1}", all(|run| millis(run.p50))), format!("{:.1}", all(|run| millis(run.p99)))];
        cells.extend(match ratios {
            Some(ratios) => {
                let ((least, most), is_enough) = (range(&ratios), ratios.len() > 1);
                let middle = median(ratios);
                let held = match middle <= bound {
                    _ if !is_enough => "too few runs",
                    true => "yes",
                    false => "NO",
                };
                [format!("{middle:.2} ({least:.2} to {most:.2})"), held.to_owned()]
            }
            None => [format!("1 ({:.2} to {:.2})", least / middle, most / middle), String::new()],
        });
        cells.push(runs.iter().map(|run| run.lost).sum::<u64>().to_string());
        cells.push(runs.iter().map(|run| run.restarts).sum::<u64>().to_string());
        cells.extend(runs.last().map(|run| became(&run.mad)).into_iter().flatten());
        cells
    };
    table.add_row(row("(nobody: quiet)".to_owned(), &quiet.iter().collect::<Vec<_>>(), None, bound));
    let mut exceed = vec![];
    for (at, (case, runs)) in results.iter().enumerate() {
        let before = quiet.iter().skip(at).step_by(results.len());
        let ratios: Vec<_> = runs.iter().zip(before).map(|(run, quiet)| millis(run.p99) / millis(quiet.p99)).collect();
        if ratios.len() > 1 && median(ratios.clone()) > bound_of(*case) {
            exceed.push(*case);
        }
        table.add_row(row(case.to_string(), &runs.iter().collect::<Vec<_>>(), Some(ratios), bound_of(*case)));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!(
        "\nFrom due to stored, of the other tenants; medians. The ratio is that of the pairs; the {} quiet runs differ by {:.0} % from\n\
         their median at the most, and the bound is {:.0} %; with `block` and its memory full, block_for more. Lost and restarts are of the others, in all runs together. What became of\n\
         the mad one's events is as it was when the last one was due, in the last run; rejected is the whole run's.\n{table}",
        quiet.len(),
        noise * 100.0,
        (bound - 1.0) * 100.0
    );
    exceed
}

/// What was sent, stored, dead-lettered, refused and in flight.
fn became(mad: &Mad) -> [String; 5] {
    let Mad { sent, strangers, garbage, then, rejected } = mad;
    let count = |figure: fn(&headworks::TenantSnapshot) -> u64| then.as_ref().map_or(0, figure).to_string();
    let letters = then.as_ref().map_or(0, |then| then.counters.dead_lettered) + garbage;
    [
        (sent + strangers + garbage).to_string(),
        count(|then| then.counters.stored),
        letters.to_string(),
        rejected.to_string(),
        count(|then| then.in_flight),
    ]
}
