//! Traces of `ioasim`: the native Parquet file, text importers, statistics and
//! the embedded sample.
//!
//! * [`mod@file`]: write and read the native file; replay reads [`Chunk`]s from a
//!   [`file::TraceReader`].
//! * [`input`]: lines of text logs, compressed or not, read once.
//! * [`import`]: text logs to events.
//! * [`exchange`]: other programs' formats, out and in.
//! * [`generate`]: parent-change workloads, over a trace or a made-up guest.
//! * [`perfetto`]: an encoder of Perfetto's timelines.
//! * [`stats`]: what `ioasim trace info` prints.
//! * [`tools`]: slice, merge, replicate, anonymize, diff.
//! * [`sample()`]: a small trace inside the program.
//!
//! [`Chunk`]: ioasim_events::Chunk

pub mod error;
pub mod exchange;
pub mod file;
pub mod generate;
pub mod import;
pub mod input;
pub mod perfetto;
mod sample;
pub mod stats;
pub mod tools;

pub use error::{Error, Result};
pub use ioasim_events as events;
pub use sample::sample;
