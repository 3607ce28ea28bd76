//! When operations are due.

use super::options::Rate;

/// Counts accesses or time until the next operation.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// Accesses since the last operation.
    accesses: u64,
    /// Time from which operations per second count.
    start_ns: u64,
    /// Operations done.
    done: u64,
}

impl Pace {
    pub fn new(rate: Rate) -> Pace {
        Pace { rate, accesses: 0, start_ns: 0, done: 0 }
    }

    /// Operations begin to count.
    pub fn begin(&mut self, now_ns: u64) {
        self.start_ns = now_ns;
    }

    /// An access was made.
    pub fn access(&mut self) {
        self.accesses += 1;
    }

    /// Time of the next operation if it is due before an event at `next_ns`;
    /// the event before was at `last_ns`.
    pub fn due(&mut self, last_ns: u64, next_ns: u64) -> Option<u64> {
        match self.rate {
            Rate::EveryDma(n) => {
                if self.accesses < n {
                    return None;
                }
                self.accesses -= n;
                self.done += 1;
                Some(last_ns)
            }
            Rate::PerSecond(rate) => {
                let after = (self.done + 1) as f64 * 1e9 / rate;
                let due = self.start_ns.saturating_add(after as u64);
                if due > next_ns {
                    return None;
                }
                self.done += 1;
                Some(due.max(last_ns))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_per_n_accesses() {
        let mut pace = Pace::new(Rate::EveryDma(3));
        let mut at = Vec::new();
        for i in 0..10 {
            at.extend(pace.due(i, i + 1));
            pace.access();
        }
        assert_eq!(at, [3, 6, 9]);
    }

    #[test]
    fn operations_per_second_of_trace_time() {
        let mut pace = Pace::new(Rate::PerSecond(1e6));
        pace.begin(500);
        let due: Vec<u64> = std::iter::from_fn(|| pace.due(0, 3600)).collect();
        assert_eq!(due, [1500, 2500, 3500]);
        assert_eq!(pace.due(3600, 4400), None);
        // A late operation is not before the event that came first.
        assert_eq!(pace.due(4600, 5000), Some(4600));
    }
}
