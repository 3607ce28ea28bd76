//! Writing the files of a report: complete, or not at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};

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
    for (name, _) in texts {
        let path = dir.join(name);
        if path.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(Error::Write { path, source });
        }
    }
    // All temporary files first: if one fails, nothing was replaced.
    let mut pending = Vec::with_capacity(texts.len());
    for (name, text) in texts {
        pending.push((dir.join(name), temporary(dir, text.as_bytes(), folder)?));
    }
    let mut files = Vec::with_capacity(pending.len());
    for (path, file) in pending {
        persist(file, &path)?;
        files.push(path);
    }
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
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let failed = |source| Error::Write { path: path.to_owned(), source };
    persist(temporary(dir, text.as_bytes(), failed)?, path)
}

fn temporary(
    dir: &Path,
    bytes: &[u8],
    unwritable: impl Fn(std::io::Error) -> Error,
) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ioasim-").suffix(".tmp");
    #[cfg(unix)]
    {
        // Readable by all as far as the umask allows, like any other output.
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(dir).map_err(unwritable)?;
    let path = file.path().to_owned();
    file.write_all(bytes)
        .and_then(|()| file.flush())
        .map_err(|source| Error::Write { path, source })?;
    Ok(file)
}

fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    file.persist(path)
        .map(drop)
        .map_err(|e| Error::Write { path: path.to_owned(), source: e.error })
}
