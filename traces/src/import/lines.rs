//! Where lines come from and where events go, as traits, so that importers
//! run on files as well as on text in memory.

use std::path::Path;

use ioasim_events::Event;

use crate::file::TraceWriter;
use crate::input::{Line, TextInput};
use crate::{Error, Result};

/// Lines of a log, read once.
pub trait LineSource {
    /// The next line, `None` at the end.
    ///
    /// # Errors
    /// Whatever the file system or the decompressor reports.
    fn next_line(&mut self) -> Result<Option<Line<'_>>>;
    /// The bytes of the line that is next, if they can be had without taking it.
    ///
    /// # Errors
    /// As [`next_line`](LineSource::next_line).
    fn peek_line(&mut self) -> Result<Option<&[u8]>> {
        Ok(None)
    }
    /// Name for messages.
    fn path(&self) -> &Path;
    /// Bytes of the stored file read so far, and its size.
    fn progress(&self) -> (u64, u64);
}

impl LineSource for TextInput {
    fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        TextInput::next_line(self)
    }

    fn peek_line(&mut self) -> Result<Option<&[u8]>> {
        TextInput::peek_line(self)
    }

    fn path(&self) -> &Path {
        TextInput::path(self)
    }

    fn progress(&self) -> (u64, u64) {
        (self.raw_bytes_read(), self.raw_bytes_total())
    }
}

/// Lines of a text in memory.
#[derive(Clone, Debug)]
pub struct MemoryLines<'a> {
    text: &'a [u8],
    at: usize,
    number: u64,
    name: &'a Path,
}

impl<'a> MemoryLines<'a> {
    /// The lines of `text`; `name` is for messages.
    pub fn new(name: &'a str, text: &'a [u8]) -> Self {
        MemoryLines { text, at: 0, number: 0, name: Path::new(name) }
    }
}

impl LineSource for MemoryLines<'_> {
    fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += (end + 1).min(rest.len());
        self.number += 1;
        let bytes = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        Ok(Some(Line { number: self.number, bytes, truncated: false }))
    }

    fn peek_line(&mut self) -> Result<Option<&[u8]>> {
        let rest = &self.text[self.at..];
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        Ok((!rest.is_empty()).then(|| &rest[..end]))
    }

    fn path(&self) -> &Path {
        self.name
    }

    fn progress(&self) -> (u64, u64) {
        (self.at as u64, self.text.len() as u64)
    }
}

/// Takes the events of an import in causal order.
pub trait EventSink {
    /// Takes one event.
    ///
    /// # Errors
    /// If it cannot be written.
    fn push(&mut self, event: &Event) -> Result<()>;
    /// Takes a marker and its text.
    ///
    /// # Errors
    /// If it cannot be written.
    fn push_marker(&mut self, event: &Event, text: &str) -> Result<()>;
}

impl EventSink for TraceWriter {
    fn push(&mut self, event: &Event) -> Result<()> {
        TraceWriter::push(self, event)
    }

    fn push_marker(&mut self, event: &Event, text: &str) -> Result<()> {
        TraceWriter::push_marker(self, event, text)
    }
}

impl<S: EventSink> EventSink for &mut S {
    fn push(&mut self, event: &Event) -> Result<()> {
        (**self).push(event)
    }

    fn push_marker(&mut self, event: &Event, text: &str) -> Result<()> {
        (**self).push_marker(event, text)
    }
}

/// Keeps events in memory, for tests and small logs.
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    /// The events.
    pub events: Vec<Event>,
    /// Number of a marker event and its text.
    pub markers: Vec<(usize, String)>,
}

impl EventSink for MemorySink {
    fn push(&mut self, event: &Event) -> Result<()> {
        self.events.push(*event);
        Ok(())
    }

    fn push_marker(&mut self, event: &Event, text: &str) -> Result<()> {
        self.markers.push((self.events.len(), text.to_owned()));
        self.events.push(*event);
        Ok(())
    }
}

/// An [`Error::Import`].
pub(crate) fn import_error(path: &Path, why: impl Into<String>) -> Error {
    Error::Import { path: path.to_owned(), why: why.into() }
}
