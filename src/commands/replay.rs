//! `ioasim replay`.

use std::path::Path;

use anyhow::{Result, bail};
use ioasim_reports::{render_replay, render_verify, write_json};
use ioasim_sim::results::{RunResult, Verify};

use crate::cli::Replay;
use crate::{configs, document, drive};

/// Replays under one configuration.
pub fn run(args: &Replay, quiet: bool) -> Result<()> {
    let settings = configs::with_warm_up(&args.settings, args.warm_up);
    let config = configs::load(&args.config, &settings)?;
    let trace = Some(args.trace.as_path());
    let reader = drive::open(trace)?;
    let runs = drive::replay_all(&reader, &[config], args.verify, 1, quiet)?;
    let failed = failures(&runs);
    let document = document::assemble(&reader, trace, runs)?;
    match &args.json {
        Some(path) if path == Path::new("-") => super::print(document.to_json()?.as_bytes())?,
        Some(path) => {
            write_json(path, &document)?;
            super::print(render_replay(&document).as_bytes())?;
        }
        None => super::print(render_replay(&document).as_bytes())?,
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
