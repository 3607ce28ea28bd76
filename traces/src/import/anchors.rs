//! Joining two recordings of the same operations.
//!
//! Both sides see the same sequence of operations (invalidation descriptors,
//! or the VMM's maps and unmaps), each with its own clock, and each may begin
//! late, end early or miss some. [`Aligner`] takes both sequences as tokens
//! (a hash and a time) and gives the pairs. Behind a common operation it
//! compares token by token; where the sides differ it looks for the smallest
//! edit, and where that fails (or at the start) it searches for a common run.
//! Equal tokens repeat all the time (a ring buffer's pages are invalidated
//! again and again), so candidates are judged by the length of their run and
//! by how constant the difference of the clocks is along it.

mod search;

use std::collections::VecDeque;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Equal where the operations are the same.
    pub(crate) hash: u64,
    /// Time on its side's clock, ns.
    pub(crate) time: i64,
    /// Record that it comes from.
    pub(crate) index: u64,
}

/// What an [`Aligner`] waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// More tokens of the first side.
    pub(crate) first: bool,
    /// More tokens of the second side.
    pub(crate) second: bool,
}

/// Tokens of one side that are looked at in a search.
const SEARCH_FIRST: usize = 8192;
const SEARCH_SECOND: usize = 1024;
/// A search begins with this many tokens of the first side.
const SEARCH_START: usize = 512;
/// A run of this length is taken without looking further.
const RUN_SURE: usize = 384;
/// A run shorter than this is taken only if it is all there is.
const RUN_LEAST: usize = 8;
/// The least that is ever taken.
const RUN_ALL: usize = 3;
/// Largest edit (tokens left out on both sides together) tried before a search.
const MAX_EDIT: usize = 48;
/// Tokens that must agree behind an edit.
const EDIT_CHECK: usize = 6;
/// Difference of the clocks may leave its known value by this, 1 s: a virtual
/// CPU can be descheduled between submitting and processing.
const SLACK_NS: i64 = 1_000_000_000;
/// The same for choosing among candidates, 50 ms.
const NEAR_NS: i64 = 50_000_000;
/// Along a short run the difference of the clocks must be steadier, 5 ms.
const STEADY_NS: i64 = 5_000_000;
/// Matches in one half of the sliding minimum of the difference.
const OFFSET_HALF: u32 = 256;

/// Difference of two clocks. Delays between the two sides are positive, so
/// the smallest difference of late is the best guess.
#[derive(Clone, Copy, Debug)]
struct Offset {
    current: i64,
    previous: i64,
    n: u32,
}

impl Offset {
    fn new(difference: i64) -> Offset {
        Offset { current: difference, previous: i64::MAX, n: 0 }
    }

    fn update(&mut self, difference: i64) {
        self.current = self.current.min(difference);
        self.n += 1;
        if self.n == OFFSET_HALF {
            self.previous = self.current;
            self.current = difference;
            self.n = 0;
        }
    }

    fn value(&self) -> i64 {
        self.current.min(self.previous)
    }
}

/// Pairs the tokens of two sides; see the module's text.
#[derive(Debug)]
pub(crate) struct Aligner {
    first: VecDeque<Token>,
    second: VecDeque<Token>,
    first_ended: bool,
    second_ended: bool,
    /// Both sides have usable clocks.
    timed: bool,
    locked: bool,
    offset: Option<Offset>,
    /// Tokens of the first side at which the next search is due.
    search_at: usize,
    /// Pairs found.
    pub(crate) matched: u64,
    /// Tokens left without a partner while both sides were recorded.
    pub(crate) first_unmatched: u64,
    pub(crate) second_unmatched: u64,
    /// Times that the sides differed and were brought together again.
    pub(crate) resyncs: u64,
    /// Counts up when the sides are joined anew with other clocks.
    epoch: u64,
    /// Times that one clock was found to have stepped against the other.
    pub(crate) steps: u64,
    /// The largest of these steps, ns.
    pub(crate) largest_step: i64,
    /// Pairs of the last calls of [`Aligner::poll`].
    pairs: VecDeque<Pair>,
}

/// The same operation on both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) first: Token,
    pub(crate) second: Token,
    /// Pairs of one epoch share their clocks' difference.
    pub(crate) epoch: u64,
    /// First side's clock minus the second side's as known by now, ns.
    pub(crate) offset: i64,
}

/// Marks a place where one side's recording starts over; equals no operation.
const SEAM: u64 = 0x5ea3_0000_0000_0000;

impl Aligner {
    pub(crate) fn new(timed: bool) -> Aligner {
        Aligner {
            first: VecDeque::new(),
            second: VecDeque::new(),
            first_ended: false,
            second_ended: false,
            timed,
            locked: false,
            offset: None,
            search_at: SEARCH_START,
            matched: 0,
            first_unmatched: 0,
            second_unmatched: 0,
            resyncs: 0,
            epoch: 0,
            steps: 0,
            largest_step: 0,
            pairs: VecDeque::new(),
        }
    }

