//! Joining an ftrace without invalidation descriptors with a log.
//!
//! A guest on AMD-Vi or an SMMU does not trace its commands, and on VT-d
//! `qi_submit` may not have been recorded. What both sides still show are
//! causes and effects: the ftrace maps a page to an output, and the log's first
//! miss of the page finds that output a little later; the ftrace unmaps pages,
//! and (in strict mode, where the log tells addresses) they are invalidated.
//! All equal ones vote for the clocks' difference; the one with by far the most
//! votes is taken and followed from cause to cause. As effects come after their
//! causes, the smallest difference of late that is no accident is used.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::anchors::{Needs, Pair, Token};
use super::desc::mix;

/// Tokens looked at in a search.
const SEARCH_FIRST: usize = 1 << 14;
const SEARCH_SECOND: usize = 1 << 13;
/// A search waits for this many causes.
const SEARCH_LEAST: usize = 2048;
/// Those of which there are no more pairs vote; if that is not clear (they
/// repeat regularly), more of them.
const RARE: [usize; 3] = [16, 256, MAX_VOTES];
/// Votes of one search, 8 MiB.
const MAX_VOTES: usize = 1 << 20;
/// A part is a rest if the other side has this many times more.
const REST: usize = 4;
/// Votes for differences within this agree, 2 ms: a device may take its time.
const WINDOW_NS: i64 = 2_000_000;
/// Differences nearer than this are no rivals, 20 ms.
const RIVAL_NS: i64 = 20_000_000;
/// Votes that are enough.
const ENOUGH: usize = 8;
/// An effect is looked for up to this much behind its cause, 20 ms; longer
/// where the search saw longer delays, up to 1 s.
const DELAY_NS: i64 = 20_000_000;
const LONGEST_DELAY_NS: i64 = 1_000_000_000;
/// Causes and effects without a like that show where delays begin, ...
const LEAST_ALONE: usize = 256;
/// ... if half of their differences are no further apart than this, 500 ms, ...
const SPREAD_NS: i64 = 500_000_000;
/// and than one part in this many of the time that the causes last, ...
const SPAN_SHARE: i64 = 8;
/// ... and there one part in this many lies within 1 ms.
const EDGE_SHARE: usize = 100;
const EDGE_NS: i64 = 1_000_000;
/// ... and this much before, should the clocks drift, 500 us.
const SLACK_NS: i64 = 500_000;
/// Delays remembered, to follow the clocks' difference, ...
const REMEMBERED: usize = 1024;
/// ... and the pairs from one look at them to the next.
const LOOK_EVERY: u64 = 64;
/// Clocks drift by one part in this, 100 ppm.
const DRIFT: i64 = 10_000;
/// Delays begin where one part in so many lies within so many ns; the
/// sharpest that there is.
const ONSETS: [(i64, usize); 3] = [(50_000, 10), (200_000, 20), (1_000_000, 20)];
/// Causes in a row without an effect, where there were as many effects,
/// after which the join begins anew.
const LOST: u32 = 2048;
/// Effects kept at most, 6 MiB.
const MAX_FIRST: usize = 1 << 18;
/// Pages whose last output is remembered.
const MAX_PAGES: usize = 1 << 17;
/// Effects are kept this long, 1 s.
const KEEP_NS: i64 = 1_000_000_000;

/// Marks a place where a side starts over; equals no mapping.
const SEAM: u64 = 0x5ea3_0000_0000_0000;
/// An invalidation that has its unmap.
const USED: u64 = SEAM | 2;

