//! An ftrace that is being joined with a log: the records of the ftrace, and
//! their times on the log's clock.

use super::anchors::{Aligner, Token};
use super::clock::Segments;
use super::emit::page_span;
use super::evidence::{CachingModeGuess, History, Recent, Uses};
use super::ftrace::FtReader;
use super::lines::LineSource;
use super::pairing::Pairing;
use super::qemu::LogReader;
use super::window::{FtKind, FtWindow, LogKind, LogWindow, NONE};

/// Records of the ftrace looked ahead at most.
pub(crate) const FT_AHEAD: usize = 1 << 18;
/// The ftrace is read this far beyond the log, ns.
pub(crate) const FT_BEYOND_NS: i64 = 50_000_000;
/// A map may be stamped this much later than an access that needs it.
pub(crate) const PULL_NS: i64 = 20_000_000;

/// An ftrace and how it is joined with a log.
#[derive(Debug)]
pub(crate) struct Joined<L> {
    pub(crate) reader: FtReader<L>,
    pub(crate) window: FtWindow,
    pub(crate) pairing: Pairing,
    /// Log's clock minus the ftrace's.
    segments: Segments,
    /// Recordings of the ftrace that were put into the log by [`Joined::feed_own`].
    epoch: u64,
    /// Next records to be fed to the pairing.
    pub(crate) fed_log: u64,
    pub(crate) fed: u64,
    /// Last record written.
    pub(crate) last_written: Option<u64>,
    /// Next record whose time has not come.
    pub(crate) next: u64,
    /// Log record at which a waiting record may go on.
    pub(crate) retry_at: u64,
    pub(crate) recent: Recent,
    pub(crate) caching: CachingModeGuess,
    pub(crate) history: History,
    pub(crate) uses: Uses,
}

impl<L: LineSource> Joined<L> {
    pub(crate) fn new(lines: L) -> Self {
        Joined {
            reader: FtReader::new(lines),
            window: FtWindow::default(),
            pairing: Pairing::Descriptors(Aligner::new(true)),
            segments: Segments::default(),
            epoch: 0,
            fed_log: 0,
            fed: 0,
            last_written: None,
            next: 0,
            retry_at: NONE,
            recent: Recent::default(),
            caching: CachingModeGuess::default(),
            history: History::default(),
            uses: Uses::default(),
        }
    }

    /// Tells the pairing about ends and takes what it finds.
    pub(crate) fn finish_pairing(&mut self, log_ended: bool, log: &mut LogWindow, timed: bool) {
        self.pairing.set_timed(timed);
        if log_ended {
            self.pairing.end_first();
        }
        if self.reader.eof() {
            self.pairing.end_second();
        }
        self.pairing.poll();
        self.take_pairs(log, timed);
    }

    /// A record of the log that is not decided cannot be written: with full
    /// windows what has no partner up to `head` will not get one.
    pub(crate) fn decide(&mut self, head: u64, log: &mut LogWindow, timed: bool) {
        while self.pairing.undecided_first().is_some_and(|i| i <= head) {
            self.pairing.give_up_first();
            self.pairing.poll();
            self.take_pairs(log, timed);
        }
    }

    /// Log time of a time of the ftrace near the window's head.
    pub(crate) fn extrapolate(&self, time: i64) -> i64 {
        time.saturating_add(self.segments.near_offset(self.window.head()).unwrap_or(0))
    }

    /// Everything is read and written.
    pub(crate) fn finished(&self) -> bool {
        self.reader.eof() && self.window.len() == 0
    }

    /// Joins by maps and misses from here on: there are no descriptors.
    pub(crate) fn pair_by_mappings(&mut self) {
        self.pairing = Pairing::Mappings(Box::default());
    }

    /// Hands new records of the log to the pairing.
    pub(crate) fn feed_log<M: LineSource>(&mut self, log: &LogReader<M>, window: &LogWindow) {
        let stable = log.stable(window);
        while self.fed_log < stable {
            let index = self.fed_log;
            self.fed_log += 1;
            let Some(rec) = window.get(index) else { continue };
            if rec.seam {
                self.pairing.seam_first(index, rec.time);
            }
            match &mut self.pairing {
                Pairing::Descriptors(p) => {
                    if matches!(rec.kind, LogKind::Inv | LogKind::Token) {
                        p.push_first(Token {
                            hash: rec.descriptor().token(),
                            time: rec.time,
                            index,
                        });
                    }
                }
                Pairing::Mappings(p) if rec.proves() => {
                    p.push_effect(rec.domain, rec.a >> 12, rec.b >> 12, (rec.time, index));
                }
                Pairing::Mappings(p) => {
                    if rec.kind == LogKind::Inv
                        && let Some((domain, addr, am)) = rec.descriptor().pages()
                    {
                        let page = addr >> 12 & !((1 << am) - 1);
                        p.push_invalidation(domain, page, 1 << am, (rec.time, index));
                    }
                }
            }
        }
    }

    /// Puts the descriptors among new records of the ftrace into the log, as what the IOMMU
    /// carried out. There is one clock and nothing to be searched for.
    pub(crate) fn feed_own<M: LineSource>(&mut self, log: &mut LogReader<M>, to: &mut LogWindow) {
        while let Some(rec) = self.window.get(self.fed) {
            let (index, time) = (self.fed, rec.time);
            let submitted = (rec.kind == FtKind::Submit).then(|| rec.descriptor());
            if rec.seam {
                self.segments.seam(index);
            }
            if index == 0 || rec.seam {
                self.epoch += 1;
                self.segments.pair(index, self.epoch, 0);
            }
            self.fed += 1;
            self.recent.note(&mut self.window, index, &mut self.caching);
            let Some(at) = submitted.and_then(|d| log.submitted(to, time, d)) else { continue };
            self.pairing.known_pair();
            if let Some(r) = to.get_mut(at) {
                r.peer = index;
            }
            if let Some(r) = self.window.get_mut(index) {
                r.peer = at;
            }
        }
    }

