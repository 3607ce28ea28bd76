//! A file that appears when it is complete, or a stream that is written to.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ioasim_output::{Place, file, place, temporary};
use tempfile::NamedTempFile;

use crate::{Error, Result};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Events taken.
    pub events: u64,
    /// Records made of them: oracleGeneral has one per page.
    pub records: u64,
    /// Bytes of the output.
    pub bytes: u64,
}

/// A temporary file beside the one it will be: it has its name only after
/// [`Output::finish`], and is removed if that is never called. A device or a
/// FIFO is written to at once.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    to: BufWriter<To>,
    bytes: u64,
}

#[derive(Debug)]
enum To {
    File { file: NamedTempFile, target: PathBuf },
    Stream(File),
}

impl To {
    fn file(target: PathBuf) -> std::io::Result<To> {
        Ok(To::File { file: temporary(&target)?, target })
    }

    fn as_file(&mut self) -> &mut File {
        match self {
            To::File { file, .. } => file.as_file_mut(),
            To::Stream(file) => file,
        }
    }
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.as_file().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.as_file().flush()
    }
}

impl Output {
    /// Begins a file, or opens a stream.
    ///
    /// # Errors
    /// [`Error::Io`] if `path` is a folder or its folder cannot be written to.
    pub fn create(path: &Path) -> Result<Output> {
        Output::new(path, || match place(path)? {
            Place::File(target) => To::file(target),
            Place::Stream(stream) => Ok(To::Stream(stream)),
        })
    }

    /// Begins a file, which can be [patched](Output::patch).
    ///
    /// # Errors
    /// As [`create`](Output::create), and if `path` is no file.
    pub(super) fn create_file(path: &Path) -> Result<Output> {
        Output::new(path, || To::file(file(path)?))
    }

    fn new(path: &Path, to: impl FnOnce() -> std::io::Result<To>) -> Result<Output> {
        let to = to().map_err(|e| Error::io("create", path, e))?;
        Ok(Output { path: path.to_owned(), to: BufWriter::with_capacity(1 << 20, to), bytes: 0 })
    }

    /// What it will be called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends.
    ///
    /// # Errors
    /// [`Error::Io`], for example if the disk is full.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Changes bytes that were written before.
    pub(super) fn patch(&mut self, patches: &[(u64, [u8; 8])]) -> Result<()> {
        let path = &self.path;
        let fail = |e| Error::io("write", path, e);
        self.to.flush().map_err(fail)?;
        let file = self.to.get_mut().as_file();
        for (at, bytes) in patches {
            file.seek(SeekFrom::Start(*at)).map_err(fail)?;
            file.write_all(bytes).map_err(fail)?;
        }
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok(())
    }

    /// All is written: gives the file its name, and returns its size.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<u64> {
        let Output { path, to, bytes } = self;
        match to.into_inner().map_err(|e| Error::io("write", &path, e.into_error()))? {
            To::File { file, target } => {
                file.persist(&target).map_err(|e| Error::io("replace", &path, e.error))?;
            }
            To::Stream(_) => {}
        }
        Ok(bytes)
    }
}
