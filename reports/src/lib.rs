//! ioasim's reports: run results in, terminal tables, `result.json`,
//! `runs.csv` and `index.html` out.
//!
//! The unit is a [`Document`]: one trace and the results of its runs under
//! several configurations. A command line makes one from what it replayed, or
//! reads it back from a `result.json`, and then
//!
//! * [`write_all`] puts `index.html`, `result.json` and `runs.csv` into a
//!   folder, each file complete or not at all;
//! * [`render_comparison`] and [`render_replay`] give text for a terminal,
//!   at most 80 columns wide;
//! * [`render_verify`] says what a verification compared and found.
//!
//! Everything is a pure function of the documents: no clock, no host name, no
//! randomness, so the same results give the same bytes. Every name that comes
//! from a file (paths, markers, devices, configurations) is treated as hostile
//! text: escaped in HTML and SVG, stripped of control characters in terminals.
//!
//! ```
//! # fn main() -> Result<(), ioasim_reports::Error> {
//! use ioasim_reports::{Document, TraceSection, Version};
//! let document = Document::new(Version::default(), TraceSection::default(), Vec::new());
//! let folder = tempfile::tempdir().expect("temporary folder");
//! let written = ioasim_reports::write_all(folder.path(), &[document])?;
//! assert_eq!(written.files.len(), 3);
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod config;
mod csv;
mod document;
mod error;
mod figures;
mod format;
mod histograms;
mod html;
mod measure;
mod read;
pub mod study;
mod summary;
mod tables;
pub mod trace_info;
mod write;

pub use csv::runs_csv;
pub use document::{Document, MadeUp, Marker, SCHEMA, Source, TraceSection, Version};
pub use error::{Error, Result};
pub use histograms::write_histograms;
pub use html::index_html;
pub use measure::Measures;
pub use tables::{render_comparison, render_replay, render_verify};
pub use write::{Written, write_all, write_json};

/// The JSON Schema (draft 2020-12) of `result.json`, units included.
pub const RESULT_SCHEMA: &str = include_str!("../schema/result.schema.json");
