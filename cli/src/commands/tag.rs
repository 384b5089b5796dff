use crate::app::{App, reference};
use crate::error::Result;
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct TagArgs {
    /// Name or id of an image
    pub source: String,
    /// Its other name
    pub target: String,
}

pub fn run(args: &TagArgs, app: &App) -> Result<ExitCode> {
    let target = reference(&args.target)?;
    let found = app.find(&args.source)?;
    app.store.tag(&target.to_string(), &found.image.descriptor)?;
    Ok(ExitCode::SUCCESS)
}
