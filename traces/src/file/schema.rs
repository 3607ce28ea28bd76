//! The columns of a trace file and how each is stored.

use std::sync::Arc;

use ioasim_events::Kind;
use parquet::basic::{
    Compression, ConvertedType, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use serde_json::{Map, Value, json};

/// Value of the metadata key `ioasim.schema`. The number changes when a reader
/// of the old version would misunderstand the file; added columns and
/// metadata keys do not change it.
pub const SCHEMA: &str = "ioasim.trace/1";
/// Metadata key of the schema's name and version.
pub const KEY_SCHEMA: &str = "ioasim.schema";
/// Metadata key of [`Meta`](super::Meta) as JSON.
pub const KEY_META: &str = "ioasim.trace";
/// Metadata key of the kind codes' names as JSON, for people and SQL.
pub const KEY_KINDS: &str = "ioasim.kinds";
/// Metadata key of the flag bits' names as JSON, for people and SQL.
pub const KEY_FLAGS: &str = "ioasim.flags";
/// Metadata key of the row groups' checksums: eight hexadecimal digits each,
/// the CRC-32 (as of gzip) of the bytes from the group's first page to its
/// last. Parquet's own page checksums are not written by our library.
pub const KEY_CHECKSUMS: &str = "ioasim.crc32";

/// Events of a row group.
///
/// A row group is the unit that the writer holds in memory (72 bytes per
/// event: 4.7 MB, two of them) and that SQL engines skip by its statistics
/// and hand to threads. Smaller groups make dictionaries less useful and the
/// footer larger.
pub const ROW_GROUP_EVENTS: usize = 65_536;

/// Row groups of [`ROW_GROUP_EVENTS`]; those after it are
/// [`LARGE_GROUP_FACTOR`] times as large.
///
/// A reader holds the footer in memory, 5.4 KB per row group. A trace of 10^9
/// events would need 82 MB with small groups only, more than a replay may
/// use; it needs 25 MB with large ones from 67 M events on.
pub const SMALL_GROUPS: usize = 1024;
/// See [`SMALL_GROUPS`].
pub const LARGE_GROUP_FACTOR: usize = 4;

/// Most bytes of the text of one marker; longer texts are cut.
pub const MAX_TEXT_BYTES: usize = 4096;

/// The 32-bit columns of [`ioasim_events::Chunk`] in the order of the file.
pub const COLUMNS_32: [&str; 6] = ["kind", "flags", "cpu", "domain", "requester", "pasid"];
/// The 64-bit columns of [`ioasim_events::Chunk`].
pub const COLUMNS_64: [&str; 5] = ["time_ns", "addr", "size", "out", "aux"];
/// The optional text column.
pub const COLUMN_TEXT: &str = "text";

/// How a column is stored. The choice is measured: `docs/trace-format.md`.
enum Store {
    /// Dictionary with run-length and bit-packed indices: few values, or
    /// values that come again. Falls back to delta when the dictionary of a
    /// row group passes [`DICTIONARY_BYTES`].
    Dictionary,
    /// The same, then zstd.
    DictionaryZstd,
    /// Differences of neighbours, bit-packed, then zstd: times.
    DeltaZstd,
}

/// Limit of a row group's dictionary (16,384 addresses, 14-bit indices).
/// Beyond it, storing differences is as small and faster to decode.
const DICTIONARY_BYTES: usize = 128 << 10;

/// A page is stored compressed only if zstd makes it this much smaller:
/// decompressing costs more time than the rest of decoding.
const COMPRESSION_THRESHOLD: f64 = 0.7;

/// zstd level: levels 1 to 3 differ by 10 % in size here and by 50 % in
/// writing time.
const ZSTD_LEVEL: i32 = 1;

/// Name, physical type, bits, signedness and storage of the integer columns,
/// in the order of the file.
const COLUMNS: [(&str, Physical, i8, bool, Store); 11] = [
    ("time_ns", Physical::INT64, 64, false, Store::DeltaZstd),
    ("kind", Physical::INT32, 8, false, Store::Dictionary),
    ("flags", Physical::INT32, 32, false, Store::DictionaryZstd),
    ("cpu", Physical::INT32, 16, true, Store::Dictionary),
    ("domain", Physical::INT32, 32, false, Store::Dictionary),
    ("requester", Physical::INT32, 32, false, Store::Dictionary),
    ("pasid", Physical::INT32, 32, false, Store::Dictionary),
    ("addr", Physical::INT64, 64, false, Store::Dictionary),
    ("size", Physical::INT64, 64, false, Store::Dictionary),
    ("out", Physical::INT64, 64, false, Store::Dictionary),
    ("aux", Physical::INT64, 64, false, Store::Dictionary),
];

/// The Parquet schema.
pub fn parquet_schema() -> Result<TypePtr, ParquetError> {
    let mut fields = Vec::with_capacity(COLUMNS.len() + 1);
    for (name, physical, bit_width, is_signed, _) in COLUMNS {
        let logical = LogicalType::integer(bit_width, is_signed);
        fields.push(Arc::new(
            Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::REQUIRED)
                .with_logical_type(Some(logical))
                .build()?,
        ));
    }
    fields.push(Arc::new(
        Type::primitive_type_builder(COLUMN_TEXT, Physical::BYTE_ARRAY)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::String))
            .with_converted_type(ConvertedType::UTF8)
            .build()?,
    ));
    Type::group_type_builder("ioasim_trace").with_fields(fields).build().map(Arc::new)
}

