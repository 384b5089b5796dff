//! What vertices give: stacks of layers, and directories of the client.

use crate::fileop::Recent;
use crate::fileop::statcache::StatCache;
use crate::remote::CachedLayer;
use crate::source::local::LocalSource;
use cache::LayerId;
use oci::{Descriptor, DiffId, Reference};
use solver::key::ContentId;
use std::path::PathBuf;
use std::sync::Arc;

/// The result of an op.
#[derive(Clone)]
pub enum Value {
    Files(Arc<Stack>),
    Local(Arc<Context>),
}

impl Value {
    /// Identifies the whole content. Contexts only count by what is selected of them.
    pub fn content(&self) -> ContentId {
        match self {
            Value::Files(stack) => stack.content(),
            Value::Local(context) => ContentId(*blake3::hash(context.source.name.as_bytes()).as_bytes()),
        }
    }
}

/// A directory of the client, with what is remembered of its files.
pub struct Context {
    pub source: LocalSource,
    pub digests: StatCache,
    pub recent: Recent,
    /// Where the digests are kept between builds.
    pub digests_path: PathBuf,
}

/// A file system: layers, bottom first. The empty stack is `scratch`.
#[derive(Clone, Debug)]
pub struct Stack {
    layers: Vec<Layer>,
    content: ContentId,
}

/// One layer of a stack.
#[derive(Clone, Debug)]
pub struct Layer {
    pub id: LayerId,
    /// Identifies the layer's own content.
    pub content: [u8; 32],
    /// Where the layer comes from, if it was not made here: then its directory need not exist yet.
    pub origin: Option<Arc<LayerOrigin>>,
}

#[derive(Debug)]
pub enum LayerOrigin {
    Image(Box<ImageLayer>),
    Cached(Box<CachedLayer>),
}

/// A layer as its image describes it.
#[derive(Debug)]
pub struct ImageLayer {
    pub reference: Reference,
    pub descriptor: Descriptor,
    pub diff_id: DiffId,
}

impl Default for Stack {
    fn default() -> Self {
        Stack { layers: Vec::new(), content: ContentId(*blake3::hash(b"rbuild scratch").as_bytes()) }
    }
}

impl Stack {
    /// The stack with one more layer on top. One without changes leaves the content as it is, so that a step without effect, added or removed, leaves cached what follows it.
    #[must_use]
    pub fn with(&self, layer: Layer) -> Stack {
        if layer.content == oci::layer::empty_content_id() {
            let layers = self.layers.iter().cloned().chain([layer]).collect();
            return Stack { layers, content: self.content };
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.content.0);
        hasher.update(&layer.content);
        let mut layers = self.layers.clone();
        layers.push(layer);
        Stack { layers, content: ContentId(*hasher.finalize().as_bytes()) }
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub fn ids(&self) -> Vec<LayerId> {
        self.layers.iter().map(|layer| layer.id.clone()).collect()
    }

    /// Equal for stacks of equal content, wherever their layers came from.
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// The lowest `count` layers.
    #[must_use]
    pub fn below(&self, count: usize) -> Stack {
        self.layers.iter().take(count).cloned().collect()
    }
}

impl FromIterator<Layer> for Stack {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        layers.into_iter().fold(Stack::default(), |stack, layer| stack.with(layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_that_of_the_files() {
        let layer = |number: u8, content| {
            let id = LayerId::of_chain(&oci::Digest::of(&[number]));
            Layer { id, content, origin: None }
        };
        let (a, b) = (layer(1, [1; 32]), layer(2, [2; 32]));
        let nothing = layer(3, oci::layer::empty_content_id());
        let stack = |layers: &[&Layer]| layers.iter().map(|layer| (*layer).clone()).collect::<Stack>();
        assert_ne!(stack(&[&a, &b]).content(), stack(&[&b, &a]).content());
        let with = stack(&[&nothing, &a, &nothing, &b]);
        assert_eq!(with.content(), stack(&[&a, &b]).content());
        assert_eq!(with.layers().len(), 4, "it is a layer of the image all the same");
    }
}
