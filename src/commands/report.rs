//! `ioasim report`.

use std::path::PathBuf;

use anyhow::Result;
use ioasim_reports::{Document, render_comparison, write_all};

use crate::cli::Report;
use crate::files::refuse_same;

/// Makes the report again.
pub fn run(args: &Report) -> Result<()> {
    let documents: Vec<Document> =
        args.results.iter().map(|p| Document::read(p)).collect::<Result<_, _>>()?;
    let mut outputs = vec![args.output.join("index.html"), args.output.join("runs.csv")];
    for (i, document) in documents.iter().enumerate() {
        let name = match documents.len() {
            1 => "result.json".to_owned(),
            _ => format!("result-{}.json", i + 1),
        };
        let output = args.output.join(name);
        // A result that stays what it is is not lost: a report may be made
        // again in its own folder.
        let text = document.to_json()?;
        if !std::fs::read(&output).is_ok_and(|old| old == text.as_bytes()) {
            outputs.push(output);
        }
    }
    let inputs = args.results.iter().map(PathBuf::as_path);
    refuse_same(inputs, outputs.iter().map(PathBuf::as_path))?;
    let written = write_all(&args.output, &documents)?;
    super::print(render_comparison(&documents, Some(&written)).as_bytes())
}
