//! Where each source of a COPY goes (X3.C).

use super::digest::{Digester, SelectionHasher, selection_digest};
use super::error::{Context, Error};
use super::metadata::Attributes;
use super::path::{clean, join, parent_and_name, shown};
use super::place::{make_stage, place};
use super::resolve::{make_dirs, open_dirs, resolve};
use super::select::{Filter, Selected, SourceRoot, select};
use super::tree::{Account, TreeCopy};
use super::{CopyRequest, CopySummary, Owner, SourceTree, Staged, View, unpack};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use solver::op;

/// Copies a selection into a destination. An error leaves a part behind: the caller drops the whole step (X3.1).
pub fn copy(request: &CopyRequest<'_>, view: &mut dyn View) -> Result<CopySummary, Error> {
    let Selected { roots, filter, parents } = select(&request.source, request.selection)?;
    let mut summary = CopySummary::default();
    if parents && roots.is_empty() {
        Destination::new(request, view, parents).make_dir()?;
    }
    let mut is_behind = false;
    let mut hasher =
        request.account.map(|account| SelectionHasher::new(account.keep_owner, roots.len(), account.listing));
    for (number, root) in roots.iter().enumerate() {
        if std::mem::take(&mut is_behind) {
            view.refresh()?;
        }
        let to = Destination::new(request, view, parents);
        is_behind = root.stat.is_dir();
        let copied = match root.stat.is_dir() {
            true => to.directory(root, &filter, number, &mut hasher)?,
            false => to.file(root, &mut hasher)?,
        };
        summary.files += copied.files;
        summary.bytes += copied.bytes;
        summary.unpacked |= copied.unpacked;
        summary.into = if roots.len() == 1 { copied.into } else { None };
    }
    summary.digest = hasher.map(SelectionHasher::finish);
    summary.is_behind = is_behind;
    Ok(summary)
}

/// Copies a selection that is one directory into an empty one, ahead of the step that it is for. Anything else is only digested. Gives the digest, as
/// [`selection_digest`](super::selection_digest) does, and what to [`place_staged`], if anything was copied.
pub fn stage(
    source: &SourceTree<'_>,
    copy: &op::Copy,
    owner: Owner,
    account: Account<'_>,
    stage: &OwnedFd,
) -> Result<([u8; 32], Option<Staged>), Error> {
    let selection = &copy.selection;
    let Selected { roots, filter, parents } = select(source, selection)?;
    let root = match roots.as_slice() {
        [root] if root.stat.is_dir() => root,
        _ => {
            let digest = selection_digest(source, selection, account.digests, account.recent, account.keep_owner)?;
            return Ok((digest, None));
        }
    };
    let attributes = Attributes { owner, chmod: copy.chmod.as_ref() };
    let tree = TreeCopy::new(stage.as_fd(), attributes, Some(account));
    let dir = rustix::io::fcntl_dupfd_cloexec(stage, 0).context("dup", b"")?;
    let digest =
        tree.directory(root, &filter, dir).map_err(|error| error.below(&clean(copy.destination.as_bytes())))?;
    let digest = digest.ok_or_else(|| Error::Changed { path: shown(&root.path) })?;
    let mut hasher = SelectionHasher::new(account.keep_owner, 1, None);
    hasher.tree(&digest);
    let digest = hasher.finish();
    let summary = CopySummary { digest: Some(digest), ..tree.summary() };
    Ok((digest, Some(Staged { summary, times: root.stat.times(), parents })))
}

/// Moves what was [`stage`]d to where it belongs; what remains of `request` that still counts is its destination and attributes.
pub fn place_staged(
    request: &CopyRequest<'_>,
    view: &mut dyn View,
    staged: &Staged,
    stage: &OwnedFd,
) -> Result<CopySummary, Error> {
    let (dir, path) = Destination::new(request, view, staged.parents).directory_for_tree()?;
    place(stage, &dir, request.layer, &path)?;
    rustix::fs::futimens(&dir, &staged.times).context("utimes", &path)?;
    Ok(CopySummary { into: Some(path), is_behind: true, ..staged.summary.clone() })
}

struct Destination<'a> {
    request: &'a CopyRequest<'a>,
    root: BorrowedFd<'a>,
    attributes: Attributes<'a>,
    path: Vec<u8>,
    /// Ends in `/`: a directory, whatever is there (X3.19).
    is_dir: bool,
}

