//! The part of an ftrace that is looked ahead on.

use std::collections::VecDeque;

use super::chains::Chains;
use super::{END, NONE};
use crate::import::desc::Descriptor;

/// Texts of markers kept in a window, 8 MiB.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// What an [`FtRec`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FtKind {
    /// `[a, a+size)` mapped to `b`.
    Map,
    /// `[a, a+size)` unmapped.
    Unmap,
    /// A descriptor: `a` = qw1, `b` = qw0.
    Submit,
    /// A marker; the text is kept by the window.
    Marker,
}

/// One record of an ftrace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FtRec {
    /// ns on the guest's clock, since the file's first line, never decreasing.
    pub(crate) time: i64,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) size: u64,
    /// Of a descriptor: record of the log that is the same one. Of a map or
    /// unmap: the descriptor in this window that covers it. Else [`NONE`].
    pub(crate) peer: u64,
    /// In a bundle: the VMM's record of the same operation, or [`NONE`]. Of an
    /// unmap without a descriptor: the log's invalidation for it.
    pub(crate) vmm: u64,
    /// Domain in that invalidation, or `u32::MAX`.
    pub(crate) told: u32,
    /// Domain of a map or unmap, and how it was found (`attribute.rs`).
    pub(crate) domain: u32,
    pub(crate) quality: u8,
    /// Rights of a map, READ and WRITE bits.
    pub(crate) perm: u8,
    /// Had to wait for accesses that came before it.
    pub(crate) held: bool,
    pub(crate) cpu: u32,
    pub(crate) pid: u32,
    pub(crate) next: u32,
    pub(crate) kind: FtKind,
    /// Written already.
    pub(crate) done: bool,
    /// The first one of a recording that starts over.
    pub(crate) seam: bool,
}

impl FtRec {
    pub(crate) fn new(kind: FtKind, time: i64, cpu: u32, pid: u32) -> FtRec {
        FtRec {
            time,
            a: 0,
            b: 0,
            size: 0,
            peer: NONE,
            vmm: NONE,
            told: u32::MAX,
            domain: u32::MAX,
            quality: 0,
            perm: 3,
            held: false,
            cpu,
            pid,
            next: END,
            kind,
            done: false,
            seam: false,
        }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor { qw0: self.b, qw1: self.a }
    }

    /// True if it changes the guest's table.
    pub(crate) fn changes_table(&self) -> bool {
        matches!(self.kind, FtKind::Map | FtKind::Unmap)
    }
}

/// The records of an ftrace from the next to be written to the last one read.
#[derive(Debug, Default)]
pub(crate) struct FtWindow {
    recs: VecDeque<FtRec>,
    base: u64,
    starts: Chains<u64>,
    /// Texts of markers, by index, and the sum of their lengths.
    texts: VecDeque<(u64, String)>,
    text_bytes: usize,
}

impl FtWindow {
    pub(crate) fn len(&self) -> usize {
        self.recs.len()
    }

    pub(crate) fn head(&self) -> u64 {
        self.base
    }

    pub(crate) fn end(&self) -> u64 {
        self.base + self.recs.len() as u64
    }

    pub(crate) fn push(&mut self, rec: FtRec) -> u64 {
        let index = self.end();
        self.recs.push_back(rec);
        if rec.changes_table()
            && let Some(previous) = self.starts.push(rec.a >> 12, index as u32)
        {
            let previous = (self.full(previous) - self.base) as usize;
            self.recs[previous].next = index as u32;
        }
        index
    }

    pub(crate) fn push_marker(&mut self, rec: FtRec, text: String) -> u64 {
        let index = self.push(rec);
        self.text_bytes += text.len();
        self.texts.push_back((index, text));
        index
    }

    pub(crate) fn get(&self, index: u64) -> Option<&FtRec> {
        self.recs.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut FtRec> {
        self.recs.get_mut(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn front(&self) -> Option<&FtRec> {
        self.recs.front()
    }

    pub(crate) fn back(&self) -> Option<&FtRec> {
        self.recs.back()
    }

    /// True if there are `records` of them, or too many texts.
    pub(crate) fn is_full(&self, records: usize) -> bool {
        self.recs.len() >= records || self.text_bytes >= MAX_TEXT_BYTES
    }

    /// The text of marker `index`.
    pub(crate) fn text(&self, index: u64) -> &str {
        let at = self.texts.partition_point(|(i, _)| *i < index);
        self.texts.get(at).filter(|(i, _)| *i == index).map_or("", |(_, text)| text)
    }

    pub(crate) fn pop(&mut self) -> Option<FtRec> {
        let rec = self.recs.pop_front()?;
        if rec.changes_table() {
            self.starts.pop(rec.a >> 12, self.base as u32, rec.next);
        }
        if self.texts.front().is_some_and(|(i, _)| *i == self.base) {
            self.text_bytes -= self.texts.pop_front().map_or(0, |(_, text)| text.len());
        }
        self.base += 1;
        Some(rec)
    }

    fn full(&self, at: u32) -> u64 {
        self.base + u64::from(at.wrapping_sub(self.base as u32))
    }

    /// Maps and unmaps behind record `index` that begin at the same page.
    pub(crate) fn same_start(&self, index: u64) -> impl Iterator<Item = (u64, &FtRec)> {
        let mut at = self.get(index).map_or(END, |r| r.next);
        std::iter::from_fn(move || {
            if at == END {
                return None;
            }
            let index = self.full(at);
            let rec = &self.recs[(index - self.base) as usize];
            at = rec.next;
            Some((index, rec))
        })
    }

    /// Records from `index` on.
    pub(crate) fn from(&self, index: u64) -> impl DoubleEndedIterator<Item = (u64, &FtRec)> {
        let skip = index.saturating_sub(self.base) as usize;
        let base = self.base;
        self.recs
            .range(skip.min(self.recs.len())..)
            .enumerate()
            .map(move |(i, r)| (base + (skip + i) as u64, r))
    }

    /// The record behind the longest pause among records `from` to `to`.
    pub(crate) fn behind_longest_pause(&self, from: u64, to: u64) -> u64 {
        let mut longest = (i64::MIN, to);
        let mut before = None;
        for (index, rec) in self.from(from).take_while(|(i, _)| *i <= to) {
            if let Some(time) = before.replace(rec.time)
                && rec.time - time > longest.0
            {
                longest = (rec.time - time, index);
            }
        }
        longest.1
    }

    /// Records before `index`, nearest first.
    pub(crate) fn before(&self, index: u64) -> impl Iterator<Item = (u64, &FtRec)> {
        let n = (index.saturating_sub(self.base) as usize).min(self.recs.len());
        let base = self.base;
        self.recs.range(..n).enumerate().rev().map(move |(i, r)| (base + i as u64, r))
    }
}
