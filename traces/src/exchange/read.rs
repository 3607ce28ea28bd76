//! Importing: what a file is, by its content, and its events.

mod bytes;
mod records;
mod sink;
mod text;

use std::io::Read;
use std::path::Path;

use super::dma_only::Mapper;
use super::{csv, hypersio, oracle_general, refuse};
use crate::Result;
use crate::file::{Meta, Source, Summary, TraceWriter};
use crate::generate::Control;
use crate::import::EventSink;
use crate::input::open_bytes;
pub use bytes::{ByteSource, MemoryBytes};
use sink::Sink;

/// A foreign format that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// JSON lines with the native file's columns.
    JsonLines,
    /// Comma-separated values with named columns.
    Csv,
    /// libCacheSim's oracleGeneral.
    OracleGeneral,
    /// HyperSIO's text log.
    HypersioText,
    /// HyperSIO's binary trace.
    HypersioBinary,
}

impl Foreign {
    /// Its name on the command line and in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Foreign::JsonLines => "json-lines",
            Foreign::Csv => "csv",
            Foreign::OracleGeneral => "oracle-general",
            Foreign::HypersioText => "hypersio-text",
            Foreign::HypersioBinary => "hypersio-binary",
        }
    }
}

/// How to import.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// The format; told from the content if absent.
    pub format: Option<Foreign>,
    /// Damaged lines or records that end the import.
    pub max_errors: u64,
    /// oracleGeneral: object ids are hashes; number objects by first use.
    pub dense_ids: bool,
    /// Accesses alone: add the maps that a replay needs, marked as inferred.
    pub maps: bool,
}

impl Default for ImportOptions {
    fn default() -> ImportOptions {
        ImportOptions { format: None, max_errors: 100, dense_ids: false, maps: true }
    }
}

/// Bytes of a file's beginning that are looked at.
const SNIFF: usize = 1 << 16;

/// Tells the format of a file by its beginning, compressed or not; nothing if
/// it is none of these.
///
/// # Errors
/// If it cannot be read.
pub fn tell(path: &Path) -> Result<Option<Foreign>> {
    Ok(tell_bytes(&head(path)?))
}

/// Why a file that looks like a table of comma-separated values is none that
/// can be imported; nothing if it does not look like one, or can be.
///
/// # Errors
/// If it cannot be read.
pub fn no_table(path: &Path) -> Result<Option<String>> {
    let head = head(path)?;
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    let name = |field: &[u8]| {
        let field = field.trim_ascii();
        let word = |b: &u8| b.is_ascii_alphanumeric() || b"_- \"".contains(b);
        !field.is_empty() && field.len() <= 64 && field.iter().all(word)
    };
    let columns = || line.split(|b| *b == b',');
    if !line.contains(&b',') || !columns().all(name) {
        return Ok(None);
    }
    let why = csv::Columns::of(columns()).err();
    Ok(why.map(|why| format!("its first line looks like a CSV's, but {why}")))
}

/// A file's beginning, decompressed.
fn head(path: &Path) -> Result<Vec<u8>> {
    let mut input = open_bytes(path)?;
    let mut head = vec![0; SNIFF];
    let mut n = 0;
    while n < head.len() {
        match input.read(&mut head[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) => return Err(input.error(e)),
        }
    }
    head.truncate(n);
    Ok(head)
}

fn tell_bytes(head: &[u8]) -> Option<Foreign> {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let trimmed = line.trim_ascii();
    let has = |what: &[u8]| memchr::memmem::find(trimmed, what).is_some();
    if trimmed.starts_with(b"{") && (has(b"\"schema\"") || has(b"\"kind\"")) {
        return Some(Foreign::JsonLines);
    }
    if head.split(|b| *b == b'\n').take(4096).any(hypersio::is_own) {
        return Some(Foreign::HypersioText);
    }
    let record = |at: usize| head.get(at..at + hypersio::RECORD)?.try_into().ok();
    let translation = |at| record(at).is_some_and(|r: [u8; 48]| hypersio::record(&r).is_ok());
    if translation(0) && (head.len() < 96 || translation(48)) {
        return Some(Foreign::HypersioBinary);
    }
    if trimmed.is_ascii() && !trimmed.contains(&0) {
        let header = trimmed.split(|b| *b == b',');
        if csv::Columns::of(header).is_ok() {
            return Some(Foreign::Csv);
        }
        if trimmed.contains(&b',') {
            return None;
        }
    }
    // Times that do not decrease, and next requests that lie ahead; no text has
    // eight bytes that are such a number.
    let mut number = 0i64;
    let mut time = 0;
    let likely = head.len() >= oracle_general::RECORD
        && head.as_chunks().0.iter().all(|r| {
            let r = oracle_general::Record::decode(r);
            let next = r.next == -1 || (number + 1..1 << 48).contains(&r.next);
            let ok = r.time_s >= time && r.bytes > 0 && next;
            (time, number) = (r.time_s, number + 1);
            ok
        });
    likely.then_some(Foreign::OracleGeneral)
}

