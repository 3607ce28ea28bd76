//! SHA-256 of a file, worked out from what is read of it anyway.

use parquet::errors::Result;
use parquet::file::reader::Length;
use sha2::{Digest, Sha256};

use super::source::Source;

/// The checksum of a file's bytes up to a place.
pub struct FileSum {
    sha: Sha256,
    /// Bytes before this place are in.
    until: u64,
}

impl FileSum {
    /// Bytes read at once of what nobody else has read.
    const BLOCK: u64 = 256 << 10;

    pub fn new() -> FileSum {
        FileSum { sha: Sha256::new(), until: 0 }
    }

    /// Takes the bytes of `source` that were read from `start`. What lies
    /// before them and was not taken is read now; what is in already is not
    /// taken twice.
    pub fn take(&mut self, source: &Source, start: u64, bytes: &[u8]) -> Result<()> {
        self.catch_up(source, start)?;
        let known = (self.until - start).min(bytes.len() as u64);
        let new = &bytes[known as usize..];
        self.sha.update(new);
        self.until += new.len() as u64;
        Ok(())
    }

    /// The checksum of the whole file, as hexadecimal digits.
    pub fn finish(mut self, source: &Source) -> Result<String> {
        self.catch_up(source, source.len())?;
        Ok(self.sha.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Reads up to a place, if it is ahead.
    fn catch_up(&mut self, source: &Source, place: u64) -> Result<()> {
        while self.until < place {
            let bytes = source.read(self.until, (place - self.until).min(FileSum::BLOCK))?;
            self.sha.update(&bytes);
            self.until += bytes.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    proptest! {
        /// Whatever parts are read, in whatever order.
        #[test]
        fn parts_add_up_to_the_file(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            parts in prop::collection::vec((0usize..2100, 0usize..700), 0..8),
        ) {
            let source = Source::Memory(Bytes::from(bytes.clone()));
            let mut sum = FileSum::new();
            for (start, len) in parts {
                let start = start.min(bytes.len());
                let end = (start + len).min(bytes.len());
                sum.take(&source, start as u64, &bytes[start..end]).unwrap();
            }
            let whole: String =
                Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
            prop_assert_eq!(sum.finish(&source).unwrap(), whole);
        }
    }
}
