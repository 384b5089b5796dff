//! Building twice, to see whether the same comes out.
//!
//! The second build runs every step anew, over the same base images and sources, and leaves nothing behind: [`NoIndex`] keeps no results, and
//! [`Store::take_back`](cache::Store::take_back) removes its layers. Cache directories of steps are its own (`WorkerOptions::cache_scope`), so that neither build
//! sees what the other one left in them.

use crate::error::{Error, Result};
use crate::mount;
use crate::snapshot::Snapshots;
use crate::value::{Layer, Stack, Value};
use oci::layer::{Comparison, Marks, Side, Times, compare};
use solver::key::ContentKey;
use solver::schedule::CacheIndex;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

/// How many differences of a layer are told one by one.
const TOLD: usize = 20;

/// Knows nothing, and keeps no results: only which layers there are to be removed.
#[derive(Default)]
pub struct NoIndex {
    made: Mutex<BTreeSet<String>>,
}

impl NoIndex {
    /// The ids of all layers that were made.
    pub fn made(&self) -> BTreeSet<String> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl CacheIndex<Value> for NoIndex {
    type Error = Error;
    type Lock = ();

    fn lookup(&self, _: &ContentKey, _: &[Value]) -> Result<Option<Value>> {
        Ok(None)
    }

    async fn lock(&self, _: &ContentKey) -> Result<()> {
        Ok(())
    }

    fn record(&self, _: &ContentKey, value: &Value, _: &str) -> Result<()> {
        if let Value::Files(stack) = value
            && let Some(top) = stack.layers().last()
        {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(top.id.to_string());
        }
        Ok(())
    }
}

/// A layer that came out differently.
pub struct LayerDifference {
    /// From the bottom, the lowest one being 0.
    pub index: usize,
    pub comparison: Comparison,
}

/// Compares two results of the same steps, layer by layer, as they would be written with these times. Layers of images are the same.
pub fn differences(snapshots: &Snapshots, first: &Stack, second: &Stack, times: Times) -> Result<Vec<LayerDifference>> {
    let mut differences = Vec::new();
    for (index, (a, b)) in first.layers().iter().zip(second.layers()).enumerate() {
        if a.id == b.id {
            continue;
        }
        let comparison = compare_layers(snapshots, a, b, times)?;
        if comparison.total > 0 {
            differences.push(LayerDifference { index, comparison });
        }
    }
    Ok(differences)
}

fn compare_layers(snapshots: &Snapshots, first: &Layer, second: &Layer, times: Times) -> Result<Comparison> {
    let open = |layer: &Layer| -> Result<_> {
        let record = snapshots.store().layer(&layer.id)?;
        let record = record.ok_or_else(|| Error::Export(format!("layer {} has left the store", layer.id)))?;
        let upper = mount::open_directory(&snapshots.store().layer_path(&layer.id))?;
        let lower = if record.lowers.is_empty() { None } else { Some(snapshots.view(&record.lowers)?) };
        let marks = if record.userxattr { Marks::User } else { Marks::Trusted };
        Ok((upper, lower, marks))
    };
    let ((upper_a, lower_a, marks_a), (upper_b, lower_b, marks_b)) = (open(first)?, open(second)?);
    let a = oci::layer::diff(upper_a.as_fd(), lower_a.as_ref().map(AsFd::as_fd), marks_a, &|_| false)?;
    let b = oci::layer::diff(upper_b.as_fd(), lower_b.as_ref().map(AsFd::as_fd), marks_b, &|_| false)?;
    let (a, b) = (Side { changes: a, upper: upper_a.as_fd() }, Side { changes: b, upper: upper_b.as_fd() });
    Ok(compare(a, b, times, TOLD)?)
}
