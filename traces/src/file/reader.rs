//! Opening and checking a trace file.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ioasim_events::{Event, TraceInfo};
use parquet::basic::Type as Physical;
use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};
use parquet::file::reader::Length;
use parquet::schema::types::SchemaDescriptor;

use super::decode::{ChunkDecoder, ChunkStream};
use super::markers::Markers;
use super::meta::{Meta, Summary};
use super::schema;
use super::source::Source;
use crate::{Error, Result};

/// Parquet's first and last four bytes.
const MAGIC: &[u8] = b"PAR1";

/// An open and checked trace file; cheap to keep, it holds the footer only.
#[derive(Debug)]
pub struct TraceReader {
    shared: Arc<Shared>,
}

/// What decoders need.
#[derive(Debug)]
pub(super) struct Shared {
    pub path: PathBuf,
    pub source: Arc<Source>,
    pub footer: ParquetMetaData,
    pub columns: ColumnMap,
    /// One for each row group, or none if the file has none.
    pub checksums: Vec<u32>,
    meta: Meta,
}

/// Places of our columns among the file's.
#[derive(Debug)]
pub(super) struct ColumnMap {
    /// Of [`schema::COLUMNS_32`].
    pub ints: [usize; 6],
    /// Of [`schema::COLUMNS_64`].
    pub longs: [usize; 5],
    /// Of [`schema::COLUMN_TEXT`]; a file without it has no marker texts.
    pub text: Option<usize>,
}

impl TraceReader {
    /// Opens a trace and checks its footer: schema, columns and sizes.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::NotATrace`] for other
    /// files, [`Error::Schema`] for another version, [`Error::Column`] for
    /// missing columns, [`Error::Damaged`] if it contradicts itself.
    pub fn open(path: &Path) -> Result<TraceReader> {
        if path.is_dir() {
            let reason = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(Error::io("open", path, reason));
        }
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let source = Source::file(file).map_err(|e| Error::io("read", path, e))?;
        TraceReader::new(path, source)
    }

    /// Opens a trace in memory, for example [`sample`](crate::sample()); its
    /// name in messages is "(embedded)".
    ///
    /// # Errors
    /// As [`open`](TraceReader::open).
    pub fn from_bytes(bytes: &'static [u8]) -> Result<TraceReader> {
        TraceReader::new(Path::new("(embedded)"), Source::Memory(Bytes::from_static(bytes)))
    }

    fn new(path: &Path, source: Source) -> Result<TraceReader> {
        check_magic(path, &source)?;
        let footer = guard(path, || {
            // The statistics are for SQL engines; nothing here needs them.
            let mut options = ParquetMetaDataOptions::new();
            options.set_column_stats_policy(ParquetStatisticsPolicy::SkipAll);
            options.set_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
            options.set_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll);
            ParquetMetaDataReader::new()
                .with_metadata_options(Some(options))
                .parse_and_finish(&source)
        })?;
        let meta = read_meta(path, &footer)?;
        let columns = find_columns(path, footer.file_metadata().schema_descr())?;
        check_sizes(path, &footer, &columns, &meta, source.len())?;
        let checksums = read_checksums(path, &footer)?;
        let source = Arc::new(source);
        let shared = Shared { path: path.to_owned(), source, footer, columns, checksums, meta };
        Ok(TraceReader { shared: Arc::new(shared) })
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// True if it was opened with [`from_bytes`](TraceReader::from_bytes).
    pub fn is_embedded(&self) -> bool {
        matches!(*self.shared.source, Source::Memory(_))
    }

    /// Provenance and totals.
    pub fn meta(&self) -> &Meta {
        &self.shared.meta
    }

    /// What a simulation needs to know before it starts.
    pub fn info(&self) -> TraceInfo {
        self.shared.meta.trace_info()
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.shared.source.len()
    }

