use crate::app::{App, reference};
use crate::error::Result;
use crate::stdout;
use clap::Args;
use executor::container::Container;
use executor::container::commit::{self, Commit};
use std::process::ExitCode;

#[derive(Args)]
pub struct CommitArgs {
    /// Who made it, such as "Jo Doe <jo@example.org>"
    #[arg(short, long)]
    pub author: Option<String>,

    /// What was changed, kept in the image's history
    #[arg(short, long)]
    pub message: Option<String>,

    /// Apply a Dockerfile instruction to the image's config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,

    /// Name or id of a container
    pub container: String,

    /// Name of the image
    pub image: Option<String>,
}

pub fn run(args: &CommitArgs, app: &App) -> Result<ExitCode> {
    let name = args.image.as_deref().map(reference).transpose()?;
    let container = Container::find(&app.store, &args.container)?;
    let (images, runtime) = (app.images(false)?, app.runtime()?);
    let commit = Commit { author: args.author.as_deref(), message: args.message.as_deref(), changes: &args.change };
    let image = runtime.block_on(commit::commit(&app.snapshots, &images, &container, &commit))?;
    match name {
        Some(name) => app.store.tag(&name.to_string(), &image.descriptor)?,
        None => app.store.keep(&image.descriptor)?,
    }
    stdout::line(image.config)?;
    Ok(ExitCode::SUCCESS)
}
