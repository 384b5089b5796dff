//! The store as the solver's [`CacheIndex`]: a step's record names the one layer that the step put on its first input. What the store does not know, remote
//! caches may.

use crate::error::{Error, Result};
use crate::remote::{CachedLayer, RemoteCaches};
use crate::value::{Layer, Stack, Value};
use cache::{KeyLock, ResultRecord, Store};
use solver::key::ContentKey;
use solver::schedule::CacheIndex;
use std::sync::Arc;
use std::time::Duration;

/// How long a lock's holder is left alone at most before it is looked after again.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

pub struct StoreIndex {
    store: Store,
    remote: Arc<RemoteCaches>,
}

impl StoreIndex {
    pub fn new(store: Store, remote: Arc<RemoteCaches>) -> Self {
        StoreIndex { store, remote }
    }

    fn stored(&self, key: &ContentKey) -> Result<Option<Layer>> {
        let found = self.store.lookup(&key.0)?;
        Ok(found.map(|(record, content)| Layer { id: record.layer, content, origin: None }))
    }

    /// A layer of a remote cache, or the one of the store that is the same.
    fn cached(&self, key: &ContentKey, below: &Stack) -> Result<Option<Layer>> {
        let Some((source, result)) = self.remote.result(&key.0) else { return Ok(None) };
        let content = result.content;
        if let Some(id) = self.store.layer_with_content(below.content().0, content)? {
            self.store.record(&key.0, &ResultRecord { layer: id.clone(), note: None })?;
            return Ok(Some(Layer { id, content, origin: None }));
        }
        Ok(Some(CachedLayer { key: key.0, result, source }.on(below)))
    }
}

impl CacheIndex<Value> for StoreIndex {
    type Error = Error;
    type Lock = KeyLock;

    fn lookup(&self, key: &ContentKey, inputs: &[Value]) -> Result<Option<Value>> {
        let Some(Value::Files(below)) = inputs.first() else { return Ok(None) };
        self.remote.note_inputs(&key.0, inputs);
        let found = match self.stored(key)? {
            Some(layer) => Some(layer),
            None => self.cached(key, below)?,
        };
        Ok(found.map(|layer| {
            let stack = Arc::new(below.with(layer));
            self.remote.note_result(&key.0, &stack);
            Value::Files(stack)
        }))
    }

    /// The step is unknown to the store: only now the remote caches are waited for, and the next lookup asks them too.
    ///
    /// Asks again and again: a thread that waits in the kernel cannot be called back when the build is cancelled, and with many locks to wait for
    /// no thread would be left to run what others wait for.
    async fn lock(&self, key: &ContentKey) -> Result<KeyLock> {
        self.remote.ready().await;
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
            self.remote.note_result(&key.0, stack);
        }
        Ok(())
    }
}
