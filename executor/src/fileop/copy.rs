//! Where each source of a COPY goes (X3.C).

use super::error::{Context, Error};
use super::metadata::Attributes;
use super::path::{clean, join, parent_and_name, shown};
use super::resolve::{make_dirs, open_dirs, resolve};
use super::select::{Filter, Selected, SourceRoot, select};
use super::tree::TreeCopy;
use super::{CopyRequest, CopySummary, unpack};
use rustix::fd::AsFd;
use rustix::fs::FileType;

/// Copies a selection into a destination. An error leaves a part behind: the caller drops the whole step (X3.1).
pub fn copy(request: &CopyRequest<'_>) -> Result<CopySummary, Error> {
    let Selected { roots, filter, parents } = select(&request.source, request.selection)?;
    let to = Destination::new(request, parents);
    let mut summary = CopySummary::default();
    if parents && roots.is_empty() {
        to.make_dir()?;
    }
    for root in &roots {
        let copied = copy_root(request, root, &filter, &to)?;
        summary.files += copied.files;
        summary.bytes += copied.bytes;
    }
    Ok(summary)
}

struct Destination<'a> {
    request: &'a CopyRequest<'a>,
    attributes: Attributes<'a>,
    path: Vec<u8>,
    /// Ends in `/`: a directory, whatever is there (X3.19).
    is_dir: bool,
}

impl<'a> Destination<'a> {
    fn new(request: &'a CopyRequest<'a>, parents: bool) -> Destination<'a> {
        Destination {
            request,
            attributes: Attributes { owner: request.owner, chmod: request.chmod },
            path: clean(request.to.as_bytes()),
            is_dir: parents || request.to.ends_with('/') || request.to.ends_with("/."),
        }
    }

    /// The destination itself as a directory, with its missing parents (X3.15): its descriptor and canonical path.
    fn make_dir(&self) -> Result<(rustix::fd::OwnedFd, Vec<u8>), Error> {
        let at = resolve(self.request.destination, &self.path, true, &|_, _| true)?;
        Ok((make_dirs(&at, self.attributes.new_dir())?, at.full_path()))
    }
}

fn copy_root(
    request: &CopyRequest<'_>,
    root: &SourceRoot,
    filter: &Filter<'_>,
    to: &Destination<'_>,
) -> Result<CopySummary, Error> {
    if request.unpack
        && root.stat.kind == FileType::RegularFile
        && let Some(summary) = unpack::try_unpack(root, request.destination, &to.path, request.owner)?
    {
        return Ok(summary);
    }
    if to.is_dir {
        to.make_dir()?;
    }
    let at = resolve(request.destination, &to.path, true, &|_, _| true)?;
    let copy = TreeCopy::new(request.destination, to.attributes);
    if root.stat.is_dir() {
        if at.exists() && !at.stat.is_dir() {
            return Err(Error::NonDirectory { path: shown(&at.path) });
        }
        let dir = make_dirs(&at, to.attributes.new_dir())?;
        copy.directory(root, filter, dir, at.full_path())?;
    } else {
        let target = if at.exists() && at.stat.is_dir() { join(&at.path, &root.name) } else { at.full_path() };
        let (parent, name) = parent_and_name(&target);
        let dir = if at.exists() {
            open_dirs(request.destination, parent)?
        } else {
            let at = resolve(request.destination, parent, false, &|_, _| true)?;
            make_dirs(&at, to.attributes.new_dir())?
        };
        let (source_dir, source_name) = root.place()?;
        // The name is checked again: it may have been exchanged since it was resolved.
        let now = super::stat::at(source_dir, source_name).context("stat", &root.path)?;
        if now.kind != root.stat.kind {
            return Err(Error::Changed { path: shown(&root.path) });
        }
        copy.entry((source_dir, source_name, &root.path), root.stat.kind, (dir.as_fd(), name, &target))?;
    }
    Ok(copy.summary())
}
