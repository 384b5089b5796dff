//! Hands a build's result to the outputs that were asked for.

use super::args::BuildArgs;
use super::metadata;
use crate::app::{App, reference};
use crate::error::{CliError, Result};
use crate::file::{Writer, to_file};
use crate::output::{Destination, Epoch, ImageFormat, OutputSpec};
use crate::stdout;
use executor::export::archive::ArchiveOptions;
use executor::export::image::ImageOptions;
use executor::export::tree::{Placing, Trees};
use executor::export::{archive, image, index, push};
use executor::remote::{self, RemoteCaches};
use executor::source::image::Images;
use executor::value::Stack;
use oci::codec::Compression;
use oci::layer::Times;
use oci::{Descriptor, Digest, Platform, Reference};
use serde_json::Value;
use solver::event::{EventSink, Stream};
use solver::lower::Target;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Hands a result on.
pub struct Exporter<'a> {
    pub app: &'a App,
    pub images: &'a Images,
    /// In the order of the platforms; more than one only as an index.
    pub parts: &'a [PlatformResult],
    pub as_index: bool,
    /// What is known of the build's steps, if images are to have it in them.
    pub inline: Option<&'a RemoteCaches>,
    /// Where registries may have layers already.
    pub repositories: &'a [Reference],
    pub events: &'a EventSink,
}

/// What was built for one platform.
pub struct PlatformResult {
    pub platform: Platform,
    pub stack: Arc<Stack>,
    pub target: Target,
}

/// An image in the store.
pub struct Built {
    /// Of the manifest or the index.
    pub descriptor: Descriptor,
    /// An index has none of its own.
    pub config: Option<Digest>,
}

impl Built {
    /// What `--iidfile` holds (R5.11.1).
    fn id(&self) -> String {
        self.config.map_or_else(|| self.descriptor.digest().to_string(), |config| config.to_string())
    }
}

