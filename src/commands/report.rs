//! `ioasim report`.

use anyhow::Result;
use ioasim_reports::{Document, render_comparison, write_all};

use crate::cli::Report;

/// Makes the report again.
pub fn run(args: &Report) -> Result<()> {
    let documents: Vec<Document> =
        args.results.iter().map(|p| Document::read(p)).collect::<Result<_, _>>()?;
    let written = write_all(&args.output, &documents)?;
    super::print(render_comparison(&documents, Some(&written)).as_bytes())
}