/// Pairs causes (the second side) with effects (the first); see the module's
/// text.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    first: VecDeque<Token>,
    second: VecDeque<Token>,
    first_ended: bool,
    second_ended: bool,
    /// Both sides have usable clocks.
    pub(crate) timed: bool,
    offset: Option<i64>,
    /// How long a device may take, in ns.
    delay: i64,
    epoch: u64,
    /// Maps with their first misses, and unmaps with their invalidations.
    pub(crate) matched: u64,
    pub(crate) unmaps: u64,
    /// Causes compared while joined, and effects.
    pub(crate) causes: u64,
    pub(crate) effects: u64,
    pub(crate) resyncs: u64,
    /// Causes in a row without an effect.
    lost: u32,
    /// Time of the last cause at which the delays were looked at.
    looked: i64,
    /// Differences seen of late, right and wrong ones.
    delays: VecDeque<i64>,
    pairs: VecDeque<Pair>,
    /// Last output of a page, by domain and page: another miss that finds it
    /// is no news.
    outputs: FxHashMap<u64, u64>,
    /// Times at which the first side starts over.
    seams: VecDeque<i64>,
}

impl Votes {
    /// A miss in the log, or a hit that is the first one seen.
    pub(crate) fn push_effect(&mut self, domain: u32, page: u64, out: u64, at: (i64, u64)) {
        if self.outputs.len() >= MAX_PAGES {
            self.outputs.clear();
        }
        if self.outputs.insert(mix(page, u64::from(domain)), out) != Some(out) {
            self.effects += 1;
            self.first.push_back(Token { hash: map_hash(page, out), time: at.0, index: at.1 });
        }
    }

    /// Pages of a domain were invalidated: an unmap may have caused it, and
    /// their next miss is news.
    pub(crate) fn push_invalidation(&mut self, domain: u32, page: u64, pages: u64, at: (i64, u64)) {
        self.first.push_back(Token { hash: unmap_hash(page, pages), time: at.0, index: at.1 });
        if pages > 64 {
            self.outputs.clear();
        }
        for p in page..page.saturating_add(pages.min(64)) {
            self.outputs.remove(&mix(p, u64::from(domain)));
        }
    }

    /// A map in the ftrace.
    pub(crate) fn push_cause(&mut self, page: u64, out: u64, at: (i64, u64)) {
        self.causes += 1;
        self.second.push_back(Token { hash: map_hash(page, out), time: at.0, index: at.1 });
    }

    /// An unmap in the ftrace. Of a range that is no naturally aligned power
    /// of two, the first piece that is one counts: so an SMMU is told.
    pub(crate) fn push_unmap(&mut self, page: u64, pages: u64, at: (i64, u64)) {
        let aligned = if page == 0 { 1 << 62 } else { 1 << page.trailing_zeros() };
        let whole = 1u64 << pages.max(1).ilog2();
        let hash = unmap_hash(page, whole.min(aligned));
        self.second.push_back(Token { hash, time: at.0, index: at.1 });
    }

    pub(crate) fn end_first(&mut self) {
        self.first_ended = true;
    }

    pub(crate) fn end_second(&mut self) {
        self.second_ended = true;
    }

    /// The first side starts over at record `index`.
    pub(crate) fn seam_first(&mut self, index: u64, time: i64) {
        self.seams.push_back(time);
        self.outputs.clear();
        self.first.push_back(Token { hash: SEAM, time, index });
    }

    /// Drops what is before the next place where the first side starts over.
    fn skip_first_seam(&mut self) {
        self.seams.pop_front();
        while self.first.pop_front().is_some_and(|t| t.hash != SEAM) {}
    }

    /// The second side starts over at record `index`.
    pub(crate) fn seam_second(&mut self, index: u64, time: i64) {
        self.second.push_back(Token { hash: SEAM, time, index });
    }

    /// Record of the first side from which on nothing is decided yet.
    pub(crate) fn undecided_first(&self) -> Option<u64> {
        let open = self.timed && self.offset.is_none() && !self.second.is_empty();
        self.first.front().filter(|_| open).map(|t| t.index)
    }

    /// The same for the second side.
    pub(crate) fn undecided_second(&self) -> Option<u64> {
        self.second.front().map(|t| t.index)
    }

    pub(crate) fn next_pair(&mut self) -> Option<Pair> {
        self.pairs.pop_front()
    }

