//! Figures of figures.

use std::time::Duration;

/// The value that so great a share of the sorted ones does not exceed.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

/// The least and the greatest.
pub(crate) fn range(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::MAX, f64::MIN), |(least, most), &figure| (least.min(figure), most.max(figure)))
}
