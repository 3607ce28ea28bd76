//! Writing a trace file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crc32fast::Hasher;
use crossbeam_channel::{Receiver, Sender, bounded};
use ioasim_events::{Chunk, Event, Kind, Requester};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use tempfile::NamedTempFile;

use super::meta::{Marker, Meta, Summary, Totals};
use super::schema;
use crate::{Error, Result};

/// Text of markers that makes a row group end early, so that memory stays
/// bounded in a trace of nothing but long markers.
const MAX_GROUP_TEXT_BYTES: usize = 4 << 20;

/// Devices of a trace: its metadata names each. Four times the requester ids
/// of a PCI segment.
const MAX_DEVICES: usize = 1 << 18;

/// Writes a trace file event by event.
///
/// The file appears under its name only when [`finish`](TraceWriter::finish)
/// succeeds: until then it is a temporary file in the same directory, which
/// is removed when the writer is dropped. Encoding runs on a thread of its
/// own; at most three row groups are in memory.
#[derive(Debug)]
pub struct TraceWriter {
    path: PathBuf,
    group: Group,
    limit: usize,
    groups_sent: usize,
    tally: Tally,
    /// `None` once the encoder has ended.
    encoder: Option<Encoder>,
}

/// Events of one row group.
#[derive(Debug, Default)]
struct Group {
    events: Chunk,
    /// Row in the group and text, ascending.
    texts: Vec<(usize, String)>,
    text_bytes: usize,
}

impl Group {
    fn clear(&mut self) {
        self.events.clear();
        self.texts.clear();
        self.text_bytes = 0;
    }
}

/// What the encoder thread is asked to do.
#[expect(clippy::large_enum_variant, reason = "moved twice per row group")]
enum Job {
    Write(Group),
    /// Write the footer with these keys and hand the file back.
    Close(Vec<KeyValue>),
}

#[derive(Debug)]
struct Encoder {
    jobs: Sender<Job>,
    /// Used groups come back, so that their memory is used again.
    used: Receiver<Group>,
    thread: JoinHandle<Result<Option<NamedTempFile>, ParquetError>>,
}

impl TraceWriter {
    /// Starts a trace that will be at `path`; an existing file there is
    /// replaced by [`finish`](TraceWriter::finish).
    ///
    /// # Errors
    /// [`Error::Io`] if the directory of `path` does not exist or cannot be
    /// written.
    pub fn create(path: &Path) -> Result<TraceWriter> {
        if path.is_dir() {
            let reason = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(Error::io("create", path, reason));
        }
        let file = temporary(path).map_err(|e| Error::io("create", path, e))?;
        // One group in the channel, one being encoded, one being filled.
        let (jobs, todo) = bounded(1);
        let (give_back, used) = bounded(2);
        let thread = thread::Builder::new()
            .name("trace-encode".into())
            .spawn(move || encode(file, &todo, &give_back))
            .map_err(|e| Error::io("start a thread for", path, e))?;
        Ok(TraceWriter {
            path: path.to_owned(),
            group: Group::default(),
            limit: schema::ROW_GROUP_EVENTS,
            groups_sent: 0,
            tally: Tally::default(),
            encoder: Some(Encoder { jobs, used, thread }),
        })
    }

    /// Appends an event.
    ///
    /// # Errors
    /// [`Error::TimeOrder`] if its time is before its predecessor's;
    /// [`Error::BadEvent`] if its CPU does not fit 16 bits, or if it is of more
    /// than 262,144 devices; [`Error::Write`] if an earlier row group could not be written. The event is then not
    /// part of the trace.
    #[inline]
    pub fn push(&mut self, e: &Event) -> Result<()> {
        if e.time_ns < self.tally.end_ns
            || e.time_ns > i64::MAX as u64
            || e.cpu as i16 as i32 != e.cpu
        {
            return Err(self.refuse(e));
        }
        self.tally.add(e);
        if self.tally.devices.len() > MAX_DEVICES {
            let why =
                format!("the trace has more than {MAX_DEVICES} devices; slice or merge fewer");
            return Err(self.bad_event(why));
        }
        self.group.events.push(e);
        if self.group.events.len() >= self.limit { self.flush() } else { Ok(()) }
    }

