//! An ftrace text as a stream of records.

use super::clock::Clock;
use super::desc::{Descriptor, kind};
use super::ftrace_line::{self, Event, Line};
use super::kernel::cache_tags;
use super::lines::LineSource;
use super::report::Diagnostics;
use super::window::{FtKind, FtRec, FtWindow};
use crate::Result;

/// Markers longer than this are cut.
const MAX_MARKER_BYTES: usize = 4096;

/// Numbers that an [`FtReader`] counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FtCounts {
    pub(crate) lines: u64,
    pub(crate) events: u64,
    pub(crate) maps: u64,
    pub(crate) unmaps: u64,
    pub(crate) empty_unmaps: u64,
    pub(crate) descriptors: u64,
    pub(crate) lost: u64,
}

/// Reads an ftrace text into an [`FtWindow`].
#[derive(Debug)]
pub(crate) struct FtReader<L> {
    lines: L,
    clock: Clock,
    pub(crate) counts: FtCounts,
    eof: bool,
    /// The next record is the first one after a seam.
    seam: bool,
    /// Flushes of cache tags stand for the descriptors, which were not recorded.
    flushes: bool,
}

impl<L: LineSource> FtReader<L> {
    pub(crate) fn new(lines: L) -> Self {
        FtReader {
            lines,
            clock: Clock::default(),
            counts: FtCounts::default(),
            eof: false,
            seam: false,
            flushes: false,
        }
    }

    /// Takes flushes of cache tags for the descriptors that they stand for.
    pub(crate) fn take_flushes(&mut self) {
        self.flushes = true;
    }

    pub(crate) fn lines(&self) -> &L {
        &self.lines
    }

    pub(crate) fn into_lines(self) -> L {
        self.lines
    }

    pub(crate) fn eof(&self) -> bool {
        self.eof
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Reads one line into the window; false at the end.
    pub(crate) fn read(&mut self, window: &mut FtWindow, diag: &mut Diagnostics) -> Result<bool> {
        if self.eof {
            return Ok(false);
        }
        let Some(line) = self.lines.next_line()? else {
            self.eof = true;
            return Ok(false);
        };
        self.counts.lines += 1;
        let number = line.number;
        let parsed = if line.truncated {
            Line::Damaged("line too long")
        } else {
            ftrace_line::parse(line.bytes)
        };
        let (prefix, event) = match parsed {
            Line::Event(prefix, event) => (prefix, event),
            Line::Other(name) => {
                let flush = self.flushes && cache_tags::is_flush(name);
                let Some((prefix, flush)) = flush.then(|| cache_tags::line(line.bytes)).flatten()
                else {
                    diag.ignored(name);
                    return Ok(true);
                };
                let Descriptor { qw0, qw1 } = flush.descriptor();
                (prefix, Event::QiSubmit { qw0, qw1 })
            }
            Line::Lost(n) => {
                self.counts.lost = self.counts.lost.saturating_add(n);
                return Ok(true);
            }
            Line::Blank => return Ok(true),
            Line::Damaged(reason) => {
                diag.damaged(self.lines.path(), number, reason)?;
                return Ok(true);
            }
        };
        self.counts.events += 1;
        let stamp = Some(prefix.time);
        let copy;
        let (tick, event) = if self.clock.doubts(stamp) {
            // A marker's text lies in the line, which goes when the next is read.
            copy = if let Event::Marker(text) = event { text.to_vec() } else { Vec::new() };
            let event = match event {
                Event::Marker(_) => Event::Marker(&copy),
                Event::Map { iova, size, out } => Event::Map { iova, size, out },
                Event::Unmap { iova, size } => Event::Unmap { iova, size },
                Event::QiSubmit { qw0, qw1 } => Event::QiSubmit { qw0, qw1 },
                Event::AttachDevice => Event::AttachDevice,
            };
            let next = self.lines.peek_line()?;
            let next = next.and_then(|line| ftrace_line::split(line).ok()).map(|l| l.0.time);
            (self.clock.tick_beside(stamp, next), event)
        } else {
            (self.clock.tick(stamp), event)
        };
        let seam = self.seam | tick.seam;
        let before = window.end();
        let rec = |kind| FtRec { seam, ..FtRec::new(kind, tick.time, prefix.cpu, prefix.pid) };
        match event {
            Event::Map { iova, size, out } => {
                self.counts.maps += 1;
                window.push(FtRec { a: iova, b: out, size, ..rec(FtKind::Map) });
            }
            Event::Unmap { size: 0, .. } => self.counts.empty_unmaps += 1,
            Event::Unmap { iova, size } => {
                self.counts.unmaps += 1;
                window.push(FtRec { a: iova, size, ..rec(FtKind::Unmap) });
            }
            Event::QiSubmit { qw0, qw1 } => {
                if (Descriptor { qw0, qw1 }).kind() != kind::WAIT {
                    self.counts.descriptors += 1;
                    window.push(FtRec { a: qw1, b: qw0, ..rec(FtKind::Submit) });
                }
            }
            Event::Marker(text) => {
                let text = String::from_utf8_lossy(&text[..text.len().min(MAX_MARKER_BYTES)])
                    .trim()
                    .to_owned();
                window.push_marker(rec(FtKind::Marker), text);
            }
            Event::AttachDevice => diag.ignored(b"attach_device_to_domain"),
        }
        self.seam = seam && window.end() == before;
        Ok(true)
    }
}
