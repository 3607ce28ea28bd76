//! The error type of this crate.
//!
//! Each message is one sentence: what failed, where, the limit if one was
//! crossed, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// [`std::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a trace or a log could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb ("open", "read", ...).
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },

    /// The file is not Parquet at all.
    #[error("{} is not an ioasim trace ({why}); import logs with `ioasim trace import {} -o T.parquet`", path.display(), path.display())]
    NotATrace {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },

    /// The file is a trace of another schema version.
    #[error("{} has trace schema \"{found}\" but this ioasim reads \"{expected}\"; use the ioasim that wrote it or import the logs again", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Schema named in the file.
        found: String,
        /// Schema of this program.
        expected: &'static str,
    },

    /// A column is missing or has another type.
    #[error("{}: column \"{column}\" {why}; import the logs again with this ioasim", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Name of the column.
        column: &'static str,
        /// What is wrong with it.
        why: String,
    },

    /// The file's bytes contradict each other: truncated or overwritten.
    #[error("{} is damaged ({why}); copy or import it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The contradiction, with the row or offset where known.
        why: String,
    },

    /// An event's kind code is not one of [`ioasim_events::Kind`].
    #[error("{}: row {row} has unknown event kind {code} (this ioasim knows 0 to {max}); use a newer ioasim or import the logs again", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
        /// 0-based row.
        row: u64,
        /// The code.
        code: i32,
        /// Largest code known.
        max: i32,
    },

    /// Events were not in the order of their times.
    #[error("{}: event {row} is at {time_ns} ns, before its predecessor at {previous_ns} ns; events must be written in causal order with times that never decrease", path.display())]
    TimeOrder {
        /// The file being written.
        path: PathBuf,
        /// 0-based number of the event.
        row: u64,
        /// Its time.
        time_ns: u64,
        /// Time of the event before it.
        previous_ns: u64,
    },

    /// An event cannot be stored.
    #[error("{}: event {row} cannot be written: {why}", path.display())]
    BadEvent {
        /// The file being written.
        path: PathBuf,
        /// 0-based number of the event.
        row: u64,
        /// The reason.
        why: String,
    },

    /// The Parquet library failed while writing.
    #[error("cannot write {}: {why}; check the free space of its directory", path.display())]
    Write {
        /// The file being written.
        path: PathBuf,
        /// The library's message.
        why: String,
    },

    /// A compressed log ends early or its stream is broken.
    #[error("{} ({format}): {why}; check it with `{check}` and copy it again", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// "zstd", "gzip" or "xz".
        format: &'static str,
        /// What went wrong, with the position in the uncompressed text.
        why: String,
        /// A shell command that checks the file.
        check: String,
    },

    /// A log is not text.
    #[error("{} is {what}, not a text log; {remedy}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do with it.
        remedy: &'static str,
    },

    /// Options of a generator or overlay contradict each other or are out of
    /// their limits.
    #[error(transparent)]
    Options(#[from] crate::generate::OptionError),

    /// A log (or several that belong together) could not be imported, or a
    /// trace not overlaid.
    #[error("{}: {why}", path.display())]
    Import {
        /// The log.
        path: PathBuf,
        /// What, where and what to do, one sentence.
        why: String,
    },
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.to_owned(), source }
    }

    /// An [`Error::Damaged`].
    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_owned(), why: why.into() }
    }
}
