//! `rbuild fmt`: lays out Dockerfiles.

use crate::definition::Definition;
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub struct FmtArgs {
    /// Dockerfiles; `-` for standard input to standard output
    #[arg(value_name = "FILE", default_value = "Dockerfile")]
    pub files: Vec<PathBuf>,

    /// Write nothing; list the files that are not formatted, and fail if there are any
    #[arg(long)]
    pub check: bool,
}

/// Files with errors are left alone, and the others are formatted nevertheless.
pub fn run(args: &FmtArgs) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in &args.files {
        match format(file, args.check) {
            Ok(is_formatted) if args.check && !is_formatted => code = ExitCode::FAILURE,
            Ok(_) => {}
            Err(error) => {
                error.print();
                code = ExitCode::from(error.exit_code());
            }
        }
    }
    Ok(code)
}

/// Formats one file. Gives whether it was formatted before.
fn format(file: &Path, check: bool) -> Result<bool> {
    let is_stdin = file == Path::new("-");
    let failed = |action: &str, error: &dyn std::fmt::Display| {
        CliError::Failed(format!("cannot {action} {}: {error}", file.display()))
    };
    let source = match is_stdin {
        true => {
            let mut source = Vec::new();
            std::io::stdin().read_to_end(&mut source).map(|_| source)
        }
        false => std::fs::read(file),
    };
    let source = source.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => CliError::Usage(format!("there is no file {}", file.display())),
        _ => failed("read", &error),
    })?;
    let text = String::from_utf8(source).map_err(|error| failed("format", &error.utf8_error()))?;
    let name = if is_stdin { "standard input".into() } else { file.to_string_lossy().into_owned() };
    let formatted = parser::format(&text).map_err(|errors| {
        Definition { name: name.clone(), path: file.to_owned(), text: text.clone() }.errors(&errors)
    })?;
    let is_formatted = formatted == text;
    match (is_stdin, check) {
        (true, false) => stdout::print(&formatted)?,
        _ if is_formatted => {}
        (_, true) => stdout::line(name)?,
        (false, false) => {
            write(file, &formatted).map_err(|error| failed("write", &error))?;
            stdout::line(name)?;
        }
    }
    Ok(is_formatted)
}

/// Replaces a file at once, with its mode; through a link, the file that it leads to.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let file = file.canonicalize()?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut temporary = tempfile::Builder::new().prefix(".rbuild-fmt-").tempfile_in(directory)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().set_permissions(std::fs::metadata(&file)?.permissions())?;
    temporary.as_file().sync_all()?;
    temporary.persist(&file)?;
    Ok(())
}
