//! Statistics of a trace (skeleton: signatures only, body follows).
#![allow(missing_docs, unused_variables)]
use ioasim_events::Chunk;
use serde::Serialize;
use crate::Result;
use crate::file::{Meta, TraceReader};

/// What `ioasim trace info` prints; serialise it for `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct TraceStats {}
impl TraceStats {
    /// Reads the whole trace.
    pub fn collect(reader: &TraceReader) -> Result<TraceStats> { Ok(TraceStats {}) }
    /// Text of at most `width` columns (at least 60).
    pub fn render_text(&self, width: usize) -> String { String::new() }
}
/// Collects [`TraceStats`] chunk by chunk.
#[derive(Debug)]
pub struct StatsBuilder {}
impl StatsBuilder {
    pub fn new(meta: &Meta) -> StatsBuilder { StatsBuilder {} }
    pub fn add(&mut self, chunk: &Chunk) { }
    pub fn finish(self) -> TraceStats { TraceStats {} }
}
