//! Files for the user: whole, or not there.

use crate::error::{CliError, Result};
use crate::interrupt::UntilInterrupted;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tempfile::NamedTempFile;

pub type Writer<'a> = BufWriter<Box<dyn Write + 'a>>;

/// Writes a file that is whole or not there.
pub fn to_file(path: &Path, write: impl FnOnce(&mut Writer) -> executor::error::Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot write {}: {error}", path.display()));
    let not_written = |error: executor::Error| CliError::Failed(format!("{}: {error}", path.display()));
    // Pipes and devices cannot be renamed over.
    if path.exists() && !path.is_file() {
        let file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        let mut out: Writer = BufWriter::new(Box::new(file));
        write(&mut out).map_err(not_written)?;
        return out.flush().map_err(failed);
    }
    let mut file = beside(path).map_err(failed)?;
    let mut out: Writer = BufWriter::with_capacity(256 * 1024, Box::new(UntilInterrupted(file.as_file_mut())));
    write(&mut out).map_err(not_written)?;
    out.flush().map_err(failed)?;
    drop(out);
    put(file, path).map_err(failed)
}

/// The same of bytes that are there already, also after an interruption.
pub fn bytes_to_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = match path.exists() && !path.is_file() {
        true => std::fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes)),
        false => beside(path).and_then(|mut file| {
            file.write_all(bytes)?;
            put(file, path)
        }),
    };
    written.map_err(|error| CliError::Failed(format!("cannot write {}: {error}", path.display())))
}

fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    NamedTempFile::new_in(directory)
}

fn put(file: NamedTempFile, path: &Path) -> io::Result<()> {
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}