    /// The caller cannot hold more of the first side.
    pub(crate) fn give_up_first(&mut self) {
        if self.offset.is_none() && !self.search() {
            if self.first.front().is_some_and(|t| t.hash == SEAM) {
                self.seams.pop_front();
            }
            self.first.pop_front();
        }
    }

    /// The same for the second side.
    pub(crate) fn give_up_second(&mut self) {
        if self.offset.is_none() && self.search() {
            return;
        }
        self.second.pop_front();
    }

    /// Compares as far as the tokens allow.
    pub(crate) fn poll(&mut self) -> Needs {
        loop {
            if !self.timed {
                self.first.clear();
                self.second.clear();
                return Needs { first: false, second: !self.second_ended };
            }
            if self.second.is_empty() && self.second_ended {
                // Behind the ftrace's end there are no causes.
                self.first.clear();
                self.seams.clear();
                return Needs { first: !self.first_ended, second: false };
            }
            while self.first.len() > MAX_FIRST {
                if self.first.pop_front().is_some_and(|t| t.hash == SEAM) {
                    self.seams.pop_front();
                }
            }
            let needs = if self.offset.is_some() { self.follow() } else { self.begin() };
            if let Some(needs) = needs {
                return needs;
            }
        }
    }

    /// Looks for the clocks' difference. `None`: found or moved on; go on.
    fn begin(&mut self) -> Option<Needs> {
        if self.second.front().is_some_and(|t| t.hash == SEAM) {
            self.second.pop_front();
            return None;
        }
        if self.first.front().is_some_and(|t| t.hash == SEAM) {
            self.skip_first_seam();
            return None;
        }
        let seam = self.second.iter().take(SEARCH_LEAST).position(|t| t.hash == SEAM);
        let second_enough =
            self.second.len() >= SEARCH_LEAST || self.second_ended || seam.is_some();
        let first_seam = !self.seams.is_empty();
        let first_enough = self.first.len() >= SEARCH_FIRST || self.first_ended || first_seam;
        if self.second.is_empty() || !first_enough || !second_enough {
            return Some(Needs {
                first: !first_enough,
                second: !second_enough || self.second.is_empty() && !self.second_ended,
            });
        }
        // What is left of a recording that was joined would find accidents in
        // the next one.
        let first_part = self.first.iter().position(|t| t.hash == SEAM);
        let (firsts, seconds) =
            (first_part.unwrap_or(self.first.len()), seam.unwrap_or(self.second.len()));
        if first_part.is_some() && firsts * REST < seconds {
            self.skip_first_seam();
            return None;
        }
        if let Some(at) = seam
            && seconds * REST < firsts
        {
            self.second.drain(..=at);
            return None;
        }
        if self.search() {
            return None;
        }
        if first_seam || seam.is_some() {
            // What is before a place where a side starts over stays alone.
            if first_seam {
                self.skip_first_seam();
            }
            self.second.drain(..seam.map_or(0, |at| at + 1));
            return None;
        }
        if self.first_ended && self.first.len() <= SEARCH_FIRST {
            // Nothing will come that these causes could have.
            self.first.clear();
            self.second.clear();
            return Some(Needs { first: false, second: !self.second_ended });
        }
        // No seam is among them.
        self.first.drain(..(SEARCH_FIRST / 2).min(self.first.len()));
        None
    }

