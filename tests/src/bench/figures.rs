//! Medians, and how they are written.

use std::time::Duration;

/// In milliseconds; negative when less than nothing was needed.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// # Panics
/// Without values.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which the part `q` of all is.
///
/// # Panics
/// Without values.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// The median and, beside it, the range.
///
/// # Panics
/// Without values.
pub fn spread(values: &[f64]) -> String {
    format!("{:.2} [{:.2}–{:.2}]", median(values), quantile(values, 0.0), quantile(values, 1.0))
}

pub fn verdict(met: bool) -> &'static str {
    if met { "ok" } else { "MISSED" }
}
