//! The op graph. Vertices are ops; edges lead from an input to the vertex that takes it. Adding an op with the same inputs
//! again gives the vertex that is already there, so that equal steps of several stages exist, and run, once.

use crate::event::VertexDigest;
use crate::op::Op;
use parser::span::Span;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{Dfs, EdgeRef, Reversed};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A vertex of one graph. Never part of a key: indices depend on the order in which a graph was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(NodeIndex);

/// Hash of an op and its inputs' definition keys: equal definitions are one vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DefinitionKey(pub [u8; 32]);

/// Ends the digests of vertices that ignore the cache (R7.4.2).
pub(crate) const IGNORES_CACHE: &str = "-ignorecache";

#[derive(Clone, Debug)]
pub struct Vertex {
    pub op: Op,
    pub definition: DefinitionKey,
    /// What progress shows.
    pub name: String,
    /// The instruction that it comes from.
    pub span: Option<Span>,
    pub origin: Option<Arc<Origin>>,
    /// It runs whatever the index knows, and is another vertex than an equal one that does not (R7.4.1, R7.4.2).
    pub ignores_cache: bool,
}

/// The place in the Dockerfile that a vertex was made for; that of the first one, if several made it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The stage's name, or `stage-0` (D12.15), and its position in the file.
    pub stage: String,
    pub stage_position: usize,
    /// That of the target, where several are built.
    pub platform: Option<String>,
    /// Among the instructions of the stage, from 1; FROM has 0.
    pub position: usize,
    pub span: Span,
    /// The logical line as written: not expanded, without bodies of here-documents.
    pub text: String,
    /// An ONBUILD of the base: what `span` shows is the FROM.
    pub is_trigger: bool,
    /// The variables that `text` uses, other than those of an op's own environment.
    pub variables: Vec<(String, String)>,
    /// The names of variables that come from ARG rather than ENV.
    pub args: Vec<String>,
    /// What is made for this place runs whatever the index knows.
    pub ignores_cache: bool,
}

impl Vertex {
    /// Identifies the vertex in events.
    pub fn digest(&self) -> VertexDigest {
        let suffix = if self.ignores_cache { IGNORES_CACHE } else { "" };
        format!("blake3:{}{suffix}", hex::encode(self.definition.0))
    }
}

#[derive(Default)]
pub struct Graph {
    /// The weight of an edge is the position of the input.
    vertices: StableDiGraph<Vertex, usize>,
    by_definition: HashMap<DefinitionKey, VertexId>,
    /// What vertices are made for now.
    origin: Option<Arc<Origin>>,
}

impl Graph {
    /// Vertices that are added from here on are made for `origin`.
    pub fn begin(&mut self, origin: Origin) {
        self.origin = Some(Arc::new(origin));
    }

    pub fn add(&mut self, op: Op, inputs: &[VertexId], name: impl Into<String>, span: Option<Span>) -> VertexId {
        let origin = self.origin.clone();
        // What has no result of its own to keep has none to ignore.
        let ignores_cache = op.has_result() && origin.as_ref().is_some_and(|origin| origin.ignores_cache);
        let definition = self.definition(&op, inputs, ignores_cache);
        self.insert(Vertex { op, definition, name: name.into(), span, origin, ignores_cache }, inputs)
    }

    fn insert(&mut self, vertex: Vertex, inputs: &[VertexId]) -> VertexId {
        let definition = vertex.definition;
        if let Some(&existing) = self.by_definition.get(&definition) {
            return existing;
        }
        let id = VertexId(self.vertices.add_node(vertex));
        for (position, input) in inputs.iter().enumerate() {
            self.vertices.add_edge(input.0, id.0, position);
        }
        self.by_definition.insert(definition, id);
        id
    }

    /// Takes over what `result` needs in another graph, as far as nothing equal is here, and gives the vertex here that is equal to it.
    pub fn merge(&mut self, other: &Graph, result: VertexId) -> VertexId {
        let mut here = HashMap::new();
        for id in other.needed(&[result]) {
            let vertex = &other[id];
            let inputs: Vec<_> = other.inputs(id).iter().map(|input| here[input]).collect();
            here.insert(id, self.insert(vertex.clone(), &inputs));
        }
        here[&result]
    }

