//! The store as the solver's [`CacheIndex`]: a step's record names the one layer that the step put on its first input.

use crate::error::{Error, Result, blocking};
use crate::value::{Layer, Value};
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

    fn lookup(&self, key: &ContentKey, inputs: &[Value]) -> Result<Option<Value>> {
        let Some(Value::Files(below)) = inputs.first() else { return Ok(None) };
        let Some((record, content)) = self.store.lookup(&key.0)? else { return Ok(None) };
        let layer = Layer { id: record.layer, content, origin: None };
        Ok(Some(Value::Files(Arc::new(below.with(layer)))))
    }

    async fn lock(&self, key: &ContentKey) -> Result<KeyLock> {
        if let Some(lock) = self.store.try_lock_key(&key.0)? {
            return Ok(lock);
        }
        let (store, key) = (self.store.clone(), key.0);
        blocking(move || Ok(store.lock_key(&key)?)).await
    }

    fn record(&self, key: &ContentKey, value: &Value) -> Result<()> {
        if let Value::Files(stack) = value
            && let Some(top) = stack.layers().last()
        {
            self.store.record(&key.0, &ResultRecord { layer: top.id.clone(), note: None })?;
        }
        Ok(())
    }
}
