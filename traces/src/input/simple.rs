//! The binary files of QEMU's `simple` trace backend, as the text that its
//! `log` backend would have written, so that one set of importers reads both.
//!
//! The layout is that of `trace/simple.c`, file version 4 (QEMU 2.8 on; the
//! same in 7.2, 10.0 and 10.2), in the byte order of the machine that wrote it:
//!
//! * header: three words of 64 bits, all ones, [`MAGIC`], the version;
//! * a mapping: word 0, event id (64 bits), length (32 bits), the event's name;
//! * an event: word 1, event id (64), ns of the monotonic clock (64), bytes of
//!   the record behind the word (32), process id (32), arguments: 64 bits each,
//!   strings as length (32) and bytes;
//! * dropped events: an event with id 2^64 - 2 and one argument, their number.
//!
//! The file tells neither types nor texts of an event's arguments; those that
//! importers read stand in [`formats`], by name, the right version chosen by
//! the record's length. Other events become lines with their name alone.

mod formats;

use std::fmt;
use std::io::{self, Read, Write};

use rustc_hash::FxHashMap;

/// Second word of the header (`HEADER_MAGIC`).
const MAGIC: u64 = 0xf2b1_77cb_0aa4_29b4;
/// Id of the record that counts dropped events (`DROPPED_EVENT_ID`).
const DROPPED: u64 = u64::MAX - 1;
/// The only file version that names its events.
const VERSION: u64 = 4;
/// Bytes of the header, and of the words that tell it.
const HEADER: usize = 24;
pub(super) const MAGIC_BYTES: usize = 16;
/// Bytes of a record's head behind its type (`TraceRecord`).
const RECORD_HEAD: usize = 24;
/// Largest record: QEMU's have at most ten arguments, strings of at most
/// 512 bytes (`MAX_TRACE_STRLEN`).
const MAX_RECORD: usize = 1 << 14;
/// Longest name of an event.
const MAX_NAME: usize = 256;
/// Names in one file; QEMU 10.2 has some 6,000 events.
const MAX_NAMES: usize = 1 << 16;
/// Bytes read at once.
const CHUNK: usize = 1 << 16;

/// Why a file cannot be read on.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// What an event id stands for.
#[derive(Debug)]
struct Named {
    name: Box<[u8]>,
    /// Texts of its arguments, one for each version; empty if no importer
    /// reads the event.
    texts: &'static [&'static str],
}

/// Turns such a file into lines.
#[derive(Debug)]
pub(super) struct SimpleText {
    /// Bytes read and not used yet, from `at` on.
    input: Vec<u8>,
    at: usize,
    /// Offset of `input[at]` in the file.
    offset: u64,
    swapped: bool,
    header_read: bool,
    names: FxHashMap<u64, Named>,
    /// Lines made and not handed out yet, from `taken` on.
    lines: Vec<u8>,
    taken: usize,
    records: u64,
    eof: bool,
}

/// True if a file that begins so is of the `simple` backend.
pub(super) fn is_simple(start: &[u8]) -> bool {
    let Some((words, _)) = start.split_first_chunk::<MAGIC_BYTES>() else { return false };
    let (ones, magic) = words.split_at(8);
    ones == [0xff; 8] && (magic == MAGIC.to_le_bytes() || magic == MAGIC.to_be_bytes())
}

impl SimpleText {
    /// A file whose first bytes, `start`, have been read.
    pub(super) fn new(start: Vec<u8>) -> SimpleText {
        let swapped = start.get(8..MAGIC_BYTES) == Some(&MAGIC.to_be_bytes());
        SimpleText {
            input: start,
            at: 0,
            offset: 0,
            swapped,
            header_read: false,
            names: FxHashMap::default(),
            lines: Vec::new(),
            taken: 0,
            records: 0,
            eof: false,
        }
    }

