//! Distributions while they are collected.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Distribution of a quantity; its unit is in the field's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Number of values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest.
    pub min: u64,
    /// Median; percentiles are exact to 3 digits.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
    /// Values by powers of two, exact, ascending, empty classes left out.
    pub classes: Vec<Class>,
}

/// Values of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// Largest value of the class, a power of two (2^64 - 1 for the last); the
    /// class begins above the half of it, that of 1 at 0.
    pub up_to: u64,
    /// Number of values.
    pub count: u64,
}

impl Class {
    /// Index of a value's class: log2, rounded up.
    fn index(value: u64) -> usize {
        (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize
    }

    /// Largest value of a class.
    fn up_to(index: usize) -> u64 {
        1u64.checked_shl(index as u32).unwrap_or(u64::MAX)
    }
}

/// Values of a distribution, any range.
#[derive(Debug)]
pub(super) struct Values {
    /// 3 digits.
    digits: Histogram<u64>,
    /// By [`Class::index`].
    classes: [u64; 65],
    /// Exact, which the histogram's are not.
    least: u64,
    most: u64,
    sum: u128,
}

impl Default for Values {
    fn default() -> Values {
        // Fails only for more than 5 digits.
        let digits = Histogram::new(3).expect("3 digits are allowed");
        Values { digits, classes: [0; 65], least: u64::MAX, most: 0, sum: 0 }
    }
}

impl Values {
    pub fn add(&mut self, value: u64) {
        // The histogram grows as needed; up to this value it never fails.
        let _ = self.digits.record(value.min(1 << 62));
        self.classes[Class::index(value)] += 1;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        self.sum += u128::from(value);
    }

    pub fn spread(&self) -> Spread {
        let h = &self.digits;
        if h.is_empty() {
            return Spread::default();
        }
        // The histogram rounds up, which must not go beyond the largest value.
        let at = |quantile| h.value_at_quantile(quantile).min(self.most);
        Spread {
            count: h.len(),
            mean: self.sum as f64 / h.len() as f64,
            min: self.least,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: self.most,
            classes: self
                .classes
                .iter()
                .enumerate()
                .filter(|c| *c.1 > 0)
                .map(|(i, &count)| Class { up_to: Class::up_to(i), count })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_above_the_largest_value() {
        let mut values = Values::default();
        values.add(18_926);
        let s = values.spread();
        assert_eq!([s.min, s.p50, s.p90, s.p99, s.max], [18_926; 5]);
        assert_eq!(s.mean, 18_926.0);
        values.add(u64::MAX);
        assert_eq!((values.spread().min, values.spread().max), (18_926, u64::MAX));
    }

    #[test]
    fn classes_end_at_powers_of_two() {
        let mut values = Values::default();
        for v in [0, 1, 2, 3, 4, 5, 8, 9, 1 << 63, (1 << 63) + 1, u64::MAX] {
            values.add(v);
        }
        let found: Vec<_> = values.spread().classes.iter().map(|c| (c.up_to, c.count)).collect();
        let want = [(1, 2), (2, 1), (4, 2), (8, 2), (16, 1), (1 << 63, 1), (u64::MAX, 2)];
        assert_eq!(found, want);
    }
}