    /// The file as a whole.
    pub fn summary(&self) -> Summary {
        Summary {
            events: self.shared.meta.totals.events,
            file_bytes: self.file_bytes(),
            row_groups: self.shared.footer.num_row_groups() as u64,
            meta: self.shared.meta.clone(),
        }
    }

    /// Starts decoding from the first event, on a thread of its own. May be
    /// called again, also while another stream is read.
    pub fn chunks(&self) -> ChunkStream {
        ChunkStream::start(Arc::clone(&self.shared))
    }

    /// Decodes from the first event, on the thread that asks for a chunk.
    pub fn decoder(&self) -> ChunkDecoder {
        ChunkDecoder::new(Arc::clone(&self.shared))
    }

    /// Calls `f` with every event, in order, and with a marker's text.
    ///
    /// # Errors
    /// The reader's, and what `f` returns; either ends it.
    pub fn visit(&self, f: &mut dyn FnMut(&Event, Option<&str>) -> Result<()>) -> Result<()> {
        let mut texts = self.markers();
        let mut next = texts.next().transpose()?;
        for chunk in self.chunks() {
            let chunk = chunk?;
            for i in 0..chunk.len() {
                let number = chunk.first + i as u64;
                match &next {
                    Some((at, text)) if *at == number => {
                        f(&chunk.event(i), Some(text))?;
                        next = texts.next().transpose()?;
                    }
                    _ => f(&chunk.event(i), None)?,
                }
            }
        }
        Ok(())
    }

    /// The texts of markers, in order, as (event number, text).
    pub fn markers(&self) -> Markers {
        Markers::new(Arc::clone(&self.shared))
    }
}

/// Runs a call into the Parquet library; its errors and its panics mean that
/// the file is damaged.
pub(super) fn guard<T>(
    path: &Path,
    call: impl FnOnce() -> Result<T, parquet::errors::ParquetError>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::damaged(path, plain(&error))),
        Err(panic) => Err(Error::damaged(path, panic_text(&*panic))),
    }
}

/// The library's message without its error type in front.
pub(super) fn plain(error: &parquet::errors::ParquetError) -> String {
    let text = error.to_string();
    let text =
        text.split_once(": ").filter(|(kind, _)| !kind.contains(' ')).map_or(&*text, |p| p.1);
    text.trim_end_matches('.').to_owned()
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("the decoder gave up: {text}")
}

fn not_a_trace(path: &Path, why: &str) -> Error {
    Error::NotATrace { path: path.to_owned(), why: why.to_owned() }
}

/// Tells a truncated trace from a file of another kind.
fn check_magic(path: &Path, source: &Source) -> Result<()> {
    let read = |at, n| source.read(at, n).map_err(|e| Error::damaged(path, plain(&e)));
    let len = source.len();
    if len == 0 {
        return Err(not_a_trace(path, "it is empty"));
    }
    let starts = len >= 4 && read(0, 4)? == MAGIC;
    // Magic, footer length, magic.
    let ends = len >= 12 && read(len - 4, 4)? == MAGIC;
    match (starts, ends) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::damaged(
            path,
            "it starts as Parquet but has no footer at its end, so it is truncated",
        )),
        (false, _) => Err(not_a_trace(path, "no Parquet magic at its start and end")),
    }
}

/// The value of a metadata key.
fn find<'a>(footer: &'a ParquetMetaData, name: &str) -> Option<&'a str> {
    let keys = footer.file_metadata().key_value_metadata()?;
    keys.iter().find(|k| k.key == name)?.value.as_deref()
}

fn read_checksums(path: &Path, footer: &ParquetMetaData) -> Result<Vec<u32>> {
    let Some(text) = find(footer, schema::KEY_CHECKSUMS) else {
        return Ok(Vec::new());
    };
    let parse = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let sums: Option<Vec<u32>> = text.as_bytes().chunks(8).map(parse).collect();
    sums.filter(|sums| sums.len() == footer.num_row_groups() && text.len() == 8 * sums.len())
        .ok_or_else(|| Error::damaged(path, "the metadata key ioasim.crc32 has a wrong length"))
}

