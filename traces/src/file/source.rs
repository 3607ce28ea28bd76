//! Bytes of a Parquet file, with limits on what its page headers may ask for.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// Most bytes of a page after decompression. Our own pages have at most
/// 2 MiB; other writers keep to 1 MiB by default. The limit keeps a damaged
/// or hostile header from asking for 2 GiB.
const MAX_PAGE_BYTES: i64 = 64 << 20;

/// Bytes read at once for a page header; statistics make it about 100.
const MAX_HEADER_BYTES: u64 = 16 << 10;

/// A file on disk or in memory.
#[derive(Debug)]
pub enum Source {
    /// Position and reads are one step under the lock: several decoders may
    /// read the same file.
    File {
        file: Mutex<File>,
        len: u64,
    },
    Memory(Bytes),
}

impl Source {
    pub fn file(mut file: File) -> std::io::Result<Source> {
        // Not the metadata: a block device has its length only here.
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Source::File { file: Mutex::new(file), len })
    }

    /// `length` bytes from `start`.
    pub fn read(&self, start: u64, length: u64) -> Result<Bytes> {
        if start.checked_add(length).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at offset {start} are beyond its end at {}",
                self.len()
            )));
        }
        match self {
            Source::Memory(bytes) => Ok(bytes.slice(start as usize..(start + length) as usize)),
            Source::File { file, .. } => {
                let mut file = file.lock().unwrap_or_else(|e| e.into_inner());
                let mut buffer = Vec::with_capacity(length as usize);
                file.seek(SeekFrom::Start(start))?;
                let read = (&mut *file).take(length).read_to_end(&mut buffer)?;
                if (read as u64) < length {
                    return Err(ParquetError::EOF("it became shorter while being read".into()));
                }
                Ok(buffer.into())
            }
        }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        match self {
            Source::File { len, .. } => *len,
            Source::Memory(bytes) => bytes.len() as u64,
        }
    }
}

/// A [`Source`] as the page reader sees it: what is read with `get_read` is a
/// page header, which is checked before the library believes it.
#[derive(Clone, Debug)]
pub struct PageSource {
    source: Arc<Source>,
    /// A part of the file already read, and where it starts.
    window: Option<(u64, Bytes)>,
}

impl PageSource {
    /// The part of the file that was read at once, and where it starts.
    pub fn window(&self) -> Option<&(u64, Bytes)> {
        self.window.as_ref()
    }

    /// Pages are read one by one.
    pub fn new(source: &Arc<Source>) -> PageSource {
        PageSource { source: Arc::clone(source), window: None }
    }

    /// Reads a whole row group at once and checks its sum.
    pub fn checked(source: &Arc<Source>, start: u64, end: u64, sum: u32) -> Result<PageSource> {
        if end.saturating_sub(start) > MAX_PAGE_BYTES as u64 {
            return Err(ParquetError::General(format!("its pages take {} bytes", end - start)));
        }
        let bytes = source.read(start, end - start)?;
        let found = crc32fast::hash(&bytes);
        if found != sum {
            return Err(ParquetError::General(format!(
                "the checksum of bytes {start} to {end} is {found:08x}, not {sum:08x}"
            )));
        }
        Ok(PageSource { source: Arc::clone(source), window: Some((start, bytes)) })
    }

    fn read(&self, start: u64, length: u64) -> Result<Bytes> {
        if let Some((base, bytes)) = &self.window {
            let from = start.checked_sub(*base).and_then(|f| usize::try_from(f).ok());
            let to = from.and_then(|f| f.checked_add(length as usize));
            if let (Some(from), Some(to)) = (from, to)
                && to <= bytes.len()
            {
                return Ok(bytes.slice(from..to));
            }
        }
        self.source.read(start, length)
    }
}

impl Length for PageSource {
    fn len(&self) -> u64 {
        self.source.len()
    }
}

impl ChunkReader for PageSource {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let length = self.len().saturating_sub(start).min(MAX_HEADER_BYTES);
        let mut length = length;
        if let Some((base, bytes)) = &self.window {
            // Headers near the window's end are shorter than the usual read.
            let end = base + bytes.len() as u64;
            if (*base..end).contains(&start) {
                length = length.min(end - start);
            }
        }
        let header = self.read(start, length)?;
        check_page_header(&header)?;
        Ok(Cursor::new(header))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.read(start, length as u64)
    }
}

