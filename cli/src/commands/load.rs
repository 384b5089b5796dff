use crate::app::{App, familiar, reference};
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct LoadArgs {
    /// The archive; standard input without it
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

pub fn run(args: &LoadArgs, app: &App) -> Result<ExitCode> {
    let input: Box<dyn Read + Send> = match &args.input {
        Some(path) => {
            let file = std::fs::File::open(path);
            Box::new(file.map_err(|error| CliError::Usage(format!("cannot open {}: {error}", path.display())))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let images = executor::export::archive::read(&app.store, input)?;
    if images.is_empty() {
        return Err(CliError::Failed("the archive holds no image".into()));
    }
    for image in images {
        if image.names.is_empty() {
            app.store.keep(&image.manifest)?;
            stdout::line(format_args!("Loaded image ID: {}", image.manifest.digest()))?;
        }
        for name in image.names {
            let name = reference(&name)?;
            app.store.tag(&name.to_string(), &image.manifest)?;
            stdout::line(format_args!("Loaded image: {}", familiar(&name.to_string())))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
