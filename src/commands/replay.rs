//! `ioasim replay`.

use std::path::Path;

use anyhow::{Result, bail};
use ioasim_reports::{render_replay, render_verify, write_json};
use ioasim_sim::results::{RunResult, Verify};

use super::records;
use crate::cli::Replay;
use crate::files::refuse_same;
use crate::{configs, document, drive};

/// Replays under one configuration.
pub fn run(args: &Replay, quiet: bool) -> Result<()> {
    let json = args.json.as_deref();
    let timeline = args.timeline.timeline.as_deref();
    refuse_same(
        [args.trace.as_path(), Path::new(&args.config)],
        json.filter(|path| *path != Path::new("-")).into_iter().chain(timeline),
    )?;
    let settings = configs::with_warm_up(&args.settings, args.warm_up);
    let config = configs::load(&args.config, &settings)?;
    let trace = Some(args.trace.as_path());
    let configs = [config];
    configs::check_warm_up(&configs, args.warm_up)?;
    let reader = drive::open(trace)?;
    let watch = records::watch(&configs, &args.histograms, Some(&args.timeline))?;
    let threads = args.threads.threads.into();
    let (watched, sha256) =
        drive::replay_all(&reader, &configs, args.verify, &watch, threads, quiet)?;
    let (runs, kept): (Vec<_>, Vec<_>) = watched.into_iter().unzip();
    let mut written = records::write_histograms(&args.histograms, &configs, &kept)?;
    written += &records::write_timeline(&args.timeline, &configs[0], kept)?;
    let failed = failures(&runs);
    let document = document::assemble(&reader, sha256, runs)?;
    match json {
        Some(path) if path == Path::new("-") => super::print(document.to_json()?.as_bytes())?,
        Some(path) => write_json(path, &document)?,
        None => {}
    }
    super::print_about(&[json, timeline], &(render_replay(&document) + &written))?;
    if !failed.is_empty() {
        if args.json.is_some() {
            eprint!("{}", document.runs.iter().map(render_verify).collect::<String>());
        }
        bail!("verification found differences: {}", failed.join("; "));
    }
    Ok(())
}

/// Runs that were verified and failed: by name, with what does not hold.
/// Verification of a timed run includes the laws that its books must obey.
pub fn failures(runs: &[RunResult]) -> Vec<String> {
    let mut failed = Vec::new();
    for run in runs.iter().filter(|r| r.verify.is_some()) {
        let name = run.config["name"].as_str().unwrap_or_default();
        if run.verify.as_ref().is_some_and(|v: &Verify| !v.passed()) {
            failed.push(format!("translations or operations under {name}"));
        }
        let broken = run.timing.iter().flat_map(|t| t.checks.broken());
        failed.extend(broken.map(|law| format!("simulated time under {name}: {law}")));
    }
    failed
}

#[cfg(test)]
mod tests {
    use ioasim_sim::results::timing::TimingResult;

    use super::*;

    /// A run whose times do not add up is no verified run.
    #[test]
    fn broken_books_fail_a_verified_run() {
        let mut run = RunResult {
            config: serde_json::json!({ "name": "x" }),
            counters: Default::default(),
            devices: Vec::new(),
            series: Default::default(),
            provenance: Default::default(),
            exposure: None,
            timing: Some(TimingResult::default()),
            verify: Some(Verify::default()),
        };
        assert_eq!(failures(std::slice::from_ref(&run)), [""; 0]);
        run.timing.as_mut().unwrap().checks.littles_law_residual_ps = 7;
        let failed = failures(std::slice::from_ref(&run));
        assert_eq!(failed, ["simulated time under x: Little's law is off by 7 ps"]);
        run.verify = None;
        assert_eq!(failures(&[run]), [""; 0], "nobody asked");
    }
}
