//! The figures, run by run and in the table at the end.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::contest::{Contest, Contestant};

/// What one run gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) events: u64,
    /// From the first byte sent to the last event stored.
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_rss_bytes: u64,
}

impl Run {
    fn per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events as f64
    }

    fn peak_rss_mib(&self) -> f64 {
        self.peak_rss_bytes as f64 / (1024.0 * 1024.0)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, cpu, rss) = (self.per_second(), self.cpu_micros(), self.peak_rss_mib());
        write!(f, "{rate:>10.0} events/s  {cpu:.3} us CPU/event  {rss:>6.0} MiB  counts verified")
    }
}

/// One row a contest and contestant: medians, and how the system compares, pair by pair.
pub(crate) fn print(results: &[(&Contest, Vec<(Contestant, Run)>)]) {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["store", "who", "events/s", "CPU us/event", "peak RSS MiB", "rate ratio", "CPU ratio"]);
    for (contest, runs) in results {
        let of = |who| runs.iter().filter(move |(name, _)| *name == who).map(|(_, run)| run);
        for who in [Contestant::Baseline, Contestant::System] {
            let all = |figure: fn(&Run) -> f64| of(who).map(figure).collect::<Vec<_>>();
            let against = |figure: fn(&Run) -> f64| {
                let base = of(Contestant::Baseline).map(figure);
                let ratios: Vec<_> = all(figure).into_iter().zip(base).map(|(own, base)| own / base).collect();
                let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, h), &r| (l.min(r), h.max(r)));
                format!("{:.2} ({low:.2} to {high:.2})", median(ratios))
            };
            if of(who).next().is_none() {
                continue;
            }
            let mut row = vec![
                contest.to_string(),
                who.to_string(),
                format!("{:.0}", median(all(Run::per_second))),
                format!("{:.3}", median(all(Run::cpu_micros))),
                format!("{:.0}", median(all(Run::peak_rss_mib))),
            ];
            if who == Contestant::System {
                row.extend([against(Run::per_second), against(Run::cpu_micros)]);
            }
            table.add_row(row);
        }
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("\nMedians; ratios are system / baseline, the median of the pairs (lowest to highest).\n{table}");
}

/// The middle one, or the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}
