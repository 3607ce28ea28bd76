//! Queries for DuckDB, ready to run on a trace.

use std::path::Path;

/// Definitions and queries on the trace at `path`: hit rates, events, hot
/// pages, lifetimes of maps, working set, bursts.
pub fn queries(path: &Path) -> String {
    // A quote ends a string in SQL; two are one.
    include_str!("queries.sql").replace("TRACE", &path.display().to_string().replace('\'', "''"))
}
