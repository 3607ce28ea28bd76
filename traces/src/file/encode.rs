//! Row groups into a Parquet file: two are encoded at a time, each by a thread
//! of its own, and a third thread writes them in their order.

use std::io::Write;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crc32fast::Hasher;
use crossbeam_channel::{Receiver, Sender, bounded};
use ioasim_events::Chunk;
use parquet::column::writer::{ColumnCloseResult, ColumnWriterImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use tempfile::NamedTempFile;

use super::schema;

/// Row groups that are encoded at the same time. Encoding takes five times as
/// long as making the events up, and about as long as importing them.
const ENCODERS: usize = 2;

/// Events of one row group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) events: Chunk,
    /// Row in the group and text, ascending.
    pub(super) texts: Vec<(usize, String)>,
    pub(super) text_bytes: usize,
    /// Definition levels of the texts; memory that is used again.
    levels: Vec<i16>,
}

impl Group {
    fn clear(&mut self) {
        self.events.clear();
        self.texts.clear();
        self.text_bytes = 0;
    }
}

/// What the threads are asked to do.
#[expect(clippy::large_enum_variant, reason = "moved a few times per row group")]
enum Job {
    Write(Group),
    /// Write the footer with these keys and hand the file back.
    Close(Vec<KeyValue>),
}

/// What an encoder made of a job.
enum Done {
    Encoded(Vec<Column>),
    Close(Vec<KeyValue>),
}

/// A file that is being written. Encoders take turns, and so does who reads
/// what they made: row groups stay in order, and there are at most two per
/// encoder, one that it works on and one that waits.
#[derive(Debug)]
pub(super) struct Encoder {
    jobs: Vec<Sender<Job>>,
    /// Whose turn it is.
    turn: usize,
    /// Used groups come back, so that their memory is used again.
    used: Receiver<Group>,
    thread: JoinHandle<Result<Option<NamedTempFile>, ParquetError>>,
}

impl Encoder {
    /// Starts the threads.
    pub(super) fn start(file: NamedTempFile) -> std::io::Result<Encoder> {
        let (give_back, used) = bounded(2 * ENCODERS);
        let (mut jobs, mut results) = (Vec::new(), Vec::new());
        for _ in 0..ENCODERS {
            let (job, todo) = bounded(1);
            let (done, result) = bounded(1);
            let give_back = give_back.clone();
            let work = move || encode(&todo, &done, &give_back);
            thread::Builder::new().name("trace-encode".into()).spawn(work)?;
            jobs.push(job);
            results.push(result);
        }
        let thread = thread::Builder::new()
            .name("trace-write".into())
            .spawn(move || write(file, &results))?;
        Ok(Encoder { jobs, turn: 0, used, thread })
    }

    /// An empty group.
    pub(super) fn group(&self) -> Group {
        let mut group = self.used.try_recv().unwrap_or_default();
        group.clear();
        group
    }

    /// Adds a row group; false if writing failed, as
    /// [`join`](Encoder::join) will tell.
    pub(super) fn write(&mut self, group: Group) -> bool {
        self.send(Job::Write(group))
    }

    /// Ends the file, as [`write`](Encoder::write).
    pub(super) fn close(&mut self, keys: Vec<KeyValue>) -> bool {
        self.send(Job::Close(keys))
    }

    fn send(&mut self, job: Job) -> bool {
        let turn = self.turn;
        self.turn = (turn + 1) % ENCODERS;
        self.jobs[turn].send(job).is_ok()
    }

    /// Waits for the end: the file if it was closed, `None` if not.
    pub(super) fn join(self) -> Result<Option<NamedTempFile>, ParquetError> {
        drop((self.jobs, self.used));
        let panicked = |_| Err(ParquetError::General("a thread panicked".into()));
        self.thread.join().unwrap_or_else(panicked)
    }
}

/// An entry of the file's metadata.
pub(super) fn key(name: &str, value: String) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(value) }
}

