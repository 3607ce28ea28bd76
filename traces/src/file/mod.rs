//! The native trace file: Parquet with zstd, one row per event.
//!
//! `docs/trace-format.md` describes columns and metadata for other programs.

mod decode;
mod encode;
mod markers;
mod meta;
mod reader;
mod schema;
mod source;
mod sum;
mod writer;

pub use decode::{CHUNK_EVENTS, ChunkDecoder, ChunkStream};
pub use markers::Markers;
pub use meta::{Marker, Meta, Source, Summary, Synthetic, Totals};
pub use reader::TraceReader;
pub use schema::{ROW_GROUP_EVENTS, SCHEMA};
pub use writer::TraceWriter;
