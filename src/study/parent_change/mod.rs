//! The study of parent changes under shadows.

mod forests;
mod measure;
mod replays;

use std::path::PathBuf;

use anyhow::Result;
use ioasim_reports::Version;
use ioasim_reports::study::{Machine, Study};

use crate::progress::Progress;

/// What is asked for.
pub struct Options {
    /// Fewer and smaller points.
    pub quick: bool,
    /// Recorded traces beside the embedded sample.
    pub traces: Vec<PathBuf>,
    /// No progress.
    pub quiet: bool,
}

/// Runs the study.
///
/// # Errors
/// A damaged trace, a full disk, Ctrl-C.
pub fn run(options: &Options) -> Result<Study> {
    let version = Version {
        ioasim: crate::document::VERSION.into(),
        git: option_env!("IOASIM_GIT").map(Into::into),
    };
    let mut study = Study { version, quick: options.quick, machine: machine(), ..Study::default() };
    let plan = forests::plan(options.quick);
    let replays = replays::plan(options)?;
    let total = plan.iter().map(|p| p.entries).sum::<u64>() + replays.work();
    let mut progress = Progress::new(options.quiet, "study", "entries and events", total);
    let mut done = 0;
    forests::run(&plan, &mut study, &mut |n| {
        done += n;
        progress.at(done);
    })?;
    replays.run(&mut study, &mut |n| {
        done += n;
        progress.at(done);
    })?;
    progress.finish();
    Ok(study)
}

fn machine() -> Machine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    Machine {
        cpu: model.map_or("unknown processor".into(), |(_, name)| name.trim().into()),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    }
}
