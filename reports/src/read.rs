//! Reading a `result.json`, with errors that say what is wrong with it.

use std::path::Path;

use serde::Deserialize;

use crate::document::{Document, SCHEMA};
use crate::error::{Error, Result};

impl Document {
    /// Reads a `result.json`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is truncated, is no JSON, is no ioasim result,
    /// was written by a newer version, lacks a key, or its numbers contradict
    /// each other.
    pub fn read(path: &Path) -> Result<Document> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Document::from_json(&bytes, &path.display().to_string())
    }

    /// Parses the text of a `result.json`; `name` stands in error messages.
    ///
    /// # Errors
    ///
    /// As for [`Document::read`], without the reading.
    pub fn from_json(bytes: &[u8], name: &str) -> Result<Document> {
        // Keys that a later minor version added are ignored; the schema key is
        // looked at first so that a foreign file gets the right message.
        #[derive(Deserialize)]
        struct Head {
            schema: Option<String>,
        }
        let name = || name.to_owned();
        let head: Head = serde_json::from_slice(bytes).map_err(|e| syntax(name(), &e))?;
        let found = head.schema.ok_or_else(|| Error::NotAResult { name: name() })?;
        if found != SCHEMA {
            return Err(if is_newer(&found) {
                Error::NewerSchema { name: name(), found }
            } else {
                Error::WrongSchema { name: name(), found }
            });
        }
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|e| Error::Shape { name: name(), reason: e.to_string() })?;
        match document.contradiction() {
            Some(reason) => Err(Error::Content { name: name(), reason }),
            None => Ok(document),
        }
    }

    /// What no replay can have written.
    fn contradiction(&self) -> Option<String> {
        if self.runs.is_empty() {
            return Some("it holds no run".into());
        }
        self.runs.iter().enumerate().find_map(|(i, run)| {
            let c = &run.counters.iotlb;
            let same = c.hits.checked_add(c.misses) == Some(c.lookups);
            (!same).then(|| {
                format!(
                    "in run {} the IOTLB's {} hits and {} misses are not its {} lookups",
                    i + 1,
                    c.hits,
                    c.misses,
                    c.lookups
                )
            })
        })
    }

    /// The text of a `result.json`: indented, with a final newline.
    ///
    /// # Errors
    ///
    /// Only if serialisation fails, which is a bug.
    pub fn to_json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::Serialise { what: "result.json", source })?;
        text.push('\n');
        Ok(text)
    }
}

fn syntax(name: String, e: &serde_json::Error) -> Error {
    if e.is_eof() {
        Error::Truncated { name, line: e.line(), column: e.column() }
    } else if e.is_data() {
        // Valid JSON, but not an object with a text under "schema".
        Error::NotAResult { name }
    } else {
        Error::NotJson { name, reason: e.to_string() }
    }
}

/// True for `ioasim.result/N` with N beyond this version's.
fn is_newer(found: &str) -> bool {
    let version = |s: &str| s.strip_prefix("ioasim.result/")?.parse::<u32>().ok();
    match (version(found), version(SCHEMA)) {
        (Some(theirs), Some(ours)) => theirs > ours,
        _ => false,
    }
}
