//! Traces in other programs' formats, out and in.
//!
//! | format | out | in |
//! |---|---|---|
//! | [`json_lines`] | everything | everything |
//! | [`csv`] | everything | everything, or accesses alone |
//! | [`oracle_general`] (libCacheSim) | accesses, in pages | accesses |
//! | [`perfetto`] (Perfetto's timeline) | everything that can be drawn | - |
//! | [`hypersio`] | - | accesses |
//!
//! `docs/user-guide.md` and `docs/importing.md` describe them.

pub mod csv;
mod dma_only;
pub mod hypersio;
pub mod json_lines;
pub mod oracle_general;
mod output;
pub mod perfetto;
mod read;
mod sql;

use std::path::Path;

use ioasim_events::{DomainId, Event, Kind, Requester};

pub use output::{Output, Written};
pub use read::{
    ByteSource, Foreign, ImportOptions, MemoryBytes, import, import_events, no_table, tell,
};
pub use sql::queries;

use crate::file::{Meta, Totals, TraceReader};
use crate::generate::Control;
use crate::{Error, Result};

/// A format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object per line.
    JsonLines,
    /// Comma-separated values with named columns.
    Csv,
    /// libCacheSim's binary.
    OracleGeneral,
    /// Perfetto's protocol buffers.
    Perfetto,
}

impl Format {
    /// The format that a file's name asks for.
    pub fn of(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let ends = |ends: &[&str]| ends.iter().any(|e| name.ends_with(e));
        if ends(&[".jsonl", ".ndjson"]) {
            Some(Format::JsonLines)
        } else if ends(&[".csv"]) {
            Some(Format::Csv)
        } else if ends(&[".oraclegeneral", ".oraclegeneral.bin"]) {
            Some(Format::OracleGeneral)
        } else if ends(&[".pftrace", ".perfetto-trace"]) {
            Some(Format::Perfetto)
        } else {
            None
        }
    }
}

/// Which events go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this device, and events of none.
    pub device: Option<Requester>,
    /// Of this domain, and events of none.
    pub domain: Option<DomainId>,
}

impl Selection {
    /// What people should know of a trace that is only a part of another.
    fn note(&self) -> String {
        let device = self.device.map(|d| format!("of device {d}"));
        let domain = self.domain.map(|d| format!("of domain {}", d.0));
        let of: Vec<String> = [device, domain].into_iter().flatten().collect();
        format!(
            "A part: only events {} were exported; the importer's counts are of the whole trace.",
            of.join(" and ")
        )
    }

    /// True if the event belongs to it. Events without a device (maps) stay if
    /// only a device is asked for; so do events without a domain if only a
    /// domain is.
    pub fn takes(&self, e: &Event) -> bool {
        let device = self.device.is_none_or(|d| {
            e.requester == d || (e.requester == Requester::NONE && e.kind != Kind::Dma)
        });
        let none = e.domain == DomainId::NONE && e.kind != Kind::Dma;
        device && self.domain.is_none_or(|d| e.domain == d || none)
    }
}

/// Writes a trace in another format. The file appears only if all went well;
/// a stream (a device, a FIFO) has got what came before an error.
///
/// # Errors
/// The reader's; [`Error::Io`] if the file cannot be written;
/// [`Error::Import`] if an event does not fit the format or the run is
/// interrupted.
pub fn export(
    reader: &TraceReader,
    output: &Path,
    format: Format,
    selection: Selection,
    control: &mut Control<'_>,
) -> Result<Written> {
    let mut out = match format {
        // The number of a page's next access is filled in when it comes.
        Format::OracleGeneral => output::Output::create_file(output)?,
        _ => output::Output::create(output)?,
    };
    let mut encoder: Box<dyn Encoder> = match format {
        Format::JsonLines => Box::new(json_lines::Writer::new(&meta_of(reader, selection))?),
        Format::Csv => Box::new(csv::Writer::new(&meta_of(reader, selection))),
        Format::OracleGeneral => Box::new(oracle_general::Writer::default()),
        Format::Perfetto => Box::new(perfetto::Writer::new(reader.meta())),
    };
    encoder.begin(&mut out)?;
    let total = reader.meta().totals.events;
    let (mut done, mut events) = (0, 0);
    reader.visit(&mut |e, text| {
        done += 1;
        if done % 65_536 == 0 {
            control.tick(output, done, total)?;
        }
        if !selection.takes(e) {
            return Ok(());
        }
        events += 1;
        encoder.event(e, text, &mut out)
    })?;
    let records = encoder.end(&mut out)?.unwrap_or(events);
    let bytes = out.finish()?;
    Ok(Written { events, records, bytes })
}

/// The metadata of what goes out.
fn meta_of(reader: &TraceReader, selection: Selection) -> Meta {
    let mut meta = reader.meta().clone();
    if selection != Selection::default() {
        // Of a part they are not true, and how many events it has is not known yet.
        meta.totals = Totals::default();
        meta.notes.push(selection.note());
    }
    meta
}

/// One format's writer.
trait Encoder {
    /// What stands before the first event.
    fn begin(&mut self, _out: &mut output::Output) -> Result<()> {
        Ok(())
    }
    /// One event and, if it is a marker, its text.
    fn event(&mut self, e: &Event, text: Option<&str>, out: &mut output::Output) -> Result<()>;
    /// What stands behind the last; the number of records if it is not that of
    /// the events.
    fn end(&mut self, _out: &mut output::Output) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// An [`Error::Import`].
fn refuse(path: &Path, why: impl Into<String>) -> Error {
    Error::Import { path: path.to_owned(), why: why.into() }
}
