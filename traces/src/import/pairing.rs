//! How an ftrace is joined with a log: by the invalidation descriptors that
//! both show in the same order, or by maps and the misses that need them.

use super::anchors::{Aligner, Needs, Pair};
use super::votes::Votes;

/// See the module's text. The first side is the log.
#[derive(Debug)]
pub(crate) enum Pairing {
    /// By descriptors.
    Descriptors(Aligner),
    /// By mappings.
    Mappings(Box<Votes>),
}

/// Calls a method that both have.
macro_rules! both {
    ($self:ident, $p:ident => $call:expr) => {
        match $self {
            Pairing::Descriptors($p) => $call,
            Pairing::Mappings($p) => $call,
        }
    };
}

impl Pairing {
    /// Says whether both sides have usable clocks.
    pub(crate) fn set_timed(&mut self, timed: bool) {
        match self {
            Pairing::Descriptors(p) => p.set_timed(timed),
            Pairing::Mappings(p) => p.timed = timed,
        }
    }

    /// Counts a pair of descriptors that is known without a search.
    pub(crate) fn known_pair(&mut self) {
        if let Pairing::Descriptors(p) = self {
            p.known_pair();
        }
    }

    pub(crate) fn end_first(&mut self) {
        both!(self, p => p.end_first());
    }

    pub(crate) fn end_second(&mut self) {
        both!(self, p => p.end_second());
    }

    pub(crate) fn poll(&mut self) -> Needs {
        both!(self, p => p.poll())
    }

    pub(crate) fn next_pair(&mut self) -> Option<Pair> {
        both!(self, p => p.next_pair())
    }

    pub(crate) fn undecided_first(&self) -> Option<u64> {
        both!(self, p => p.undecided_first())
    }

    pub(crate) fn undecided_second(&self) -> Option<u64> {
        both!(self, p => p.undecided_second())
    }

    pub(crate) fn give_up_first(&mut self) {
        both!(self, p => p.give_up_first());
    }

    pub(crate) fn give_up_second(&mut self) {
        both!(self, p => p.give_up_second());
    }

    /// The log starts over at record `index`.
    pub(crate) fn seam_first(&mut self, index: u64, time: i64) {
        both!(self, p => p.seam_first(index, time));
    }

    /// The ftrace starts over at record `index`.
    pub(crate) fn seam_second(&mut self, index: u64, time: i64) {
        both!(self, p => p.seam_second(index, time));
    }

    /// Pairs found.
    pub(crate) fn matched(&self) -> u64 {
        both!(self, p => p.matched)
    }

    /// Times that the sides differed and were brought together again.
    pub(crate) fn resyncs(&self) -> u64 {
        both!(self, p => p.resyncs)
    }

    /// The descriptors' join, if it is that.
    pub(crate) fn descriptors(&self) -> Option<&Aligner> {
        match self {
            Pairing::Descriptors(p) => Some(p),
            Pairing::Mappings(_) => None,
        }
    }
}
