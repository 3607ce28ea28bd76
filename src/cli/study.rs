//! Arguments of `ioasim study`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `ioasim study`.
#[derive(Debug, Subcommand)]
pub enum Study {
    /// One line per study.
    List,
    /// What a parent change under shadow tables costs, by policy.
    ParentChange(ParentChangeStudy),
}

/// `ioasim study parent-change`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ioasim study parent-change --trace t.parquet -o parent-change-study

Measures every parent-change policy on forests of 10^4 to 10^7 shadow entries,
and replays the embedded sample and the traces given with parent changes laid
over them. Takes minutes and up to 4 GB of memory; --quick takes seconds.
study.json and study.csv hold counts, the same on every machine; times.json and
times.csv hold CPU times of this machine.")]
pub struct ParentChangeStudy {
    /// Recorded trace to lay parent changes over, beside the embedded sample; repeatable.
    #[arg(long = "trace", value_name = "T.parquet")]
    pub traces: Vec<PathBuf>,
    /// Folder for index.html, study.json, study.csv, times.json, times.csv and figures.
    #[arg(short, long, value_name = "DIR", default_value = "ioasim-study")]
    pub output: PathBuf,
    /// Fewer and smaller points: to try it, not to quote it.
    #[arg(long)]
    pub quick: bool,
}