    /// Says whether both sides have usable clocks.
    pub(crate) fn set_timed(&mut self, timed: bool) {
        self.timed = timed;
    }

    /// Counts a pair that is known without a search.
    pub(crate) fn known_pair(&mut self) {
        self.matched += 1;
    }

    pub(crate) fn push_first(&mut self, token: Token) {
        self.first.push_back(token);
    }

    pub(crate) fn push_second(&mut self, token: Token) {
        self.second.push_back(token);
    }

    pub(crate) fn end_first(&mut self) {
        self.first_ended = true;
    }

    pub(crate) fn end_second(&mut self) {
        self.second_ended = true;
    }

    /// The first side's recording starts over at record `index`.
    pub(crate) fn seam_first(&mut self, index: u64, time: i64) {
        self.first.push_back(Token { hash: SEAM | (index << 1 & 0xffff_ffff_ffff), time, index });
    }

    /// The second side's recording starts over at record `index`.
    pub(crate) fn seam_second(&mut self, index: u64, time: i64) {
        self.second.push_back(Token {
            hash: SEAM | (index << 1 & 0xffff_ffff_ffff) | 1,
            time,
            index,
        });
    }

    /// First side's clock minus the second side's, in ns.
    fn offset(&self) -> Option<i64> {
        self.offset.as_ref().map(Offset::value)
    }

    /// Record of the first side from which on nothing is decided yet.
    pub(crate) fn undecided_first(&self) -> Option<u64> {
        self.first.front().map(|t| t.index)
    }

    /// The same for the second side.
    pub(crate) fn undecided_second(&self) -> Option<u64> {
        self.second.front().map(|t| t.index)
    }

    /// The next pair found, in order.
    pub(crate) fn next_pair(&mut self) -> Option<Pair> {
        self.pairs.pop_front()
    }

    /// Compares as far as the tokens allow; the pairs are then given by
    /// [`Aligner::next_pair`].
    pub(crate) fn poll(&mut self) -> Needs {
        loop {
            if self.second.is_empty() && self.second_ended {
                // Behind the second side's end nothing can match.
                self.first.clear();
                return Needs { first: !self.first_ended, second: false };
            }
            if self.first.is_empty() && self.first_ended {
                self.second_unmatched += self.second.len() as u64;
                self.second.clear();
                return Needs { first: false, second: !self.second_ended };
            }
            let needs = if self.locked { self.step() } else { self.search() };
            if let Some(needs) = needs {
                return needs;
            }
        }
    }

    /// The caller cannot hold more of the first side: its oldest token stays
    /// without a partner.
    pub(crate) fn give_up_first(&mut self) {
        // What can be found with what is here is taken first.
        if !self.locked && self.search_now(true) {
            return;
        }
        if self.first.pop_front().is_some() && self.matched > 0 {
            self.first_unmatched += 1;
        }
        self.search_at = self.search_at.max(self.first.len() + 1);
    }

    /// The same for the second side.
    pub(crate) fn give_up_second(&mut self) {
        if !self.locked && self.search_now(true) {
            return;
        }
        if self.second.pop_front().is_some() {
            self.second_unmatched += 1;
        }
    }

    fn difference(&self, a: &Token, b: &Token) -> i64 {
        if self.timed { a.time.saturating_sub(b.time) } else { 0 }
    }

    fn take_pair(&mut self) {
        let (Some(a), Some(b)) = (self.first.pop_front(), self.second.pop_front()) else { return };
        let difference = self.difference(&a, &b);
        let offset = match &mut self.offset {
            Some(o) => {
                o.update(difference);
                o.value()
            }
            None => {
                self.epoch += 1;
                self.offset = Some(Offset::new(difference));
                difference
            }
        };
        self.matched += 1;
        self.pairs.push_back(Pair { first: a, second: b, epoch: self.epoch, offset });
    }

    fn plausible(&self, a: &Token, b: &Token) -> bool {
        a.hash == b.hash
            && (!self.timed
                || self.offset().is_none_or(|o| {
                    self.difference(a, b).saturating_sub(o).saturating_abs() <= SLACK_NS
                }))
    }

    /// One comparison behind a common token. `None`: go on.
    fn step(&mut self) -> Option<Needs> {
        let (Some(a), Some(b)) = (self.first.front(), self.second.front()) else {
            return Some(Needs {
                first: self.first.is_empty() && !self.first_ended,
                second: self.second.is_empty() && !self.second_ended,
            });
        };
        if self.plausible(a, b) {
            self.take_pair();
            return None;
        }
        if self.skip_seam() {
            return None;
        }
        // They differ: wait until an edit can be judged.
        let want = MAX_EDIT + EDIT_CHECK;
        let needs = Needs {
            first: self.first.len() < want && !self.first_ended,
            second: self.second.len() < want && !self.second_ended,
        };
        if needs.first || needs.second {
            return Some(needs);
        }
        match self.best_edit() {
            Some((skip_first, skip_second)) => {
                self.resyncs += 1;
                self.first_unmatched += skip_first as u64;
                self.second_unmatched += skip_second as u64;
                self.first.drain(..skip_first);
                self.second.drain(..skip_second);
            }
            None => {
                self.locked = false;
                self.search_at = 0;
            }
        }
        None
    }

