//! The kernel's trace alone: the descriptors in it stand for the log of the IOMMU that carried them
//! out.
//!
//! One pass over the text fills both windows of the join; which records belong together, and how the
//! clocks differ, is known. All else is the join's.

use super::join::{Join, LOG_AHEAD, STEPS};
use super::joined::{FT_AHEAD, FT_BEYOND_NS};
use super::lines::{EventSink, LineSource};
use super::report::Options;
use super::window::LogKind;
use crate::Result;

/// Lines read between two looks at how far the windows reach.
const LINES: usize = 64;

impl<L: LineSource, F: LineSource, S: EventSink> Join<L, F, S> {
    /// Reads the guest's ftrace to its end.
    pub(crate) fn run_own(&mut self, options: &mut Options<'_>) -> Result<()> {
        let mut rounds = 0u32;
        loop {
            self.fill_own()?;
            let Some(g) = &self.guest else { return Ok(()) };
            if self.window.len() > 0 {
                for _ in 0..STEPS.min(self.window.len()) {
                    self.step_own()?;
                }
            } else if g.reader.eof() {
                break;
            } else {
                self.write_oldest()?;
            }
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(16)
                && let Some(g) = &self.guest
            {
                let (done, total) = g.reader.lines().progress();
                options.tick(g.reader.lines().path(), done, total)?;
            }
        }
        self.rest_of_ftrace()
    }

    /// Reads until there are enough descriptors ahead, or as many records as there may be.
    fn fill_own(&mut self) -> Result<()> {
        let Some(g) = &mut self.guest else { return Ok(()) };
        loop {
            let far = self.window.get(self.window.head() + (LOG_AHEAD - 1) as u64);
            let reaches = far
                .zip(g.window.back())
                .is_some_and(|(far, last)| last.time > far.time.saturating_add(FT_BEYOND_NS));
            if reaches || g.window.is_full(FT_AHEAD) || g.reader.eof() {
                return Ok(());
            }
            for _ in 0..LINES {
                if !g.reader.read(&mut g.window, &mut self.diag)? {
                    break;
                }
            }
            g.feed_own(&mut self.log, &mut self.window);
        }
    }

    /// Writes the next descriptor and what the trace has before it.
    fn step_own(&mut self) -> Result<()> {
        let (Some(rec), Some(g)) = (self.window.front(), &self.guest) else { return Ok(()) };
        let (rec, submit) = (*rec, rec.peer);
        if g.window.get(submit + 1).is_some_and(|next| next.time <= rec.time) {
            // Another CPU's, at the same time.
            return self.step();
        }
        for index in g.window.head()..submit {
            self.write_ft(index)?;
        }
        let Some(g) = &mut self.guest else { return Ok(()) };
        (g.next, g.retry_at) = (g.next.max(submit + 1), 0);
        let mut cpu = None;
        if let Some(r) = g.window.get_mut(submit) {
            (r.done, cpu) = (true, Some(r.cpu));
        }
        self.out.covered = g.covers();
        if rec.kind == LogKind::Inv {
            self.out.invalidate(rec.time, cpu, rec.descriptor())?;
        }
        self.window.pop();
        if let Some(g) = &mut self.guest {
            g.pop_done();
        }
        Ok(())
    }

    /// Makes room in a full window without a descriptor: nothing waits for one.
    fn write_oldest(&mut self) -> Result<()> {
        for _ in 0..FT_AHEAD / 4 {
            let Some(g) = &mut self.guest else { return Ok(()) };
            let index = g.window.head();
            if g.window.len() == 0 {
                break;
            }
            self.write_ft(index)?;
            if let Some(g) = &mut self.guest {
                g.window.pop();
                g.next = g.next.max(g.window.head());
            }
        }
        Ok(())
    }
}
