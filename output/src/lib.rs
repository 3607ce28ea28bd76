//! Where output goes: a file appears complete or not at all, and what is no
//! file is written to as it is.
//!
//! A rename puts a complete file in its place, but it would also put one in
//! the place of a symbolic link, of `/dev/null`, or of a FIFO that somebody
//! reads. [`place`] tells them apart.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Links that are followed: as many as Linux does (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What a path leads to.
#[derive(Debug)]
pub enum Place {
    /// A file, or nothing yet: its name, behind all links. A [`temporary`] file
    /// beside it is to be renamed to it.
    File(PathBuf),
    /// A device, a FIFO, or where this program's stdout or stderr goes: open,
    /// and not to be replaced.
    Stream(File),
}

/// What `path` leads to; a FIFO is waited for until somebody reads it.
///
/// # Errors
/// A folder, links without an end, or a stream that cannot be opened.
pub fn place(path: &Path) -> io::Result<Place> {
    match look(path)? {
        Seen::File => target(path).map(Place::File),
        Seen::Stream(meta) => match own(&meta) {
            Some(own) => Ok(Place::Stream(own)),
            None => OpenOptions::new().write(true).open(path).map(Place::Stream),
        },
    }
}

/// The file that `path` leads to, for what can be written to a file only.
///
/// # Errors
/// As [`place`]; what is no file.
pub fn file(path: &Path) -> io::Result<PathBuf> {
    match look(path)? {
        Seen::File => target(path),
        Seen::Stream(_) => Err(io::Error::other(
            "this format needs a file, not a device, a FIFO, a socket or this program's own output; name a file",
        )),
    }
}

/// True if what is written to `path` goes where stdout goes.
pub fn is_stdout(path: &Path) -> bool {
    let meta = std::fs::metadata(path);
    meta.is_ok_and(|meta| standard(&meta)[0].is_some())
}

/// A temporary file beside `target`, with the permissions of an ordinary file;
/// it is removed unless it is renamed.
///
/// # Errors
/// The folder does not exist or cannot be written to.
pub fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ioasim-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // tempfile's default is 0600; the umask still applies.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder(target))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What is there now.
enum Seen {
    /// A file, or nothing.
    File,
    Stream(Metadata),
}

fn look(path: &Path) -> io::Result<Seen> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(meta) if meta.is_file() && own(&meta).is_none() => Ok(Seen::File),
        Ok(meta) => Ok(Seen::Stream(meta)),
        // Nothing, or a link to nothing.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Seen::File),
        Err(e) => Err(e),
    }
}

/// Follows links of the last component, also to a file that does not exist.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&target) {
            Ok(to) => target = folder(&target).join(to),
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::other("too many symbolic links; name the file itself"))
}

/// stdout or stderr if it is this file: written by the same handle, so that
/// what the program says later stands behind it, not over it.
fn own(meta: &Metadata) -> Option<File> {
    standard(meta).into_iter().flatten().next()
}

/// stdout and stderr, each if it is this file.
#[cfg(unix)]
fn standard(meta: &Metadata) -> [Option<File>; 2] {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;
    let (out, err) = (io::stdout(), io::stderr());
    [out.as_fd(), err.as_fd()].map(|fd| {
        let file = File::from(fd.try_clone_to_owned().ok()?);
        let own = file.metadata().ok()?;
        ((own.dev(), own.ino()) == (meta.dev(), meta.ino())).then_some(file)
    })
}

#[cfg(not(unix))]
fn standard(_: &Metadata) -> [Option<File>; 2] {
    [None, None]
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn target_of(path: &Path) -> PathBuf {
        match place(path).unwrap() {
            Place::File(target) => target,
            Place::Stream(_) => panic!("{} is a file", path.display()),
        }
    }

    #[test]
    fn links_lead_to_files_also_to_those_that_do_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        symlink("../file", at("sub/near")).unwrap();
        symlink("sub/near", at("far")).unwrap();
        symlink(at("sub/none"), at("dangling")).unwrap();
        assert_eq!(target_of(&at("file")), at("file"));
        assert_eq!(target_of(&at("none")), at("none"));
        let far = target_of(&at("far"));
        assert_eq!(far.canonicalize().unwrap(), at("file").canonicalize().unwrap());
        assert_eq!(target_of(&at("dangling")), at("sub/none"));
        assert_eq!(file(&at("dangling")).unwrap(), at("sub/none"));
    }

    #[test]
    fn folders_and_rings_of_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        for path in [dir.path(), &at("a")] {
            assert!(place(path).is_err() && file(path).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn a_socket_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(place(&path).is_err());
        assert!(file(&path).unwrap_err().to_string().contains("needs a file"));
    }
}