impl Exporter<'_> {
    pub async fn export(&self, output: &OutputSpec) -> Result<Option<Built>> {
        let name = match output {
            OutputSpec::Image { .. } => "exporting to image",
            OutputSpec::Archive { docker: false, .. } | OutputSpec::Layout { .. } => "exporting to oci image format",
            OutputSpec::Archive { docker: true, .. } => "exporting to docker image format",
            OutputSpec::Local { .. } => "exporting to client directory",
            OutputSpec::Tar { .. } => "exporting to client tarball",
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

    async fn export_with(&self, output: &OutputSpec, task: &solver::event::Task) -> Result<Option<Built>> {
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
                        push::push(store, &client, &reference, &image.descriptor, self.repositories, task)
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
                let options = ArchiveOptions { docker: *docker, created: self.created(*format) };
                to_destination(destination, |out| archive::write(store, &images, &options, out))?;
                Ok(Some(image))
            }
            OutputSpec::Layout { directory, names, format } => {
                let image = self.image(*format, Compression::GZIP, task).await?;
                let images = [(names.clone(), image.descriptor.clone())];
                let options = ArchiveOptions { docker: false, created: self.created(*format) };
                archive::write_directory(store, &images, &options, directory)?;
                Ok(Some(image))
            }
            OutputSpec::Local { directory, split, epoch } => {
                let (trees, placing) = (self.files(task).await?, self.placing(*split));
                let failed = |error| CliError::Failed(format!("{}: {error}", directory.display()));
                trees.to_directory(placing, self.file_times(*epoch), directory).map_err(failed)?;
                Ok(None)
            }
            OutputSpec::Tar { destination, split, epoch } => {
                let (trees, placing) = (self.files(task).await?, self.placing(*split));
                to_destination(destination, |out| trees.to_tar(placing, self.file_times(*epoch), out))?;
                Ok(None)
            }
            OutputSpec::CacheOnly => Ok(None),
        }
    }

    async fn image(&self, format: ImageFormat, default: Compression, task: &solver::event::Task) -> Result<Built> {
        task.status("exporting layers", 0, 0, false);
        let compression = format.compression.unwrap_or(default);
        let mut built = Vec::with_capacity(self.parts.len());
        for PlatformResult { stack, target, .. } in self.parts {
            let epoch = format.epoch.seconds(target.epoch);
            let options = ImageOptions {
                compression,
                docker_types: format.docker_types,
                // An output's epoch is a bound for what the build's has dated (R4.8.4).
                dated: target.epoch.map_or(epoch, |dated| Some(epoch.map_or(dated, |epoch| dated.min(epoch)))),
                latest: epoch.filter(|_| format.rewrites_times),
            };
            if format.rewrites_times && epoch.is_none() {
                // R4.8.7.
                let text = "rewrite-timestamp needs SOURCE_DATE_EPOCH: the times of files stay as they are\n";
                task.log(Stream::Stderr, text);
            }
            let (snapshots, images) = (&self.app.snapshots, self.images);
            let (mut config, base_history) = (target.config.clone(), target.base_history);
            // That of the base tells of other steps.
            config.other.remove(cache::remote::INLINE);
            if let Some(caches) = self.inline
                && let Some(records) = remote::inline(caches, snapshots, stack, options.latest.is_some())?
            {
                config.other.insert(cache::remote::INLINE.to_owned(), records);
            }
            built.push(image::complete(snapshots, images, stack, &config, base_history, options, task).await?);
        }
        task.status("exporting layers", 0, 0, true);
        match built.as_slice() {
            [image] if !self.as_index => Ok(Built { descriptor: image.descriptor.clone(), config: Some(image.config) }),
            images => {
                let descriptor = index::write(&self.app.store, images, format.docker_types)?;
                task.status(format!("exporting manifest list {}", descriptor.digest()), 0, 0, true);
                Ok(Built { descriptor, config: None })
            }
        }
    }

    /// SOURCE_DATE_EPOCH as an output sees it; it is the same for all platforms.
    fn epoch(&self, of_output: Epoch) -> Option<i64> {
        of_output.seconds(self.parts.first().and_then(|part| part.target.epoch))
    }

    /// For the annotation of an archive's images (R5.9.4).
    fn created(&self, format: ImageFormat) -> Option<String> {
        let time = OffsetDateTime::from_unix_timestamp(self.epoch(format.epoch)?).ok()?;
        time.format(&Rfc3339).ok()
    }

    fn file_times(&self, epoch: Epoch) -> Times {
        self.epoch(epoch).map_or(Times::Kept, Times::All)
    }

    fn placing(&self, split: Option<bool>) -> Placing {
        if split.unwrap_or(self.as_index) { Placing::Split } else { Placing::Together }
    }

    /// The results' files.
    async fn files(&self, task: &solver::event::Task) -> Result<Trees> {
        for part in self.parts {
            self.images.unpack(&self.app.snapshots, &part.stack, task.digest(), task.sink()).await?;
        }
        let parts = self.parts.iter().map(|part| (&part.platform, part.stack.as_ref()));
        Ok(Trees::open(&self.app.snapshots, parts)?)
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

/// What is left to say after a success (R5.11). `members` are for the metadata file.
pub fn report(args: &BuildArgs, built: Option<&Built>, members: Vec<(String, Value)>) -> Result<()> {
    if let (Some(path), Some(image)) = (&args.iidfile, built) {
        to_file(path, |out| write!(out, "{}", image.id()).map_err(executor::Error::output))?;
    }
    if let Some(path) = &args.metadata_file {
        let names: Vec<String> = args.tags.iter().map(|tag| Ok(reference(tag)?.to_string())).collect::<Result<_>>()?;
        let image = built.map(|built| metadata::image(built, &names)).unwrap_or_default();
        let metadata: serde_json::Map<String, Value> = image.into_iter().chain(members).collect();
        let text = serde_json::to_string_pretty(&metadata)?;
        to_file(path, |out| writeln!(out, "{text}").map_err(executor::Error::output))?;
    }
    if args.quiet
        && let Some(image) = built
    {
        stdout::line(image.id())?;
    }
    Ok(())
}
