//! Files for the user: whole, or not there.

use crate::error::{CliError, Result};
use crate::interrupt::UntilInterrupted;
use std::io::{BufWriter, Write};
use std::path::Path;

pub type Writer<'a> = BufWriter<Box<dyn Write + 'a>>;

/// Writes a file that is whole or not there.
pub fn to_file(path: &Path, write: impl FnOnce(&mut Writer) -> executor::error::Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot write {}: {error}", path.display()));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Pipes and devices cannot be renamed over.
    if path.exists() && !path.is_file() {
        let file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        let mut out: Writer = BufWriter::new(Box::new(file));
        write(&mut out)?;
        return out.flush().map_err(failed);
    }
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut out: Writer = BufWriter::with_capacity(256 * 1024, Box::new(UntilInterrupted(file.as_file_mut())));
    write(&mut out)?;
    out.flush().map_err(failed)?;
    drop(out);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), mode).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
