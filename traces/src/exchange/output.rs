//! A file that appears when it is complete.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::file::temporary;
use crate::{Error, Result};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Events taken.
    pub events: u64,
    /// Records made of them: oracleGeneral has one per page.
    pub records: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// A temporary file beside the one it will be: it has its name only after
/// [`Output::finish`], and is removed if that is never called.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl Output {
    /// Begins a file.
    ///
    /// # Errors
    /// [`Error::Io`] if `path` is a folder or its folder cannot be written to.
    pub fn create(path: &Path) -> Result<Output> {
        if path.is_dir() {
            let reason = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(Error::io("create", path, reason));
        }
        let file = temporary(path).map_err(|e| Error::io("create", path, e))?;
        Ok(Output { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file) })
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
        self.file.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Changes bytes that were written before.
    pub(super) fn patch(&mut self, patches: &[(u64, [u8; 8])]) -> Result<()> {
        let path = &self.path;
        let fail = |e| Error::io("write", path, e);
        self.file.flush().map_err(fail)?;
        let file: &mut File = self.file.get_mut().as_file_mut();
        for (at, bytes) in patches {
            file.seek(SeekFrom::Start(*at)).map_err(fail)?;
            file.write_all(bytes).map_err(fail)?;
        }
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        Ok(())
    }

    /// The file is complete: gives it its name, and returns its size.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<u64> {
        let Output { path, file } = self;
        let file = file.into_inner().map_err(|e| Error::io("write", &path, e.into_error()))?;
        let bytes = file.as_file().metadata().map_err(|e| Error::io("write", &path, e))?.len();
        file.persist(&path).map_err(|e| Error::io("replace", &path, e.error))?;
        Ok(bytes)
    }
}
