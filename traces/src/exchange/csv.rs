//! Comma-separated values with named columns.
//!
//! Written with all columns of the native file, and one that holds the
//! metadata in the first row. Read with any of them, in any order, and under
//! some other names; a file without a column `kind` holds accesses alone.

mod fields;

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester};

use super::output::Output;
use super::{Encoder, json_lines, refuse};
use crate::Result;
use crate::file::{Meta, SCHEMA};
use crate::import::bytes::Cursor;
pub(super) use fields::Fields;

/// Columns as they are written.
const COLUMNS: [&str; 13] = [
    "time_ns",
    "kind",
    "flags",
    "cpu",
    "domain",
    "requester",
    "pasid",
    "addr",
    "size",
    "out",
    "aux",
    "text",
    META,
];

/// The column of the metadata: JSON as in the first of JSON lines.
const META: &str = "ioasim_meta";

/// What a column means, and the names that are understood.
const NAMES: [(Column, &[&str]); 15] = [
    (Column::TimeNs, &["time_ns", "time", "timestamp", "ts", "timestamp_ns"]),
    (Column::TimeS, &["time_s", "timestamp_s", "clock_time", "seconds"]),
    (Column::Kind, &["kind", "event"]),
    (Column::Flags, &["flags"]),
    (Column::Cpu, &["cpu"]),
    (Column::Domain, &["domain", "did", "domain_id", "asid"]),
    (Column::Requester, &["requester", "device", "bdf", "sid", "rid", "requester_id"]),
    (Column::Pasid, &["pasid"]),
    (Column::Addr, &["addr", "address", "iova", "dma_addr", "obj_id"]),
    (Column::Size, &["size", "length", "len", "bytes", "obj_size"]),
    (Column::Out, &["out", "output", "gpa", "paddr", "phys"]),
    (Column::Aux, &["aux", "hpa"]),
    (Column::Text, &["text", "marker"]),
    (Column::Meta, &[META]),
    (Column::Op, &["op", "rw", "direction", "dir", "type"]),
];

/// A column's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    TimeNs,
    TimeS,
    Kind,
    Flags,
    Cpu,
    Domain,
    Requester,
    Pasid,
    Addr,
    Size,
    Out,
    Aux,
    Text,
    /// The trace's metadata.
    Meta,
    /// Direction of an access.
    Op,
}

/// What a row holds.
#[derive(Debug)]
pub(super) struct Row {
    pub event: Event,
    /// Of a marker.
    pub text: Option<String>,
    /// In the first row of an exported trace.
    pub meta: Option<Meta>,
}

/// Writes them.
#[derive(Debug)]
pub(super) struct Writer {
    csv: csv::Writer<Vec<u8>>,
    /// The metadata, until the first row has it.
    meta: String,
}

impl Writer {
    pub fn new(meta: &Meta) -> Writer {
        let mut meta = meta.clone();
        // The markers are among the rows.
        meta.totals.markers.clear();
        let head = json_lines::Head { schema: SCHEMA.into(), meta };
        let meta = serde_json::to_string(&head).expect("metadata is plain data");
        Writer { csv: csv::Writer::from_writer(Vec::new()), meta }
    }

    /// Hands over what was written when there is much of it.
    fn drain(&mut self, out: &mut Output, least: usize) -> Result<()> {
        if self.csv.get_ref().len() < least {
            return Ok(());
        }
        let csv = std::mem::replace(&mut self.csv, csv::Writer::from_writer(Vec::new()));
        let bytes = csv.into_inner().map_err(|e| refuse(out.path(), e.to_string()))?;
        out.put(&bytes)
    }
}

impl Encoder for Writer {
    fn begin(&mut self, out: &mut Output) -> Result<()> {
        self.csv.write_record(COLUMNS).map_err(|e| refuse(out.path(), e.to_string()))
    }

