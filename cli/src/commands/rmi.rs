use crate::app::{App, familiar};
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use oci::Digest;
use std::process::ExitCode;

#[derive(Args)]
pub struct RmiArgs {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Remove an image that has several names
    #[arg(short, long)]
    pub force: bool,
}

pub fn run(args: &RmiArgs, app: &App) -> Result<ExitCode> {
    for word in &args.images {
        let found = app.find(word)?;
        let names = &found.image.names;
        match &found.name {
            Some(name) => {
                app.store.untag(name)?;
                stdout::line(format_args!("Untagged: {}", familiar(name)))?;
                if names.len() > 1 {
                    continue;
                }
            }
            None if names.len() > 1 && !args.force => {
                let names: Vec<_> = names.iter().map(|name| familiar(name)).collect();
                let message =
                    format!("the image has several names ({}): remove them, or use --force", names.join(", "));
                return Err(CliError::Failed(message));
            }
            None => {
                for name in names {
                    stdout::line(format_args!("Untagged: {}", familiar(name)))?;
                }
            }
        }
        let digest = Digest::try_from(found.image.descriptor.digest())?;
        app.store.remove_image(&digest)?;
        stdout::line(format_args!("Deleted: {digest}"))?;
    }
    app.store.empty_trash();
    Ok(ExitCode::SUCCESS)
}
