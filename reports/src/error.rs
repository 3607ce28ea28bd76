//! What can go wrong: one sentence each, with what, where and the remedy.

use std::path::PathBuf;

use crate::document::SCHEMA;

/// Result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a report could not be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A histogram cannot be encoded.
    #[error("a histogram cannot be encoded: {0}; report this as a defect of ioasim")]
    Histogram(String),
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}; check the path and its permissions", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The JSON text ends in the middle of a value.
    #[error(
        "{name} is truncated: it ends inside a value at line {line}, column {column}; \
         write it again with `ioasim replay --json` or `ioasim compare`"
    )]
    Truncated {
        /// The file.
        name: String,
        /// Line of the end, from 1.
        line: usize,
        /// Column of the end, from 1.
        column: usize,
    },
    /// The text is not JSON.
    #[error("{name} is not JSON: {reason}; give a result.json that ioasim wrote")]
    NotJson {
        /// The file.
        name: String,
        /// The parser's reason, with line and column.
        reason: String,
    },
    /// The JSON value has no `schema` key.
    #[error(
        "{name} has no \"schema\" key, so it is no ioasim result; give a file with \"schema\": \"{SCHEMA}\""
    )]
    NotAResult {
        /// The file.
        name: String,
    },
    /// The document is of another kind.
    #[error(
        "{name} has schema {found:?}, but a report is made from {SCHEMA:?}; give a result.json that ioasim wrote"
    )]
    WrongSchema {
        /// The file.
        name: String,
        /// Its schema.
        found: String,
    },
    /// The document is of a later version.
    #[error(
        "{name} has schema {found:?}, newer than {SCHEMA:?} that this ioasim reads; update ioasim"
    )]
    NewerSchema {
        /// The file.
        name: String,
        /// Its schema.
        found: String,
    },
    /// A key is missing or has the wrong type.
    #[error(
        "{name} does not follow {SCHEMA}: {reason}; replay the trace again to get a complete result"
    )]
    Shape {
        /// The file.
        name: String,
        /// The key and the place.
        reason: String,
    },
    /// Its numbers contradict each other, or there are none.
    #[error("{name} cannot be reported: {reason}; replay the trace again to get a whole result")]
    Content {
        /// The file.
        name: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A report of nothing was asked for.
    #[error("there is nothing to report: no result was given; name at least one result.json")]
    NoDocuments,
    /// The folder cannot be made or written to.
    #[error(
        "cannot write the report into folder {}: {source}; name a folder that you may write to with -o DIR",
        .path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(
        "cannot write {}: {source}; free space or name another place (nothing half-written was left there)",
        .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A value could not be turned into JSON.
    #[error("cannot serialise {what}: {source}; this is a bug in ioasim, please report it")]
    Serialise {
        /// What was being written.
        what: &'static str,
        /// The serialiser's reason.
        source: serde_json::Error,
    },
    /// A figure could not be drawn.
    #[error(
        "cannot draw the figure {figure:?}: {reason}; this is a bug in ioasim, please report it"
    )]
    Figure {
        /// The figure.
        figure: &'static str,
        /// The backend's reason.
        reason: String,
    },
    /// The page's template failed.
    #[error("cannot fill in the page: {source}; this is a bug in ioasim, please report it")]
    Template {
        /// The template engine's reason.
        #[from]
        source: minijinja::Error,
    },
}