/// A [`Source`] as the footer's reader sees it.
impl ChunkReader for Source {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let length = self.len().saturating_sub(start);
        Ok(Cursor::new(self.read(start, length)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.read(start, length as u64)
    }
}

/// Refuses a page header (Thrift compact protocol) that asks for more memory
/// than [`MAX_PAGE_BYTES`], or whose dictionary has more entries than bytes.
///
/// Only the leading fields are looked at: 1 type, 2 uncompressed size, 3
/// compressed size, 4 checksum, then 7 the dictionary's header with 1 its
/// number of values. Every writer sends fields in ascending order.
fn check_page_header(bytes: &[u8]) -> Result<()> {
    const I32: u8 = 5;
    const STRUCT: u8 = 12;
    let mut at = 0;
    let mut field = 0;
    let mut size = 0;
    let mut entries = 0;
    let bad = |what: &str| ParquetError::General(format!("invalid page header: {what}"));
    while let Some((id, kind)) = next_field(bytes, &mut at, field) {
        field = id;
        match (id, kind) {
            (1..=4, I32) => {
                let value = zigzag(bytes, &mut at).ok_or_else(|| bad("it ends early"))?;
                if id == 2 {
                    size = value;
                }
            }
            (7, STRUCT) => {
                if let Some((1, I32)) = next_field(bytes, &mut at, 0) {
                    entries = zigzag(bytes, &mut at).ok_or_else(|| bad("it ends early"))?;
                } else {
                    return Err(bad("a dictionary without a size"));
                }
                break;
            }
            // Data and index pages: no further number sizes memory.
            (5 | 6 | 8, STRUCT) => break,
            _ => return Err(bad("unknown layout")),
        }
    }
    if field < 4 {
        return Err(bad("it ends early"));
    }
    if !(0..=MAX_PAGE_BYTES).contains(&size) {
        return Err(bad(&format!("a page of {size} bytes, more than {MAX_PAGE_BYTES}")));
    }
    // 4 bytes at least: an integer, or the length of a text.
    if !(0..=size / 4).contains(&entries) {
        return Err(bad(&format!("a dictionary of {entries} values in {size} bytes")));
    }
    Ok(())
}

/// Id and type of the next field of a struct, `None` at its end.
fn next_field(bytes: &[u8], at: &mut usize, previous: i64) -> Option<(i64, u8)> {
    let byte = *bytes.get(*at)?;
    *at += 1;
    let (delta, kind) = (byte >> 4, byte & 15);
    match (delta, kind) {
        (_, 0) => None,
        (0, _) => Some((zigzag(bytes, at)?, kind)),
        _ => Some((previous + i64::from(delta), kind)),
    }
}

/// A zigzag-coded variable-length integer.
fn zigzag(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field 1..4 header with these sizes and the dictionary's length.
    fn header(size: i64, entries: i64) -> Vec<u8> {
        let mut out = vec![];
        let mut put = |head: u8, value: i64| {
            out.push(head);
            let mut v = ((value << 1) ^ (value >> 63)) as u64;
            while v >= 0x80 {
                out.push(v as u8 | 0x80);
                v >>= 7;
            }
            out.push(v as u8);
        };
        put(0x15, 2);
        put(0x15, size);
        put(0x15, 100);
        put(0x15, -5);
        // Field 7, a struct: delta 3, type 12; then its field 1.
        out.push(0x3c);
        out.push(0x15);
        let mut v = (entries << 1) as u64;
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
        out
    }

    #[test]
    fn sane_headers_pass_and_huge_ones_do_not() {
        assert!(check_page_header(&header(1000, 125)).is_ok());
        assert!(check_page_header(&header(1000, 251)).is_err());
        assert!(check_page_header(&header(1000, 1 << 31)).is_err());
        assert!(check_page_header(&header(1 << 30, 1)).is_err());
        assert!(check_page_header(&header(-1, 0)).is_err());
        assert!(check_page_header(&[]).is_err());
        for cut in 0..8 {
            assert!(check_page_header(&header(1000, 125)[..cut]).is_err(), "{cut}");
        }
    }
}
