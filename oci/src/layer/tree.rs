//! Whole trees as a tar (`--output type=tar`).

use super::walk::{Changes, Walk};
use super::write::{TarOptions, TarSummary, TreeEntries, Xattrs, write};
use super::{Change, ChangeKind, Error, shown};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::os::fd::BorrowedFd;

/// A tree among several: that of one platform.
#[derive(Clone, Copy, Debug)]
pub struct NamedTree<'a> {
    pub root: BorrowedFd<'a>,
    /// For messages, and with slashes replaced, for the folder.
    pub name: &'a str,
}

impl NamedTree<'_> {
    /// `linux_amd64` (spec R5.10).
    pub fn folder(&self) -> String {
        self.name.replace('/', "_")
    }
}

/// Everything below a directory.
fn entries(root: BorrowedFd<'_>) -> Result<Changes<'_>, Error> {
    Walk { tree: root, lower: None, overlay: None, is_single: &|_| false }.changes()
}

/// Writes everything under `root`, which is a merged tree, as a tar (spec R5.10.4): sorted, with owners, all xattrs, hard
/// links and devices. Overlayfs marks in it have no meaning.
pub fn tar_from_directory(
    root: BorrowedFd<'_>,
    options: &TarOptions,
    out: &mut impl Write,
) -> Result<TarSummary, Error> {
    write([Ok(TreeEntries { folder: b"", tree: root, entries: entries(root)? })], options, Xattrs::All, out)
}

/// Writes several trees as one tar, each in its folder.
pub fn tar_from_trees(
    trees: &[NamedTree<'_>],
    options: &TarOptions,
    out: &mut impl Write,
) -> Result<TarSummary, Error> {
    let folders: Vec<_> = trees.iter().map(NamedTree::folder).collect();
    let parts = trees.iter().zip(&folders).map(|(tree, folder)| {
        Ok(TreeEntries { folder: folder.as_bytes(), tree: tree.root, entries: entries(tree.root)? })
    });
    write(parts, options, Xattrs::All, out)
}

/// Writes several trees as one tar, one over the other; a directory that several have is the first one's. They must be [disjoint](check_disjoint).
pub fn tar_from_disjoint_trees(
    trees: &[NamedTree<'_>],
    options: &TarOptions,
    out: &mut impl Write,
) -> Result<TarSummary, Error> {
    let seen = std::cell::RefCell::new(HashSet::new());
    let is_new = |change: &Result<Change, Error>| match change {
        Ok(change) if change.kind == ChangeKind::Directory => seen.borrow_mut().insert(change.path.clone()),
        _ => true,
    };
    let parts = trees
        .iter()
        .map(|tree| Ok(TreeEntries { folder: b"", tree: tree.root, entries: entries(tree.root)?.filter(&is_new) }));
    write(parts, options, Xattrs::All, out)
}

/// An error if two trees have the same path, unless it is a directory in both (spec R5.10.3).
pub fn check_disjoint(trees: &[NamedTree<'_>]) -> Result<(), Error> {
    let mut seen: HashMap<Vec<u8>, (&str, bool)> = HashMap::new();
    for tree in trees {
        for change in entries(tree.root)? {
            let Change { path, kind, .. } = change?;
            let is_directory = kind == ChangeKind::Directory;
            match seen.get(&path) {
                Some((_, true)) if is_directory => {}
                Some((first, _)) => {
                    let (first, second) = ((*first).to_owned(), tree.name.to_owned());
                    return Err(Error::Overlap { path: shown(&path), first, second });
                }
                None => drop(seen.insert(path, (tree.name, is_directory))),
            }
        }
    }
    Ok(())
}
