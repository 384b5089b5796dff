//! What a remote cache says, apart from how its document says it.
//!
//! A step's record has the content key as its digest. Its result is one layer, the last of the chain that the record names; the layers below are there for
//! readers of other tools, who want whole chains. A record without layers still tells the content id: enough to find the results of later steps, if nobody
//! needs the files. Digests of selected files, which COPY between stages is found by, are records of their own.

use super::document::{Annotations, Beside, Document, DocumentLayer, Facts, Link, Record, RecordChain, RecordLayer};
use super::error::{Error, Result};
use super::mounts::MountRecord;
use super::{Published, UNCOMPRESSED};
use bytes::Bytes;
use oci::{Descriptor, DiffId, Digest, MediaType};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A content key, a content id, or what names a selection.
pub type Id = [u8; 32];

/// When a layer was made, beside a manifest's descriptor of it.
const CREATED: &str = "buildkit/createdat";

/// A layer as a blob of a remote cache.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedBlob {
    pub digest: Digest,
    pub size: u64,
    pub media_type: MediaType,
    pub diff_id: DiffId,
}

impl CachedBlob {
    /// Without annotations.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.size, self.digest.to_spec())
    }
}

/// The layer that a step put on its first input.
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult {
    pub content: Id,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// When the step began, if that is known: file times between it and `created` are no content. -1: no times are.
    pub started: Option<i64>,
    pub single_owner: bool,
    /// How the blob was compressed, as `oci::codec::Compression::key` names it, if that is known.
    pub codec: Option<String>,
    /// Without one, the content id is all that is known.
    pub blob: Option<CachedBlob>,
}

/// What one document says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub results: HashMap<Id, StepResult>,
    pub selections: HashMap<Id, Id>,
    /// Directories of `RUN --mount=type=cache`.
    pub mounts: Vec<MountRecord>,
}

impl Contents {
    pub fn read(published: &Published) -> Result<Contents> {
        Self::of(&Document::parse(&published.config)?, &published.blobs)
    }

    pub(super) fn of(document: &Document, blobs: &[Descriptor]) -> Result<Contents> {
        let described: HashMap<String, &Descriptor> =
            blobs.iter().map(|blob| (blob.digest().to_string(), blob)).collect();
        let mut contents = Contents { mounts: document.rbuild.mounts.clone(), ..Contents::default() };
        for record in &document.records {
            let Some(facts) = &record.rbuild else { continue };
            let key = *record.digest.bytes();
            if let Some(digest) = &facts.selection {
                contents.selections.insert(key, id(digest)?);
                continue;
            }
            let Some(content) = &facts.content else { continue };
            let created = record.layers.last().map(|layer| layer.created_at.as_str());
            let created = created.or_else(|| record.chains.last().map(|chain| chain.created_at.as_str()));
            let layer = document.top(record).map(|top| &document.layers[top]);
            let result = StepResult {
                content: id(content)?,
                created: created.and_then(nanoseconds).unwrap_or(0),
                started: facts.started,
                single_owner: facts.single_owner,
                codec: facts.codec.clone(),
                // R7.6.6: without the blob there is no result.
                blob: layer.and_then(|layer| cached_blob(layer, described.get(&layer.blob.to_string()).copied())),
            };
            let known = contents.results.entry(key).or_insert_with(|| result.clone());
            if known.blob.is_none() {
                *known = result;
            }
        }
        Ok(contents)
    }
}

fn cached_blob(layer: &DocumentLayer, descriptor: Option<&Descriptor>) -> Option<CachedBlob> {
    match (descriptor, &layer.annotations) {
        (Some(descriptor), _) => {
            let diff_id = descriptor.annotations().as_ref()?.get(UNCOMPRESSED)?.parse().ok()?;
            let (size, media_type) = (descriptor.size(), descriptor.media_type().clone());
            Some(CachedBlob { digest: layer.blob, size, media_type, diff_id: DiffId(diff_id) })
        }
        (None, Some(Annotations { media_type, diff_id, size, .. })) => Some(CachedBlob {
            digest: layer.blob,
            size: *size,
            media_type: media_type.as_str().into(),
            diff_id: *diff_id,
        }),
        (None, None) => None,
    }
}