/// Imports a file of a foreign format and writes the trace to `output`, which
/// appears only if all went well.
///
/// # Errors
/// The file cannot be read, or is none of the formats; more than
/// [`ImportOptions::max_errors`] damaged lines; the writer's errors.
pub fn import(
    path: &Path,
    output: &Path,
    options: &ImportOptions,
    control: &mut Control<'_>,
) -> Result<Summary> {
    let format = match options.format {
        Some(format) => format,
        None => tell(path)?.ok_or_else(|| {
            refuse(
                path,
                "it is no JSON lines, CSV (with a column addr, address or iova), oracleGeneral or \
                 HyperSIO trace; name the format with --format",
            )
        })?,
    };
    let mut input = open_bytes(path)?;
    let mut writer = TraceWriter::create(output)?;
    let mut meta = import_events(format, &mut input, &mut writer, options, control)?;
    meta.sources.push(Source { role: format.name().into(), ..input.finish()? });
    writer.finish(meta)
}

/// Reads a file of a foreign format and hands its events to `out`, times in
/// order. What is known of them is returned as a trace's metadata, without the
/// source and the totals.
///
/// # Errors
/// The file cannot be read, or holds no event of the format; more than
/// [`ImportOptions::max_errors`] damaged lines; the sink's errors.
pub fn import_events<R: ByteSource, S: EventSink>(
    format: Foreign,
    input: R,
    out: S,
    options: &ImportOptions,
    control: &mut Control<'_>,
) -> Result<Meta> {
    let mut meta = Meta::default();
    let mut sink = Sink::new(out, input.path(), options.max_errors, control);
    let accesses_only = !matches!(format, Foreign::JsonLines | Foreign::Csv);
    if accesses_only && options.maps {
        let dense = format == Foreign::OracleGeneral && options.dense_ids;
        sink.mapper = Some(if dense { records::dense_mapper() } else { Mapper::default() });
    }
    match format {
        Foreign::JsonLines => text::json(input, &mut sink, &mut meta)?,
        Foreign::Csv => text::table(input, &mut sink, &mut meta, options.maps)?,
        Foreign::OracleGeneral => records::oracle(input, &mut sink, options.dense_ids)?,
        Foreign::HypersioText => text::hypersio(input, &mut sink)?,
        Foreign::HypersioBinary => records::hypersio(input, &mut sink)?,
    }
    sink.finish()?;
    if sink.records == sink.damaged {
        let why = format!("it holds no event of the format {}", format.name());
        return Err(refuse(&sink.path, why));
    }
    meta.tool = concat!("ioasim ", env!("CARGO_PKG_VERSION")).into();
    let whole = !meta.importer.is_empty();
    if !whole {
        meta.created_by = "trace import".into();
        meta.importer = format!("import {}", format.name());
    }
    let read = sink.records - sink.damaged;
    let missing = meta.totals.events.saturating_sub(read);
    let counts = [
        ("records", sink.records),
        ("lines_damaged", sink.damaged),
        ("events_missing", missing),
        ("times_clamped", sink.clamped),
        ("times_outlying", sink.outlying),
        ("maps_inferred", sink.maps),
    ];
    for (name, n) in counts.into_iter().filter(|c| c.1 > 0 && !(whole && c.0 == "records")) {
        *meta.import_counts.entry(name.into()).or_default() += n;
    }
    if missing > 0 {
        meta.notes.push(format!(
            "INCOMPLETE: {missing} of the {} events that its head tells of are missing; copy or export it again.",
            meta.totals.events
        ));
    }
    if sink.clamped > 0 {
        meta.notes.push(format!(
            "{} times were before the one in front of them and were raised to it.",
            sink.clamped
        ));
    }
    if sink.outlying > 0 {
        meta.notes.push(format!(
            "{} times were more than an hour ahead of those before and behind them and were not believed; \
             their events have the time of the one before.",
            sink.outlying
        ));
    }
    if let Some(damage) = &sink.first_damage {
        meta.notes.push(format!("Damaged and left out, the first of {}: {damage}.", sink.damaged));
    }
    if sink.mapper.is_some() {
        meta.notes.push(
            "Recorded are accesses alone; every map and attach is made up, targets included where \
             no output was recorded."
                .into(),
        );
    }
    Ok(meta)
}
