//! Importing: what a file is, by its content, and its events.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::Ordering;

use ioasim_events::{Event, Kind};

use super::dma_only::Mapper;
use super::{csv, hypersio, json_lines, oracle_general, refuse};
use crate::file::{Meta, SCHEMA, Source, Summary, TraceWriter};
use crate::generate::Control;
use crate::input::{ByteInput, open_bytes};
use crate::{Error, Result};

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
/// Longest line.
const MAX_LINE: usize = 1 << 20;

/// Tells the format of a file by its beginning, compressed or not; nothing if
/// it is none of these.
///
/// # Errors
/// If it cannot be read.
pub fn tell(path: &Path) -> Result<Option<Foreign>> {
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
    Ok(tell_bytes(&head))
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
    if trimmed.contains(&b',') && trimmed.is_ascii() && !trimmed.contains(&0) {
        let header = ::csv::ByteRecord::from(trimmed.split(|b| *b == b',').collect::<Vec<_>>());
        return csv::Columns::of(&header).is_ok().then_some(Foreign::Csv);
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

/// A line of bounded length; what is longer is an error.
struct Lines<'a> {
    input: &'a mut ByteInput,
    buffer: Vec<u8>,
    at: usize,
    number: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<Result<&[u8], String>>> {
        self.number += 1;
        let mut searched = self.at;
        loop {
            if let Some(i) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                let (start, end) = (self.at, searched + i);
                self.at = end + 1;
                return Ok(Some(Ok(self.buffer[start..end].trim_ascii_end())));
            }
            if self.buffer.len() - self.at > MAX_LINE {
                let why = format!("the line is longer than {MAX_LINE} bytes");
                return Err(refuse(self.input.path(), format!("line {}: {why}", self.number)));
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            searched = self.buffer.len();
            let old = searched;
            self.buffer.resize(old + (1 << 16), 0);
            let n = match self.input.read(&mut self.buffer[old..]) {
                Ok(n) => n,
                Err(e) => return Err(self.input.error(e)),
            };
            self.buffer.truncate(old + n);
            if n == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                self.at = self.buffer.len();
                return Ok(Some(Ok(self.buffer.trim_ascii_end())));
            }
        }
    }
}

/// What an import writes to.
struct Sink<'a, 'b> {
    writer: TraceWriter,
    path: &'a Path,
    control: &'a mut Control<'b>,
    mapper: Option<Mapper>,
    last_ns: u64,
    maps: u64,
    clamped: u64,
    records: u64,
    damaged: u64,
    max_errors: u64,
    first_damage: Option<String>,
}

impl Sink<'_, '_> {
    fn event(&mut self, mut e: Event, text: Option<&str>) -> Result<(), Error> {
        if e.time_ns < self.last_ns {
            e.time_ns = self.last_ns;
            self.clamped += 1;
        }
        self.last_ns = e.time_ns;
        let writer = &mut self.writer;
        match (&mut self.mapper, text) {
            (Some(mapper), _) if e.kind == Kind::Dma => {
                self.maps += mapper.event(&e, &mut |e| writer.push(e))?;
                Ok(())
            }
            (_, Some(text)) if e.kind == Kind::Marker => writer.push_marker(&e, text),
            _ => writer.push(&e),
        }
    }

    /// One more record, for progress.
    fn tick(&mut self, done: u64, total: u64) -> Result<()> {
        self.records += 1;
        if self.records.is_multiple_of(65_536) {
            self.control.tick(self.path, done, total.max(done))?;
        }
        Ok(())
    }

