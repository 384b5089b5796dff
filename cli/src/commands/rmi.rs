use crate::app::{App, familiar};
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use executor::container::Container;
use oci::Digest;
use std::process::ExitCode;

#[derive(Args)]
pub struct RmiArgs {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Remove an image that has several names, or that containers stand on
    #[arg(short, long)]
    pub force: bool,
}

pub fn run(args: &RmiArgs, app: &App) -> Result<ExitCode> {
    for word in &args.images {
        let found = app.find(word)?;
        let names = &found.image.names;
        let digest = Digest::try_from(found.image.descriptor.digest())?;
        let is_removed = names.len() < 2 || found.name.is_none();
        if is_removed && !args.force {
            refuse_used(app, &digest)?;
        }
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
        app.store.remove_image(&digest)?;
        stdout::line(format_args!("Deleted: {digest}"))?;
    }
    app.store.empty_trash();
    Ok(ExitCode::SUCCESS)
}

/// A container that has ended can be started or committed as long as its image is there.
fn refuse_used(app: &App, digest: &Digest) -> Result<()> {
    let used = Container::all(&app.store)?
        .into_iter()
        .find(|container| container.record.digest == *digest || container.record.manifest == *digest);
    match used {
        None => Ok(()),
        Some(container) => {
            let name = container.called();
            Err(CliError::Failed(format!(
                "the container {name} stands on the image: remove it (rbuild rm {name}), or use --force"
            )))
        }
    }
}