    /// Appends a marker with its text, cut at 4,096 bytes.
    ///
    /// # Errors
    /// As [`push`](TraceWriter::push); [`Error::BadEvent`] if `e` is not a
    /// marker.
    pub fn push_marker(&mut self, e: &Event, text: &str) -> Result<()> {
        if e.kind != Kind::Marker {
            let why = format!("a text belongs to a marker, not to kind \"{}\"", e.kind.name());
            return Err(self.bad_event(why));
        }
        let text = cut(text, schema::MAX_TEXT_BYTES);
        let event = self.tally.events;
        let row = self.group.events.len();
        // Before the push, which may end the row group.
        self.group.texts.push((row, text.to_owned()));
        self.group.text_bytes += text.len();
        if let Err(error) = self.push(e) {
            // A failed order check leaves the group as it was.
            if self.group.texts.last().is_some_and(|&(r, _)| r == row) {
                self.group.texts.pop();
                self.group.text_bytes -= text.len();
            }
            return Err(error);
        }
        if self.tally.markers.len() < Totals::MAX_MARKERS {
            let text = text.to_owned();
            self.tally.markers.push(Marker { event, time_ns: e.time_ns, text });
        }
        if self.group.text_bytes >= MAX_GROUP_TEXT_BYTES { self.flush() } else { Ok(()) }
    }

    /// Completes the file and puts it in its place; [`Meta::totals`] is
    /// filled in.
    ///
    /// # Errors
    /// [`Error::Write`] or [`Error::Io`]; nothing is left behind and a file
    /// that was at the path before is still there.
    pub fn finish(mut self, mut meta: Meta) -> Result<Summary> {
        if !self.group.events.is_empty() {
            self.flush()?;
        }
        meta.totals = std::mem::take(&mut self.tally).totals();
        let json = serde_json::to_string(&meta).map_err(|e| self.write_error(e))?;
        let close = Job::Close(vec![
            key(schema::KEY_SCHEMA, schema::SCHEMA.to_owned()),
            key(schema::KEY_META, json),
            key(schema::KEY_KINDS, schema::kinds_json().to_string()),
            key(schema::KEY_FLAGS, schema::flags_json().to_string()),
        ]);
        self.send(close)?;
        let file = self.join()?.ok_or_else(|| self.write_error("the encoder ended early"))?;
        let file_bytes =
            file.as_file().metadata().map_err(|e| Error::io("write", &self.path, e))?.len();
        file.persist(&self.path).map_err(|e| Error::io("replace", &self.path, e.error))?;
        Ok(Summary {
            events: meta.totals.events,
            file_bytes,
            row_groups: self.groups_sent as u64,
            meta,
        })
    }

    /// Gives up: nothing is left behind. Dropping the writer does the same.
    pub fn abort(self) {}

    #[cold]
    fn refuse(&self, e: &Event) -> Error {
        if e.time_ns < self.tally.end_ns {
            return Error::TimeOrder {
                path: self.path.clone(),
                row: self.tally.events,
                time_ns: e.time_ns,
                previous_ns: self.tally.end_ns,
            };
        }
        self.bad_event(if e.cpu as i16 as i32 != e.cpu {
            format!("CPU {} does not fit 16 bits", e.cpu)
        } else {
            format!("time {} ns does not fit 63 bits", e.time_ns)
        })
    }

    fn bad_event(&self, why: String) -> Error {
        Error::BadEvent { path: self.path.clone(), row: self.tally.events, why }
    }

    fn write_error(&self, why: impl ToString) -> Error {
        Error::Write { path: self.path.clone(), why: why.to_string() }
    }

    /// Hands the filled group to the encoder.
    fn flush(&mut self) -> Result<()> {
        let mut empty = match &self.encoder {
            Some(encoder) => encoder.used.try_recv().unwrap_or_default(),
            None => Group::default(),
        };
        empty.clear();
        let full = std::mem::replace(&mut self.group, empty);
        self.groups_sent += 1;
        if self.groups_sent == schema::SMALL_GROUPS {
            self.limit *= schema::LARGE_GROUP_FACTOR;
        }
        self.send(Job::Write(full))
    }

    fn send(&mut self, job: Job) -> Result<()> {
        let sent = self.encoder.as_ref().is_some_and(|e| e.jobs.send(job).is_ok());
        if sent {
            return Ok(());
        }
        // The encoder ends before it is told to only if it failed.
        match self.join() {
            Err(error) => Err(error),
            Ok(_) => Err(self.write_error("writing failed before")),
        }
    }

    /// Waits for the encoder's end and takes its result.
    fn join(&mut self) -> Result<Option<NamedTempFile>> {
        let Some(Encoder { jobs, used, thread }) = self.encoder.take() else {
            return Ok(None);
        };
        drop((jobs, used));
        match thread.join() {
            Ok(Ok(file)) => Ok(file),
            Ok(Err(error)) => Err(self.write_error(error)),
            Err(_) => Err(self.write_error("the encoder panicked")),
        }
    }
}