    /// Hands new records of the ftrace to the pairing.
    pub(crate) fn feed(&mut self) {
        while self.fed < self.window.end() {
            let index = self.fed;
            self.fed += 1;
            if let Some(rec) = self.window.get(index).filter(|r| r.seam) {
                self.segments.seam(index);
                self.pairing.seam_second(index, rec.time);
            }
            self.recent.note(&mut self.window, index, &mut self.caching);
            let Some(rec) = self.window.get(index) else { continue };
            match &mut self.pairing {
                Pairing::Descriptors(p) if rec.kind == FtKind::Submit => {
                    p.push_second(Token { hash: rec.descriptor().token(), time: rec.time, index });
                }
                Pairing::Mappings(p) if rec.kind == FtKind::Map => {
                    p.push_cause(rec.a >> 12, rec.b >> 12, (rec.time, index));
                }
                Pairing::Mappings(p) if rec.kind == FtKind::Unmap => {
                    let (page, pages) = page_span(rec.a, rec.size);
                    p.push_unmap(page, pages, (rec.time, index));
                }
                _ => {}
            }
        }
    }

    /// Notes pairs found on both sides, and the clocks' difference.
    pub(crate) fn take_pairs(&mut self, window: &mut LogWindow, timed: bool) {
        while let Some(pair) = self.pairing.next_pair() {
            if self.pairing.descriptors().is_none() {
                // Cause and effect, not the same operation.
                self.segments.pair(pair.second.index, pair.epoch, pair.offset);
                let told = window.get(pair.first.index).filter(|r| r.kind == LogKind::Inv);
                if let Some((domain, ..)) = told.and_then(|r| r.descriptor().pages())
                    && let Some(r) = self.window.get_mut(pair.second.index)
                {
                    r.told = domain;
                    r.vmm = pair.first.index;
                    self.recent.linked(pair.second.index);
                }
                continue;
            }
            if let Some(r) = window.get_mut(pair.first.index) {
                r.peer = pair.second.index;
            }
            if let Some(r) = self.window.get_mut(pair.second.index) {
                r.peer = pair.first.index;
            }
            if timed
                && let Some((from, to)) =
                    self.segments.pair(pair.second.index, pair.epoch, pair.offset)
            {
                self.segments.begin(self.window.behind_longest_pause(from, to));
            }
        }
    }

    /// Log time of ftrace record `index`, if the clocks are joined there.
    pub(crate) fn log_time(&self, index: u64) -> Option<i64> {
        let offset = self.segments.offset(index)?;
        Some(self.window.get(index)?.time.saturating_add(offset))
    }

    /// True if the time of record `index` is not after `time`.
    pub(crate) fn due(&self, index: u64, time: i64) -> bool {
        self.log_time(index).is_some_and(|t| t <= time)
    }

    /// True if enough of the ftrace is read for the log's window.
    pub(crate) fn reaches(&self, log: &LogWindow, timed: bool) -> bool {
        let Some(end) = log.back() else { return true };
        let Some(last) = self.window.end().checked_sub(1).filter(|_| self.window.len() > 0) else {
            return false;
        };
        if !timed {
            return self.window.len() >= FT_AHEAD / 4;
        }
        match self.log_time(last) {
            Some(t) => t > end.time.saturating_add(FT_BEYOND_NS),
            // Not joined (yet): the pairing asks for what it needs.
            None => true,
        }
    }

    /// True while the ftrace tells about table changes: from its first record
    /// on to its last, except between two recordings of a concatenated one.
    pub(crate) fn covers(&self) -> bool {
        let head = self.window.head();
        let Some(last) = self.last_written.filter(|_| self.window.len() > 0) else { return false };
        !self.segments.starts_over(last, head)
    }

    /// True if a map behind record `index` maps `page` to `out` again before
    /// log time `time`: an access then does not prove the old mapping.
    pub(crate) fn maps_again(&self, index: u64, page: u64, out: u64, time: i64) -> bool {
        self.window.same_start(index).take(8).any(|(i, r)| {
            r.kind == FtKind::Map
                && r.a >> 12 <= page
                && page - (r.a >> 12) < r.size >> 12
                && (r.b >> 12).wrapping_add(page - (r.a >> 12)) == out
                && self.log_time(i).is_none_or(|t| t <= time.saturating_add(PULL_NS))
        })
    }

    /// Makes room in a full window whose oldest records cannot be joined;
    /// gives the number of events dropped.
    pub(crate) fn drop_oldest(&mut self) -> u64 {
        let mut dropped = 0;
        for _ in 0..FT_AHEAD / 4 {
            if self.log_time(self.window.head()).is_some() {
                break;
            }
            let Some(rec) = self.window.pop() else { break };
            dropped += u64::from(!rec.done && rec.kind != FtKind::Submit);
        }
        while self.pairing.undecided_second().is_some_and(|i| i < self.window.head()) {
            self.pairing.give_up_second();
        }
        self.next = self.next.max(self.window.head());
        dropped
    }

    /// Removes written records from the front.
    pub(crate) fn pop_done(&mut self) {
        while self.window.get(self.window.head()).is_some_and(|r| r.done) {
            self.window.pop();
        }
        self.segments.forget(self.window.head().min(self.last_written.unwrap_or(0)));
    }
}
