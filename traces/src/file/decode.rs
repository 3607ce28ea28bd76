//! Decoding a trace into chunks, by the caller or on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, bounded};
use ioasim_events::{Chunk, Kind};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::SerializedPageReader;

use super::reader::{Shared, panic_text, plain};
use super::schema;
use super::source::PageSource;
use super::sum::FileSum;
use crate::{Error, Result};

/// Most events of a chunk: 0.5 MB, so that the dozen chunks between the decoder
/// and the slowest simulation stay in the last-level cache.
pub const CHUNK_EVENTS: usize = 8_192;

/// Decoded chunks that wait for the consumer.
const QUEUED_CHUNKS: usize = 2;

/// Chunks whose memory is used again: those queued, one being decoded, and those
/// that several readers may still hold. A chunk beyond them is new memory, and
/// the kernel's work for its pages costs more than decoding it.
const POOLED_CHUNKS: usize = QUEUED_CHUNKS + 10;

/// Iterator over a trace's chunks, decoded ahead by another thread.
///
/// Chunks come in order, none empty, and their kinds are known ones and their
/// times never decrease. Hand out clones of the [`Arc`] to as many readers as
/// needed; memory is used again when the last clone is dropped. After an
/// error the iterator ends. Dropping it stops the decoder.
#[derive(Debug)]
pub struct ChunkStream {
    /// `None` after the end.
    chunks: Option<Receiver<Result<Arc<Chunk>>>>,
    thread: Option<JoinHandle<()>>,
}

impl ChunkStream {
    pub(super) fn start(shared: Arc<Shared>) -> ChunkStream {
        let (out, chunks) = bounded(QUEUED_CHUNKS);
        let path = shared.path.clone();
        let failed = out.clone();
        // It ends early when nobody listens.
        let work = move || {
            let _ = ChunkDecoder::new(shared).try_for_each(|chunk| out.send(chunk));
        };
        let thread = match thread::Builder::new().name("trace-decode".into()).spawn(work) {
            Ok(thread) => Some(thread),
            Err(e) => {
                let _ = failed.send(Err(Error::io("start a thread for", &path, e)));
                None
            }
        };
        ChunkStream { chunks: Some(chunks), thread }
    }
}

impl Iterator for ChunkStream {
    type Item = Result<Arc<Chunk>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.chunks.as_ref()?.recv().ok();
        if !matches!(item, Some(Ok(_))) {
            self.chunks = None;
        }
        item
    }
}

