//! What an import tells about itself: counts, damaged lines, notes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ioasim_events::{CachingMode, OutputSpace};
use rustc_hash::FxHashMap;

use super::lines::LineSource;
use crate::{Error, Result};

/// Limits and hooks of an import.
pub struct Options<'a> {
    /// More damaged lines than this, in all inputs together, end the import
    /// with an error.
    pub max_errors: u64,
    /// Called now and then with the bytes of text read so far (of the stored
    /// files, compressed or not) and the bytes in all inputs.
    pub progress: Option<&'a mut dyn FnMut(u64, u64)>,
    /// Set from elsewhere to end the import early, with an error.
    pub cancel: Option<&'a AtomicBool>,
}

impl Options<'_> {
    /// Default of [`Options::max_errors`].
    pub const MAX_ERRORS: u64 = 100;

    /// [`Options::tick`] after every 65,536th of the lines read so far.
    pub(crate) fn tick_lines(&mut self, lines: &impl LineSource, read: u64) -> Result<()> {
        if !read.is_multiple_of(1 << 16) {
            return Ok(());
        }
        let (done, total) = lines.progress();
        self.tick(lines.path(), done, total)
    }

    /// Tells the progress and looks at the cancel flag.
    pub(crate) fn tick(&mut self, path: &Path, done: u64, total: u64) -> Result<()> {
        if self.cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
            return Err(Error::Import {
                path: path.to_owned(),
                why: "import interrupted; nothing was written".into(),
            });
        }
        if let Some(f) = &mut self.progress {
            f(done, total);
        }
        Ok(())
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { max_errors: Self::MAX_ERRORS, progress: None, cancel: None }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("max_errors", &self.max_errors).finish_non_exhaustive()
    }
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedLine {
    /// The input.
    pub path: PathBuf,
    /// 1-based number of the line.
    pub line: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for DamagedLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.reason)
    }
}

/// The result of an import.
#[derive(Clone, Debug, Default)]
pub struct ImportReport {
    /// What was counted, by name; `docs/importing.md` explains each. The same
    /// numbers stand in the trace's metadata.
    pub counts: BTreeMap<String, u64>,
    /// The first damaged lines; `counts["lines_damaged"]` has their number.
    pub damaged: Vec<DamagedLine>,
    /// Remarks for people, one sentence each.
    pub notes: Vec<String>,
    /// Address space of the recorded outputs.
    pub output_space: OutputSpace,
    /// Caching mode of the recorded guest, if the recording shows it.
    pub caching_mode: CachingMode,
    /// Levels of the guest's table, 0 if the recording does not show them.
    pub child_levels: u32,
    /// What read it, as the trace's metadata names it; empty if unknown.
    pub importer: &'static str,
}

impl ImportReport {
    /// A count, 0 if it was never made.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Counts steps of one input's clock against another's, the largest in
    /// ns. Both numbers are left out where there are none.
    pub(crate) fn clocks_stepped(&mut self, steps: u64, largest_ns: i64) {
        if steps > 0 {
            *self.counts.entry("clock_steps".into()).or_default() += steps;
            let largest = self.counts.entry("clock_step_largest_ns".into()).or_default();
            *largest = (*largest).max(largest_ns.unsigned_abs());
        }
    }

    /// Counts stamps that were not believed; nothing where there are none.
    pub(crate) fn times_outlying(&mut self, n: u64) {
        if n > 0 {
            *self.counts.entry("times_outlying".into()).or_default() += n;
        }
    }

    /// Share of the guest's map and unmap events whose domain is known, in
    /// percent: (by evidence or a unique choice, including best guesses).
    /// `None` without such events.
    pub fn attributed_percent(&self) -> Option<(f64, f64)> {
        let none = self.count("table_changes_without_domain");
        let guessed = self.count("table_changes_by_adjacency");
        let all = self.count("table_changes");
        (all > 0).then(|| {
            let percent = |n: u64| 100.0 * n as f64 / all as f64;
            (percent(all - none - guessed), percent(all - none))
        })
    }
}

/// Damaged lines are remembered up to this number.
const FIRST_DAMAGED: usize = 5;
/// Names of ignored events are told apart up to this number.
const MAX_NAMES: usize = 64;

/// Collects what goes wrong or is left out while lines are read.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    max_errors: u64,
    damaged: u64,
    first: Vec<DamagedLine>,
    ignored: FxHashMap<Box<[u8]>, u64>,
    ignored_more: u64,
}

impl Diagnostics {
    pub(crate) fn new(max_errors: u64) -> Self {
        Diagnostics {
            max_errors,
            damaged: 0,
            first: Vec::new(),
            ignored: FxHashMap::default(),
            ignored_more: 0,
        }
    }

    /// Counts a damaged line.
    pub(crate) fn damaged(&mut self, path: &Path, line: u64, reason: &'static str) -> Result<()> {
        self.damaged += 1;
        if self.first.len() < FIRST_DAMAGED {
            self.first.push(DamagedLine { path: path.to_owned(), line, reason });
        }
        if self.damaged > self.max_errors {
            let first = self.first.first().map(ToString::to_string).unwrap_or_default();
            return Err(Error::Import {
                path: path.to_owned(),
                why: format!(
                    "more than {} damaged lines by line {line} (the first is {first}); \
                     check the file, or allow more with --max-errors",
                    self.max_errors
                ),
            });
        }
        Ok(())
    }

    /// Counts an event of a kind that importers do not use.
    pub(crate) fn ignored(&mut self, name: &[u8]) {
        if let Some(n) = self.ignored.get_mut(name) {
            *n += 1;
        } else if self.ignored.len() < MAX_NAMES && name.len() <= 64 {
            self.ignored.insert(name.into(), 1);
        } else {
            self.ignored_more += 1;
        }
    }

    /// Hands the numbers over.
    pub(crate) fn finish(self, report: &mut ImportReport) {
        report.counts.insert("lines_damaged".into(), self.damaged);
        let mut all = self.ignored_more;
        for (name, n) in &self.ignored {
            all += n;
            report.counts.insert(format!("ignored.{}", String::from_utf8_lossy(name)), *n);
        }
        if self.ignored_more > 0 {
            report.counts.insert("ignored.(more)".into(), self.ignored_more);
        }
        report.counts.insert("lines_ignored".into(), all);
        report.damaged = self.first;
    }
}
