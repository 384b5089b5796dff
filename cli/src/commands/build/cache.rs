//! `--cache-from` and `--cache-to` (R7.5): which remote caches a build reads, and which it writes.

use super::args::BuildArgs;
use super::export::PlatformResult;
use super::request::Request;
use crate::app::{App, USER_AGENT, reference};
use crate::error::{CliError, Result};
use crate::output::{OutputSpec, compression, csv};
use cache::remote::{Attributes, Format, GhaCache, GhaConfig, LocalCache, RegistryCache, Remote, S3Cache, S3Config};
use executor::remote::{ExportOptions, ImportSource, RemoteCaches, export, make_ready as fetch};
use executor::source::image::Images;
use executor::value::{Stack, Value};
use oci::codec::Compression;
use oci::fetch::Exchange;
use oci::{Descriptor, Reference};
use solver::event::EventSink;
use std::collections::BTreeMap;

const TYPES: [&str; 5] = ["registry", "local", "inline", "s3", "gha"];
const DEFAULT_TAG: &str = "latest";

/// The remote caches of a build.
pub struct Caches {
    from: Vec<Source>,
    to: Vec<Target>,
    /// Images have the records of their steps in them.
    pub inline: bool,
}

/// A cache to read.
struct Source {
    name: String,
    remote: Remote,
    mounts: bool,
}

/// A cache to write.
struct Target {
    /// What progress calls it.
    name: &'static str,
    remote: Remote,
    options: ExportOptions,
    ignore_error: bool,
}

impl Caches {
    pub fn new(args: &BuildArgs, build_args: &BTreeMap<String, String>, app: &App) -> Result<Caches> {
        let mut caches = Caches { from: vec![], to: vec![], inline: false };
        for (flag, text) in args.cache_from.iter().map(|text| ("--cache-from", text)) {
            for (kind, attributes) in entries(text).map_err(|problem| invalid(flag, "", &problem))? {
                let source = source(&kind, attributes, app).map_err(|error| error.of_flag(flag, &kind))?;
                caches.from.push(source);
            }
        }
        for (flag, text) in args.cache_to.iter().map(|text| ("--cache-to", text)) {
            for (kind, attributes) in entries(text).map_err(|problem| invalid(flag, "", &problem))? {
                match target(&kind, attributes, app).map_err(|error| error.of_flag(flag, &kind))? {
                    Some(target) => caches.to.push(target),
                    None => caches.inline = true,
                }
            }
        }
        // As BuildKit reads it: what is neither true nor false is false.
        let inline = build_args.get("BUILDKIT_INLINE_CACHE").map(String::as_str);
        caches.inline |= matches!(inline, Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
        Ok(caches)
    }

    /// The names in registries that are read: their repositories may have what an image needs.
    pub fn repositories(&self) -> Vec<Reference> {
        let registries = self.from.iter().filter_map(|source| match &source.remote {
            Remote::Registry(cache) => Some(cache.reference().clone()),
            _ => None,
        });
        registries.collect()
    }

    /// Begins to read the caches, unless nothing that they know would be taken.
    pub fn start(&self, no_cache: bool, app: &App, events: &EventSink) -> RemoteCaches {
        let from = self.from.iter().filter(|_| !no_cache);
        let sources = from.map(|Source { name, remote, mounts }| ImportSource {
            name: name.clone(),
            remote: remote.clone(),
            mounts: *mounts,
        });
        RemoteCaches::new(sources.collect(), self.inline || !self.to.is_empty(), &app.snapshots, events)
    }

    /// Writes the caches, one after the other. Gives what lists the last one.
    pub async fn export(
        &self,
        caches: &RemoteCaches,
        parts: &[PlatformResult],
        app: &App,
        events: &EventSink,
    ) -> Result<Option<Descriptor>> {
        let stacks: Vec<&Stack> = parts.iter().map(|part| part.stack.as_ref()).collect();
        let mut listed = None;
        for Target { name, remote, options, ignore_error } in &self.to {
            let task = events.start(*name);
            match export(caches, &app.snapshots, &stacks, remote, *options, &task).await {
                Ok(written) => {
                    listed = written.or(listed);
                    task.done();
                }
                Err(error) => {
                    task.failed(&error);
                    // R7.5.4.
                    if !ignore_error {
                        return Err(CliError::build(format!("{name} failed: {error}")));
                    }
                }
            }
        }
        Ok(listed)
    }
}

/// Fetches what the outputs need of results that only remote caches have: while the steps can still run if that fails.
pub async fn make_ready(
    values: &[Value],
    request: &Request,
    wants_files: bool,
    app: &App,
    images: &Images,
    events: &EventSink,
) -> executor::error::Result<()> {
    let files = wants_files || request.outputs.iter().any(OutputSpec::needs_files);
    if !files && !request.outputs.iter().any(OutputSpec::is_image) {
        return Ok(());
    }
    for value in values {
        if let Value::Files(stack) = value {
            fetch(images, &app.snapshots, stack, files, events).await?;
        }
    }
    Ok(())
}

/// What is wrong with one entry of a flag.
enum Mistake {
    Text(String),
    Error(CliError),
}

impl Mistake {
    fn of_flag(self, flag: &str, kind: &str) -> CliError {
        match self {
            Mistake::Text(problem) => invalid(flag, kind, &problem),
            Mistake::Error(error) => error,
        }
    }
}

impl From<String> for Mistake {
    fn from(problem: String) -> Self {
        Mistake::Text(problem)
    }
}

impl From<CliError> for Mistake {
    fn from(error: CliError) -> Self {
        Mistake::Error(error)
    }
}

/// The text of the flag may hold secrets, so it is not told.
fn invalid(flag: &str, kind: &str, problem: &str) -> CliError {
    let kind = if kind.is_empty() { String::new() } else { format!(" of type {kind}") };
    CliError::Usage(format!("invalid {flag}{kind}: {problem}"))
}

/// Types and attributes. What has no `=` is names of images (R7.5.1).
fn entries(text: &str) -> std::result::Result<Vec<(String, Attributes)>, String> {
    let fields = csv(text).map_err(|_| "unbalanced quote".to_owned())?;
    if fields.iter().all(|field| !field.contains('=')) {
        let names = fields.into_iter().filter(|field| !field.is_empty());
        let of_name = |name| ("registry".to_owned(), Attributes::new([("ref".to_owned(), name)]));
        return Ok(names.map(of_name).collect());
    }
    let mut pairs = Vec::new();
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} is not KEY=VALUE"))?;
        pairs.push((key.trim().to_lowercase(), value.to_owned()));
    }
    let mut attributes = Attributes::new(pairs);
    let kind = attributes.take("type").ok_or("type is required")?;
    Ok(vec![(kind, attributes)])
}