/// Encodings, compression and sizes.
pub fn writer_properties() -> Result<WriterProperties, ParquetError> {
    let rows = ROW_GROUP_EVENTS;
    let zstd = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?);
    let mut props = WriterProperties::builder()
        // Version 2 pages say themselves whether they are compressed.
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_created_by(concat!("ioasim-traces ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::UNCOMPRESSED)
        .set_data_page_v2_compression_ratio_threshold(COMPRESSION_THRESHOLD)
        // Few pages per column and row group: a page index adds nothing.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        // Unpacked pages of 128 KiB at most: beyond that, the C library's
        // allocator asks the kernel for each (`M_MMAP_THRESHOLD`).
        .set_data_page_row_count_limit(rows / 4)
        .set_data_page_size_limit(4 * rows)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_max_row_group_row_count(Some(rows * LARGE_GROUP_FACTOR));
    for (name, .., store) in COLUMNS {
        let (dictionary, compressed) = match store {
            Store::Dictionary => (true, false),
            Store::DictionaryZstd => (true, true),
            Store::DeltaZstd => (false, true),
        };
        props = props
            .set_column_dictionary_enabled(ColumnPath::from(name), dictionary)
            .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
        if compressed {
            props = props.set_column_compression(ColumnPath::from(name), zstd);
        }
    }
    Ok(props.build())
}

/// Value of [`KEY_KINDS`]: `{"0":"dma", ...}`.
pub fn kinds_json() -> Value {
    let names = Kind::ALL.iter().map(|&k| ((k as u8).to_string(), Value::from(k.name())));
    Value::Object(names.collect::<Map<_, _>>())
}

/// Value of [`KEY_FLAGS`]: bit numbers to names, and the field of the reach.
pub fn flags_json() -> Value {
    json!({
        "0": "read",
        "1": "write",
        "2": "label_known",
        "3": "hit",
        "4": "out_known",
        "5": "fault",
        "6": "inferred",
        "7": "domain_inferred",
        "8": "leaf_only",
        "9": "notified",
        "10": "map_notify",
        "12-14": {
            "field": "scope",
            "0": "none",
            "1": "page",
            "2": "domain",
            "3": "global",
            "4": "context",
            "5": "reset",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ioasim_events::{Flags, Scope};

    #[test]
    fn flag_names_sit_at_the_bits_of_the_event_type() {
        let names = flags_json();
        for (flag, name) in [
            (Flags::READ, "read"),
            (Flags::WRITE, "write"),
            (Flags::LABEL_KNOWN, "label_known"),
            (Flags::HIT, "hit"),
            (Flags::OUT_KNOWN, "out_known"),
            (Flags::FAULT, "fault"),
            (Flags::INFERRED, "inferred"),
            (Flags::DOMAIN_INFERRED, "domain_inferred"),
            (Flags::LEAF_ONLY, "leaf_only"),
            (Flags::NOTIFIED, "notified"),
            (Flags::MAP_NOTIFY, "map_notify"),
        ] {
            assert_eq!(names[flag.0.trailing_zeros().to_string()], name);
        }
        for (scope, name) in [
            (Scope::Page, "page"),
            (Scope::Domain, "domain"),
            (Scope::Global, "global"),
            (Scope::Context, "context"),
            (Scope::Reset, "reset"),
        ] {
            let code = Flags::with_scope(scope).0 >> 12;
            assert_eq!(names["12-14"][code.to_string()], name);
        }
    }
}
