//! Layers as directories: making a base's there, mounting a stack, and turning what a step wrote into a new layer.

use crate::error::{Error, Result};
use crate::mount;
use crate::sandbox::Privileges;
use crate::value::{Layer, Stack};
use cache::{Attempt, LayerRecord, Store};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

/// Mounts stacks of a store's layers. All mounts are detached: they live as long as their descriptor and show nowhere.
#[derive(Clone)]
pub struct Snapshots {
    store: Store,
    privileges: Privileges,
}

/// A layer in the making: a fresh directory over a stack.
pub struct Draft {
    attempt: Attempt,
    below: Stack,
    /// The merged view, writable.
    pub root: OwnedFd,
    started: SystemTime,
}

impl Snapshots {
    pub fn new(store: Store, privileges: Privileges) -> Self {
        Snapshots { store, privileges }
    }

    /// Whether overlay marks are in the `user.` family of extended attributes.
    pub fn userxattr(&self) -> bool {
        self.privileges != Privileges::Root
    }

    /// The merged, read-only view of a stack whose layers are all there.
    pub fn view(&self, stack: &Stack) -> Result<OwnedFd> {
        let ids = stack.ids();
        self.view_ids(&ids)
    }

    pub fn view_ids(&self, ids: &[cache::LayerId]) -> Result<OwnedFd> {
        let paths: Vec<_> = ids.iter().map(|id| self.store.layer_path(id)).collect();
        Ok(mount::overlay(&paths, None, self.privileges)?)
    }

    /// A writable view over `below`; [`Draft::commit`] keeps what was written.
    pub fn draft(&self, below: &Stack) -> Result<Draft> {
        let attempt = self.store.begin_layer()?;
        let paths: Vec<_> = below.ids().iter().map(|id| self.store.layer_path(id)).collect();
        let root = mount::overlay(&paths, Some((attempt.upper(), attempt.work())), self.privileges)?;
        Ok(Draft { attempt, below: below.clone(), root, started: SystemTime::now() })
    }

    /// Makes what was written a layer on top of what was below.
    ///
    /// With `adopt`, an earlier layer over equal content that has the same content stands in for the new one, so that
    /// everything after it stays cached and the image's digest stays the same.
    pub fn commit(&self, draft: Draft, adopt: bool) -> Result<Stack> {
        let Draft { attempt, below, root, started } = draft;
        // The overlay must be gone before its upper directory becomes a lower one.
        drop(root);
        let upper = mount::open_directory(attempt.upper())?;
        let lower = if below.layers().is_empty() { None } else { Some(self.view(&below)?) };
        let changes = oci::layer::diff(upper.as_fd(), lower.as_ref().map(AsFd::as_fd))?;
        let window = (started, SystemTime::now());
        let content = oci::layer::content_id(&changes, upper.as_fd(), Some(window))?;
        if adopt
            && let Some(id) = self.store.layer_with_content(below.content().0, content)?
        {
            return Ok(below.with(Layer { id, content, origin: None }));
        }
        let record = LayerRecord {
            lowers: below.ids(),
            lowers_content: below.content().0,
            content_id: content,
            created: nanoseconds(window.1),
            userxattr: self.userxattr(),
            size: oci::layer::size(&changes),
            diff_id: None,
        };
        let id = attempt.commit(None, record)?;
        Ok(below.with(Layer { id, content, origin: None }))
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Snapshots {
    /// Unpacks `blob`, a layer's tar, on top of `below` as the layer `id`.
    pub fn unpack(
        &self,
        id: &cache::LayerId,
        content: [u8; 32],
        blob: impl std::io::Read + Send,
        diff_id: oci::DiffId,
        below: &Stack,
    ) -> Result<()> {
        let attempt = self.store.begin_layer()?;
        let destination = mount::open_directory(attempt.upper())?;
        let lower = if below.layers().is_empty() { None } else { Some(self.view(below)?) };
        let mut tar = oci::codec::HashingReader::new(oci::codec::decoder(blob).map_err(Error::reading_layer)?);
        let options = oci::layer::ApplyOptions { userxattr: self.userxattr() };
        oci::layer::apply(&mut tar, destination.as_fd(), lower.as_ref().map(AsFd::as_fd), &options)?;
        let (digest, size) = tar.finish().map_err(Error::reading_layer)?;
        if digest != diff_id.0 {
            return Err(Error::WrongDiffId { expected: diff_id, found: oci::DiffId(digest) });
        }
        let record = LayerRecord {
            lowers: below.ids(),
            lowers_content: below.content().0,
            content_id: content,
            created: nanoseconds(SystemTime::now()),
            userxattr: self.userxattr(),
            size,
            diff_id: Some(diff_id),
        };
        attempt.commit(Some(id.clone()), record)?;
        Ok(())
    }
}