    /// A recording starts over: nothing is known about the clocks behind it.
    fn skip_seam(&mut self) -> bool {
        let seam = |t: Option<&Token>| t.is_some_and(|t| t.hash & 0xffff_0000_0000_0000 == SEAM);
        if seam(self.first.front()) {
            self.first.pop_front();
        } else if seam(self.second.front()) {
            self.second.pop_front();
        } else {
            return false;
        }
        self.locked = false;
        self.offset = None;
        self.search_at = SEARCH_START;
        true
    }

    /// The smallest numbers of tokens to leave out on both sides so that the
    /// rest agrees.
    fn best_edit(&self) -> Option<(usize, usize)> {
        for sum in 1..=MAX_EDIT {
            for skip_second in 0..=sum {
                let skip_first = sum - skip_second;
                let rest_first = self.first.len().saturating_sub(skip_first);
                let rest_second = self.second.len().saturating_sub(skip_second);
                let n = EDIT_CHECK.min(rest_first).min(rest_second);
                if n == 0 || (n < EDIT_CHECK && !(self.first_ended || self.second_ended)) {
                    continue;
                }
                let agree = (0..n).all(|i| {
                    let (a, b) = (&self.first[skip_first + i], &self.second[skip_second + i]);
                    self.plausible(a, b)
                        && (!self.timed
                            || self.offset().is_none_or(|o| {
                                self.difference(a, b).saturating_sub(o).saturating_abs() <= NEAR_NS
                            }))
                });
                if agree {
                    return Some((skip_first, skip_second));
                }
            }
        }
        None
    }

    /// Looks for a common run. `None`: found or moved on; go on.
    fn search(&mut self) -> Option<Needs> {
        if self.skip_seam() {
            return None;
        }
        let second_enough = self.second.len() >= SEARCH_SECOND || self.second_ended;
        let first_enough = self.first.len() >= SEARCH_FIRST || self.first_ended;
        if self.first.len() < self.search_at && !first_enough || !second_enough {
            return Some(Needs { first: !first_enough, second: !second_enough });
        }
        if self.search_now(first_enough) {
            return None;
        }
        if self.first_ended && self.first.len() <= SEARCH_FIRST {
            // All of the first side's rest was seen.
            self.first_unmatched += self.first.len() as u64;
            self.first.clear();
        } else if first_enough {
            let drop = SEARCH_FIRST / 2;
            if self.matched > 0 {
                self.first_unmatched += drop as u64;
            }
            self.first.drain(..drop.min(self.first.len()));
        } else {
            self.search_at = (self.first.len() * 2).clamp(64, SEARCH_FIRST);
        }
        None
    }

    /// Searches with the tokens at hand; takes what is found if it is sure,
    /// or if it `must`.
    fn search_now(&mut self, must: bool) -> bool {
        let Some(best) = self.best_run() else { return false };
        let all = self.first.len().min(self.second.len());
        let enough = best.run >= RUN_SURE
            || must && (best.run >= RUN_LEAST || best.run >= RUN_ALL.max(all.min(RUN_LEAST)))
            || best.near && best.run >= RUN_LEAST;
        let sure = best.near || best.run >= RUN_SURE;
        if !enough || best.spread > if sure { NEAR_NS } else { STEADY_NS } {
            return false;
        }
        if self.matched > 0 {
            self.resyncs += 1;
            self.first_unmatched += best.first as u64;
        }
        self.second_unmatched += best.second as u64;
        self.first.drain(..best.first);
        self.second.drain(..best.second);
        if !best.near {
            self.clocks_stepped(best.median);
        }
        self.locked = true;
        for done in 0..best.take {
            if let Some(difference) = self.step_ahead(best.take - done) {
                self.clocks_stepped(difference);
            }
            self.take_pair();
        }
        true
    }

    /// The clocks' new difference if they stepped before the next `rest`
    /// common tokens: a machine that is paused loses time (its clock source
    /// wraps), and what is known about the clocks then holds no longer. One
    /// late token is a delay; all of the next ones are not.
    fn step_ahead(&self, rest: usize) -> Option<i64> {
        let known = self.offset().filter(|_| self.timed && rest >= RUN_ALL)?;
        let mut new = i64::MAX;
        for (a, b) in self.first.iter().zip(&self.second).take(rest.min(EDIT_CHECK)) {
            let difference = self.difference(a, b);
            if difference.saturating_sub(known).saturating_abs() <= SLACK_NS {
                return None;
            }
            new = new.min(difference);
        }
        Some(new)
    }

    /// Nothing is known any more about the clocks, whose difference is `new`.
    fn clocks_stepped(&mut self, new: i64) {
        if let Some(old) = self.offset.take() {
            self.steps += 1;
            let step = new.saturating_sub(old.value()).saturating_abs();
            self.largest_step = self.largest_step.max(step);
        }
    }
}

#[cfg(test)]
mod tests;
