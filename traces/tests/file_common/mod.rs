//! Helpers of the tests of trace files.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester, Scope};
use ioasim_traces::Error;
use ioasim_traces::file::{Meta, TraceReader, TraceWriter};
use parquet::data_type::{Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// A folder that goes with the test.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A plausible event sequence: map, invalidate, accesses, unmap, invalidate.
pub fn events(n: u64) -> Vec<Event> {
    (0..n)
        .map(|i| {
            let page = (i / 8).wrapping_mul(0x9e37_79b9) % 512;
            let (addr, domain) = (0xfff0_0000 + (page << 12), DomainId(3 + (i / 64 % 3) as u32));
            let e =
                |kind| Event { time_ns: i * 1500, addr, size: 4096, domain, ..Event::new(kind) };
            match i % 8 {
                0 => Event {
                    out: 0x1_0000_0000 + (page << 12),
                    flags: Flags::READ,
                    cpu: 1,
                    ..e(Kind::Map)
                },
                1 | 7 => {
                    Event { flags: Flags::with_scope(Scope::Page), cpu: 0, ..e(Kind::Invalidate) }
                }
                6 => e(Kind::Unmap),
                _ => Event {
                    size: 64,
                    addr: addr + i % 4096,
                    out: 0x1_0000_0000 + (page << 12) + i % 4096,
                    requester: Requester(8),
                    pasid: if i % 16 == 4 { Pasid(7) } else { Pasid::NONE },
                    flags: Flags::LABEL_KNOWN.with(Flags::OUT_KNOWN).with(Flags::HIT),
                    ..e(Kind::Dma)
                },
            }
        })
        .collect()
}

pub fn write(path: &Path, events: &[Event]) -> Result<(), Error> {
    let mut writer = TraceWriter::create(path)?;
    for e in events {
        writer.push(e)?;
    }
    writer.finish(Meta { tool: "test".into(), ..Meta::default() }).map(drop)
}

/// All events, and that the chunks are numbered without gaps.
pub fn read(reader: &TraceReader) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    for chunk in reader.chunks() {
        let chunk = chunk?;
        assert_eq!(chunk.first, events.len() as u64);
        assert!(!chunk.is_empty());
        events.extend((0..chunk.len()).map(|i| chunk.event(i)));
    }
    Ok(events)
}

/// Opens and reads everything; the bytes need not be a trace.
pub fn read_file(path: &Path) -> Result<Vec<Event>, Error> {
    let reader = TraceReader::open(path)?;
    let events = read(&reader)?;
    for marker in reader.markers() {
        marker?;
    }
    Ok(events)
}

pub const INTS: [&str; 6] = ["kind", "flags", "cpu", "domain", "requester", "pasid"];
pub const COLUMNS: &str = "REQUIRED INT64 time_ns; REQUIRED INT32 kind; REQUIRED INT32 flags; \
    REQUIRED INT32 cpu; REQUIRED INT32 domain; REQUIRED INT32 requester; REQUIRED INT32 pasid; \
    REQUIRED INT64 addr; REQUIRED INT64 size; REQUIRED INT64 out; REQUIRED INT64 aux;";

/// A file by a foreign writer: these integer columns, `rows` rows in one row
/// group whose values are all `value(column)`.
pub fn foreign(
    path: &Path,
    columns: &str,
    keys: &[(&str, String)],
    rows: usize,
    value: impl Fn(&str) -> i64,
) -> PathBuf {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {columns} }}")).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for field in columns.split(';').map(str::trim).filter(|f| !f.is_empty()) {
        let mut words = field.split(' ').skip(1);
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let mut column = group.next_column().unwrap().unwrap();
        if kind == "INT32" {
            let values = vec![value(name) as i32; rows];
            column.typed::<Int32Type>().write_batch(&values, None, None).unwrap();
        } else {
            let values = vec![value(name); rows];
            column.typed::<Int64Type>().write_batch(&values, None, None).unwrap();
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    for (key, value) in keys {
        let value = Some(value.clone());
        writer.append_key_value_metadata(KeyValue { key: (*key).into(), value });
    }
    writer.close().unwrap();
    path.to_owned()
}

/// The metadata keys of a trace of `events` events.
pub fn keys(events: u64) -> Vec<(&'static str, String)> {
    vec![
        ("ioasim.schema", "ioasim.trace/1".into()),
        ("ioasim.trace", format!(r#"{{"totals":{{"events":{events}}}}}"#)),
    ]
}
