//! `ioasim trace`.

use anyhow::Result;
use ioasim_traces::stats::TraceStats;

use crate::cli::{Import, Info};
use crate::drive;

/// Imports logs.
pub fn import(_args: &Import, _quiet: bool) -> Result<()> {
    todo!()
}

/// Says what is in a trace.
pub fn info(args: &Info) -> Result<()> {
    let reader = drive::open(Some(&args.trace))?;
    let stats = TraceStats::collect(&reader)?;
    let text = if args.json {
        serde_json::to_string_pretty(&stats)? + "\n"
    } else {
        stats.render_text(80)
    };
    super::print(text.as_bytes())
}
