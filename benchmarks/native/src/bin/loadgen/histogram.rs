//! Latencies of millions of requests in a few kilobytes, to better than one percent.
//!
//! Times in units of 100 ns: exact below 256 units, then 128 buckets for each doubling.

use std::time::Duration;

const PRECISION_BITS: u32 = 7;
const BUCKETS: usize = 64 << PRECISION_BITS;

/// Counts of latencies.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

fn bucket(units: u64) -> usize {
    let significant_bits = u64::BITS - units.leading_zeros();
    let shift = significant_bits.saturating_sub(PRECISION_BITS + 1);
    ((shift as usize) << PRECISION_BITS) + (units >> shift) as usize
}

fn lowest_of(bucket: usize) -> u64 {
    let group = bucket >> PRECISION_BITS;
    let shift = group.saturating_sub(1);
    ((bucket - (shift << PRECISION_BITS)) as u64) << shift
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }

    /// Count one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.counts[bucket(latency.as_nanos() as u64 / 100)] += 1;
        self.total += 1;
    }

    /// The latency that the share `q` of all did not exceed, in microseconds; 0 if there were none.
    pub(crate) fn quantile_us(&self, q: f64) -> f64 {
        let wanted = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return lowest_of(bucket) as f64 / 10.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, bucket, lowest_of};
    use std::time::Duration;

    #[test]
    fn buckets_are_contiguous_and_fine() {
        let mut previous = 0;
        for units in 0..1_000_000_u64 {
            let index = bucket(units);
            assert!(index == previous || index == previous + 1, "{units}");
            let lowest = lowest_of(index);
            assert!(
                lowest <= units && (units - lowest) as f64 <= units as f64 / 100.0,
                "{units}"
            );
            previous = index;
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::new();
        assert!(histogram.quantile_us(0.5).abs() < 1e-9);
        for us in 1..=100 {
            histogram.record(Duration::from_micros(us));
        }
        assert!((histogram.quantile_us(0.5) - 50.0).abs() <= 0.5);
        assert!((histogram.quantile_us(0.99) - 99.0).abs() <= 1.0);
        assert!((histogram.quantile_us(1.0) - 100.0).abs() <= 1.0);
    }
}
