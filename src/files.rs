//! Files that a command reads and writes.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Usage;

/// Refuses outputs that would take the place of an input or of each other.
///
/// # Errors
/// [`Usage`].
pub fn refuse_same<'a>(
    inputs: impl IntoIterator<Item = &'a Path>,
    outputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    // An input that does not exist is nobody's file (`sample`).
    let inputs: Vec<PathBuf> =
        inputs.into_iter().filter(|p| is_file(p)).filter_map(|p| p.canonicalize().ok()).collect();
    let mut written = Vec::new();
    for output in outputs.into_iter().filter(|p| is_file(p) || !p.exists()) {
        let place = place(output);
        let what = if inputs.contains(&place) {
            format!(
                "{} is an input and would be replaced; give the output another name",
                output.display()
            )
        } else if written.contains(&place) {
            format!("{} would be written twice; give each output its own name", output.display())
        } else {
            written.push(place);
            continue;
        };
        return Err(Usage(what).into());
    }
    Ok(())
}

/// A file or a disk: what is lost when it is written to.
fn is_file(path: &Path) -> bool {
    #[cfg(unix)]
    use std::os::unix::fs::FileTypeExt as _;
    let is_disk = |meta: &std::fs::Metadata| {
        #[cfg(unix)]
        return meta.file_type().is_block_device();
        #[cfg(not(unix))]
        return false;
    };
    path.metadata().is_ok_and(|meta| meta.is_file() || is_disk(&meta))
}

/// The one name of what is, or will be, at a path.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    path.canonicalize()
        .or_else(|_| Ok(folder.canonicalize()?.join(path.file_name().unwrap_or_default())))
        .unwrap_or_else(|_: std::io::Error| path.to_owned())
}
