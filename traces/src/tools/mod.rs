//! Traces from traces: [mod@slice], [`merge`], [`replicate`], [`anonymize`], and
//! [`diff`] between two.
//!
//! All stream; each module says what its memory depends on.

pub mod anonymize;
pub mod diff;
pub mod merge;
mod names;
pub mod replicate;
pub mod slice;

use std::path::Path;

use crate::file::{Meta, Source, TraceReader};
use crate::{Error, Result};

/// Metadata of a trace made of one other.
fn derived(reader: &TraceReader, command: &str, note: String) -> Result<Meta> {
    let mut meta = reader.meta().clone();
    meta.tool = concat!("ioasim ", env!("CARGO_PKG_VERSION")).into();
    meta.created_by = format!("trace {command}");
    meta.sources.push(source(reader)?);
    meta.notes.push(note);
    Ok(meta)
}

/// Name and checksum of a trace.
fn source(reader: &TraceReader) -> Result<Source> {
    crate::generate::source_of(reader)
}

/// An [`Error::Import`].
fn refuse(path: &Path, why: impl Into<String>) -> Error {
    Error::Import { path: path.to_owned(), why: why.into() }
}
