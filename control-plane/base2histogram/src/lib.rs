//! Histograms with logarithmic buckets: what openraft needs of the crate of this name, without its tables.
//!
//! Values below 8 are counted exactly; above that each power of two has four buckets, so that a percentile is at most a
//! quarter too low.

use std::fmt;
use std::marker::PhantomData;

/// Exactly counted values, and the first bucket of the powers of two.
const EXACT: u64 = 8;
/// Powers of two above them.
const POWERS: usize = 61;
const BUCKETS: usize = EXACT as usize + POWERS * 4;

/// Counts of values by magnitude. `T` is what the original attaches to a histogram; nothing is attached here.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Empty until the first value.
    counts: Vec<u64>,
    attached: PhantomData<T>,
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self { counts: Vec::new(), attached: PhantomData }
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub fn record_n(&mut self, value: u64, times: u64) {
        if self.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
        }
        self.counts[bucket(value)] += times;
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The least value of the bucket below which `share` (0 to 1) of all values lie; 0 without values.
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = (self.total() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, least)
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.percentile_stats(), f)
    }
}

fn bucket(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let power = value.ilog2() as usize;
    // The two bits after the highest.
    let quarter = (value >> (power - 2)) as usize & 3;
    EXACT as usize + (power - 3) * 4 + quarter
}

/// The least value of a bucket.
fn least(bucket: usize) -> u64 {
    match bucket.checked_sub(EXACT as usize) {
        None => bucket as u64,
        Some(above) => (4 + above as u64 % 4) << (above / 4 + 1),
    }
}

/// Percentiles of a histogram, each as [`Histogram::percentile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// Values recorded.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples, p50 {}, p99 {}", self.samples, self.p50, self.p99)
    }
}

/// Several histograms to be printed, one line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.rows.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(name, stats)| writeln!(f, "{name:>22}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let edges = (0..64).flat_map(|power| [1_u64 << power, (1 << power) - 1, (1 << power) + 1]);
        for value in edges.chain([u64::MAX]) {
            let at = bucket(value);
            assert!(at < BUCKETS, "{value}");
            assert!(least(at) <= value, "{value}");
            assert!(at + 1 == BUCKETS || least(at + 1) > value, "{value}");
        }
    }

    #[test]
    fn percentiles_are_at_most_a_quarter_too_low() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        (1..=1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1000);
        for (seen, exact) in [(stats.p10, 100), (stats.p50, 500), (stats.p99, 990)] {
            assert!(seen <= exact && seen * 5 >= exact * 4, "{seen} for {exact}");
        }
    }
}
