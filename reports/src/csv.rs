//! `runs.csv`: one row per trace and run.

use serde_json::Value;

use crate::config::flatten;
use crate::document::Document;
use crate::error::{Error, Result};

/// Configuration keys that always have a column, so that scripts can rely on
/// them; all other keys follow as they occur.
const CONFIG_COLUMNS: [&str; 10] = [
    "name",
    "nesting",
    "seed",
    "child.ownership",
    "parent.ownership",
    "parent.layout",
    "sync.policy",
    "iotlb.entries",
    "iotlb.ways",
    "iotlb.replacement",
];

/// The text of `runs.csv`: a header and one row per trace and run.
///
/// Columns have the dotted names of `result.json` (`trace.*`, `config.*`,
/// `counters.*`, `provenance.*`, `verify.*`); a cell is empty where a run has
/// no such key. Cells with commas, quotes or line breaks are quoted as RFC 4180
/// says; lines end with a line feed. Text is written as it is: a spreadsheet
/// may take a name that begins with `=` for a formula.
///
/// # Errors
///
/// Only if serialisation fails, which is a bug.
pub fn runs_csv(documents: &[Document]) -> Result<String> {
    let mut columns: Vec<String> =
        CONFIG_COLUMNS.iter().map(|key| format!("config.{key}")).collect();
    let mut rows: Vec<Vec<(String, String)>> = Vec::new();
    for document in documents {
        let trace = &document.trace;
        let common = [
            ("trace.path", trace.path.clone()),
            ("trace.sha256", trace.sha256.clone()),
            ("trace.events", trace.events.to_string()),
            ("trace.end_ns", trace.end_ns.to_string()),
            ("trace.caching_mode", trace.caching_mode.clone()),
            ("trace.output_space", trace.output_space.clone()),
        ];
        for run in &document.runs {
            let mut row: Vec<(String, String)> =
                common.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            push(&mut row, "config", &run.config);
            push(&mut row, "counters", &tree(&run.counters)?);
            push(&mut row, "provenance", &tree(&run.provenance)?);
            if let Some(verify) = &run.verify {
                let mut verify = tree(verify)?;
                if let Some(map) = verify.as_object_mut() {
                    map.shift_remove("first_mismatches");
                }
                push(&mut row, "verify", &verify);
            }
            rows.push(row);
        }
    }
    let mut ordered: Vec<String> = Vec::new();
    for group in ["trace.", "config.", "counters.", "provenance.", "verify."] {
        for row in &rows {
            for (key, _) in row {
                if !columns.contains(key) {
                    columns.push(key.clone());
                }
            }
        }
        ordered.extend(columns.iter().filter(|c| c.starts_with(group)).cloned());
    }
    let mut out = String::new();
    line(&mut out, ordered.iter().map(String::as_str));
    for row in &rows {
        let cell = |column: &String| {
            row.iter().find(|(key, _)| key == column).map_or("", |(_, value)| value.as_str())
        };
        line(&mut out, ordered.iter().map(cell));
    }
    Ok(out)
}

fn tree(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|source| Error::Serialise { what: "runs.csv", source })
}

fn push(row: &mut Vec<(String, String)>, group: &str, tree: &Value) {
    for (key, value) in flatten(tree) {
        let text = match value {
            Value::String(s) => s.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        row.push((format!("{group}.{key}"), text));
    }
}

fn line<'a>(out: &mut String, cells: impl Iterator<Item = &'a str>) {
    for (i, cell) in cells.enumerate() {
        if i > 0 {
            out.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(cell);
        }
    }
    out.push('\n');
}
