//! Searching both sides for a common run.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{Aligner, NEAR_NS, RUN_LEAST, SEARCH_FIRST, SEARCH_SECOND, Token};

/// Length of the runs that a search begins with.
const GRAM: usize = 3;
/// Occurrences of a run on the second side that are remembered.
const GRAM_REPEATS: usize = 32;
/// Candidates judged in one search.
const MAX_CANDIDATES: usize = 4096;

impl Aligner {
    /// The best common run within the search windows.
    pub(super) fn best_run(&self) -> Option<Run> {
        let ns = self.second.len().min(SEARCH_SECOND);
        let np = self.first.len().min(SEARCH_FIRST);
        let gram = GRAM.min(ns).min(np);
        if gram == 0 {
            return None;
        }
        let hash = |side: &VecDeque<Token>, at: usize| {
            (0..gram).fold(0u64, |h, i| {
                h.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ side[at + i].hash
            })
        };
        let mut grams: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
        for at in 0..=ns - gram {
            let places = grams.entry(hash(&self.second, at)).or_default();
            if places.len() < GRAM_REPEATS {
                places.push(at as u32);
            }
        }
        // One candidate per diagonal (difference of positions) and region.
        let mut seen: FxHashMap<i64, usize> = FxHashMap::default();
        let mut best: Option<Run> = None;
        let mut runs = Vec::new();
        for p in 0..=np - gram {
            let Some(places) = grams.get(&hash(&self.first, p)) else { continue };
            for &s in places {
                let s = s as usize;
                let diagonal = p as i64 - s as i64;
                if seen.get(&diagonal).is_some_and(|end| p < *end) || runs.len() == MAX_CANDIDATES {
                    continue;
                }
                let run = self.run(p, s);
                seen.insert(diagonal, p + run.run.max(1));
                runs.push(run);
                if best.as_ref().is_none_or(|b| run.better_than(b)) {
                    best = Some(run);
                }
            }
        }
        // Where some are missing in between, an earlier run agrees with the
        // best one about the clocks: begin there.
        let best = best?;
        let earlier = |r: &&Run| {
            r.first <= best.first
                && r.second <= best.second
                && r.run >= RUN_LEAST.min(best.run)
                && r.spread <= best.spread.max(NEAR_NS / 10)
                && r.median.saturating_sub(best.median).saturating_abs() <= NEAR_NS / 10
        };
        let first = if self.timed {
            runs.iter().filter(earlier).min_by_key(|r| (r.first, r.second))
        } else {
            None
        };
        Some(first.map_or(best, |r| Run { first: r.first, second: r.second, take: r.run, ..best }))
    }

    /// The common run that begins at two positions.
    fn run(&self, first: usize, second: usize) -> Run {
        let limit = (self.first.len() - first).min(self.second.len() - second).min(SEARCH_SECOND);
        let run = (0..limit)
            .take_while(|i| self.first[first + i].hash == self.second[second + i].hash)
            .count();
        let mut differences: Vec<i64> = (0..run)
            .map(|i| self.difference(&self.first[first + i], &self.second[second + i]))
            .collect();
        let (mut spread, mut near, mut median) = (0, false, 0);
        if self.timed && run > 0 {
            differences.sort_unstable();
            median = differences[run / 2];
            for d in &mut differences {
                *d = d.saturating_sub(median).saturating_abs();
            }
            differences.sort_unstable();
            // The mean of the nearer three quarters: delays are outliers.
            let n = (run * 3 / 4).max(1);
            spread = differences[..n].iter().fold(0i64, |sum, d| sum.saturating_add(*d)) / n as i64;
            near =
                self.offset().is_some_and(|o| median.saturating_sub(o).saturating_abs() <= NEAR_NS);
        }
        Run { first, second, run, take: run, spread, median, near }
    }
}

/// A candidate for the join.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) second: usize,
    /// Tokens that agree.
    pub(super) run: usize,
    /// Tokens to pair at once.
    pub(super) take: usize,
    /// The clocks' difference along it, ns.
    pub(super) median: i64,
    /// How much the clocks' difference varies along it, ns.
    pub(super) spread: i64,
    /// The clocks' difference is the one known from before.
    pub(super) near: bool,
}

impl Run {
    fn better_than(&self, other: &Run) -> bool {
        if self.near != other.near && self.run.min(other.run) >= RUN_LEAST {
            return self.near;
        }
        // Of two long runs, the steadier clocks decide; otherwise length.
        if self.run * 2 >= other.run
            && other.run * 2 >= self.run
            && self.spread.max(other.spread) > 0
        {
            let (a, b) = (self.spread.max(1_000), other.spread.max(1_000));
            if a * 3 < b {
                return true;
            }
            if b * 3 < a {
                return false;
            }
        }
        self.run > other.run
    }
}