    fn definition(&self, op: &Op, inputs: &[VertexId], ignores_cache: bool) -> DefinitionKey {
        let mut hasher = blake3::Hasher::new();
        if ignores_cache {
            hasher.update(b"ignores cache");
        }
        hasher.update(&encode(op));
        for input in inputs {
            hasher.update(&self[*input].definition.0);
        }
        DefinitionKey(*hasher.finalize().as_bytes())
    }

    /// The vertices that `id` takes, in the op's order.
    pub fn inputs(&self, id: VertexId) -> Vec<VertexId> {
        let mut edges: Vec<_> = self
            .vertices
            .edges_directed(id.0, Direction::Incoming)
            .map(|edge| (*edge.weight(), VertexId(edge.source())))
            .collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, input)| input).collect()
    }

    /// All vertices, inputs before their users.
    pub fn all(&self) -> Vec<VertexId> {
        self.vertices.node_indices().map(VertexId).collect()
    }

    /// `targets` and all that they need, inputs before their users.
    pub fn needed(&self, targets: &[VertexId]) -> Vec<VertexId> {
        let mut needed = HashSet::new();
        let reversed = Reversed(&self.vertices);
        for target in targets {
            let mut walk = Dfs::new(reversed, target.0);
            while let Some(node) = walk.next(reversed) {
                needed.insert(node);
            }
        }
        // An input is always added before the vertex that takes it, so the order of addition is a topological one.
        self.vertices.node_indices().filter(|node| needed.contains(node)).map(VertexId).collect()
    }
}

impl std::ops::Index<VertexId> for Graph {
    type Output = Vertex;

    fn index(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0]
    }
}

/// The bytes by which an op enters a key.
pub(crate) fn encode(op: &Op) -> Vec<u8> {
    serde_json::to_vec(op).expect("an op has no map with keys other than strings")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{File, FileAction, Mkdir, Source};

    fn mkdir(path: &str) -> Op {
        Op::File(File {
            actions: vec![FileAction::Mkdir(Mkdir { path: path.into(), owner: String::new(), time: None })],
        })
    }

    #[test]
    fn equal_ops_with_equal_inputs_are_one_vertex() {
        let mut graph = Graph::default();
        let scratch = graph.add(Op::Source(Source::Scratch), &[], "scratch", None);
        let a = graph.add(mkdir("/a"), &[scratch], "first name", None);
        let again = graph.add(mkdir("/a"), &[scratch], "other name", None);
        let b = graph.add(mkdir("/a"), &[a], "same op, other input", None);
        assert_eq!(a, again);
        assert_ne!(a, b);
        assert_eq!(graph[a].name, "first name");
    }

    #[test]
    fn merging_shares_what_is_equal() {
        let graph = |path: &str| {
            let mut graph = Graph::default();
            let scratch = graph.add(Op::Source(Source::Scratch), &[], "scratch", None);
            let shared = graph.add(mkdir("/shared"), &[scratch], "shared", None);
            graph.add(mkdir("/unused"), &[scratch], "unused", None);
            let own = graph.add(mkdir(path), &[scratch], path, None);
            let result = graph.add(Op::Merge, &[own, shared, own], "result", None);
            (graph, result)
        };
        let mut merged = Graph::default();
        let results = ["/a", "/b", "/a"].map(|path| {
            let (graph, result) = graph(path);
            merged.merge(&graph, result)
        });
        assert_eq!(results[0], results[2]);
        let names: Vec<_> = merged.needed(&results).into_iter().map(|id| merged[id].name.clone()).collect();
        assert_eq!(names, ["scratch", "shared", "/a", "result", "/b", "result"]);
        let inputs = merged.inputs(results[1]).into_iter().map(|id| merged[id].name.clone()).collect::<Vec<_>>();
        assert_eq!(inputs, ["/b", "shared", "/b"]);
    }

    #[test]
    fn needed_leaves_out_what_the_target_does_not_take() {
        let mut graph = Graph::default();
        let scratch = graph.add(Op::Source(Source::Scratch), &[], "scratch", None);
        let used = graph.add(mkdir("/used"), &[scratch], "used", None);
        let unused = graph.add(mkdir("/unused"), &[scratch], "unused", None);
        let target = graph.add(Op::Merge, &[used, scratch, used], "target", None);
        assert_eq!(graph.inputs(target), [used, scratch, used]);
        let needed = graph.needed(&[target]);
        assert_eq!(needed, [scratch, used, target]);
        assert!(!needed.contains(&unused));
    }
}
