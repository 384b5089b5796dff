use crate::app::{App, reference};
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use executor::export::image;
use std::io::Read;
use std::process::ExitCode;

#[derive(Args)]
pub struct ImportArgs {
    /// A tar of a root file system, compressed or not; `-` for standard input
    pub file: String,

    /// Name of the image
    pub name: String,

    /// Apply a Dockerfile instruction to the image's config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,

    /// The image's message, kept in its history
    #[arg(short, long, default_value = "imported by rbuild")]
    pub message: String,
}

pub fn run(args: &ImportArgs, app: &App) -> Result<ExitCode> {
    let name = reference(&args.name)?;
    let input: Box<dyn Read + Send> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        path => {
            let file = std::fs::File::open(path);
            Box::new(file.map_err(|error| CliError::Usage(format!("cannot open {path}: {error}")))?)
        }
    };
    let config = image::changed_config(&args.change, &args.message).map_err(CliError::Usage)?;
    let image = image::import(&app.store, input, config)?;
    app.store.tag(&name.to_string(), &image.descriptor)?;
    stdout::line(image.config)?;
    Ok(ExitCode::SUCCESS)
}
