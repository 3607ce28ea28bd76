//! `ioasim compare`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use ioasim_reports::{render_comparison, write_all};

use super::records;
use crate::cli::Compare;
use crate::files::refuse_same;
use crate::{configs, document, drive};

/// What it writes.
const FILES: [&str; 3] = ["index.html", "runs.csv", "result.json"];

/// Replays, prints the table, writes the report.
pub fn run(args: &Compare, quiet: bool) -> Result<()> {
    let names = match args.configs.as_slice() {
        [] => configs::DEFAULTS.map(String::from).to_vec(),
        given => given.to_vec(),
    };
    let trace = args.trace.as_deref();
    let inputs = trace.into_iter().chain(names.iter().map(Path::new));
    let outputs = FILES.map(|name| args.output.join(name));
    refuse_same(inputs, outputs.iter().map(PathBuf::as_path))?;
    let settings = configs::with_warm_up(&args.settings, args.warm_up);
    let configs = configs::load_all(&names, &settings)?;
    configs::check_warm_up(&configs, args.warm_up)?;
    let reader = drive::open(trace)?;
    let watch = records::watch(&configs, &args.histograms, None)?;
    let threads = args.threads.threads.into();
    let (watched, sha256) =
        drive::replay_all(&reader, &configs, args.verify, &watch, threads, quiet)?;
    let (runs, kept): (Vec<_>, Vec<_>) = watched.into_iter().unzip();
    let histograms = records::write_histograms(&args.histograms, &configs, &kept)?;
    let failed = super::replay::failures(&runs);
    let documents = [document::assemble(&reader, sha256, runs)?];
    let written = write_all(&args.output, &documents)?;
    super::print(render_comparison(&documents, Some(&written)).as_bytes())?;
    super::print(histograms.as_bytes())?;
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("verification found differences: {}", failed.join("; ")),
    }
}
