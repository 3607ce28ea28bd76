//! Writing the files of a report: complete, or not at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ioasim_output::{Place, place, temporary};

use crate::document::Document;
use crate::error::{Error, Result};

/// The files that [`write_all`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The folder.
    pub dir: PathBuf,
    /// The files, `index.html` first.
    pub files: Vec<PathBuf>,
}

/// Writes `index.html`, `runs.csv` and `result.json` into `dir`, which is
/// made if it does not exist.
///
/// With several documents there is one `result-N.json` each, numbered from 1
/// in the order given, because a `result.json` holds one trace. All texts are
/// made before the first file is touched; each file is written beside its
/// place and then renamed, so that an interrupted run leaves no partial file.
///
/// # Errors
///
/// `documents` is empty, the folder cannot be made or written to, or the disk
/// is full.
pub fn write_all(dir: &Path, documents: &[Document]) -> Result<Written> {
    if documents.is_empty() {
        return Err(Error::NoDocuments);
    }
    let mut texts = vec![
        ("index.html".to_owned(), crate::index_html(documents)?),
        ("runs.csv".to_owned(), crate::runs_csv(documents)?),
    ];
    for (i, document) in documents.iter().enumerate() {
        let name = match documents.len() {
            1 => "result.json".to_owned(),
            _ => format!("result-{}.json", i + 1),
        };
        texts.push((name, document.to_json()?));
    }
    write_texts(dir, &texts)
}

/// Writes texts by name into `dir`, all or none.
pub(crate) fn write_texts(dir: &Path, texts: &[(String, String)]) -> Result<Written> {
    let folder = |source| Error::Folder { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(folder)?;
    // All temporary files first: if one fails, nothing was replaced.
    let mut pending = Vec::with_capacity(texts.len());
    for (name, text) in texts {
        let path = dir.join(name);
        pending.push(Pending::new(path, text, folder)?);
    }
    let files = pending.into_iter().map(Pending::finish).collect::<Result<_>>()?;
    Ok(Written { dir: dir.to_owned(), files })
}

/// Writes one `result.json` to `path` (for `--json FILE`), complete or not at
/// all; its folder must exist.
///
/// # Errors
///
/// The folder does not exist or cannot be written to, or the disk is full.
pub fn write_json(path: &Path, document: &Document) -> Result<()> {
    write_text(path, &document.to_json()?)
}

/// Writes one file, complete or not at all; its folder must exist.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    Pending::new(path.to_owned(), text, failed)?.finish().map(drop)
}

/// A text on its way to a path.
struct Pending<'a> {
    path: PathBuf,
    to: To<'a>,
}

enum To<'a> {
    /// All is in a temporary file.
    File(tempfile::NamedTempFile, PathBuf),
    /// A device or a FIFO: not for replacing, and nothing is taken back.
    Stream(std::fs::File, &'a str),
}

impl<'a> Pending<'a> {
    fn new(
        path: PathBuf,
        text: &'a str,
        unwritable: impl Fn(std::io::Error) -> Error,
    ) -> Result<Pending<'a>> {
        let failed = |source| Error::Write { path: path.clone(), source };
        let to = match place(&path).map_err(failed)? {
            Place::Stream(stream) => To::Stream(stream, text),
            Place::File(target) => {
                let mut file = temporary(&target).map_err(unwritable)?;
                file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
                To::File(file, target)
            }
        };
        Ok(Pending { path, to })
    }

    fn finish(self) -> Result<PathBuf> {
        let Pending { path, to } = self;
        let done = match to {
            To::File(file, target) => file.persist(target).map(drop).map_err(|e| e.error),
            To::Stream(mut stream, text) => stream.write_all(text.as_bytes()),
        };
        match done {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Write { path, source }),
        }
    }
}