fn source(kind: &str, mut attributes: Attributes, app: &App) -> std::result::Result<Source, Mistake> {
    let mounts = attributes.take_flag("cache-mounts")?.unwrap_or(false);
    let (name, remote) = match kind {
        "registry" => registry(&mut attributes, Format::new(None, None)?, app)?,
        "local" => {
            let (directory, tag) = (attributes.require("src")?, attributes.take("tag"));
            let digest = attributes.take("digest").map(|digest| digest.parse()).transpose();
            let digest = digest.map_err(|error: oci::digest::InvalidDigest| error.to_string())?;
            let cache = LocalCache::source(directory.clone().into(), tag.unwrap_or(DEFAULT_TAG.into()), digest);
            (directory, Remote::Local(cache))
        }
        "s3" => s3(&mut attributes)?,
        "gha" => gha(&mut attributes)?,
        "inline" => {
            let advice = "inline caches are in images: read one with type=registry,ref=IMAGE";
            return Err(advice.to_owned().into());
        }
        other => return Err(unknown(other).into()),
    };
    attributes.finish()?;
    Ok(Source { name, remote, mounts })
}

/// `None` stands for an inline cache.
fn target(kind: &str, mut attributes: Attributes, app: &App) -> std::result::Result<Option<Target>, Mistake> {
    let all = match attributes.take("mode").as_deref() {
        None | Some("min") => false,
        Some("max") => true,
        Some(other) => return Err(format!("unknown mode {other:?}: expected min or max").into()),
    };
    let ignore_error = attributes.take_flag("ignore-error")?.unwrap_or(false);
    let mounts = attributes.take_flag("cache-mounts")?.unwrap_or(false);
    let mut options = ExportOptions { all, compression: None, force: false, mounts };
    let mut format = |attributes: &mut Attributes| -> std::result::Result<Format, String> {
        let level = attributes.take("compression-level").map(|level| level.parse());
        let level = level.transpose().map_err(|_| "invalid compression-level: expected a number".to_owned())?;
        options.compression = compression(attributes.take("compression").as_deref(), level)?;
        options.force = attributes.take_flag("force-compression")?.unwrap_or(false);
        Format::new(attributes.take_flag("oci-mediatypes")?, attributes.take_flag("image-manifest")?)
    };
    let (name, remote) = match kind {
        "registry" => {
            let format = format(&mut attributes)?;
            ("exporting cache to registry", registry(&mut attributes, format, app)?.1)
        }
        "local" => {
            let format = format(&mut attributes)?;
            let (directory, tag) = (attributes.require("dest")?, attributes.take("tag"));
            let reset = attributes.take_flag("reset")?.unwrap_or(false);
            let tag = tag.unwrap_or(DEFAULT_TAG.into());
            let cache = LocalCache::destination(directory.into(), tag, reset, format);
            ("exporting cache to client directory", Remote::Local(cache))
        }
        // These always hold gzip (R7.5.2).
        "s3" => {
            options.compression = Some(Compression::GZIP);
            ("exporting cache to Amazon S3", s3(&mut attributes)?.1)
        }
        "gha" => {
            options.compression = Some(Compression::GZIP);
            ("exporting to GitHub Actions Cache", gha(&mut attributes)?.1)
        }
        "inline" if all => {
            return Err("an inline cache has the layers of its image and no others: mode=max needs another type"
                .to_owned()
                .into());
        }
        "inline" if mounts => {
            return Err(
                "an inline cache is part of an image, and holds no directories: cache-mounts=true needs another type"
                    .to_owned()
                    .into(),
            );
        }
        "inline" => {
            attributes.finish()?;
            return Ok(None);
        }
        other => return Err(unknown(other).into()),
    };
    attributes.finish()?;
    Ok(Some(Target { name, remote, options, ignore_error }))
}

