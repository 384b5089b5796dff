use crate::app::{App, reference};
use crate::error::{CliError, Result};
use crate::progress::{Display, Mode};
use crate::stdout;
use clap::Args;
use oci::Platform;
use solver::event::EventSink;
use std::process::ExitCode;

#[derive(Args)]
pub struct PullArgs {
    /// Name of an image
    pub image: String,

    /// The platform to fetch
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,

    /// Print the digest only
    #[arg(short, long)]
    pub quiet: bool,
}

pub fn run(args: &PullArgs, app: &App) -> Result<ExitCode> {
    let reference = reference(&args.image)?;
    let platform = match args.platform.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|error: oci::InvalidPlatform| CliError::Usage(error.to_string()))?,
        None => Platform::host(),
    };
    let images = app.images(true)?;
    let runtime = app.runtime()?;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let display = Display::start(if args.quiet { Mode::Quiet } else { Mode::parse("auto")? }, false, receiver);
    let events = EventSink::new(sender);
    let task = events.start(format!("pulling {reference}"));
    let pulled = runtime.block_on(images.pull(&reference, &platform, task.digest(), &events));
    match &pulled {
        Ok(_) => task.done(),
        Err(error) => task.failed(error),
    }
    drop((events, images));
    display.finish();
    let descriptor = pulled?;
    app.store.tag(&reference.to_string(), &descriptor)?;
    stdout::line(descriptor.digest())?;
    Ok(ExitCode::SUCCESS)
}
