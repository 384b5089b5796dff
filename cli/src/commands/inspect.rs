use crate::app::{App, familiar};
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform};
use serde_json::{Value, json};
use std::process::ExitCode;

const MAX_DOCUMENT: u64 = 4 << 20;

#[derive(Args)]
pub struct InspectArgs {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// An image's documents.
pub struct Document {
    /// The digest of the config, as Docker names images.
    pub id: String,
    pub manifest_digest: Digest,
    pub manifest: ImageManifest,
    pub config: ImageConfig,
    /// Bytes of its layers as stored.
    pub size: u64,
}

impl Document {
    /// Reads manifest and config; of an index, those for this machine's platform.
    pub fn read(app: &App, descriptor: &Descriptor) -> Result<Document> {
        let digest = Digest::try_from(descriptor.digest())?;
        let bytes = app.store.read_blob(&digest, MAX_DOCUMENT)?;
        let value: Value = serde_json::from_slice(&bytes)?;
        if value.get("manifests").is_some() {
            let index: ImageIndex = serde_json::from_value(value)?;
            let host = Platform::host();
            let selected = oci::platform::select(index.manifests(), &host)
                .ok_or_else(|| CliError::Failed(format!("the image has nothing for {host}")))?;
            return Document::read(app, selected);
        }
        let manifest: ImageManifest = serde_json::from_value(value)?;
        let id = Digest::try_from(manifest.config().digest())?;
        let config = serde_json::from_slice(&app.store.read_blob(&id, MAX_DOCUMENT)?)?;
        let size = manifest.layers().iter().map(Descriptor::size).sum();
        Ok(Document { id: id.to_string(), manifest_digest: digest, manifest, config, size })
    }
}

pub fn run(args: &InspectArgs, app: &App) -> Result<ExitCode> {
    let mut shown = Vec::new();
    for word in &args.images {
        let found = app.find(word)?;
        let document = Document::read(app, &found.image.descriptor)?;
        let names: Vec<_> = found.image.names.iter().filter_map(|name| name.parse::<oci::Reference>().ok()).collect();
        let config = &document.config;
        shown.push(json!({
            "Id": document.id,
            "RepoTags": found.image.names.iter().map(|name| familiar(name)).collect::<Vec<_>>(),
            "RepoDigests": names.iter().map(|name| format!("{}@{}", name.name(), document.manifest_digest)).collect::<Vec<_>>(),
            "Created": config.created,
            "Author": config.author.as_deref().unwrap_or_default(),
            "Config": config.config,
            "Architecture": config.architecture,
            "Variant": config.variant.as_deref().unwrap_or_default(),
            "Os": config.os,
            "Size": document.size,
            "RootFS": {"Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids},
            "Descriptor": found.image.descriptor,
        }));
    }
    stdout::line(serde_json::to_string_pretty(&shown)?)?;
    Ok(ExitCode::SUCCESS)
}