    fn event(&mut self, e: &Event, text: Option<&str>, out: &mut Output) -> Result<()> {
        // An empty field is the column's empty value.
        let known = |value: u32, none: u32| {
            if value == none { String::new() } else { value.to_string() }
        };
        let fields = [
            e.time_ns.to_string(),
            e.kind.name().to_string(),
            e.flags.0.to_string(),
            e.cpu.to_string(),
            known(e.domain.0, DomainId::NONE.0),
            known(e.requester.0, Requester::NONE.0),
            known(e.pasid.0, Pasid::NONE.0),
            e.addr.to_string(),
            e.size.to_string(),
            e.out.to_string(),
            e.aux.to_string(),
        ];
        // A marker without a text is not one with an empty text.
        let text = text.map(|t| format!("={t}")).unwrap_or_default();
        let meta = std::mem::take(&mut self.meta);
        let all = fields.iter().map(String::as_str).chain([&*text, &*meta]);
        self.csv.write_record(all).map_err(|e| refuse(out.path(), e.to_string()))?;
        self.drain(out, 1 << 16)
    }

    fn end(&mut self, out: &mut Output) -> Result<Option<u64>> {
        self.drain(out, 0)?;
        Ok(None)
    }
}

/// The meaning of a file's columns.
#[derive(Debug)]
pub(super) struct Columns {
    all: Vec<Option<Column>>,
    /// There is no column `kind`: every row is an access.
    pub accesses_only: bool,
}

