//! The document `cacheconfig.v0` as JSON (R7.6.1 to R7.6.7), and what must hold of one before anybody follows its indexes.
//!
//! Members called `rbuild` are ours: BuildKit's reader skips what it does not know.

use super::error::{Error, Result};
use super::mounts::MountRecord;
use oci::{DiffId, Digest};
use serde::{Deserialize, Deserializer, Serialize};

/// Larger ones are not read. BuildKit reads up to [`BUILDKIT_LIMIT`].
pub const MAX_CONFIG: u64 = 16 << 20;
/// R7.6.13.
pub const BUILDKIT_LIMIT: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<DocumentLayer>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    #[serde(default, skip_serializing_if = "Beside::is_empty")]
    pub rbuild: Beside,
}

/// What rbuild keeps beside records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beside {
    pub mounts: Vec<MountRecord>,
}

impl Beside {
    fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }
}

/// A blob on top of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentLayer {
    pub blob: Digest,
    /// The layer below, -1 for none. Go leaves out a 0 (R7.6.2).
    #[serde(default)]
    pub parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// What a manifest would say of a blob, for caches that have none (R7.6.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotations {
    #[serde(default)]
    pub media_type: String,
    #[serde(rename = "diffID")]
    pub diff_id: DiffId,
    #[serde(default)]
    pub size: u64,
    pub created_at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where results can stand for the whole chain of a layer.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<RecordLayer>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<RecordChain>,
    pub digest: Digest,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<Link>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rbuild: Option<Facts>,
}

/// A layer with all that is below it (R7.6.4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordLayer {
    #[serde(default)]
    pub layer: i64,
    #[serde(default = "never")]
    pub created_at: String,
}

/// Just these layers, bottom first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordChain {
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<i64>,
    #[serde(default = "never")]
    pub created_at: String,
}

/// One of the records that an input may be the result of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    #[serde(default)]
    pub link: i64,
}

/// What rbuild knows of a record's result. Ids are 32 bytes in hex.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The content id of the layer that the step put on its first input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// When the step began, in nanoseconds; it ended when its layer was made. Times between the two do not count for the content id; with -1 none do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    /// The blob's codec, as `oci::codec::Compression::key` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// The files have one owner, since their maker had no ids to give them others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub single_owner: bool,
    /// The record is no step's but a digest of a selection of files, of which the record's digest names the selection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
}

