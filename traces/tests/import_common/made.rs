//! Lines that are made as they are read, and the peak of the process's memory.

use std::path::Path;

use ioasim_events::Event;
use ioasim_traces::Result;
use ioasim_traces::import::{EventSink, LineSource};
use ioasim_traces::input::Line;

/// A text over and over, or lines made up as they are read.
pub struct Made<F> {
    line: Vec<u8>,
    number: u64,
    make: F,
}

impl<F: FnMut(u64, &mut Vec<u8>) -> bool> Made<F> {
    /// Lines made by a function of their number; it tells whether there is one.
    pub fn new(make: F) -> Self {
        Made { line: Vec::new(), number: 0, make }
    }
}

impl<F: FnMut(u64, &mut Vec<u8>) -> bool> LineSource for Made<F> {
    fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        self.line.clear();
        if !(self.make)(self.number, &mut self.line) {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line { number: self.number, bytes: &self.line, truncated: false }))
    }

    fn path(&self) -> &Path {
        Path::new("made up")
    }

    fn progress(&self) -> (u64, u64) {
        (self.number, self.number)
    }
}

/// Counts events.
pub struct Count(pub u64);

impl EventSink for Count {
    fn push(&mut self, _: &Event) -> Result<()> {
        self.0 += 1;
        Ok(())
    }

    fn push_marker(&mut self, _: &Event, _: &str) -> Result<()> {
        self.0 += 1;
        Ok(())
    }
}

/// Peak resident memory of this process in MB, where the system tells.
pub fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("0 0");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1000
}
