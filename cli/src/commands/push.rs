use crate::app::{App, reference};
use crate::error::Result;
use crate::progress::{Display, Mode};
use crate::stdout;
use clap::Args;
use solver::event::EventSink;
use std::process::ExitCode;

#[derive(Args)]
pub struct PushArgs {
    /// Name of an image
    pub image: String,

    /// Show nothing but the digest
    #[arg(short, long)]
    pub quiet: bool,
}

pub fn run(args: &PushArgs, app: &App) -> Result<ExitCode> {
    let reference = reference(&args.image)?;
    let found = app.find(&args.image)?;
    let client = app.client()?;
    let runtime = app.runtime()?;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let display = Display::start(if args.quiet { Mode::Quiet } else { Mode::parse("auto")? }, false, receiver);
    let events = EventSink::new(sender);
    let task = events.start(format!("pushing {reference}"));
    let pushed = runtime.block_on(async {
        // The store keeps layers as they are; a registry gets them compressed.
        let descriptor = executor::export::push::compressed(&app.store, &found.image.descriptor, &task).await?;
        executor::export::push::push(&app.store, &client, &reference, &descriptor, &[], &task).await?;
        Ok::<_, executor::Error>(descriptor)
    });
    match &pushed {
        Ok(_) => task.done(),
        Err(error) => task.failed(error),
    }
    drop(events);
    display.finish();
    stdout::line(pushed?.digest())?;
    Ok(ExitCode::SUCCESS)
}
