//! Files that are not traces, or no longer: an error that says what to do,
//! never a panic, a hang or a huge allocation.

mod file_common;

use std::path::Path;
use std::sync::Arc;

use file_common::{COLUMNS, INTS, events, foreign, keys, read, read_file, write};
use ioasim_events::Kind;
use ioasim_traces::Error;
use ioasim_traces::file::{CHUNK_EVENTS, TraceReader};
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter,
};

fn message(path: &Path) -> String {
    read_file(path).unwrap_err().to_string()
}

fn foreign_value(name: &str) -> i64 {
    match name {
        "kind" => Kind::Dma as i64,
        name if INTS.contains(&name) => -1,
        _ => 7,
    }
}

#[test]
fn other_files_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let p = path.display();
    for (bytes, why) in [
        (&b""[..], "it is empty"),
        (b"24940@1795405396.607916:vtd_iotlb_page_hit\n", "no Parquet magic at its start and end"),
        (b"PAR", "no Parquet magic at its start and end"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let wanted = format!(
            "{p} is not an ioasim trace ({why}); import logs with `ioasim trace import {p} -o T.parquet`"
        );
        assert_eq!(message(&path), wanted);
    }
    std::fs::write(&path, b"PAR1 and then nothing").unwrap();
    assert_eq!(
        message(&path),
        format!(
            "{p} is damaged (it starts as Parquet but has no footer at its end, so it is truncated); \
             copy or import it again"
        )
    );
    assert!(matches!(TraceReader::open(&dir.path().join("none")), Err(Error::Io { .. })));
    assert!(matches!(TraceReader::from_bytes(b""), Err(Error::NotATrace { .. })));
}

#[test]
fn other_parquet_files_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    foreign(&path, "REQUIRED INT64 price;", &[], 3, foreign_value);
    assert!(message(&path).contains("(Parquet without the metadata key ioasim.schema)"));

    let newer = [("ioasim.schema", "ioasim.trace/2".to_owned())];
    foreign(&path, COLUMNS, &newer, 3, foreign_value);
    let text = message(&path);
    assert!(text.contains("\"ioasim.trace/2\" but this ioasim reads \"ioasim.trace/1\""), "{text}");

    foreign(&path, &COLUMNS.replace("REQUIRED INT64 addr;", ""), &keys(3), 3, foreign_value);
    assert!(message(&path).contains("column \"addr\" is missing"));
    foreign(&path, &COLUMNS.replace("INT64 addr", "INT32 addr"), &keys(3), 3, foreign_value);
    assert!(message(&path).contains("column \"addr\" has type INT32 instead of INT64"));

    foreign(&path, COLUMNS, &keys(4), 3, foreign_value);
    assert!(message(&path).contains("its metadata 4 events"));
    let broken = [keys(3)[0].clone(), ("ioasim.trace", "{".to_owned())];
    foreign(&path, COLUMNS, &broken, 3, foreign_value);
    assert!(message(&path).contains("metadata key ioasim.trace: EOF"));
}

#[test]
fn large_row_groups_and_extra_columns_of_other_writers_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let columns = format!("REQUIRED INT32 note; {COLUMNS} REQUIRED INT64 extra;");
    foreign(&path, &columns, &keys(300_000), 300_000, foreign_value);
    let reader = TraceReader::open(&path).unwrap();
    let all = read(&reader).unwrap();
    assert_eq!(all.len(), 300_000);
    assert!(all.iter().all(|e| e.kind == Kind::Dma && e.addr == 7 && e.cpu == -1));
    assert_eq!(reader.markers().count(), 0);
}

#[test]
fn unknown_kinds_and_falling_times_name_the_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let kind = |name: &str| {
        if name == "kind" { 37 } else { foreign_value(name) }
    };
    foreign(&path, COLUMNS, &keys(3), 3, kind);
    assert!(
        message(&path)
            .contains("x.parquet: row 0 has unknown event kind 37 (this ioasim knows 0 to 11)")
    );
    let negative = |name: &str| {
        if name == "kind" { -1 } else { foreign_value(name) }
    };
    foreign(&path, COLUMNS, &keys(3), 3, negative);
    assert!(message(&path).contains("unknown event kind -1"));
    let time = |name: &str| {
        if name == "time_ns" { -5 } else { foreign_value(name) }
    };
    foreign(&path, COLUMNS, &keys(3), 3, time);
    assert!(message(&path).contains("the time goes back at row 0"));
}

#[test]
fn truncation_anywhere_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write(&path, &events(3000)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for i in 0..300 {
        let length = whole.len() * i / 300;
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(read_file(&path).is_err(), "{length} of {} bytes", whole.len());
    }
    for cut in 1..24 {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert!(read_file(&path).is_err());
    }
}

#[test]
fn flipped_bytes_are_found_in_pages_and_never_panic_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let all = events(3000);
    write(&path, &all).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap());
    let pages_end = whole.len() - 8 - footer as usize;
    // Not a power of two: all positions of repeating structures are hit.
    for at in (0..whole.len()).step_by(whole.len() / 700 + 1) {
        for mask in [0x01, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(read) = read_file(&path) {
                // Page headers and the footer hold numbers that do not
                // matter (statistics); page contents have a checksum.
                if at < pages_end {
                    assert!(read == all, "byte {at} with {mask:#x} changed the events");
                }
            }
        }
    }
}

#[test]
fn a_footer_that_claims_a_trillion_rows_does_not_allocate_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let huge = 1_000_000_000_000;
    foreign(&path, COLUMNS, &keys(huge), 1000, foreign_value);
    let whole = std::fs::read(&path).unwrap();
    let footer = ParquetMetaDataReader::new()
        .parse_and_finish(&std::fs::File::open(&path).unwrap())
        .unwrap();
    let group = footer.row_group(0);
    let columns = group
        .columns()
        .iter()
        .map(|c| c.clone().into_builder().set_num_values(huge as i64).build().unwrap());
    let group = group
        .clone()
        .into_builder()
        .set_num_rows(huge as i64)
        .set_column_metadata(columns.collect())
        .build()
        .unwrap();
    let facts = footer.file_metadata();
    let to_keys = |(key, value): (&str, String)| KeyValue { key: key.into(), value: Some(value) };
    let facts = FileMetaData::new(
        facts.version(),
        huge as i64,
        None,
        Some(keys(huge).into_iter().map(to_keys).collect()),
        Arc::new(facts.schema_descr().clone()),
        None,
    );
    let mut bytes = whole;
    let lying = ParquetMetaData::new(facts, vec![group]);
    ParquetMetaDataWriter::new(&mut bytes, &lying).finish().unwrap();
    std::fs::write(&path, bytes).unwrap();

    let reader = TraceReader::open(&path).unwrap();
    assert_eq!(reader.info().events, huge);
    let error = read(&reader).unwrap_err();
    let missing = format!("ends {} rows early", CHUNK_EVENTS - 1000);
    assert!(error.to_string().contains(&missing), "{error}");
}
