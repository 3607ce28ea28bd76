//! The descriptors that a kernel submitted, as the log of the IOMMU that
//! carried them out.

use std::io::Write;
use std::path::Path;

use super::super::desc::{Descriptor, kind};
use super::super::ftrace_line::{self, Event};
use super::super::lines::LineSource;
use crate::Result;
use crate::input::Line;

/// Lines of QEMU's `vtd_inv_desc`, one for each `qi_submit` of a kernel's
/// trace, with its time.
#[derive(Debug)]
pub(super) struct Submitted<L> {
    lines: L,
    text: Vec<u8>,
}

impl<L: LineSource> Submitted<L> {
    pub(super) fn new(lines: L) -> Self {
        Submitted { lines, text: Vec::with_capacity(128) }
    }
}

impl<L: LineSource> LineSource for Submitted<L> {
    fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        while let Some(line) = self.lines.next_line()? {
            let ftrace_line::Line::Event(prefix, Event::QiSubmit { qw0, qw1 }) =
                ftrace_line::parse(line.bytes)
            else {
                continue;
            };
            if (Descriptor { qw0, qw1 }).kind() == kind::WAIT {
                continue;
            }
            let (seconds, ns) = (prefix.time / 1_000_000_000, prefix.time % 1_000_000_000);
            self.text.clear();
            write!(
                self.text,
                "{}@{seconds}.{ns:09}:vtd_inv_desc invalidate desc type submitted high {qw1:#x} low {qw0:#x}",
                prefix.cpu + 1
            )
            .expect("memory takes all");
            return Ok(Some(Line { number: line.number, bytes: &self.text, truncated: false }));
        }
        Ok(None)
    }

    fn path(&self) -> &Path {
        self.lines.path()
    }

    fn progress(&self) -> (u64, u64) {
        self.lines.progress()
    }
}
