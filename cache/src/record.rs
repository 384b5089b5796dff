//! Results of steps by content key, and memos.

use crate::error::Result;
use crate::layer::LayerId;
use crate::store::Store;
use rusqlite::OptionalExtension;

/// The namespace of memos about layers: their keys are ids, and they go with the layers.
pub const OF_LAYERS: &str = "book-begins";

/// What a step gave: the layer that it put on its input.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRecord {
    pub layer: LayerId,
    pub note: Option<String>,
}

impl Store {
    /// The result for `key`, and the content id of its layer. A record whose layer is gone is dropped.
    pub fn lookup(&self, key: &[u8; 32]) -> Result<Option<(ResultRecord, [u8; 32])>> {
        let found = self.database().with(|connection| {
            connection
                .prepare_cached(
                    "SELECT result.layer, note, content FROM result LEFT JOIN layer ON layer.id = result.layer
                     WHERE key = ?",
                )?
                .query_row((key,), |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, Option<_>>(2)?)))
                .optional()
        })?;
        let Some((layer, note, content)) = found else { return Ok(None) };
        let record = ResultRecord { layer: LayerId::from_stored(layer), note };
        self.rely_on(&record.layer.to_string());
        if let Some(content) = content
            && self.layer_path(&record.layer).exists()
        {
            return Ok(Some((record, content)));
        }
        self.database().with(|connection| connection.execute("DELETE FROM result WHERE key = ?", (key,)))?;
        Ok(None)
    }

    /// Keeps a result. Its layer must be committed.
    pub fn record(&self, key: &[u8; 32], record: &ResultRecord) -> Result<()> {
        self.database().with(|connection| {
            connection.prepare_cached("INSERT OR REPLACE INTO result (key, layer, note) VALUES (?, ?, ?)")?.execute((
                key,
                record.layer.to_string(),
                &record.note,
            ))
        })?;
        Ok(())
    }

    /// A remembered value: something that could be found out again.
    pub fn memo(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>> {
        self.database().with(|connection| {
            connection
                .prepare_cached("SELECT value FROM memo WHERE namespace = ? AND key = ?")?
                .query_row((namespace, key), |row| row.get(0))
                .optional()
        })
    }

    pub fn put_memo(&self, namespace: &str, key: &str, value: &[u8]) -> Result<()> {
        self.database().with(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO memo (namespace, key, value) VALUES (?, ?, ?)")?
                .execute((namespace, key, value))
        })?;
        Ok(())
    }
}

impl LayerId {
    pub(crate) fn from_stored(id: String) -> Self {
        serde_json::from_value(serde_json::Value::String(id)).expect("a layer id is a string")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerRecord;

    #[test]
    fn results_hold_while_their_layer_does() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let layer = LayerRecord {
            lowers: vec![],
            lowers_content: [0; 32],
            content_id: [0; 32],
            created: 0,
            userxattr: false,
            size: 0,
            diff_id: None,
        };
        let id = store.begin_layer().unwrap().commit(None, &layer).unwrap();
        let record = ResultRecord { layer: id.clone(), note: Some("RUN x".into()) };
        store.record(&[1; 32], &record).unwrap();
        assert_eq!(store.lookup(&[1; 32]).unwrap(), Some((record, [0; 32])));
        assert_eq!(store.lookup(&[2; 32]).unwrap(), None);
        std::fs::remove_dir_all(store.layer_path(&id).parent().unwrap()).unwrap();
        assert_eq!(store.lookup(&[1; 32]).unwrap(), None);
    }

    #[test]
    fn memos_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.memo("n", "k").unwrap(), None);
        store.put_memo("n", "k", b"1").unwrap();
        store.put_memo("n", "k", b"2").unwrap();
        assert_eq!(store.memo("n", "k").unwrap().as_deref(), Some(&b"2"[..]));
    }
}