fn registry(attributes: &mut Attributes, format: Format, app: &App) -> std::result::Result<(String, Remote), Mistake> {
    let reference = reference(&attributes.require("ref")?)?;
    let client = match attributes.take_flag("registry.insecure")? {
        Some(true) => app.trusting_client(reference.registry())?,
        _ => app.client()?,
    };
    Ok((reference.to_string(), Remote::Registry(RegistryCache::new(client, reference, format))))
}

fn s3(attributes: &mut Attributes) -> std::result::Result<(String, Remote), String> {
    let config = S3Config::new(attributes, &variable)?;
    let name = format!("s3://{}/{}{}", config.bucket, config.prefix, config.names.join(";"));
    Ok((name, Remote::S3(S3Cache::new(config, Exchange::new(USER_AGENT)))))
}

fn gha(attributes: &mut Attributes) -> std::result::Result<(String, Remote), String> {
    let config = GhaConfig::new(attributes, &variable)?;
    let name = format!("gha:{}", config.scope);
    Ok((name, Remote::Gha(GhaCache::new(config, Exchange::new(USER_AGENT)))))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn unknown(kind: &str) -> String {
    let hint = parser::suggest::closest(TYPES, kind).map(|kind| format!(" (did you mean {kind}?)")).unwrap_or_default();
    format!("unknown type {kind:?}{hint}; there are {}", TYPES.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R7.5.1.
    #[test]
    fn names_alone_are_registries() {
        let refs = |text| {
            let entries = entries(text).unwrap();
            entries.into_iter().map(|(kind, mut attributes)| (kind, attributes.take("ref"))).collect::<Vec<_>>()
        };
        let registry = |name: &str| ("registry".to_owned(), Some(name.to_owned()));
        assert_eq!(refs("user/app:cache"), [registry("user/app:cache")]);
        assert_eq!(refs("a,b:1"), [registry("a"), registry("b:1")]);
        assert_eq!(refs("type=registry,ref=a"), [registry("a")]);
        assert_eq!(refs("\"type=registry\",\"ref=a,b\""), [registry("a,b")]);
        assert_eq!(entries("ref=a").unwrap_err(), "type is required");
        assert_eq!(entries("type=local,src").unwrap_err(), "\"src\" is not KEY=VALUE");
    }
}
