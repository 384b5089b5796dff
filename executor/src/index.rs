//! The store as the solver's [`CacheIndex`]: a step's record names the one layer that the step put on its first input.

use crate::error::{Error, Result};
use crate::value::{Layer, Value};
use cache::{KeyLock, ResultRecord, Store};
use solver::key::ContentKey;
use solver::schedule::CacheIndex;
use std::sync::Arc;
use std::time::Duration;

/// How long a lock's holder is left alone at most before it is looked after again.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

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

    /// Asks again and again: a thread that waits in the kernel cannot be called back when the build is cancelled, and with many locks to wait for
    /// no thread would be left to run what others wait for.
    async fn lock(&self, key: &ContentKey) -> Result<KeyLock> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = self.store.try_lock_key(&key.0)? {
                return Ok(lock);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn record(&self, key: &ContentKey, value: &Value, name: &str) -> Result<()> {
        if let Value::Files(stack) = value
            && let Some(top) = stack.layers().last()
        {
            self.store.record(&key.0, &ResultRecord { layer: top.id.clone(), note: Some(name.to_owned()) })?;
        }
        Ok(())
    }
}
