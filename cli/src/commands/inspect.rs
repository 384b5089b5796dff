use crate::app::{App, familiar};
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use executor::container::Container;
use oci::{Descriptor, Digest, ImageConfig, ImageManifest, Platform};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;

const MAX_DOCUMENT: u64 = 4 << 20;

#[derive(Args)]
pub struct InspectArgs {
    /// Names or ids of images, or of containers
    #[arg(required = true, value_name = "NAME")]
    pub images: Vec<String>,

    /// Of an image for several platforms, the one to show (default: this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
}

/// An image's documents.
pub struct Document {
    /// The digest of the config, as Docker names images; of an image for several platforms that of the index.
    pub id: String,
    /// Of what the name stands for.
    pub digest: Digest,
    pub manifest: ImageManifest,
    pub config: ImageConfig,
    /// Bytes of its layers as stored, for all platforms.
    pub size: u64,
    /// What an index lists; nothing for a single image.
    pub manifests: Vec<Descriptor>,
}

impl Document {
    /// Reads manifest and config; of an index, those for the platform asked for, else those for this machine, else the first.
    pub fn read(app: &App, descriptor: &Descriptor, platform: Option<&Platform>) -> Result<Document> {
        let digest = Digest::try_from(descriptor.digest())?;
        let bytes = app.store.read_blob(&digest, MAX_DOCUMENT)?;
        let value: Value = serde_json::from_slice(&bytes)?;
        if value.get("manifests").is_some() {
            let index = oci::layout::index_from_json(&bytes)?;
            let manifests = index.manifests().clone();
            let selected = match platform {
                Some(platform) => {
                    oci::platform::select(&manifests, platform).ok_or_else(|| nothing_for(platform, &manifests))?
                }
                None => oci::platform::select(&manifests, &Platform::host())
                    .or(manifests.first())
                    .ok_or_else(|| CliError::Failed("the index lists no image".into()))?,
            };
            let document = Document::read(app, selected, platform)?;
            // An archive may have brought less than the index lists; layers that several platforms share are there once.
            let layers = manifests.iter().filter_map(|manifest| Document::read(app, manifest, None).ok());
            let layers = layers.flat_map(|document| document.manifest.layers().clone());
            let sizes: HashMap<String, u64> = layers.map(|layer| (layer.digest().to_string(), layer.size())).collect();
            return Ok(Document { id: digest.to_string(), digest, size: sizes.values().sum(), manifests, ..document });
        }
        let manifest: ImageManifest = serde_json::from_value(value)?;
        let id = Digest::try_from(manifest.config().digest())?;
        let config = serde_json::from_slice(&app.store.read_blob(&id, MAX_DOCUMENT)?)?;
        let size = manifest.layers().iter().map(Descriptor::size).sum();
        Ok(Document { id: id.to_string(), digest, manifest, config, size, manifests: Vec::new() })
    }
}

fn nothing_for(platform: &Platform, manifests: &[Descriptor]) -> CliError {
    let there = manifests.iter().filter_map(|manifest| Some(Platform::from(manifest.platform().as_ref()?).to_string()));
    let there = there.collect::<Vec<_>>().join(", ");
    CliError::Failed(format!("the image has nothing for {platform}: it is for {there}"))
}

pub fn run(args: &InspectArgs, app: &App) -> Result<ExitCode> {
    let mut shown = Vec::new();
    for word in &args.images {
        let found = match (app.find(word), Container::find(&app.store, word)) {
            (Ok(found), _) => found,
            (Err(_), Ok(container)) => {
                shown.push(of_container(&container)?);
                continue;
            }
            (Err(error), Err(_)) => return Err(error),
        };
        let document = Document::read(app, &found.image.descriptor, args.platform.as_ref())?;
        let names: Vec<_> = found.image.names.iter().filter_map(|name| name.parse::<oci::Reference>().ok()).collect();
        let config = &document.config;
        let mut image = json!({
            "Id": document.id,
            "RepoTags": found.image.names.iter().map(|name| familiar(name)).collect::<Vec<_>>(),
            "RepoDigests": names.iter().map(|name| format!("{}@{}", name.name(), document.digest)).collect::<Vec<_>>(),
            "Created": config.created,
            "Author": config.author.as_deref().unwrap_or_default(),
            "Config": config.config,
            "Architecture": config.architecture,
            "Variant": config.variant.as_deref().unwrap_or_default(),
            "Os": config.os,
            "Size": document.size,
            "RootFS": {"Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids},
            "Descriptor": found.image.descriptor,
        });
        if !document.manifests.is_empty() {
            let index: Value =
                serde_json::from_slice(&oci::layout::to_json(&json!({"manifests": document.manifests})))?;
            image["Manifests"] = index["manifests"].clone();
        }
        shown.push(image);
    }
    stdout::line(serde_json::to_string_pretty(&shown)?)?;
    Ok(ExitCode::SUCCESS)
}

/// What it was made with, and how it fares.
fn of_container(container: &Container) -> Result<Value> {
    let mut state = serde_json::to_value(&container.state)?;
    state["status"] = container.state.status.name().into();
    let mut document = serde_json::to_value(&container.record)?;
    document["State"] = state;
    Ok(document)
}
