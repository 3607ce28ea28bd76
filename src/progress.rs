//! Progress on stderr, and Ctrl-C.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets Ctrl-C and SIGTERM ask long work to stop, so that temporary files are
/// removed; a second one ends the process at once.
pub fn install_interrupt() {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(crate::INTERRUPTED));
        }
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        eprintln!("ioasim: Ctrl-C will end the program at once ({e})");
    }
}

/// True after Ctrl-C.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The flag itself, for library code that takes one.
pub fn interrupt_flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Seconds between plain lines.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A bar on a terminal, a line every few seconds elsewhere, nothing if quiet.
pub struct Progress {
    bar: Option<ProgressBar>,
    plain: bool,
    what: &'static str,
    unit: &'static str,
    total: u64,
    start: Instant,
    last: Instant,
}

impl Progress {
    /// Progress of `what` over `total` `unit`s.
    pub fn new(quiet: bool, what: &'static str, unit: &'static str, total: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let bar = (!quiet && terminal).then(|| {
            let bar = ProgressBar::new(total);
            let template = format!(
                "{what} {{bar:30}} {{percent:>3}} %  {{human_pos}} / {{human_len}} {unit}  {{per_sec}}  {{eta}}"
            );
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar
        });
        let now = Instant::now();
        Progress { bar, plain: !quiet && !terminal, what, unit, total, start: now, last: now }
    }

    /// `done` of the total.
    pub fn at(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done.min(self.total));
        } else if self.plain && self.last.elapsed() >= HEARTBEAT {
            self.last = Instant::now();
            let rate = done as f64 / self.start.elapsed().as_secs_f64();
            eprintln!(
                "{}: {} of {} {} ({} {}/s)",
                self.what,
                HumanCount(done),
                HumanCount(self.total),
                self.unit,
                HumanCount(rate as u64),
                self.unit
            );
        }
    }

    /// Done.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