/// A step for a document.
#[derive(Clone, Debug)]
pub struct ExportedStep {
    pub key: Id,
    /// Its blob does not count: the chain tells.
    pub result: StepResult,
    /// The layers of the step's result, as indexes, bottom first; the last one is the step's own. Empty: there is only the content id.
    pub chain: Vec<usize>,
    /// The content ids of what the step took and gave: they link records.
    pub inputs: Vec<Id>,
    pub output: Id,
}

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// What the steps' chains point to, and when each was made.
    pub blobs: Vec<(CachedBlob, i64)>,
    pub steps: Vec<ExportedStep>,
    pub selections: BTreeMap<Id, Id>,
    pub mounts: Vec<MountRecord>,
}

impl Export {
    /// As a document and its blobs. Equal contents give equal bytes (R7.6.7).
    pub fn publish(&self, annotated: bool) -> Result<Published> {
        // A layer is a blob on top of others: the order is by the blob, then by those.
        let chain_of =
            |chain: &[usize]| chain.iter().rev().map(|index| self.blobs[*index].0.digest).collect::<Vec<_>>();
        let mut chains: BTreeMap<Vec<Digest>, (usize, usize)> = BTreeMap::new();
        for step in &self.steps {
            for length in 1..=step.chain.len() {
                chains.entry(chain_of(&step.chain[..length])).or_insert((step.chain[length - 1], 0));
            }
        }
        for (position, (_, index)) in chains.values_mut().enumerate() {
            *index = position;
        }
        let position = |chain: &[Digest]| chains.get(chain).map_or(-1, |(_, index)| *index as i64);
        let layers = chains.iter().map(|(chain, (blob, _))| {
            let (blob, created) = &self.blobs[*blob];
            let annotations = annotated.then(|| Annotations {
                media_type: blob.media_type.to_string(),
                diff_id: blob.diff_id,
                size: blob.size,
                created_at: rfc3339(*created),
            });
            DocumentLayer { blob: blob.digest, parent: position(&chain[1..]), annotations }
        });
        let layers: Vec<_> = layers.collect();
        let records = self.records(|step| {
            let chain = chain_of(&step.chain);
            let created_at = rfc3339(step.result.created);
            (vec![RecordLayer { layer: position(&chain), created_at }], vec![])
        });
        let mut blobs: BTreeMap<Digest, (&CachedBlob, i64)> = BTreeMap::new();
        for (blob, created) in chains.values().map(|(blob, _)| &self.blobs[*blob]) {
            let earliest = &mut blobs.entry(blob.digest).or_insert((blob, *created)).1;
            *earliest = (*earliest).min(*created);
        }
        let blobs = blobs.into_values().map(|(blob, created)| {
            let mut descriptor = blob.descriptor();
            let annotations =
                [(UNCOMPRESSED.to_owned(), blob.diff_id.to_string()), (CREATED.to_owned(), rfc3339(created))];
            descriptor.set_annotations(Some(annotations.into()));
            descriptor
        });
        let blobs = blobs.chain(self.mounts.iter().flat_map(MountRecord::descriptors)).collect();
        let rbuild = Beside { mounts: self.mounts.clone() };
        Ok(Published { blobs, config: Bytes::from(json(&Document { layers, records, rbuild })?) })
    }

    /// As the value of an image config's member `moby.buildkit.cache.v0` before base64 (R7.6.11). Chains point to the image's layers.
    pub fn inline(&self) -> Result<Vec<u8>> {
        let records = self.records(|step| {
            let created_at = rfc3339(step.result.created);
            let is_prefix = step.chain.iter().enumerate().all(|(index, layer)| index == *layer);
            match is_prefix {
                true => (vec![RecordLayer { layer: step.chain.len() as i64 - 1, created_at }], vec![]),
                false => {
                    let layers = step.chain.iter().map(|layer| *layer as i64).collect();
                    (vec![], vec![RecordChain { layers, created_at }])
                }
            }
        });
        json(&records)
    }

