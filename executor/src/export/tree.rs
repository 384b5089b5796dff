//! A result's files, without an image around them.

use crate::error::{Error, Result};
use crate::snapshot::Snapshots;
use crate::value::Stack;
use oci::Platform;
use oci::layer::{NamedTree, TarOptions, Times};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Where the files of each platform go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// A folder for each platform, such as `linux_amd64` (R5.10).
    Split,
    /// All at the top, where no two platforms may have the same file (R5.10.3).
    Together,
}

/// The files of some platforms, mounted.
pub struct Trees(Vec<(String, OwnedFd)>);

impl Trees {
    pub fn open<'a>(
        snapshots: &Snapshots,
        results: impl IntoIterator<Item = (&'a Platform, &'a Stack)>,
    ) -> Result<Trees> {
        let views =
            results.into_iter().map(|(platform, stack)| Ok((platform.to_string(), snapshots.view(&stack.ids())?)));
        Ok(Trees(views.collect::<Result<_>>()?))
    }

    fn named(&self) -> Vec<NamedTree<'_>> {
        self.0.iter().map(|(name, root)| NamedTree { root: root.as_fd(), name }).collect()
    }

    /// Copies the files into a directory, made if it is missing; owners become the caller's.
    pub fn to_directory(&self, placing: Placing, times: Times, directory: &Path) -> Result<()> {
        let trees = self.named();
        if placing == Placing::Together && trees.len() > 1 {
            oci::layer::check_disjoint(&trees)?;
        }
        for tree in trees {
            let folder = match placing {
                Placing::Split => directory.join(tree.folder()),
                Placing::Together => directory.to_owned(),
            };
            oci::layer::copy_tree(tree.root, &folder, times)?;
            if let (Placing::Split, Times::All(seconds)) = (placing, times) {
                let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, &folder, &times, AtFlags::empty())
                    .map_err(|error| Error::write("the time of a folder")(error.into()))?;
            }
        }
        Ok(())
    }

    /// Writes the files as a tar, with owners, attributes and devices.
    pub fn to_tar(&self, placing: Placing, times: Times, out: &mut impl Write) -> Result<()> {
        let (trees, options) = (self.named(), TarOptions { times });
        match (placing, trees.as_slice()) {
            (Placing::Split, _) => oci::layer::tar_from_trees(&trees, &options, out)?,
            (Placing::Together, [one]) => oci::layer::tar_from_directory(one.root, &options, out)?,
            (Placing::Together, _) => {
                oci::layer::check_disjoint(&trees)?;
                oci::layer::tar_from_disjoint_trees(&trees, &options, out)?
            }
        };
        out.flush().map_err(Error::write("the tar"))
    }
}
