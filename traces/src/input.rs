//! Lines of text logs, plain or compressed, read once.
//!
//! [`open_text`] starts a thread that reads the file, hashes it and
//! decompresses it into blocks of 1 MiB; [`TextInput::next_line`] hands out
//! lines that point into those blocks. Only lines that lie across two blocks
//! are copied. Memory is bounded: [`QUEUED_BLOCKS`] blocks, one line of at
//! most [`MAX_LINE_BYTES`], and the window of the compression format.

mod bytes;
mod lines;
mod printer;
mod simple;
mod unpack;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::file::Source;
use crate::{Error, Result};
pub use bytes::{ByteInput, open_bytes};
use lines::Lines;
pub use lines::{Line, MAX_LINE_BYTES};
use unpack::{Digest, Unpacker};

/// Bytes of uncompressed text that travel between the threads at once.
pub const BLOCK_BYTES: usize = 1 << 20;

/// Blocks that wait for the reader of lines.
pub const QUEUED_BLOCKS: usize = 3;

/// A log being read; see [`open_text`].
#[derive(Debug)]
pub struct TextInput {
    path: PathBuf,
    raw_bytes: u64,
    raw_read: Arc<AtomicU64>,
    text_bytes: u64,
    lines: Lines,
    /// `None` after the last block.
    blocks: Option<Receiver<Result<Vec<u8>>>>,
    used: Sender<Vec<u8>>,
    thread: Option<JoinHandle<Option<Digest>>>,
}

/// Opens a log. QEMU's binary trace (its `simple` backend) is read as the text of its `log` backend.
/// Its compression (zstd, gzip, xz or none) is told from its
/// first bytes, not from its name; concatenated frames, members and streams
/// are read one after the other.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened or read, [`Error::NotText`] for a
/// Parquet file.
pub fn open_text(path: &Path) -> Result<TextInput> {
    if path.is_dir() {
        let reason = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(Error::io("open", path, reason));
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let raw_bytes = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
    let raw_read = Arc::new(AtomicU64::new(0));
    let unpacker = Unpacker::new(path, file, Arc::clone(&raw_read))?;
    let (out, blocks) = bounded(QUEUED_BLOCKS);
    let (used, empty) = bounded(QUEUED_BLOCKS + 2);
    let thread = thread::Builder::new()
        .name("log-unpack".into())
        .spawn(move || unpack(unpacker, &out, &empty))
        .map_err(|e| Error::io("start a thread for", path, e))?;
    Ok(TextInput {
        path: path.to_owned(),
        raw_bytes,
        raw_read,
        text_bytes: 0,
        lines: Lines::default(),
        blocks: Some(blocks),
        used,
        thread: Some(thread),
    })
}

impl TextInput {
    /// The next line, `None` at the end.
    ///
    /// Lines end with LF or CRLF; the last one may end with the file. The
    /// bytes may be of any encoding.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Compressed`] if the compressed stream is
    /// damaged or ends early; the lines before it have been handed out.
    #[inline]
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        self.find_line()?;
        Ok(self.lines.take())
    }

    /// The bytes of the line that [`next_line`](TextInput::next_line) will hand
    /// out, `None` at the end.
    ///
    /// # Errors
    /// As [`next_line`](TextInput::next_line).
    pub fn peek_line(&mut self) -> Result<Option<&[u8]>> {
        self.find_line()?;
        Ok(self.lines.peek())
    }

    #[inline]
    fn find_line(&mut self) -> Result<()> {
        while !self.lines.ready() {
            let next = self.blocks.as_ref().and_then(|b| b.recv().ok()).transpose();
            match next {
                Ok(Some(block)) => {
                    self.text_bytes += block.len() as u64;
                    let used = self.lines.feed(block);
                    // Full only if blocks were made elsewhere: then free it.
                    let _ = self.used.try_send(used);
                }
                Ok(None) => {
                    self.blocks = None;
                    self.lines.end();
                    break;
                }
                Err(error) => {
                    self.blocks = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The next block, `None` at the end; not to be mixed with lines.
    fn next_block(&mut self) -> Result<Option<Vec<u8>>> {
        match self.blocks.as_ref().and_then(|b| b.recv().ok()).transpose() {
            Ok(Some(block)) => {
                self.text_bytes += block.len() as u64;
                Ok(Some(block))
            }
            Ok(None) => {
                self.blocks = None;
                Ok(None)
            }
            Err(error) => {
                self.blocks = None;
                Err(error)
            }
        }
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of uncompressed text taken from the decompressor so far.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Bytes of the file read so far, for progress.
    pub fn raw_bytes_read(&self) -> u64 {
        self.raw_read.load(Ordering::Relaxed)
    }

    /// Size of the file in bytes when it was opened (0 for a pipe).
    pub fn raw_bytes_total(&self) -> u64 {
        self.raw_bytes
    }

    /// Reads what is left and tells the file's size and SHA-256.
    ///
    /// # Errors
    /// As [`next_line`](TextInput::next_line).
    pub fn finish(mut self, role: &str) -> Result<Source> {
        if let Some(blocks) = self.blocks.take() {
            for block in blocks {
                let _ = self.used.try_send(block?);
            }
        }
        let digest = self.thread.take().and_then(|t| t.join().ok()).flatten();
        // It has ended without an error block only if it read everything.
        let Some(digest) = digest else {
            let reason = std::io::Error::other("reading stopped before its end");
            return Err(Error::io("read", &self.path, reason));
        };
        Ok(Source {
            role: role.to_owned(),
            path: self.path.display().to_string(),
            bytes: digest.bytes,
            sha256: digest.sha256,
        })
    }
}

impl Drop for TextInput {
    fn drop(&mut self) {
        // Its next send fails.
        self.blocks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread: blocks until the end, an error, or nobody listens.
fn unpack(
    mut unpacker: Unpacker,
    out: &Sender<Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> Option<Digest> {
    loop {
        let mut block = empty.try_recv().unwrap_or_default();
        block.resize(BLOCK_BYTES, 0);
        match unpacker.fill(&mut block) {
            Ok(0) => break,
            Ok(n) => {
                block.truncate(n);
                out.send(Ok(block)).ok()?;
            }
            Err(error) => {
                let _ = out.send(Err(error));
                return None;
            }
        }
    }
    match unpacker.digest() {
        Ok(digest) => Some(digest),
        Err(error) => {
            let _ = out.send(Err(error));
            None
        }
    }
}
