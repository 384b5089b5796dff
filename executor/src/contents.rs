//! What the layers of a result hold: their sizes, their biggest files, and what nobody sees of them.

use crate::error::Result;
use crate::mount;
use crate::snapshot::Snapshots;
use crate::value::{LayerOrigin, Stack};
use oci::layer::{Change, ChangeKind};
use solver::report::{ImageContents, LayerContents};
use std::collections::BTreeMap;
use std::os::fd::AsFd;

/// How many files of a layer are named.
const NAMED: usize = 10;
/// With more entries than that in all, the rest is not looked at.
const MOST_ENTRIES: usize = 500_000;

/// Looks at all layers of `stack` that are unpacked. Of others their blobs' sizes are known.
pub fn contents(snapshots: &Snapshots, stack: &Stack, platform: String) -> Result<ImageContents> {
    let mut contents = ImageContents { platform, ..ImageContents::default() };
    let mut seen = Seen::default();
    let mut are_unpacked = true;
    for (position, layer) in stack.layers().iter().enumerate() {
        let record = snapshots.store().layer(&layer.id)?;
        let image = match layer.origin.as_deref() {
            Some(LayerOrigin::Image(image)) => Some(image),
            _ => None,
        };
        let mut found = LayerContents {
            id: layer.id.to_string(),
            image: image.map(|image| image.reference.familiar()),
            size: record.map(|record| record.size),
            packed: image.map(|image| image.descriptor.size()),
            ..LayerContents::default()
        };
        are_unpacked &= found.size.is_some();
        // What a layer deletes can be told over what is below it only.
        if are_unpacked {
            let tree = mount::open_directory(&snapshots.store().layer_path(&layer.id))?;
            let lower = snapshots.lower(&stack.below(position))?;
            let changes =
                oci::layer::diff(tree.as_fd(), lower.as_ref().map(AsFd::as_fd), snapshots.marks(), &|_| false)?;
            for change in changes {
                if seen.entries == MOST_ENTRIES {
                    contents.is_partial = true;
                    break;
                }
                found.entries += 1;
                seen.add(change?, position);
            }
            found.biggest = seen.biggest(position);
        }
        contents.layers.push(found);
    }
    contents.hidden = seen.hidden.iter().map(|(_, bytes, _)| bytes).sum();
    seen.hidden.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    seen.hidden.truncate(NAMED);
    contents.hidden_files = seen.hidden.into_iter().map(|(path, bytes, layer)| (shown(&path), bytes, layer)).collect();
    Ok(contents)
}

/// The files that can be seen so far, and those that no longer can.
#[derive(Default)]
struct Seen {
    /// Size and layer.
    files: BTreeMap<Vec<u8>, (u64, usize)>,
    hidden: Vec<(Vec<u8>, u64, usize)>,
    entries: usize,
}

impl Seen {
    fn add(&mut self, change: Change, layer: usize) {
        self.entries += 1;
        let is_directory = change.kind == ChangeKind::Directory;
        self.hide(&change.path);
        if !is_directory {
            // What was a directory is one no more.
            let mut below = change.path.clone();
            below.push(b'/');
            let inside = self.files.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
            let inside: Vec<_> = inside.map(|(path, _)| path.clone()).collect();
            inside.iter().for_each(|path| self.hide(path));
        }
        if let ChangeKind::File { size } = change.kind {
            self.files.insert(change.path, (size, layer));
        }
    }

    fn hide(&mut self, path: &[u8]) {
        if let Some((path, (bytes, layer))) = self.files.remove_entry(path)
            && bytes > 0
        {
            self.hidden.push((path, bytes, layer));
        }
    }

    fn biggest(&self, layer: usize) -> Vec<(String, u64)> {
        let mut files: Vec<_> = self.files.iter().filter(|(_, (_, of))| *of == layer).collect();
        files.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(b.0)));
        files.into_iter().take(NAMED).map(|(path, (bytes, _))| (shown(path), *bytes)).collect()
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, kind: ChangeKind) -> Change {
        Change { path: path.into(), kind, mode: 0o644, uid: 0, gid: 0, mtime: (0, 0), capability: None }
    }

    #[test]
    fn what_later_layers_hide_is_added_up() {
        let mut seen = Seen::default();
        let file = |path, size| change(path, ChangeKind::File { size });
        for (layer, changes) in [
            vec![file("a", 10), file("dir/b", 20), file("dir/c/d", 30), file("dir-e", 40), file("f", 50)],
            vec![file("a", 11), change("dir", ChangeKind::Whiteout), change("f", ChangeKind::Directory)],
            vec![change("dir", ChangeKind::Directory), file("dir/b", 21)],
        ]
        .into_iter()
        .enumerate()
        {
            changes.into_iter().for_each(|change| seen.add(change, layer));
        }
        let hidden: Vec<_> = seen.hidden.iter().map(|(path, bytes, _)| (shown(path), *bytes)).collect();
        let of = |path: &str, bytes| (path.to_owned(), bytes);
        assert_eq!(hidden, [of("/a", 10), of("/dir/b", 20), of("/dir/c/d", 30), of("/f", 50)]);
        assert_eq!(seen.biggest(0), [of("/dir-e", 40)]);
        assert_eq!(seen.biggest(2), [of("/dir/b", 21)]);
    }
}