impl Drop for ChunkStream {
    fn drop(&mut self) {
        // Its next send fails.
        self.chunks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Iterator over a trace's chunks, decoded by whoever asks for them; otherwise
/// a [`ChunkStream`].
pub struct ChunkDecoder {
    shared: Arc<Shared>,
    pool: Pool,
    /// Of the row group that is being decoded.
    columns: Option<Columns>,
    /// Rows that are left of it.
    left: u64,
    /// Number of the next row group.
    group: usize,
    /// Number of the next event.
    first: u64,
    last_time: i64,
    ended: bool,
    /// Of what was read, if it is wanted.
    sum: Option<FileSum>,
}

impl ChunkDecoder {
    pub(super) fn new(shared: Arc<Shared>) -> ChunkDecoder {
        ChunkDecoder {
            shared,
            pool: Pool::default(),
            columns: None,
            left: 0,
            group: 0,
            first: 0,
            last_time: 0,
            ended: false,
            sum: None,
        }
    }

    /// Works out the file's checksum, too, from the bytes that are decoded.
    pub fn summing(mut self) -> ChunkDecoder {
        self.sum = Some(FileSum::new());
        self
    }

    /// The file's SHA-256, as hexadecimal digits. What was not decoded is read
    /// now: all of it without [`summing`](ChunkDecoder::summing).
    ///
    /// # Errors
    /// The file cannot be read, or became shorter.
    pub fn sha256(self) -> Result<String> {
        let sum = self.sum.unwrap_or_else(FileSum::new);
        sum.finish(&self.shared.source).map_err(|e| Error::damaged(&self.shared.path, plain(&e)))
    }

    /// The next chunk; `None` after the last.
    fn decode(&mut self) -> Result<Option<Arc<Chunk>>> {
        let shared = &*self.shared;
        let first = self.first;
        let damaged = |group: usize, e: ParquetError| {
            Error::damaged(
                &shared.path,
                format!("row group {group} from row {first}: {}", plain(&e)),
            )
        };
        while self.left == 0 {
            if self.group == shared.footer.num_row_groups() {
                return Ok(None);
            }
            self.left = shared.footer.row_group(self.group).num_rows() as u64;
            let group = self.group;
            let source = page_source(shared, group).map_err(|e| damaged(group, e))?;
            if let (Some(sum), Some((start, bytes))) = (&mut self.sum, source.window()) {
                sum.take(&shared.source, *start, bytes).map_err(|e| damaged(group, e))?;
            }
            self.columns =
                Some(Columns::open(shared, &source, group).map_err(|e| damaged(group, e))?);
            self.group += 1;
        }
        let Some(columns) = &mut self.columns else { return Ok(None) };
        let wanted = self.left.min(CHUNK_EVENTS as u64);
        let mut chunk = self.pool.take();
        // Nobody else has it: taken so from the pool, or new.
        let events = Arc::get_mut(&mut chunk).expect("an unshared chunk");
        events.clear();
        events.first = first;
        columns.read(events, wanted as usize).map_err(|e| damaged(self.group - 1, e))?;
        check(shared, events, &mut self.last_time)?;
        self.first += wanted;
        self.left -= wanted;
        self.pool.keep(&chunk);
        Ok(Some(chunk))
    }
}

impl Iterator for ChunkDecoder {
    type Item = Result<Arc<Chunk>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let done = catch_unwind(AssertUnwindSafe(|| self.decode()));
        let chunk = done
            .unwrap_or_else(|panic| Err(Error::damaged(&self.shared.path, panic_text(&*panic))))
            .transpose();
        self.ended = !matches!(chunk, Some(Ok(_)));
        chunk
    }
}

/// What the simulator relies on: known kinds, times that never decrease.
fn check(shared: &Shared, events: &Chunk, last_time: &mut i64) -> Result<()> {
    const KINDS: u32 = Kind::ALL.len() as u32;
    // A maximum over all is one vector instruction per eight events.
    let worst = events.kind.iter().fold(0, |m, &k| m.max(k as u32));
    if worst >= KINDS {
        let at = events.kind.iter().position(|&k| k as u32 >= KINDS).unwrap_or(0);
        return Err(Error::UnknownKind {
            path: shared.path.clone(),
            row: events.first + at as u64,
            code: events.kind[at],
            max: KINDS as i32 - 1,
        });
    }
    let times = &events.time_ns;
    let steps = times.iter().zip(&times[1..]);
    if times[0] < *last_time || steps.fold(false, |bad, (a, b)| bad | (a > b)) {
        let mut previous = *last_time;
        let backwards = |t: &i64| std::mem::replace(&mut previous, *t) > *t;
        let at = times.iter().position(backwards).unwrap_or(0);
        let row = events.first + at as u64;
        return Err(Error::damaged(&shared.path, format!("the time goes back at row {row}")));
    }
    *last_time = times[times.len() - 1];
    Ok(())
}

/// Chunks handed out before, to be filled again once nobody reads them.
#[derive(Default)]
struct Pool(Vec<Arc<Chunk>>);

impl Pool {
    fn take(&mut self) -> Arc<Chunk> {
        let free = self.0.iter_mut().position(|c| Arc::get_mut(c).is_some());
        free.map_or_else(Arc::default, |at| self.0.swap_remove(at))
    }