    /// Takes the vote; true if it is clear.
    fn search(&mut self) -> bool {
        let mut places: FxHashMap<u64, (Vec<i64>, Vec<i64>)> = FxHashMap::default();
        for t in self.second.iter().take(SEARCH_SECOND).take_while(|t| t.hash != SEAM) {
            places.entry(t.hash).or_default().1.push(t.time);
        }
        for t in self.first.iter().take(SEARCH_FIRST).take_while(|t| t.hash != SEAM) {
            if let Some((effects, _)) = places.get_mut(&t.hash) {
                effects.push(t.time);
            }
        }
        let mut places: Vec<_> =
            places.into_values().filter(|(a, b)| !a.is_empty() && !b.is_empty()).collect();
        // What occurs seldom tells most.
        places.sort_unstable_by_key(|(a, b)| a.len() * b.len());
        let found = RARE
            .iter()
            .find_map(|most| elect(&votes(&places, *most)))
            .map(|offset| (offset, DELAY_NS))
            .or_else(|| {
                let times = self.second.iter().take(SEARCH_SECOND).map(|t| t.time);
                let (first, last) = (times.clone().min()?, times.max()?);
                edge(&votes(&places, 1), last.saturating_sub(first))
            });
        let Some((offset, delay)) = found else { return false };
        self.delay = delay;
        self.epoch += 1;
        self.resyncs += u64::from(self.epoch > 1);
        self.lost = 0;
        self.delays.clear();
        self.offset = Some(offset);
        self.looked = self.second.front().map_or(0, |t| t.time);
        true
    }

    /// The next cause's effect. `None`: go on.
    fn follow(&mut self) -> Option<Needs> {
        let offset = self.offset?;
        let Some(&cause) = self.second.front() else {
            return Some(Needs { first: false, second: !self.second_ended });
        };
        if cause.hash == SEAM {
            self.second.pop_front();
            self.offset = None;
            return None;
        }
        let earliest = cause.time.saturating_add(offset);
        if self.seams.front().is_some_and(|at| *at <= earliest) {
            self.skip_first_seam();
            self.offset = None;
            return None;
        }
        let latest = earliest.saturating_add(self.delay);
        if !self.first_ended && self.first.back().is_none_or(|t| t.time <= latest) {
            return Some(Needs { first: true, second: false });
        }
        while self.first.front().is_some_and(|t| t.time < earliest.saturating_sub(KEEP_NS)) {
            self.first.pop_front();
        }
        self.second.pop_front();
        let from = self.first.partition_point(|t| t.time < earliest.saturating_sub(SLACK_NS));
        let near = self
            .first
            .range(from..)
            .enumerate()
            .take_while(|(_, t)| t.time <= latest && t.hash != SEAM);
        let mut any = false;
        let mut effect = None;
        for (i, t) in near {
            any = true;
            if t.hash != cause.hash {
                continue;
            }
            effect.get_or_insert((from + i, *t));
            if self.delays.len() == REMEMBERED {
                self.delays.pop_front();
            }
            self.delays.push_back(t.time.saturating_sub(cause.time));
        }
        let unmap = is_unmap(cause.hash);
        match effect {
            Some((at, effect)) => {
                if unmap {
                    // Each unmap has an invalidation of its own.
                    self.first[at].hash = USED;
                    self.unmaps += 1;
                } else {
                    self.matched += 1;
                }
                self.lost = 0;
                if (self.matched + self.unmaps).is_multiple_of(LOOK_EVERY) {
                    let mut delays: Vec<i64> = self.delays.iter().copied().collect();
                    delays.sort_unstable();
                    // Delays grow and shrink with what devices do; clocks
                    // drift slowly.
                    let drift = cause.time.saturating_sub(self.looked).max(0) / DRIFT;
                    self.looked = cause.time;
                    let highest = offset.saturating_add(drift);
                    self.offset = Some(onset(&delays).unwrap_or(offset).min(highest));
                }
                let offset = self.offset?;
                self.pairs.push_back(Pair {
                    // The invalidation, for an unmap; the miss, for a map.
                    first: effect,
                    second: cause,
                    epoch: self.epoch,
                    offset,
                });
            }
            None if any && !unmap => self.lost += 1,
            None => {}
        }
        if self.lost >= LOST {
            self.offset = None;
        }
        None
    }
}