impl Drop for TraceWriter {
    /// Waits until the temporary file is gone.
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// What is counted per event.
#[derive(Debug, Default)]
struct Tally {
    events: u64,
    end_ns: u64,
    kinds: [u64; Kind::ALL.len()],
    max_iova: Option<u64>,
    devices: BTreeSet<u32>,
    last_device: Option<Requester>,
    markers: Vec<Marker>,
}

impl Tally {
    #[inline]
    fn add(&mut self, e: &Event) {
        self.events += 1;
        self.end_ns = e.time_ns;
        self.kinds[e.kind as usize] += 1;
        let last_byte = match e.kind {
            Kind::Dma | Kind::Map => Some(e.addr.saturating_add(e.size.saturating_sub(1))),
            // An unmap of "everything" says nothing about the addresses used.
            Kind::Unmap => Some(e.addr),
            _ => None,
        };
        self.max_iova = self.max_iova.max(last_byte);
        if self.last_device != Some(e.requester) {
            self.last_device = Some(e.requester);
            if e.requester != Requester::NONE {
                self.devices.insert(e.requester.0);
            }
        }
    }

    fn totals(self) -> Totals {
        let named = Kind::ALL.iter().zip(self.kinds).filter(|&(_, n)| n > 0);
        Totals {
            events: self.events,
            end_ns: self.end_ns,
            has_parent: self.kinds[Kind::ParentMap as usize] > 0,
            iova_bits: self.max_iova.map_or(0, |a| u64::BITS - a.leading_zeros()),
            kinds: named.map(|(k, n)| (k.name().to_owned(), n)).collect(),
            devices: self.devices.into_iter().map(|d| Requester(d).to_string()).collect(),
            markers: self.markers,
        }
    }
}

/// A temporary file beside `path` with the permissions of an ordinary file.
pub(crate) fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let directory = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ioasim-trace-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // tempfile's default is 0600; the umask still applies.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory)
}

/// The longest prefix of at most `limit` bytes that ends between characters.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn key(name: &str, value: String) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(value) }
}

/// A file whose bytes are summed as they are written.
struct Summed {
    file: NamedTempFile,
    sum: Hasher,
}

impl std::io::Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.sum.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The encoder thread: writes groups until the footer; `None` if the writer
/// was dropped before.
fn encode(
    file: NamedTempFile,
    jobs: &Receiver<Job>,
    give_back: &Sender<Group>,
) -> Result<Option<NamedTempFile>, ParquetError> {
    let properties = schema::writer_properties()?.into();
    let file = Summed { file, sum: Hasher::new() };
    let mut writer = SerializedFileWriter::new(file, schema::parquet_schema()?, properties)?;
    let mut levels = Vec::new();
    let mut checksums = String::new();
    for job in jobs {
        match job {
            Job::Write(group) => {
                // What was written before, the file's magic, is not part of it.
                writer.flush()?;
                writer.inner_mut().sum.reset();
                let mut row_group = writer.next_row_group()?;
                write_group(&mut row_group, &group, &mut levels)?;
                row_group.close()?;
                writer.flush()?;
                checksums += &format!("{:08x}", writer.inner().sum.clone().finalize());
                let _ = give_back.try_send(group);
            }
            Job::Close(keys) => {
                keys.into_iter().for_each(|k| writer.append_key_value_metadata(k));
                writer.append_key_value_metadata(key(schema::KEY_CHECKSUMS, checksums));
                return writer.into_inner().map(|w| Some(w.file));
            }
        }
    }
    Ok(None)
}

fn write_group<W: std::io::Write + Send>(
    out: &mut SerializedRowGroupWriter<'_, W>,
    group: &Group,
    levels: &mut Vec<i16>,
) -> Result<(), ParquetError> {
    // The order of `schema::COLUMNS`.
    let e = &group.events;
    column::<Int64Type, _>(out, &e.time_ns, None)?;
    column::<Int32Type, _>(out, &e.kind, None)?;
    column::<Int32Type, _>(out, &e.flags, None)?;
    column::<Int32Type, _>(out, &e.cpu, None)?;
    column::<Int32Type, _>(out, &e.domain, None)?;
    column::<Int32Type, _>(out, &e.requester, None)?;
    column::<Int32Type, _>(out, &e.pasid, None)?;
    column::<Int64Type, _>(out, &e.addr, None)?;
    column::<Int64Type, _>(out, &e.size, None)?;
    column::<Int64Type, _>(out, &e.out, None)?;
    column::<Int64Type, _>(out, &e.aux, None)?;
    levels.clear();
    levels.resize(e.len(), 0);
    let mut texts = Vec::with_capacity(group.texts.len());
    for (row, text) in &group.texts {
        levels[*row] = 1;
        texts.push(ByteArray::from(text.as_str()));
    }
    column::<ByteArrayType, _>(out, &texts, Some(levels))
}

fn column<T: DataType, W: std::io::Write + Send>(
    out: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = out
        .next_column()?
        .ok_or_else(|| ParquetError::General("more columns than the schema has".into()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}
