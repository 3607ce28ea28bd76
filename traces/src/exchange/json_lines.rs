//! JSON lines: an object per event, and one in front with the metadata.
//!
//! The keys are the columns of the native file; a key that is absent has its
//! column's empty value. Integers are exact up to 64 bits, which some readers
//! of JSON are not.

mod plain;

use std::io::Write as _;

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester};
use serde::{Deserialize, Serialize};

use super::{Encoder, output::Output};
use crate::Result;
use crate::file::{Meta, SCHEMA};
pub(super) use plain::plain;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    /// The native file's schema.
    pub schema: String,
    /// Provenance and facts.
    pub meta: Meta,
}

/// One event. Every key may be absent but `kind`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Row<'a> {
    time_ns: u64,
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    flags: u32,
    cpu: Option<i32>,
    domain: Option<u32>,
    requester: Option<u32>,
    pasid: Option<u32>,
    addr: u64,
    size: u64,
    out: u64,
    aux: u64,
    #[serde(borrow)]
    text: Option<std::borrow::Cow<'a, str>>,
}

impl Row<'_> {
    /// The event, and its text.
    pub fn event(&self) -> Result<(Event, Option<&str>), String> {
        let kind = kind(self.kind.as_bytes())?;
        let e = Event {
            time_ns: self.time_ns,
            kind,
            flags: Flags(self.flags),
            cpu: self.cpu.unwrap_or(-1),
            domain: self.domain.map_or(DomainId::NONE, DomainId),
            requester: self.requester.map_or(Requester::NONE, Requester),
            pasid: self.pasid.map_or(Pasid::NONE, Pasid),
            addr: self.addr,
            size: self.size,
            out: self.out,
            aux: self.aux,
        };
        Ok((e, self.text.as_deref()))
    }
}

/// The kind with this name.
pub(super) fn kind(name: &[u8]) -> Result<Kind, String> {
    kind_of(name).ok_or_else(|| {
        let short: String = String::from_utf8_lossy(name).chars().take(40).collect();
        format!("\"{short}\" is no kind of event; kinds are dma, map, unmap, invalidate, ...")
    })
}

/// The kind with this name, if there is one.
#[inline]
pub(super) fn kind_of(name: &[u8]) -> Option<Kind> {
    // The most frequent ones first.
    match name {
        b"dma" => Some(Kind::Dma),
        b"map" => Some(Kind::Map),
        b"unmap" => Some(Kind::Unmap),
        b"invalidate" => Some(Kind::Invalidate),
        _ => Kind::ALL.into_iter().find(|k| k.name().as_bytes() == name),
    }
}

/// The metadata in a CSV file's first row.
pub(super) fn head(text: &str) -> Result<Meta, String> {
    let head: Head = serde_json::from_str(text).map_err(|e| format!("metadata: {e}"))?;
    match head.schema.as_str() {
        SCHEMA => Ok(head.meta),
        other => {
            let other: String = other.chars().take(60).collect();
            Err(format!("metadata of the schema {other}, not {SCHEMA}"))
        }
    }
}

/// Writes them.
#[derive(Debug)]
pub(super) struct Writer {
    head: String,
    line: Vec<u8>,
}

impl Writer {
    pub fn new(meta: &Meta) -> Result<Writer> {
        let head = Head { schema: SCHEMA.into(), meta: meta.clone() };
        let head = serde_json::to_string(&head).expect("metadata is plain data");
        Ok(Writer { head, line: Vec::new() })
    }
}

impl Encoder for Writer {
    fn begin(&mut self, out: &mut Output) -> Result<()> {
        out.put(self.head.as_bytes())?;
        out.put(b"\n")
    }

    fn event(&mut self, e: &Event, text: Option<&str>, out: &mut Output) -> Result<()> {
        let line = &mut self.line;
        line.clear();
        // Writing to memory does not fail.
        let _ = write!(line, "{{\"time_ns\":{},\"kind\":\"{}\"", e.time_ns, e.kind.name());
        let mut put = |name: &str, value: u64, empty: u64| {
            if value != empty {
                let _ = write!(line, ",\"{name}\":{value}");
            }
        };
        put("flags", u64::from(e.flags.0), 0);
        put("domain", u64::from(e.domain.0), u64::from(DomainId::NONE.0));
        put("requester", u64::from(e.requester.0), u64::from(Requester::NONE.0));
        put("pasid", u64::from(e.pasid.0), u64::from(Pasid::NONE.0));
        put("addr", e.addr, 0);
        put("size", e.size, 0);
        put("out", e.out, 0);
        put("aux", e.aux, 0);
        if e.cpu != -1 {
            let _ = write!(line, ",\"cpu\":{}", e.cpu);
        }
        if let Some(text) = text {
            line.extend_from_slice(b",\"text\":");
            let _ = serde_json::to_writer(&mut *line, text);
        }
        line.extend_from_slice(b"}\n");
        out.put(line)
    }
}