/// Every cause with every equal effect that makes no more than `most` pairs:
/// the differences, sorted.
fn votes(places: &[(Vec<i64>, Vec<i64>)], most: usize) -> Vec<i64> {
    let mut votes = Vec::new();
    for (a, b) in places {
        let pairs = a.len() * b.len();
        if pairs > most || votes.len() + pairs > MAX_VOTES {
            break;
        }
        votes.extend(a.iter().flat_map(|a| b.iter().map(|b| a.saturating_sub(*b))));
    }
    votes.sort_unstable();
    votes
}

/// The smallest of the (sorted) delays that is no accident: a share of all
/// lies just behind it.
fn onset(delays: &[i64]) -> Option<i64> {
    ONSETS.iter().find_map(|&(within, part)| {
        let share = (delays.len() / part).max(2);
        delays
            .iter()
            .zip(delays.iter().skip(share))
            .find(|(first, last)| last.saturating_sub(**first) <= within)
            .map(|(first, _)| *first)
    })
}

/// Where delays begin, and how long they get, by the (sorted) differences of
/// causes and effects that have no like: nearly all of them are true pairs. A
/// ring of receive buffers gives its pages to the device long before they are
/// used (the first ones seconds), so delays have no peak; but none is negative,
/// and some are short.
///
/// Causes that last `span` ns and have nothing to do with the effects give
/// differences all over twice that.
fn edge(differences: &[i64], span: i64) -> Option<(i64, i64)> {
    if differences.len() < LEAST_ALONE {
        return None;
    }
    let spread = SPREAD_NS.min(span / SPAN_SHARE);
    let mut end = 0;
    let (start, n) = (0..differences.len())
        .map(|start| {
            let last = differences[start].saturating_add(spread);
            end += differences[end..].iter().take_while(|d| **d <= last).count();
            (start, end - start)
        })
        .max_by_key(|(start, n)| (*n, std::cmp::Reverse(*start)))?;
    if n * 2 < differences.len() {
        return None;
    }
    let near = &differences[start..start + n];
    let share = (n / EDGE_SHARE).max(2);
    let first = near
        .iter()
        .zip(&near[share..])
        .find(|(first, last)| last.saturating_sub(**first) <= EDGE_NS)
        .map(|(first, _)| first)?;
    let high = near[n - 1 - n / 10];
    let longest = high.saturating_sub(*first).saturating_mul(2);
    Some((*first, longest.clamp(DELAY_NS, LONGEST_DELAY_NS)))
}

/// The top bits are left to the seam, the lowest tells maps from unmaps.
fn map_hash(page: u64, out: u64) -> u64 {
    mix(page, out) >> 16 & !1
}

fn unmap_hash(page: u64, pages: u64) -> u64 {
    mix(page, pages) >> 16 | 1
}

fn is_unmap(hash: u64) -> bool {
    hash & 1 != 0
}

/// The difference that most of the (sorted) votes are near to, if they are
/// enough and have no rival.
fn elect(votes: &[i64]) -> Option<i64> {
    let (mut best, mut end) = ((0usize, 0usize), 0);
    let mut counts = Vec::with_capacity(votes.len());
    for (start, v) in votes.iter().enumerate() {
        while end < votes.len() && votes[end].saturating_sub(*v) <= WINDOW_NS {
            end += 1;
        }
        counts.push(end - start);
        if end - start > best.0 {
            best = (end - start, start);
        }
    }
    let (count, start) = best;
    let winner = *votes.get(start)?;
    let rival = votes
        .iter()
        .zip(&counts)
        .filter(|(v, _)| v.saturating_sub(winner).saturating_abs() > RIVAL_NS)
        .map(|(_, n)| *n)
        .max()
        .unwrap_or(0);
    // Of few votes, twice a rival's is no more than luck.
    if count < ENOUGH + rival * 2 {
        return None;
    }
    let from = votes.partition_point(|v| *v < winner.saturating_sub(WINDOW_NS));
    Some(onset(&votes[from..start + count]).unwrap_or(winner))
}

#[cfg(test)]
mod tests;
