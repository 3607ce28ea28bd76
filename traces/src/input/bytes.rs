//! A file as bytes, compressed or not.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{TextInput, open_text};
use crate::file::Source;
use crate::{Error, Result};

/// A file being read, uncompressed on the way; see [`open_bytes`].
#[derive(Debug)]
pub struct ByteInput {
    input: TextInput,
    block: Vec<u8>,
    at: usize,
    /// The error that ended it, until [`ByteInput::error`] takes it.
    failed: Option<Error>,
}

/// Opens a file whose compression is told as by [`open_text`].
///
/// # Errors
/// As [`open_text`].
pub fn open_bytes(path: &Path) -> Result<ByteInput> {
    Ok(ByteInput { input: open_text(path)?, block: Vec::new(), at: 0, failed: None })
}

impl ByteInput {
    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        self.input.path()
    }

    /// Bytes of the file read so far, for progress.
    pub fn raw_bytes_read(&self) -> u64 {
        self.input.raw_bytes_read()
    }

    /// Size of the file in bytes when it was opened (0 for a pipe).
    pub fn raw_bytes_total(&self) -> u64 {
        self.input.raw_bytes_total()
    }

    /// The counter of bytes read.
    pub fn raw_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.input.raw_read)
    }

    /// What a failed read was in truth.
    pub fn error(&mut self, e: std::io::Error) -> Error {
        self.failed.take().unwrap_or_else(|| Error::io("read", self.input.path(), e))
    }

    /// Reads what is left and tells the file's size and SHA-256.
    ///
    /// # Errors
    /// As [`TextInput::finish`].
    pub fn finish(self) -> Result<Source> {
        self.input.finish("")
    }
}

impl Read for ByteInput {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.block.len() {
            match self.input.next_block() {
                Ok(Some(block)) => {
                    let used = std::mem::replace(&mut self.block, block);
                    let _ = self.input.used.try_send(used);
                    self.at = 0;
                }
                Ok(None) => return Ok(0),
                Err(e) => {
                    let text = e.to_string();
                    self.failed = Some(e);
                    return Err(std::io::Error::other(text));
                }
            }
        }
        let n = into.len().min(self.block.len() - self.at);
        into[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