/// Go's zero time.
fn never() -> String {
    "0001-01-01T00:00:00Z".to_owned()
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Document {
    /// Parses a document, and refuses one whose indexes lead nowhere or round in circles (R7.6.6).
    pub fn parse(bytes: &[u8]) -> Result<Document> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(Error::Document(format!(
                "it has {} bytes, and more than {MAX_CONFIG} are not read",
                bytes.len()
            )));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(|error| Error::Document(error.to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// Parses the records of an inline cache, whose layers are those of its image (R7.6.11).
    pub fn parse_inline(records: &[u8], layers: Vec<DocumentLayer>) -> Result<Document> {
        let records = serde_json::from_slice(records).map_err(|error| Error::Document(error.to_string()))?;
        let document = Document { layers, records, ..Document::default() };
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<()> {
        let parents =
            |layer: usize| std::slice::from_ref(&self.layers[layer].parent).iter().copied().filter(|p| *p != -1);
        follow("layer", self.layers.len(), |layer| parents(layer).collect())?;
        let links = |record: usize| self.records[record].inputs.iter().flatten().map(|link| link.link).collect();
        follow("record", self.records.len(), links)?;
        for (index, record) in self.records.iter().enumerate() {
            if record.inputs.iter().any(Vec::is_empty) {
                return Err(Error::Document(format!("record {index} has an input without records")));
            }
            let results = record.layers.iter().map(|result| result.layer);
            let chained = record.chains.iter().flat_map(|chain| &chain.layers).copied();
            for layer in results.chain(chained) {
                at("layer", self.layers.len(), layer)?;
            }
        }
        Ok(())
    }

    /// The index of the layer that a result ends with.
    pub fn top(&self, record: &Record) -> Option<usize> {
        let chained = || record.chains.iter().rev().find_map(|chain| chain.layers.last().copied());
        let top = record.layers.last().map(|result| result.layer).or_else(chained)?;
        at("layer", self.layers.len(), top).ok()
    }
}

fn at(what: &str, count: usize, index: i64) -> Result<usize> {
    let inside = usize::try_from(index).ok().filter(|index| *index < count);
    inside.ok_or_else(|| Error::Document(format!("there is no {what} {index} among {count}")))
}

/// Refuses edges that lead out of the `count` nodes, and circles. No recursion: a document may be a very long chain.
fn follow(what: &str, count: usize, next: impl Fn(usize) -> Vec<i64>) -> Result<()> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; count];
    for start in 0..count {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        let mut path = vec![(start, next(start))];
        while let Some((node, edges)) = path.last_mut() {
            let Some(edge) = edges.pop() else {
                marks[*node] = Mark::Done;
                path.pop();
                continue;
            };
            let node = at(what, count, edge)?;
            match marks[node] {
                Mark::Open => return Err(Error::Document(format!("{what} {node} depends on itself"))),
                Mark::Done => {}
                Mark::New => {
                    marks[node] = Mark::Open;
                    path.push((node, next(node)));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn refused(text: &str) -> String {
        Document::parse(text.replace('D', &format!("\"{D}\"")).as_bytes()).unwrap_err().to_string()
    }

    /// R7.6.2.
    #[test]
    fn what_go_leaves_out_is_zero() {
        let text = format!(
            r#"{{"layers":[{{"blob":"{D}","parent":-1}},{{"blob":"{D}"}}],
                "records":[{{"digest":"{D}","layers":[{{"layer":1,"createdAt":"2020-01-01T00:00:00Z"}}],"inputs":null}},
                           {{"digest":"{D}","inputs":[[{{"selector":"x","link":0}}]],"other":{{}}}}]}}"#
        );
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.layers[1].parent, 0);
        assert_eq!(document.top(&document.records[0]), Some(1));
        assert_eq!(document.top(&document.records[1]), None);
        assert_eq!(Document::parse(b"{}").unwrap(), Document::default());
    }

    /// R7.6.6.
    #[test]
    fn hostile_documents_are_refused() {
        let loops = refused(r#"{"layers":[{"blob":D,"parent":1},{"blob":D,"parent":0}]}"#);
        assert!(loops.contains("depends on itself"), "{loops}");
        assert!(refused(r#"{"layers":[{"blob":D}]}"#).contains("layer 0 depends on itself"), "a missing parent is 0");
        let link = |link: &str| format!(r#"{{"records":[{{"digest":D,"inputs":[[{{"link":{link}}}]]}}]}}"#);
        assert!(refused(&link("0")).contains("record 0 depends on itself"));
        assert!(refused(&link("1")).contains("there is no record 1 among 1"));
        assert!(refused(&link("-1")).contains("there is no record -1"));
        assert!(refused(&link("99999999999999999999")).contains("invalid cache document"));
        assert!(refused(r#"{"records":[{"digest":D,"inputs":[[]]}]}"#).contains("without records"));
        assert!(refused(r#"{"records":[{"digest":D,"layers":[{"layer":3}]}]}"#).contains("there is no layer 3"));
        assert!(refused(r#"{"records":[{"digest":D,"chains":[{"layers":[0]}]}]}"#).contains("there is no layer 0"));
        assert!(refused(r#"{"records":[{"digest":"md5:1"}]}"#).contains("invalid cache document"));
        assert!(refused("[1").contains("invalid cache document"));
        let nested = "[".repeat(100_000);
        assert!(refused(&nested).contains("invalid cache document"));
    }

    /// A chain as long as a document can hold is followed without a stack of its length.
    #[test]
    fn long_chains_are_no_danger() {
        let layer = |parent| DocumentLayer { blob: Digest::of(b""), parent, annotations: None };
        let document = Document { layers: (0..200_000).map(|index| layer(index - 1)).collect(), ..Document::default() };
        document.check().unwrap();
        let circle = Document {
            layers: (0..200_000).map(|index| layer((index + 1) % 200_000)).collect(),
            ..Document::default()
        };
        assert!(circle.check().is_err());
    }

    proptest! {
        #[test]
        fn no_graph_hangs_or_panics(
            parents in prop::collection::vec(-3i64..12, 0..10),
            links in prop::collection::vec(prop::collection::vec(-2i64..12, 0..4), 0..10),
            tops in prop::collection::vec(-2i64..12, 0..10),
        ) {
            let layers = parents.iter().map(|parent| DocumentLayer { blob: Digest::of(b""), parent: *parent, annotations: None });
            let records = links.iter().enumerate().map(|(index, links)| Record {
                layers: tops.get(index).map(|top| RecordLayer { layer: *top, created_at: never() }).into_iter().collect(),
                chains: vec![],
                digest: Digest::of(b""),
                inputs: links.iter().map(|link| vec![Link { selector: String::new(), link: *link }]).collect(),
                rbuild: None,
            });
            let document =
                Document { layers: layers.collect(), records: records.collect(), ..Document::default() };
            let bytes = serde_json::to_vec(&document).unwrap();
            if let Ok(parsed) = Document::parse(&bytes) {
                prop_assert_eq!(&parsed, &document);
                for record in &parsed.records {
                    parsed.top(record);
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(&bytes);
        }
    }
}