impl Columns {
    /// Understands a header.
    ///
    /// # Errors
    /// One sentence if there is no address, or two columns mean the same.
    pub fn of<'a>(header: impl Iterator<Item = &'a [u8]>) -> Result<Columns, String> {
        let mut all: Vec<Option<Column>> = Vec::new();
        for field in header {
            let name = String::from_utf8_lossy(field).trim().to_ascii_lowercase();
            let column = NAMES.iter().find(|n| n.1.contains(&&*name)).map(|n| n.0);
            if column.is_some() && all.contains(&column) {
                return Err(format!("two columns mean what \"{name}\" does; rename one of them"));
            }
            all.push(column);
        }
        let accesses_only = !all.contains(&Some(Column::Kind));
        if !all.contains(&Some(Column::Addr)) {
            let why = "no column is an address; name one addr, address or iova";
            return Err(why.into());
        }
        Ok(Columns { all, accesses_only })
    }

    /// A row that has a field for every column. Accesses alone have domain 1 and device
    /// 00:01.0 where no column tells.
    ///
    /// # Errors
    /// One sentence that names the column.
    pub fn event<'a>(&self, row: impl Iterator<Item = &'a [u8]>) -> Result<Row, String> {
        let mut e = self.empty();
        let (mut text, mut meta) = (None, None);
        let mut row = row.fuse();
        for (i, column) in self.all.iter().enumerate() {
            let Some(field) = row.next() else {
                return Err(self.cut(i));
            };
            let Some(column) = column else { continue };
            if field.is_empty() {
                continue;
            }
            let whole = std::str::from_utf8(field).map_err(|_| "a field is not UTF-8")?;
            let field = whole.trim();
            let named = |why: String| format!("column {column:?}: {why}");
            let int = || number(field).map_err(named);
            let int32 = || int().and_then(|n| u32::try_from(n).map_err(|e| named(e.to_string())));
            match column {
                Column::TimeNs => e.time_ns = int()?,
                Column::TimeS => {
                    let s: f64 = field.parse().map_err(|_| named("no number of s".into()))?;
                    if !(0.0..9e9).contains(&s) {
                        return Err(named("not between 0 and 9e9 s".into()));
                    }
                    e.time_ns = (s * 1e9) as u64;
                }
                Column::Kind => e.kind = json_lines::kind(field.as_bytes())?,
                Column::Flags => e.flags = e.flags.with(Flags(int32()?)),
                Column::Cpu => {
                    e.cpu = field.parse().map_err(|_| named("no number".to_string()))?;
                }
                Column::Domain => e.domain = DomainId(int32()?),
                Column::Requester => e.requester = Requester(requester(field).map_err(named)?),
                Column::Pasid => e.pasid = Pasid(int32()?),
                Column::Addr => e.addr = int()?,
                Column::Size => e.size = int()?,
                Column::Out => {
                    e.out = int()?;
                    if self.accesses_only {
                        e.flags = e.flags.with(Flags::OUT_KNOWN);
                    }
                }
                Column::Aux => e.aux = int()?,
                Column::Text => {
                    // As exported, with the blanks at its ends.
                    text = Some(whole.strip_prefix('=').unwrap_or(field).to_string());
                }
                Column::Meta => meta = Some(json_lines::head(field)?),
                Column::Op => match field.to_ascii_lowercase().as_str() {
                    "r" | "read" | "to_device" | "get" => e.flags = e.flags.with(Flags::READ),
                    "w" | "write" | "from_device" | "set" => e.flags = e.flags.with(Flags::WRITE),
                    // Unknown directions are an honest answer.
                    _ => {}
                },
            }
        }
        Ok(Row { event: e, text, meta })
    }

    /// Why a row with fewer fields than columns is none.
    fn cut(&self, fields: usize) -> String {
        let columns = self.all.len();
        format!("it has {fields} of {columns} fields; the file or the line was cut")
    }

    /// What a row is that leaves everything open.
    fn empty(&self) -> Event {
        let mut e = Event::new(Kind::Dma);
        if self.accesses_only {
            (e.domain, e.requester) = (DomainId(1), Requester(8));
        }
        e
    }

    /// The event of a line as programs write them: no quotes, no blanks, no
    /// text. `None` for all others, for which [`event`](Columns::event) tells
    /// the same or what is wrong.
    #[inline]
    pub fn plain(&self, line: &[u8], last: &mut LastDevice) -> Option<Event> {
        let mut e = self.empty();
        let mut c = Cursor::new(line);
        for (i, column) in self.all.iter().enumerate() {
            let next = *c.rest().first().unwrap_or(&b'\r');
            if next != b',' && next != b'\r' {
                match column {
                    Some(column) => self.field(*column, &mut c, &mut e, last)?,
                    None => word(&mut c).map(drop)?,
                }
            }
            if !c.try_lit(b",") {
                let whole = i + 1 == self.all.len();
                return (whole && matches!(c.rest(), b"" | b"\r")).then_some(e);
            }
        }
        // There are more fields than columns: they mean nothing.
        memchr::memchr(b'"', c.rest()).is_none().then_some(e)
    }

    /// A field that is not empty.
    #[inline]
    fn field(
        &self,
        column: Column,
        c: &mut Cursor<'_>,
        e: &mut Event,
        last: &mut LastDevice,
    ) -> Option<()> {
        let int32 = |c: &mut Cursor<'_>| int(c).and_then(|n| u32::try_from(n).ok());
        match column {
            Column::TimeNs => e.time_ns = int(c)?,
            Column::Addr => e.addr = int(c)?,
            Column::Size => e.size = int(c)?,
            Column::Aux => e.aux = int(c)?,
            Column::Out => {
                e.out = int(c)?;
                if self.accesses_only {
                    e.flags = e.flags.with(Flags::OUT_KNOWN);
                }
            }
            Column::Kind => e.kind = json_lines::kind_of(word(c)?)?,
            Column::Flags => e.flags = e.flags.with(Flags(int32(c)?)),
            Column::Domain => e.domain = DomainId(int32(c)?),
            Column::Pasid => e.pasid = Pasid(int32(c)?),
            Column::Cpu => {
                let negative = c.try_lit(b"-");
                let cpu = i32::try_from(c.dec()?).ok()?;
                e.cpu = if negative { -cpu } else { cpu };
            }
            Column::Requester => e.requester = last.read(c)?,
            Column::Op => match word(c)? {
                b"r" | b"R" | b"read" | b"READ" => e.flags = e.flags.with(Flags::READ),
                b"w" | b"W" | b"write" | b"WRITE" => e.flags = e.flags.with(Flags::WRITE),
                _ => return None,
            },
            Column::TimeS | Column::Text | Column::Meta => return None,
        }
        Some(())
    }
}