    /// Sorted by their digests, which all differ.
    fn records(&self, result: impl Fn(&ExportedStep) -> (Vec<RecordLayer>, Vec<RecordChain>)) -> Vec<Record> {
        let steps: BTreeMap<Id, &ExportedStep> = self.steps.iter().map(|step| (step.key, step)).collect();
        let links = links(&steps);
        let mut records: BTreeMap<Id, Record> = BTreeMap::new();
        let empty = |digest: Id| Record {
            layers: vec![],
            chains: vec![],
            digest: Digest::from_bytes(digest),
            inputs: vec![],
            rbuild: None,
        };
        for roots in links.values().flatten() {
            records.entry(*roots).or_insert_with(|| empty(*roots));
        }
        for (selection, digest) in &self.selections {
            let facts = Facts { selection: Some(hex::encode(digest)), ..Facts::default() };
            records.insert(*selection, Record { rbuild: Some(facts), ..empty(*selection) });
        }
        for (key, step) in &steps {
            let (layers, chains) = if step.chain.is_empty() { (vec![], vec![]) } else { result(step) };
            let has_layer = !step.chain.is_empty();
            let facts = Facts {
                content: Some(hex::encode(step.result.content)),
                started: step.result.started.filter(|_| has_layer),
                codec: step.result.codec.clone().filter(|_| has_layer),
                single_owner: step.result.single_owner,
                selection: None,
            };
            records.insert(*key, Record { layers, chains, rbuild: Some(facts), ..empty(*key) });
        }
        let positions: HashMap<Id, i64> = records.keys().enumerate().map(|(index, id)| (*id, index as i64)).collect();
        for (key, inputs) in &links {
            let link =
                |input: &Id| positions.get(input).map(|link| vec![Link { selector: String::new(), link: *link }]);
            if let Some(record) = records.get_mut(key) {
                record.inputs = inputs.iter().filter_map(link).collect();
            }
        }
        records.into_values().collect()
    }
}

/// Of each step, the records of its inputs: that of the step which gave it, else one named after its content, which is a root (R7.6.5). Two steps that give
/// equal content could close a circle; a link that would is one to a root instead.
fn links(steps: &BTreeMap<Id, &ExportedStep>) -> BTreeMap<Id, Vec<Id>> {
    let mut makers: BTreeMap<Id, Id> = BTreeMap::new();
    for (key, step) in steps {
        makers.entry(step.output).or_insert(*key);
    }
    let mut links: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
    let (mut open, mut done) = (BTreeSet::new(), BTreeSet::new());
    for start in steps.keys() {
        let mut path = vec![(*start, 0)];
        while let Some((key, next)) = path.last_mut() {
            if *next == 0 && (done.contains(key) || !open.insert(*key)) {
                path.pop();
                continue;
            }
            let Some(input) = steps.get(key).and_then(|step| step.inputs.get(*next)) else {
                open.remove(key);
                done.insert(*key);
                path.pop();
                continue;
            };
            *next += 1;
            match makers.get(input).filter(|maker| !open.contains(*maker)) {
                Some(maker) => {
                    links.entry(*key).or_default().push(*maker);
                    path.push((*maker, 0));
                }
                None => links.entry(*key).or_default().push(*input),
            }
        }
    }
    links
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Document(error.to_string()))
}

fn id(text: &str) -> Result<Id> {
    let mut id = [0; 32];
    hex::decode_to_slice(text, &mut id).map_err(|_| Error::Document(format!("{text:?} is not an id")))?;
    Ok(id)
}

fn rfc3339(nanoseconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into()).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

