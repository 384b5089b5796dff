//! Hands a build's result to the outputs that were asked for.

use super::args::BuildArgs;
use crate::app::{App, reference};
use crate::error::{CliError, Result};
use crate::file::{Writer, to_file};
use crate::output::{Destination, ImageFormat, OutputSpec};
use crate::stdout;
use executor::export::image::{BuiltImage, ImageOptions};
use executor::export::{archive, image, push, tree};
use executor::source::image::Images;
use executor::value::Stack;
use oci::codec::Compression;
use serde_json::json;
use solver::event::EventSink;
use std::io::{BufWriter, Write};

/// Hands a result on.
pub struct Exporter<'a> {
    pub app: &'a App,
    pub images: &'a Images,
    pub stack: &'a Stack,
    pub config: &'a oci::ImageConfig,
    pub base_history: usize,
    pub epoch: Option<i64>,
    pub events: &'a EventSink,
}

impl Exporter<'_> {
    pub async fn export(&self, output: &OutputSpec) -> Result<Option<BuiltImage>> {
        let name = match output {
            OutputSpec::Image { .. } => "exporting to image",
            OutputSpec::Archive { docker: false, .. } => "exporting to oci image format",
            OutputSpec::Archive { docker: true, .. } => "exporting to docker image format",
            OutputSpec::Local(_) => "exporting to client directory",
            OutputSpec::Tar(_) => "exporting to client tarball",
            OutputSpec::CacheOnly => return Ok(None),
        };
        let task = self.events.start(name);
        let exported = self.export_with(output, &task).await;
        match &exported {
            Ok(_) => task.done(),
            Err(error) => task.failed(error.message()),
        }
        exported
    }

    async fn export_with(&self, output: &OutputSpec, task: &solver::event::Task) -> Result<Option<BuiltImage>> {
        let store = &self.app.store;
        match output {
            OutputSpec::Image { names, push, format } => {
                // What stays here needs no compression; what leaves does.
                let default = if *push { Compression::GZIP } else { Compression::None };
                let image = self.image(*format, default, task).await?;
                if names.is_empty() {
                    store.keep(&image.descriptor)?;
                }
                for name in names {
                    store.tag(name, &image.descriptor)?;
                    task.status(format!("naming to {name}"), 0, 0, true);
                }
                if *push {
                    let client = self.app.client()?;
                    for name in names {
                        let reference = reference(name)?;
                        push::push(store, &client, &reference, &image.descriptor, task)
                            .await
                            .map_err(|error| CliError::Failed(format!("failed to push {name}: {error}")))?;
                        task.status(format!("pushing manifest for {name}"), 0, 0, true);
                    }
                }
                Ok(Some(image))
            }
            OutputSpec::Archive { docker, destination, names, format } => {
                let image = self.image(*format, Compression::GZIP, task).await?;
                let images = [(names.clone(), image.descriptor.clone())];
                to_destination(destination, |out| archive::write(store, &images, *docker, out))?;
                Ok(Some(image))
            }
            OutputSpec::Local(directory) => {
                self.files(task).await?;
                tree::to_directory(&self.app.snapshots, self.stack, directory)?;
                Ok(None)
            }
            OutputSpec::Tar(destination) => {
                self.files(task).await?;
                to_destination(destination, |out| tree::to_tar(&self.app.snapshots, self.stack, out))?;
                Ok(None)
            }
            OutputSpec::CacheOnly => Ok(None),
        }
    }

    async fn image(&self, format: ImageFormat, default: Compression, task: &solver::event::Task) -> Result<BuiltImage> {
        task.status("exporting layers", 0, 0, false);
        let compression = format.compression.unwrap_or(default);
        let options = ImageOptions { compression, docker_types: format.docker_types, epoch: self.epoch };
        let (snapshots, images) = (&self.app.snapshots, self.images);
        let image =
            image::complete(snapshots, images, self.stack, self.config, self.base_history, options, task).await?;
        task.status("exporting layers", 0, 0, true);
        Ok(image)
    }

    /// Sees to it that the result's files are there.
    async fn files(&self, task: &solver::event::Task) -> Result<()> {
        Ok(self.images.unpack(&self.app.snapshots, self.stack, task.digest(), task.sink()).await?)
    }
}

fn to_destination(
    destination: &Destination,
    write: impl FnOnce(&mut Writer) -> executor::error::Result<()>,
) -> Result<()> {
    match destination {
        Destination::File(path) => to_file(path, write),
        Destination::Stdout => {
            let mut out: Writer = BufWriter::new(Box::new(std::io::stdout().lock()));
            write(&mut out)?;
            Ok(out.flush()?)
        }
    }
}

/// What is left to say after a success (R5.11).
pub fn report(args: &BuildArgs, built: Option<&BuiltImage>) -> Result<()> {
    if let (Some(path), Some(image)) = (&args.iidfile, built) {
        to_file(path, |out| write!(out, "{}", image.config).map_err(executor::Error::output))?;
    }
    if let Some(path) = &args.metadata_file {
        let metadata = match built {
            Some(image) => {
                let names: Vec<String> =
                    args.tags.iter().map(|tag| Ok(reference(tag)?.to_string())).collect::<Result<_>>()?;
                let mut metadata = json!({
                    "containerimage.config.digest": image.config,
                    "containerimage.descriptor": image.descriptor,
                    "containerimage.digest": image.descriptor.digest(),
                });
                if !names.is_empty() {
                    metadata["image.name"] = names.join(",").into();
                }
                metadata
            }
            None => json!({}),
        };
        let text = serde_json::to_string_pretty(&metadata)?;
        to_file(path, |out| writeln!(out, "{text}").map_err(executor::Error::output))?;
    }
    if args.quiet
        && let Some(image) = built
    {
        stdout::line(image.config)?;
    }
    Ok(())
}
