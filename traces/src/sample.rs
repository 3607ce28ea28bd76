//! The trace that is part of the program.

/// The embedded sample trace, a complete native file; open it with
/// [`TraceReader::from_bytes`](crate::file::TraceReader::from_bytes).
///
/// `ioasim compare` without a trace replays it.
pub fn sample() -> &'static [u8] {
    include_bytes!("../samples/sample.parquet")
}
