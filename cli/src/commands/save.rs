use crate::app::App;
use crate::error::{CliError, Result};
use crate::file::to_file;
use clap::Args;
use executor::export::archive::{self, ArchiveOptions};
use rustix::termios::isatty;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct SaveArgs {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// The archive; standard output without it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The archive is an OCI layout that `docker load` reads too.
pub fn run(args: &SaveArgs, app: &App) -> Result<ExitCode> {
    let mut images = Vec::new();
    for word in &args.images {
        let found = app.find(word)?;
        images.push((found.name.into_iter().collect(), found.image.descriptor));
    }
    let options = ArchiveOptions { docker: true, ..ArchiveOptions::default() };
    match &args.output {
        Some(path) => to_file(path, |out| archive::write(&app.store, &images, &options, out))?,
        None if isatty(std::io::stdout()) => {
            return Err(CliError::Usage("an archive is not written to a terminal: use -o FILE".into()));
        }
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            archive::write(&app.store, &images, &options, &mut out)?;
            out.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