    /// Fills `to` with text, reading what it needs from `from`; 0 at the end.
    pub(super) fn read(&mut self, from: &mut dyn Read, to: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.lines.len() {
            self.lines.clear();
            self.taken = 0;
            while self.lines.len() < CHUNK {
                if !self.record()? && !self.more(from)? {
                    break;
                }
            }
            if self.lines.is_empty() && self.eof {
                return Ok(0);
            }
        }
        let n = to.len().min(self.lines.len() - self.taken);
        to[..n].copy_from_slice(&self.lines[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }

    /// Reads on; false at the end.
    fn more(&mut self, from: &mut dyn Read) -> io::Result<bool> {
        if self.eof {
            return Ok(false);
        }
        self.input.drain(..self.at);
        self.at = 0;
        let kept = self.input.len();
        self.input.resize(kept + CHUNK, 0);
        let n = loop {
            match from.read(&mut self.input[kept..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                n => break n,
            }
        };
        self.input.truncate(kept + *n.as_ref().unwrap_or(&0));
        if n? > 0 {
            return Ok(true);
        }
        self.eof = true;
        if !self.header_read {
            return Err(self.broken("it ends within its header"));
        }
        if kept > 0 {
            // QEMU ended while it wrote.
            self.lines.extend_from_slice(b"#simpletrace cut\n");
        }
        Ok(false)
    }

    /// Takes one record; false if more input is needed.
    fn record(&mut self) -> io::Result<bool> {
        if !self.header_read {
            return self.header();
        }
        let Some(kind) = self.u64_at(0) else { return Ok(false) };
        match kind {
            0 => self.mapping(),
            1 => self.event(),
            _ => Err(self.broken(&format!(
                "record {} has the type {kind:#x}, which is neither a mapping (0) nor an event (1)",
                self.records + 1
            ))),
        }
    }

    fn header(&mut self) -> io::Result<bool> {
        let Some(version) = self.u64_at(16) else { return Ok(false) };
        if version != VERSION {
            let text = format!(
                "version {version} of the simple trace format, which names no events; \
                 this ioasim reads version {VERSION} (QEMU 2.8 and later)"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, Broken(text)));
        }
        self.header_read = true;
        self.take(HEADER);
        Ok(true)
    }

    fn mapping(&mut self) -> io::Result<bool> {
        let (Some(id), Some(length)) = (self.u64_at(8), self.u32_at(16)) else {
            return Ok(false);
        };
        let length = length as usize;
        if length == 0 || length > MAX_NAME {
            return Err(self.broken(&format!("an event's name has {length} bytes")));
        }
        let Some(name) = self.rest().get(20..20 + length) else { return Ok(false) };
        if !name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            return Err(self.broken("an event's name is no word"));
        }
        let named = Named { name: name.into(), texts: formats::of(name) };
        self.names.insert(id, named);
        if self.names.len() > MAX_NAMES {
            return Err(self.broken(&format!("it names more than {MAX_NAMES} events")));
        }
        self.take(20 + length);
        Ok(true)
    }

    fn event(&mut self) -> io::Result<bool> {
        let (Some(id), Some(ns)) = (self.u64_at(8), self.u64_at(16)) else { return Ok(false) };
        let (Some(length), Some(pid)) = (self.u32_at(24), self.u32_at(28)) else {
            return Ok(false);
        };
        let length = length as usize;
        if !(RECORD_HEAD..=MAX_RECORD).contains(&length) {
            return Err(self.broken(&format!("record {} has {length} bytes", self.records + 1)));
        }
        let end = self.at + 8 + length;
        if end > self.input.len() {
            return Ok(false);
        }
        let arguments = &self.input[self.at + 8 + RECORD_HEAD..end];
        let lines = &mut self.lines;
        write!(lines, "{pid}@{}.{:09}:", ns / 1_000_000_000, ns % 1_000_000_000)?;
        if id == DROPPED {
            let dropped = arguments.first_chunk().map_or(1, |n| word(*n, self.swapped));
            writeln!(lines, "#simpletrace dropped {dropped}")?;
        } else if let Some(named) = self.names.get(&id) {
            lines.extend_from_slice(&named.name);
            lines.push(b' ');
            let start = lines.len();
            let fits = named.texts.iter().any(|text| {
                lines.truncate(start);
                formats::print(text, arguments, self.swapped, lines)
            });
            if !fits {
                lines.truncate(start);
                if !named.texts.is_empty() {
                    // Not the arguments of any version.
                    lines.push(b'?');
                }
            }
            lines.push(b'\n');
        } else {
            lines.extend_from_slice(b"#simpletrace unnamed\n");
        }
        self.records += 1;
        self.take(8 + length);
        Ok(true)
    }

    fn rest(&self) -> &[u8] {
        &self.input[self.at..]
    }

    fn take(&mut self, bytes: usize) {
        self.at += bytes;
        self.offset += bytes as u64;
    }

    fn u64_at(&self, at: usize) -> Option<u64> {
        self.rest().get(at..)?.first_chunk().map(|b| word(*b, self.swapped))
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = *self.rest().get(at..)?.first_chunk()?;
        Some(if self.swapped { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn broken(&self, what: &str) -> io::Error {
        let text = format!("at byte {} of the simple trace {what}", self.offset);
        io::Error::new(io::ErrorKind::InvalidData, Broken(text))
    }
}

fn word(bytes: [u8; 8], swapped: bool) -> u64 {
    if swapped { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
}

#[cfg(test)]
mod tests;