/// A file whose bytes are summed as they are written.
struct Summed {
    file: NamedTempFile,
    sum: Hasher,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.sum.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// An encoder's thread: until there are no more jobs, or nobody writes.
fn encode(
    todo: &Receiver<Job>,
    done: &Sender<Result<Done, ParquetError>>,
    give_back: &Sender<Group>,
) {
    let columns = match Columns::new() {
        Ok(columns) => columns,
        Err(e) => return drop(done.send(Err(e))),
    };
    for job in todo {
        let made = match job {
            Job::Close(keys) => Ok(Done::Close(keys)),
            Job::Write(mut group) => {
                let encoded = columns.encode(&mut group);
                let _ = give_back.try_send(group);
                encoded.map(Done::Encoded)
            }
        };
        if done.send(made).is_err() {
            break;
        }
    }
}

/// Writes groups in their order until the footer; `None` if there is none.
fn write(
    file: NamedTempFile,
    results: &[Receiver<Result<Done, ParquetError>>],
) -> Result<Option<NamedTempFile>, ParquetError> {
    let file = Summed { file, sum: Hasher::new() };
    let properties = schema::writer_properties()?.into();
    let mut writer = SerializedFileWriter::new(file, schema::parquet_schema()?, properties)?;
    let mut checksums = String::new();
    for encoder in results.iter().cycle() {
        match encoder.recv() {
            Ok(Ok(Done::Encoded(columns))) => {
                // What was written before, the file's magic, is not part of it.
                writer.flush()?;
                writer.inner_mut().sum.reset();
                let mut row_group = writer.next_row_group()?;
                for (pages, column) in columns {
                    row_group.append_column(&pages, column)?;
                }
                row_group.close()?;
                writer.flush()?;
                checksums += &format!("{:08x}", writer.inner().sum.clone().finalize());
            }
            Ok(Ok(Done::Close(keys))) => {
                keys.into_iter().for_each(|k| writer.append_key_value_metadata(k));
                writer.append_key_value_metadata(key(schema::KEY_CHECKSUMS, checksums));
                return writer.into_inner().map(|w| Some(w.file));
            }
            Ok(Err(e)) => return Err(e),
            // The writer was dropped.
            Err(_) => break,
        }
    }
    Ok(None)
}

/// A column's pages in a row group, and what its metadata says.
type Column = (Bytes, ColumnCloseResult);

/// What does not change from row group to row group.
struct Columns {
    schema: SchemaDescriptor,
    properties: WriterPropertiesPtr,
}

impl Columns {
    fn new() -> Result<Columns, ParquetError> {
        Ok(Columns {
            schema: SchemaDescriptor::new(schema::parquet_schema()?),
            properties: Arc::new(schema::writer_properties()?),
        })
    }

    /// All columns, in the order of the file.
    fn encode(&self, group: &mut Group) -> Result<Vec<Column>, ParquetError> {
        let levels = &mut group.levels;
        levels.clear();
        levels.resize(group.events.len(), 0);
        let mut texts = Vec::with_capacity(group.texts.len());
        for (row, text) in &group.texts {
            levels[*row] = 1;
            texts.push(ByteArray::from(text.as_str()));
        }
        let e = &group.events;
        // The order of `schema::COLUMNS`, which the writer checks.
        let columns = self.schema.columns().iter().cloned().enumerate();
        let encoded = columns.map(|(at, column)| match at {
            0 => self.column::<Int64Type>(column, &e.time_ns, None),
            1 => self.column::<Int32Type>(column, &e.kind, None),
            2 => self.column::<Int32Type>(column, &e.flags, None),
            3 => self.column::<Int32Type>(column, &e.cpu, None),
            4 => self.column::<Int32Type>(column, &e.domain, None),
            5 => self.column::<Int32Type>(column, &e.requester, None),
            6 => self.column::<Int32Type>(column, &e.pasid, None),
            7 => self.column::<Int64Type>(column, &e.addr, None),
            8 => self.column::<Int64Type>(column, &e.size, None),
            9 => self.column::<Int64Type>(column, &e.out, None),
            10 => self.column::<Int64Type>(column, &e.aux, None),
            _ => self.column::<ByteArrayType>(column, &texts, Some(levels)),
        });
        encoded.collect()
    }

    fn column<T: DataType>(
        &self,
        column: ColumnDescPtr,
        values: &[T::T],
        levels: Option<&[i16]>,
    ) -> Result<Column, ParquetError> {
        let mut pages = TrackedWrite::new(Vec::new());
        let to = Box::new(SerializedPageWriter::new(&mut pages));
        let mut writer = ColumnWriterImpl::<T>::new(column, self.properties.clone(), to);
        writer.write_batch(values, levels, None)?;
        let closed = writer.close()?;
        Ok((pages.into_inner()?.into(), closed))
    }
}