    fn damage(&mut self, place: &str, why: &str) -> Result<()> {
        self.damaged += 1;
        let what = format!("{place}: {why}");
        if self.damaged > self.max_errors {
            let limit = format!("more than {} damaged; see --max-errors", self.max_errors);
            return Err(refuse(self.path, format!("{what} ({limit})")));
        }
        self.first_damage.get_or_insert(what);
        Ok(())
    }
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
                "it is no JSON lines, CSV, oracleGeneral or HyperSIO trace; name the \
                          format with --format",
            )
        })?,
    };
    let mut input = open_bytes(path)?;
    let mut meta = Meta::default();
    let writer = TraceWriter::create(output)?;
    let accesses_only = !matches!(format, Foreign::JsonLines | Foreign::Csv);
    let mut sink = Sink {
        writer,
        path,
        control,
        mapper: (accesses_only && options.maps).then(Mapper::default),
        last_ns: 0,
        maps: 0,
        clamped: 0,
        records: 0,
        damaged: 0,
        max_errors: options.max_errors,
        first_damage: None,
    };
    match format {
        Foreign::JsonLines => json(&mut input, &mut sink, &mut meta)?,
        Foreign::Csv => table(&mut input, &mut sink, options.maps)?,
        Foreign::OracleGeneral => oracle(&mut input, &mut sink, options.dense_ids)?,
        Foreign::HypersioText => hypersio_text(&mut input, &mut sink)?,
        Foreign::HypersioBinary => hypersio_binary(&mut input, &mut sink)?,
    }
    if sink.records == 0 {
        return Err(refuse(path, format!("it holds no event of the format {}", format.name())));
    }
    meta.sources.push(Source { role: format.name().into(), ..input.finish()? });
    meta.tool = concat!("ioasim ", env!("CARGO_PKG_VERSION")).into();
    let whole = format == Foreign::JsonLines && !meta.importer.is_empty();
    if !whole {
        meta.created_by = "trace import".into();
        meta.importer = format!("import {}", format.name());
    }
    let counts = [
        ("records", sink.records),
        ("lines_damaged", sink.damaged),
        ("times_clamped", sink.clamped),
        ("maps_inferred", sink.maps),
    ];
    for (name, n) in counts.into_iter().filter(|c| c.1 > 0 && !(whole && c.0 == "records")) {
        *meta.import_counts.entry(name.into()).or_default() += n;
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
    sink.writer.finish(meta)
}

fn json(input: &mut ByteInput, sink: &mut Sink<'_, '_>, meta: &mut Meta) -> Result<()> {
    let mut lines = Lines { input, buffer: Vec::new(), at: 0, number: 0 };
    let mut first = true;
    loop {
        let Some(line) = lines.next()? else { return Ok(()) };
        let line = match line {
            Ok([]) => continue,
            Ok(line) => line,
            Err(why) => return Err(refuse(sink.path, why)),
        };
        if std::mem::take(&mut first)
            && let Ok(head) = serde_json::from_slice::<json_lines::Head>(line)
        {
            if head.schema != SCHEMA {
                return Err(Error::Schema {
                    path: sink.path.to_owned(),
                    found: head.schema.chars().take(60).collect(),
                    expected: SCHEMA,
                });
            }
            *meta = head.meta;
            continue;
        }
        let row = serde_json::from_slice::<json_lines::Row>(line).map_err(|e| e.to_string());
        let event = row.as_ref().map_err(String::clone).and_then(|r| r.event());
        match event {
            Ok((e, text)) => sink.event(e, text)?,
            Err(why) => {
                let place = format!("line {}", lines.number);
                sink.damage(&place, &why)?;
            }
        }
        let done = lines.input.raw_bytes_read();
        sink.tick(done, lines.input.raw_bytes_total())?;
    }
}

/// A reader that refuses a line without an end before the CSV reader takes it
/// into memory.
struct Bounded<'a> {
    input: &'a mut ByteInput,
    run: usize,
}

impl Read for Bounded<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.input.read(into)?;
        self.run = match memchr::memrchr(b'\n', &into[..n]) {
            Some(i) => n - i,
            None => self.run + n,
        };
        if self.run > MAX_LINE {
            let why = format!("a line is longer than {MAX_LINE} bytes");
            return Err(std::io::Error::other(why));
        }
        Ok(n)
    }
}

