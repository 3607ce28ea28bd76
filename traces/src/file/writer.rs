//! Writing a trace file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ioasim_events::{Event, Kind, Requester};
use tempfile::NamedTempFile;

use super::encode::{Encoder, Group, key};
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
/// is removed when the writer is dropped. Encoding runs on threads of its
/// own; at most five row groups are in memory.
#[derive(Debug)]
pub struct TraceWriter {
    path: PathBuf,
    /// Where `path` leads to.
    target: PathBuf,
    group: Group,
    limit: usize,
    groups_sent: usize,
    tally: Tally,
    /// `None` once the encoder has ended.
    encoder: Option<Encoder>,
}

impl TraceWriter {
    /// Starts a trace that will be at `path`; an existing file there is
    /// replaced by [`finish`](TraceWriter::finish), behind a link, too.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory of `path` does not exist or cannot be
    /// written, or if `path` is no file: Parquet is read from its end.
    pub fn create(path: &Path) -> Result<TraceWriter> {
        let fail = |e| Error::io("create", path, e);
        let target = ioasim_output::file(path).map_err(fail)?;
        let file = ioasim_output::temporary(&target).map_err(fail)?;
        let encoder = Encoder::start(file).map_err(|e| Error::io("start a thread for", path, e))?;
        Ok(TraceWriter {
            path: path.to_owned(),
            target,
            group: Group::default(),
            limit: schema::ROW_GROUP_EVENTS,
            groups_sent: 0,
            tally: Tally::default(),
            encoder: Some(encoder),
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
        let keys = vec![
            key(schema::KEY_SCHEMA, schema::SCHEMA.to_owned()),
            key(schema::KEY_META, json),
            key(schema::KEY_KINDS, schema::kinds_json().to_string()),
            key(schema::KEY_FLAGS, schema::flags_json().to_string()),
        ];
        self.send(|encoder| encoder.close(keys))?;
        let file = self.join()?.ok_or_else(|| self.write_error("the encoder ended early"))?;
        let file_bytes =
            file.as_file().metadata().map_err(|e| Error::io("write", &self.path, e))?.len();
        file.persist(&self.target).map_err(|e| Error::io("replace", &self.path, e.error))?;
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
        let empty = self.encoder.as_ref().map(Encoder::group).unwrap_or_default();
        let full = std::mem::replace(&mut self.group, empty);
        self.groups_sent += 1;
        if self.groups_sent == schema::SMALL_GROUPS {
            self.limit *= schema::LARGE_GROUP_FACTOR;
        }
        self.send(|encoder| encoder.write(full))
    }

    fn send(&mut self, send: impl FnOnce(&mut Encoder) -> bool) -> Result<()> {
        if self.encoder.as_mut().is_some_and(send) {
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
        let done = self.encoder.take().map_or(Ok(None), Encoder::join);
        done.map_err(|e| self.write_error(e))
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

/// The longest prefix of at most `limit` bytes that ends between characters.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
