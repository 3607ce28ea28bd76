//! Traces of `ioasim`: the native Parquet file, text importers, statistics and
//! the embedded sample.
//!
//! * [`mod@file`]: write and read the native file; replay reads [`Chunk`]s from a
//!   [`file::TraceReader`].
//! * [`input`]: lines of text logs, compressed or not, read once.
//! * [`import`]: text logs to events.
//! * [`generate`]: parent-change workloads, over a trace or a made-up guest.
//! * [`stats`]: what `ioasim trace info` prints.
//! * [`sample()`]: a small trace inside the program.
//!
//! [`Chunk`]: ioasim_events::Chunk

pub mod error;
pub mod file;
pub mod generate;
pub mod import;
pub mod input;
mod sample;
pub mod stats;

pub use error::{Error, Result};
pub use sample::sample;