    /// Remembers a chunk that is about to be handed out; beyond the pool's size
    /// chunks are simply freed by their last reader.
    fn keep(&mut self, chunk: &Arc<Chunk>) {
        if self.0.len() < POOLED_CHUNKS {
            self.0.push(Arc::clone(chunk));
        }
    }
}

/// Readers of a row group's columns, all at the same row.
struct Columns {
    ints: [ColumnReaderImpl<Int32Type>; 6],
    longs: [ColumnReaderImpl<Int64Type>; 5],
}

impl Columns {
    fn open(shared: &Shared, source: &PageSource, group: usize) -> Result<Columns, ParquetError> {
        let mut ints = Vec::with_capacity(6);
        for at in shared.columns.ints {
            ints.push(column_reader(shared, source, group, at)?);
        }
        let mut longs = Vec::with_capacity(5);
        for at in shared.columns.longs {
            longs.push(column_reader(shared, source, group, at)?);
        }
        let wrong = || ParquetError::General("column count".into());
        Ok(Columns {
            ints: ints.try_into().map_err(|_| wrong())?,
            longs: longs.try_into().map_err(|_| wrong())?,
        })
    }

    /// Appends exactly `rows` rows to an empty chunk.
    fn read(&mut self, to: &mut Chunk, rows: usize) -> Result<(), ParquetError> {
        let [kind, flags, cpu, domain, requester, pasid] = &mut self.ints;
        let [time_ns, addr, size, out, aux] = &mut self.longs;
        fill(time_ns, &mut to.time_ns, rows, schema::COLUMNS_64[0])?;
        fill(kind, &mut to.kind, rows, schema::COLUMNS_32[0])?;
        fill(flags, &mut to.flags, rows, schema::COLUMNS_32[1])?;
        fill(cpu, &mut to.cpu, rows, schema::COLUMNS_32[2])?;
        fill(domain, &mut to.domain, rows, schema::COLUMNS_32[3])?;
        fill(requester, &mut to.requester, rows, schema::COLUMNS_32[4])?;
        fill(pasid, &mut to.pasid, rows, schema::COLUMNS_32[5])?;
        fill(addr, &mut to.addr, rows, schema::COLUMNS_64[1])?;
        fill(size, &mut to.size, rows, schema::COLUMNS_64[2])?;
        fill(out, &mut to.out, rows, schema::COLUMNS_64[3])?;
        fill(aux, &mut to.aux, rows, schema::COLUMNS_64[4])
    }
}

/// The pages of a row group: all of them, checked, if there is a checksum.
fn page_source(shared: &Shared, group: usize) -> Result<PageSource, ParquetError> {
    let Some(&sum) = shared.checksums.get(group) else {
        return Ok(PageSource::new(&shared.source));
    };
    // Checked at opening: offsets are within the file.
    let columns = shared.footer.row_group(group).columns();
    let spans = columns.iter().map(|c| c.byte_range());
    let start = spans.clone().map(|s| s.0).min().unwrap_or(0);
    let end = spans.map(|(at, len)| at.saturating_add(len)).max().unwrap_or(0);
    PageSource::checked(&shared.source, start, end, sum)
}

fn fill<T: DataType>(
    from: &mut ColumnReaderImpl<T>,
    to: &mut Vec<T::T>,
    rows: usize,
    name: &str,
) -> Result<(), ParquetError> {
    let (read, ..) = from
        .read_records(rows, None, None, to)
        .map_err(|e| ParquetError::General(format!("column {name}: {}", plain(&e))))?;
    if read != rows || to.len() != rows {
        return Err(ParquetError::General(format!(
            "column {name} ends {} rows early",
            rows - read
        )));
    }
    Ok(())
}

/// A reader of one column of one row group; pages are read as they are needed.
pub(super) fn column_reader<T: DataType>(
    shared: &Shared,
    source: &PageSource,
    group: usize,
    column: usize,
) -> Result<ColumnReaderImpl<T>, ParquetError> {
    let group = shared.footer.row_group(group);
    let chunk = group.column(column);
    let source = Arc::new(source.clone());
    let rows = usize::try_from(group.num_rows()).unwrap_or(0);
    let pages = SerializedPageReader::new(source, chunk, rows, None)?;
    Ok(ColumnReaderImpl::new(chunk.column_descr_ptr(), Box::new(pages)))
}