fn nanoseconds(rfc3339: &str) -> Option<i64> {
    i64::try_from(OffsetDateTime::parse(rfc3339, &Rfc3339).ok()?.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::mounts::{BlobRecord, INDEX_MEDIA_TYPE, PACK_MEDIA_TYPE};
    use super::*;

    fn blob(name: &str) -> CachedBlob {
        CachedBlob {
            digest: Digest::of(name.as_bytes()),
            size: name.len() as u64,
            media_type: MediaType::ImageLayerGzip,
            diff_id: DiffId(Digest::of(format!("plain {name}").as_bytes())),
        }
    }

    /// Step `n` takes `inputs` and gives `[100 + n]`.
    fn step(n: u8, chain: &[usize], inputs: &[u8]) -> ExportedStep {
        let result = StepResult {
            content: [n + 50; 32],
            created: 1_600_000_000_123_456_789 + i64::from(n),
            started: Some(1_600_000_000_000_000_000),
            single_owner: n == 3,
            codec: Some("gzip-6-v2".into()),
            blob: None,
        };
        let inputs = inputs.iter().map(|input| [*input; 32]).collect();
        ExportedStep { key: [n; 32], result, chain: chain.to_vec(), inputs, output: [n + 100; 32] }
    }

    fn export() -> Export {
        Export {
            blobs: ["a", "b", "c"].map(|name| (blob(name), 1_600_000_000_000_000_000)).to_vec(),
            steps: vec![
                step(1, &[0], &[200]),
                step(2, &[0, 1], &[101]),
                step(3, &[2], &[102, 101]),
                step(4, &[], &[103]),
            ],
            selections: [([9; 32], [8; 32])].into(),
            mounts: vec![],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for annotated in [false, true] {
            let mut published = export().publish(annotated).unwrap();
            assert_eq!(published.blobs.len(), 3);
            if annotated {
                published.blobs.clear();
            }
            let contents = Contents::read(&published).unwrap();
            assert_eq!(contents.selections, [([9; 32], [8; 32])].into());
            assert_eq!(contents.results.len(), 4);
            for (n, name) in [(1, Some("a")), (2, Some("b")), (3, Some("c")), (4, None)] {
                let StepResult { content, created, started, single_owner, blob: found, .. } =
                    &contents.results[&[n; 32]];
                assert_eq!((*content, *single_owner), ([n + 50; 32], n == 3));
                assert_eq!(*found, name.map(blob), "annotated: {annotated}, step {n}");
                let expected = step(n, &[], &[]).result;
                let times = if name.is_some() { (expected.created, expected.started) } else { (0, None) };
                assert_eq!((*created, *started), times);
            }
        }
    }

    #[test]
    fn directories_are_listed_and_read() {
        let blob = |text: &str| BlobRecord { digest: Digest::of(text.as_bytes()), size: 7 };
        let mount = MountRecord { name: "m".into(), index: blob("i"), packs: vec![blob("p")], written: 5 };
        let published = Export { mounts: vec![mount.clone()], ..export() }.publish(false).unwrap();
        assert_eq!(Contents::read(&published).unwrap().mounts, [mount]);
        let types: Vec<_> = published.blobs.iter().map(|blob| blob.media_type().to_string()).collect();
        assert_eq!(types[3..], [PACK_MEDIA_TYPE, INDEX_MEDIA_TYPE]);
        assert!(!String::from_utf8_lossy(&export().publish(false).unwrap().config).contains("mounts"));
    }

    /// R7.6.7.
    #[test]
    fn the_order_of_steps_does_not_matter() {
        let (first, mut second) = (export(), export());
        second.steps.reverse();
        second.blobs.reverse();
        for step in &mut second.steps {
            step.chain.iter_mut().for_each(|index| *index = 2 - *index);
        }
        assert_eq!(first.publish(false).unwrap().config, second.publish(false).unwrap().config);
        assert_eq!(first.publish(true).unwrap().blobs, second.publish(true).unwrap().blobs);
    }

    /// R7.6.1, R7.6.5.
    #[test]
    fn records_are_linked() {
        let published = export().publish(false).unwrap();
        let document = Document::parse(&published.config).unwrap();
        let digest = |link: &Link| document.records[link.link as usize].digest;
        let record =
            |n: u8| document.records.iter().find(|record| record.digest == Digest::from_bytes([n; 32])).unwrap();
        let inputs = |n| record(n).inputs.iter().flatten().map(digest).collect::<Vec<_>>();
        assert_eq!(inputs(1), [Digest::from_bytes([200; 32])]);
        assert_eq!(inputs(3), [Digest::from_bytes([2; 32]), Digest::from_bytes([1; 32])]);
        assert!(record(200).inputs.is_empty() && record(200).layers.is_empty(), "a root");
        let top = &document.layers[record(2).layers[0].layer as usize];
        assert_eq!(top.blob, blob("b").digest);
        assert_eq!(document.layers[top.parent as usize].blob, blob("a").digest);
    }

    #[test]
    fn equal_contents_close_no_circle() {
        let mut export = export();
        // 2 gives what 1 takes, which takes what 2 gives.
        export.steps = vec![step(1, &[], &[102]), step(2, &[], &[101]), step(3, &[], &[103])];
        let document = Document::parse(&export.publish(false).unwrap().config).unwrap();
        assert!(document.records.iter().all(|record| record.inputs.len() <= 1));
    }

    /// R7.6.11.
    #[test]
    fn inline_records_point_to_the_image() {
        let export = Export { steps: vec![step(1, &[0, 1], &[200]), step(2, &[0, 2], &[101])], ..Export::default() };
        let layers = ["base", "a", "b"].iter().enumerate().map(|(index, name)| DocumentLayer {
            blob: blob(name).digest,
            parent: index as i64 - 1,
            annotations: None,
        });
        let records = export.inline().unwrap();
        let document = Document::parse_inline(&records, layers.collect()).unwrap();
        let top = |n: u8| {
            let record = document.records.iter().find(|record| record.digest == Digest::from_bytes([n; 32])).unwrap();
            document.top(record)
        };
        assert_eq!((top(1), top(2)), (Some(1), Some(2)));
        assert!(String::from_utf8(records).unwrap().contains(r#""chains":[{"layers":[0,2]"#));
    }
}