fn read_meta(path: &Path, footer: &ParquetMetaData) -> Result<Meta> {
    match find(footer, schema::KEY_SCHEMA) {
        None => {
            return Err(not_a_trace(path, "Parquet without the metadata key ioasim.schema"));
        }
        Some(schema::SCHEMA) => {}
        Some(other) => {
            return Err(Error::Schema {
                path: path.to_owned(),
                found: other.chars().take(60).collect(),
                expected: schema::SCHEMA,
            });
        }
    }
    let json = find(footer, schema::KEY_META)
        .ok_or_else(|| Error::damaged(path, "the metadata key ioasim.trace is missing"))?;
    serde_json::from_str(json)
        .map_err(|e| Error::damaged(path, format!("metadata key ioasim.trace: {e}")))
}

fn find_columns(path: &Path, descriptor: &SchemaDescriptor) -> Result<ColumnMap> {
    let find = |name: &'static str, physical: Physical, optional: bool| {
        let bad = |why: String| Error::Column { path: path.to_owned(), column: name, why };
        let at = descriptor
            .columns()
            .iter()
            .position(|c| c.path().parts().len() == 1 && c.name() == name)
            .ok_or_else(|| bad("is missing".into()))?;
        let column = descriptor.column(at);
        if column.physical_type() != physical {
            return Err(bad(format!("has type {} instead of {physical}", column.physical_type())));
        }
        if column.max_rep_level() != 0 || (column.max_def_level() != 0) != optional {
            let how = if optional { "optional" } else { "required" };
            return Err(bad(format!("is not declared {how}")));
        }
        Ok(at)
    };
    let mut map = ColumnMap { ints: [0; 6], longs: [0; 5], text: None };
    for (at, name) in map.ints.iter_mut().zip(schema::COLUMNS_32) {
        *at = find(name, Physical::INT32, false)?;
    }
    for (at, name) in map.longs.iter_mut().zip(schema::COLUMNS_64) {
        *at = find(name, Physical::INT64, false)?;
    }
    if descriptor.columns().iter().any(|c| c.name() == schema::COLUMN_TEXT) {
        map.text = Some(find(schema::COLUMN_TEXT, Physical::BYTE_ARRAY, true)?);
    }
    Ok(map)
}

/// Rows and byte ranges agree with each other, with the metadata and with the
/// file's length.
fn check_sizes(
    path: &Path,
    footer: &ParquetMetaData,
    columns: &ColumnMap,
    meta: &Meta,
    len: u64,
) -> Result<()> {
    let bad = |why: String| Err(Error::damaged(path, why));
    let used = columns.ints.iter().chain(&columns.longs).chain(&columns.text);
    let mut total = 0u64;
    for (g, group) in footer.row_groups().iter().enumerate() {
        let Some(rows) =
            u64::try_from(group.num_rows()).ok().filter(|r| total.checked_add(*r).is_some())
        else {
            return bad(format!("row group {g} claims {} rows", group.num_rows()));
        };
        total += rows;
        for &c in used.clone() {
            let Some(column) = group.columns().get(c) else {
                return bad(format!("row group {g} has too few columns"));
            };
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            if start < 4 || column.compressed_size() < 0 || end.is_none_or(|e| e as u64 > len) {
                let name = column.column_descr().name();
                return bad(format!("column {name} of row group {g} lies outside the file"));
            }
            if column.num_values() != group.num_rows() {
                let name = column.column_descr().name();
                return bad(format!(
                    "row group {g} has {rows} rows but its column {name} {} values",
                    column.num_values()
                ));
            }
        }
    }
    let (claimed, recorded) = (footer.file_metadata().num_rows(), meta.totals.events);
    if claimed as u64 != total || recorded != total {
        return bad(format!(
            "its row groups have {total} rows, its footer {claimed}, its metadata {recorded} events"
        ));
    }
    Ok(())
}
