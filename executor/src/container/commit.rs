//! An image of a container's changes.

use super::record::Status;
use super::{Container, Result};
use crate::error::Error;
use crate::export::image::{self, BuiltImage};
use crate::mount;
use crate::snapshot::Snapshots;
use crate::source::image::Images;
use crate::value::Stack;
use oci::ImageConfig;
use oci::image::History;
use oci::layer::ChangeKind;
use oci::{Digest, Platform, Reference};
use rustix::fs::AtFlags;
use solver::lower::{ImageResolver, ResolvedImage};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How often the files of a running container are read once more, if one changed while it was read.
const ATTEMPTS: usize = 3;

/// What the image says of itself.
pub struct Commit<'a> {
    pub author: Option<&'a str>,
    pub message: Option<&'a str>,
    /// Dockerfile instructions that change the config.
    pub changes: &'a [String],
}

/// Makes an image of the container's image, its flags, and what it wrote. Its processes are not stopped meanwhile: stop the container where the files
/// must be those of one moment.
pub async fn commit(
    snapshots: &Snapshots,
    images: &Images,
    container: &Container,
    commit: &Commit<'_>,
) -> Result<BuiltImage> {
    let record = &container.record;
    let base = images.stored_config(&record.reference, &record.manifest)?;
    let stack = images.stack(&record.reference, &record.manifest)?;
    images.fetch_layers(&stack).await?;
    let mut config = ImageConfig { config: record.config.clone(), ..base };
    config.config = changed(config.clone(), record.manifest, commit.changes).await?.config;
    let now = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    config.author = commit.author.map(str::to_owned).or(config.author);
    config.created = now.clone();
    config.history.push(History {
        created: now,
        created_by: Some(record.command().join(" ")),
        author: commit.author.map(str::to_owned),
        comment: commit.message.map(str::to_owned),
        empty_layer: false,
    });
    let (snapshots, upper) = (snapshots.clone(), container.directory.upper());
    // Those that are in use are still there.
    let stubs = match container.state.status {
        Status::Running | Status::Dead => container.state.stubs.clone(),
        Status::Created | Status::Exited => Vec::new(),
    };
    let made = crate::error::blocking(move || {
        let mut attempt = 1;
        loop {
            let left_out = mount_points(&snapshots, &stack, &upper, &stubs)?;
            match image::with_changes(&snapshots, &stack, &upper, &left_out, config.clone()) {
                Err(Error::Layer(oci::layer::Error::SizeChanged { .. })) if attempt < ATTEMPTS => attempt += 1,
                made => return made,
            }
        }
    });
    Ok(made.await?)
}

/// What stands in the files only because something is mounted there: mount points that are still empty, and directories in which nothing else changed.
fn mount_points(
    snapshots: &Snapshots,
    stack: &Stack,
    upper: &Path,
    stubs: &[String],
) -> std::result::Result<BTreeSet<Vec<u8>>, Error> {
    let stubs: BTreeSet<Vec<u8>> = stubs.iter().map(|path| path.trim_start_matches('/').as_bytes().to_vec()).collect();
    let mut left_out = BTreeSet::new();
    if stubs.is_empty() {
        return Ok(left_out);
    }
    let parents: BTreeSet<Vec<u8>> = stubs.iter().flat_map(|path| ancestors(path)).map(<[u8]>::to_vec).collect();
    let mut changed = BTreeSet::new();
    let (upper, lower) = (mount::open_directory(upper)?, snapshots.view(&stack.ids())?);
    for change in oci::layer::diff(upper.as_fd(), Some(lower.as_fd()), snapshots.marks(), &|_| false)? {
        let change = change?;
        let is_empty = matches!(change.kind, ChangeKind::Directory | ChangeKind::File { size: 0 });
        let is_unchanged = || {
            let below = rustix::fs::statat(&lower, change.path.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
            below.is_ok_and(|below| {
                (below.st_mode & 0o7777, below.st_uid, below.st_gid) == (change.mode, change.uid, change.gid)
            })
        };
        if (is_empty && stubs.contains(&change.path)) || (parents.contains(&change.path) && is_unchanged()) {
            left_out.insert(change.path);
        } else {
            changed.extend(ancestors(&change.path).map(<[u8]>::to_vec));
        }
    }
    left_out.retain(|path| !changed.contains(path));
    Ok(left_out)
}

/// The directories that a path lies in.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// Applies instructions to a config, as a build from its image would.
async fn changed(
    mut config: ImageConfig,
    manifest: Digest,
    changes: &[String],
) -> std::result::Result<ImageConfig, Error> {
    if changes.is_empty() {
        return Ok(config);
    }
    let invalid = |problem: String| Error::Export(format!("invalid change: {problem}"));
    let text: String = changes.iter().map(|change| format!("{change}\n")).collect();
    let dockerfile = parser::parse(&format!("FROM base\n{text}"))
        .map_err(|errors| invalid(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    // They are for builds from the image, and this is none.
    let triggers = std::mem::take(&mut config.config.on_build);
    let options = solver::lower::LowerOptions { platform: Some(config.platform()), ..Default::default() };
    solver::lower::refuse_file_changes(&dockerfile).map_err(|error| invalid(error.to_string()))?;
    let lowered = solver::lower::lower(&dockerfile, &options, &Base(config, manifest)).await;
    let plan = lowered.plan.map_err(|errors| {
        invalid(errors.first().map(ToString::to_string).unwrap_or_else(|| "it makes no sense".to_owned()))
    })?;
    let mut config = plan.config;
    config.config.on_build.splice(0..0, triggers);
    Ok(config)
}

/// The image that all instructions begin at.
struct Base(ImageConfig, Digest);

impl ImageResolver for Base {
    type Error = String;

    async fn resolve(&self, _: &Reference, _: &Platform) -> std::result::Result<ResolvedImage, String> {
        Ok(ResolvedImage { manifest: self.1, digest: self.1, config: self.0.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(changes: &[&str]) -> std::result::Result<ImageConfig, Error> {
        let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
        config.config.env = vec!["PATH=/bin".into(), "A=1".into()];
        config.config.working_dir = "/work".into();
        config.config.on_build = vec!["RUN false".into()];
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(changed(config, Digest::of(b""), &changes))
    }

    #[test]
    fn changes_build_on_the_config() {
        let config = apply(&["ENV A=$A$A B=2", "WORKDIR sub", "CMD [\"x\"]", "ONBUILD RUN true"]).unwrap().config;
        assert_eq!(config.env, ["PATH=/bin", "A=11", "B=2"]);
        assert_eq!((config.working_dir.as_str(), config.cmd), ("/work/sub", Some(vec!["x".to_owned()])));
        assert_eq!(config.on_build, ["RUN false", "RUN true"]);
    }

    #[test]
    fn files_cannot_be_changed() {
        for change in ["RUN true", "COPY a b", "NONSENSE x", "FROM x"] {
            let error = apply(&[change]).unwrap_err().to_string();
            assert!(error.starts_with("invalid change"), "{error}");
        }
    }
}
