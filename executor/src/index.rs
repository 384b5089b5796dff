//! The store as the solver's [`CacheIndex`]: a step's record names the one layer that the step put on its first input.

use crate::error::Error;
use crate::value::{Layer, Stack, Value};
use cache::{KeyLock, ResultRecord, Store};
use solver::key::ContentKey;
use solver::schedule::CacheIndex;
use std::sync::Arc;

pub struct StoreIndex {
    store: Store,
}

impl StoreIndex {
    pub fn new(store: Store) -> Self {
        StoreIndex { store }
    }
}

impl CacheIndex<Value> for StoreIndex {
    type Error = Error;
    type Lock = KeyLock;

    fn lookup(&self, key: &ContentKey, inputs: &[Value]) -> Result<Option<Value>, Error> {
        let Some(record) = self.store.lookup(&key.0)? else { return Ok(None) };
        let Some(Value::Files(below)) = inputs.first() else { return Ok(None) };
        let [id] = record.layers.as_slice() else { return Ok(None) };
        let Some(layer) = self.store.layer(id)? else { return Ok(None) };
        let layer = Layer { id: id.clone(), content: layer.content_id, origin: None };
        Ok(Some(Value::Files(Arc::new(below.with(layer)))))
    }

    async fn lock(&self, key: &ContentKey) -> Result<KeyLock, Error> {
        if let Some(lock) = self.store.try_lock_key(&key.0)? {
            return Ok(lock);
        }
        let (store, key) = (self.store.clone(), key.0);
        let locked = tokio::task::spawn_blocking(move || store.lock_key(&key)).await;
        Ok(locked.map_err(Error::worker_gone)??)
    }

    fn record(&self, key: &ContentKey, value: &Value) -> Result<(), Error> {
        if let Value::Files(stack) = value
            && let Some(top) = stack.layers().last()
        {
            let record = ResultRecord { layers: vec![top.id.clone()], content_id: stack.content().0, note: None };
            self.store.record(&key.0, &record)?;
        }
        Ok(())
    }
}

/// The layers of a stack as one value, for records that do not belong to a step.
pub(crate) fn stack_of(values: &[Value]) -> Stack {
    let layers = values.iter().flat_map(|value| match value {
        Value::Files(stack) => stack.layers().to_vec(),
        Value::Local(_) => Vec::new(),
    });
    layers.collect()
}