fn table(input: &mut ByteInput, sink: &mut Sink<'_, '_>, maps: bool) -> Result<()> {
    let path = input.path().to_owned();
    let total = input.raw_bytes_total();
    let read = input.raw_counter();
    let bounded = Bounded { input, run: 0 };
    let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(bounded);
    let fail = |e: ::csv::Error| refuse(&path, e.to_string());
    let columns =
        csv::Columns::of(reader.byte_headers().map_err(fail)?).map_err(|e| refuse(&path, e))?;
    if columns.accesses_only && maps {
        sink.mapper = Some(Mapper::default());
    }
    let mut row = ::csv::ByteRecord::new();
    while reader.read_byte_record(&mut row).map_err(fail)? {
        match columns.event(&row) {
            Ok((e, text)) => sink.event(e, text.as_deref())?,
            Err(why) => {
                let line = row.position().map_or(0, ::csv::Position::line);
                sink.damage(&format!("line {line}"), &why)?;
            }
        }
        sink.tick(read.load(Ordering::Relaxed), total)?;
    }
    Ok(())
}

/// Calls `f` with every record of `N` bytes.
fn records<const N: usize>(
    input: &mut ByteInput,
    mut f: impl FnMut(&[u8; N], u64, u64) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; N * 4096];
    let mut have = 0;
    let mut number = 0;
    loop {
        let n = match input.read(&mut buffer[have..]) {
            Ok(n) => n,
            Err(e) => return Err(input.error(e)),
        };
        have += n;
        let whole = have / N * N;
        for record in buffer[..whole].as_chunks::<N>().0 {
            f(record, number, input.raw_bytes_read())?;
            number += 1;
        }
        buffer.copy_within(whole..have, 0);
        have -= whole;
        if n == 0 && have > 0 {
            let why = format!("it ends within record {number} of {N} bytes; copy it again");
            return Err(refuse(input.path(), why));
        }
        if n == 0 {
            return Ok(());
        }
    }
}

fn oracle(input: &mut ByteInput, sink: &mut Sink<'_, '_>, dense: bool) -> Result<()> {
    let total = input.raw_bytes_total();
    let mut numbers = rustc_hash::FxHashMap::default();
    records(input, |bytes, number, done| {
        let mut record = oracle_general::Record::decode(bytes);
        if dense {
            let next = numbers.len() as u64;
            let page = *numbers.entry(record.object).or_insert(next);
            record.object = 1 << oracle_general::PAGE_BITS | (page + 16);
        } else if record.object >> (oracle_general::PAGE_BITS + 18) != 0 {
            let why = format!(
                "object {:#x} of record {number} is no page number; give --dense-ids to number \
                 objects by first use",
                record.object
            );
            return Err(refuse(sink.path, why));
        }
        sink.event(record.event(), None)?;
        sink.tick(done, total)
    })
}

fn hypersio_binary(input: &mut ByteInput, sink: &mut Sink<'_, '_>) -> Result<()> {
    let total = input.raw_bytes_total();
    records(input, |bytes, number, done| {
        match hypersio::record(bytes) {
            // It has no clock: a microsecond from record to record.
            Ok(e) => sink.event(Event { time_ns: number * 1000, ..e }, None)?,
            Err(why) => sink.damage(&format!("record {number}"), &why)?,
        }
        sink.tick(done, total)
    })
}

fn hypersio_text(input: &mut ByteInput, sink: &mut Sink<'_, '_>) -> Result<()> {
    let mut lines = Lines { input, buffer: Vec::new(), at: 0, number: 0 };
    let mut events = 0;
    while let Some(line) = lines.next()? {
        let found = line.and_then(hypersio::line);
        match found {
            Ok(None) => continue,
            Ok(Some(e)) => {
                sink.event(Event { time_ns: events * 1000, ..e }, None)?;
                events += 1;
            }
            Err(why) => {
                let place = format!("line {}", lines.number);
                sink.damage(&place, &why)?;
            }
        }
        let done = lines.input.raw_bytes_read();
        sink.tick(done, lines.input.raw_bytes_total())?;
    }
    Ok(())
}