/// The field that named a device last: most rows are of the same one.
#[derive(Debug, Default)]
pub(super) struct LastDevice {
    field: Vec<u8>,
    device: u32,
}

impl LastDevice {
    /// The requester of a field that is not empty.
    #[inline]
    fn read(&mut self, c: &mut Cursor<'_>) -> Option<Requester> {
        if !self.field.is_empty()
            && let Some(rest) = c.rest().strip_prefix(&self.field[..])
            && matches!(rest, [] | [b',' | b'\r', ..])
        {
            *c = Cursor::new(rest);
            return Some(Requester(self.device));
        }
        self.read_new(c)
    }

    fn read_new(&mut self, c: &mut Cursor<'_>) -> Option<Requester> {
        let field = word(c)?;
        let mut number = Cursor::new(field);
        let plain = int(&mut number).filter(|_| number.rest().is_empty());
        self.device = match plain.and_then(|n| u32::try_from(n).ok()) {
            Some(n) => n,
            None => bdf(field)?,
        };
        self.field.clear();
        self.field.extend_from_slice(field);
        Some(Requester(self.device))
    }
}

/// A whole number, decimal or `0x...`.
#[inline]
fn int(c: &mut Cursor<'_>) -> Option<u64> {
    if c.try_lit(b"0x") { c.hex() } else { c.dec() }
}

/// The bytes up to the next comma or the line's end; no quotes, no blanks.
#[inline]
fn word<'a>(c: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let rest = c.rest();
    let end = rest.iter().position(|b| matches!(b, b',' | b'\r')).unwrap_or(rest.len());
    let word = &rest[..end];
    c.lit(word)?;
    word.iter().all(|b| b.is_ascii_graphic() && *b != b'"').then_some(word)
}

/// `[DDDD:]BB:DD.F`.
fn bdf(word: &[u8]) -> Option<u32> {
    let short = match word {
        [_, _, _, _, b':', short @ ..] if short.len() == 7 => short,
        short => short,
    };
    let mut c = Cursor::new(short);
    let bus = c.hex32().filter(|n| *n < 256)?;
    c.lit(b":")?;
    let device = c.hex32().filter(|n| *n < 32)?;
    c.lit(b".")?;
    let function = c.hex32().filter(|n| *n < 8)?;
    c.rest().is_empty().then_some(bus << 8 | device << 3 | function)
}

/// A whole number, decimal or `0x...`.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| {
        let short: String = text.chars().take(40).collect();
        format!("\"{short}\" is no whole number of 64 bits (decimal, or hexadecimal with 0x)")
    })
}

fn bad_requester(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("\"{short}\" is no requester id; write it as BB:DD.F, for example 00:03.0")
}

/// A requester id: a number, or `[DDDD:]BB:DD.F`.
pub fn requester(text: &str) -> Result<u32, String> {
    let parts: Vec<&str> = text.split([':', '.']).collect();
    let hex = |s: &str| u32::from_str_radix(s, 16).ok();
    let ids = match *parts {
        [bus, device, function] => Some((hex(bus), hex(device), hex(function))),
        [_, bus, device, function] => Some((hex(bus), hex(device), hex(function))),
        _ => None,
    };
    match ids {
        Some((Some(bus @ 0..256), Some(device @ 0..32), Some(function @ 0..8))) => {
            Ok(bus << 8 | device << 3 | function)
        }
        Some(_) => Err(bad_requester(text)),
        None => {
            let id = number(text).ok().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| bad_requester(text))
        }
    }
}
