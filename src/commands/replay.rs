//! `ioasim replay`.

use std::path::Path;

use anyhow::{Result, bail};
use ioasim_reports::{render_replay, render_verify, write_json};
use ioasim_sim::results::{RunResult, Verify};

use super::records;
use crate::cli::Replay;
use crate::{configs, document, drive};

/// Replays under one configuration.
pub fn run(args: &Replay, quiet: bool) -> Result<()> {
    let settings = configs::with_warm_up(&args.settings, args.warm_up);
    let config = configs::load(&args.config, &settings)?;
    let trace = Some(args.trace.as_path());
    let reader = drive::open(trace)?;
    let configs = [config];
    let watch = records::watch(&configs, &args.histograms, Some(&args.timeline))?;
    let watched = drive::replay_all(&reader, &configs, args.verify, &watch, 1, quiet)?;
    let (runs, kept): (Vec<_>, Vec<_>) = watched.into_iter().unzip();
    let mut written = records::write_histograms(&args.histograms, &configs, &kept)?;
    written += &records::write_timeline(&args.timeline, &configs[0], kept)?;
    let failed = failures(&runs);
    let document = document::assemble(&reader, trace, runs)?;
    match &args.json {
        // JSON on stdout stays alone there.
        Some(path) if path == Path::new("-") => super::print(document.to_json()?.as_bytes())?,
        Some(path) => {
            write_json(path, &document)?;
            super::print(render_replay(&document).as_bytes())?;
        }
        None => super::print(render_replay(&document).as_bytes())?,
    }
    if args.json.as_deref() != Some(Path::new("-")) {
        super::print(written.as_bytes())?;
    }
    if !failed.is_empty() {
        if args.json.is_some() {
            eprint!("{}", document.runs.iter().map(render_verify).collect::<String>());
        }
        bail!("verification found differences under {}", failed.join(", "));
    }
    Ok(())
}

/// Names of the runs whose verification failed.
pub fn failures(runs: &[RunResult]) -> Vec<String> {
    let failed = |r: &&RunResult| r.verify.as_ref().is_some_and(|v: &Verify| !v.passed());
    let name = |r: &RunResult| r.config["name"].as_str().unwrap_or_default().to_string();
    runs.iter().filter(failed).map(name).collect()
}
