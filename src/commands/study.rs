//! `ioasim study`.

use std::path::PathBuf;

use anyhow::Result;
use ioasim_reports::study::{render_findings, write};

use crate::cli::{ParentChangeStudy, Study};
use crate::files::refuse_same;
use crate::study::{ALL, parent_change};

/// What `parent-change` writes, its figures apart.
const FILES: [&str; 5] = ["index.html", "study.json", "study.csv", "times.json", "times.csv"];

/// Lists or runs studies.
pub fn run(args: &Study, quiet: bool) -> Result<()> {
    match args {
        Study::List => {
            let line = |(name, what): &(&str, &str)| format!("{name:<22}{what}\n");
            super::print(ALL.iter().map(line).collect::<String>().as_bytes())
        }
        Study::ParentChange(args) => {
            let ParentChangeStudy { traces, output, quick } = args;
            let outputs = FILES.map(|name| output.join(name));
            refuse_same(traces.iter().map(PathBuf::as_path), outputs.iter().map(PathBuf::as_path))?;
            let options = parent_change::Options { quick: *quick, traces: traces.clone(), quiet };
            let study = parent_change::run(&options)?;
            let written = write(output, &study)?;
            super::print(render_findings(&study, &written).as_bytes())
        }
    }
}