impl<'a> Destination<'a> {
    fn new(request: &'a CopyRequest<'a>, view: &'a dyn View, parents: bool) -> Destination<'a> {
        Destination {
            request,
            root: view.root(),
            attributes: Attributes { owner: request.owner, chmod: request.chmod },
            path: clean(request.to.as_bytes()),
            is_dir: parents || request.to.ends_with('/') || request.to.ends_with("/."),
        }
    }

    /// The destination itself as a directory, with its missing parents (X3.15): its descriptor and canonical path.
    fn make_dir(&self) -> Result<(OwnedFd, Vec<u8>), Error> {
        let at = resolve(self.root, &self.path, true, &|_, _| true)?;
        Ok((make_dirs(&at, self.attributes.new_dir())?, at.full_path()))
    }

    fn directory_for_tree(&self) -> Result<(OwnedFd, Vec<u8>), Error> {
        if self.is_dir {
            return self.make_dir();
        }
        let at = resolve(self.root, &self.path, true, &|_, _| true)?;
        if at.exists() && !at.stat.is_dir() {
            return Err(Error::NonDirectory { path: shown(&at.path) });
        }
        Ok((make_dirs(&at, self.attributes.new_dir())?, at.full_path()))
    }

    /// What a directory holds (X3.13). The destination keeps its own mode and owner, or those of a made parent, but takes the times
    /// (X3.30, X3.31).
    fn directory(
        &self,
        root: &SourceRoot,
        filter: &Filter<'_>,
        number: usize,
        hasher: &mut Option<SelectionHasher<'_>>,
    ) -> Result<CopySummary, Error> {
        // First of all, so that a destination that cannot be is told at once.
        let (dir, path) = self.directory_for_tree()?;
        let stage = make_stage(self.request.staging, number)?;
        let copy = TreeCopy::new(stage.as_fd(), self.attributes, self.request.account);
        let into = rustix::io::fcntl_dupfd_cloexec(&stage, 0).context("dup", b"")?;
        let digest = copy.directory(root, filter, into).map_err(|error| error.below(&path))?;
        if let (Some(hasher), Some(digest)) = (hasher, digest) {
            hasher.tree(&digest);
        }
        place(&stage, &dir, self.request.layer, &path)?;
        rustix::fs::futimens(&dir, &root.stat.times()).context("utimes", &path)?;
        Ok(CopySummary { into: Some(path), ..copy.summary() })
    }

    fn file(&self, root: &SourceRoot, hasher: &mut Option<SelectionHasher<'_>>) -> Result<CopySummary, Error> {
        let request = self.request;
        if request.unpack
            && root.stat.kind == FileType::RegularFile
            && let Some(summary) = unpack::try_unpack(root, self.root, &self.path, request.owner)?
        {
            if let (Some(hasher), Some(account)) = (hasher, request.account) {
                hasher.file(root, Digester::new(account.digests, account.keep_owner, None).root_record(root)?);
            }
            return Ok(CopySummary { unpacked: true, ..summary });
        }
        if self.is_dir {
            self.make_dir()?;
        }
        let at = resolve(self.root, &self.path, true, &|_, _| true)?;
        let target = if at.exists() && at.stat.is_dir() { join(&at.path, &root.name) } else { at.full_path() };
        let (parent, name) = parent_and_name(&target);
        let dir: OwnedFd = if at.exists() {
            open_dirs(self.root, parent)?
        } else {
            let at = resolve(self.root, parent, false, &|_, _| true)?;
            make_dirs(&at, self.attributes.new_dir())?
        };
        let (source_dir, source_name) = root.place()?;
        // The name is checked again: it may have been exchanged since it was resolved.
        let now = super::stat::at(source_dir, source_name).context("stat", &root.path)?;
        if now.kind != root.stat.kind {
            return Err(Error::Changed { path: shown(&root.path) });
        }
        let copy = TreeCopy::new(self.root, self.attributes, request.account);
        let from: (BorrowedFd<'_>, &[u8], &[u8]) = (source_dir, source_name, &root.path);
        let record = copy.entry(from, root.stat.kind, (dir.as_fd(), name, &target))?;
        if let (Some(hasher), Some(record)) = (hasher, record) {
            hasher.file(root, record);
        }
        let into = (root.stat.kind == FileType::RegularFile).then(|| parent.to_vec());
        Ok(CopySummary { into, ..copy.summary() })
    }
}
