//! What an earlier build tells of one that has not begun.

use crate::event::VertexDigest;
use crate::trace::{Kind, Trace, TracedVertex};
use std::collections::{HashMap, HashSet};

/// A place in a Dockerfile, and what stands there.
type Place<'a> = (Kind, Option<&'a str>, &'a str, usize, &'a str, &'a str);

/// Gives the vertices of `trace` the states and times that they have in `earlier`, and says for which it could: those with the same definition, else those with
/// the same text at the same place. The latter finds steps on a base image that nobody could be asked about now.
pub fn adopt(trace: &mut Trace, earlier: &Trace) -> HashSet<VertexDigest> {
    let all = || earlier.vertices.iter().enumerate();
    let by_digest: HashMap<_, _> = all().map(|(index, vertex)| (vertex.digest.as_str(), index)).collect();
    let by_place: HashMap<_, _> = all().filter_map(|(index, vertex)| Some((place(vertex)?, index))).collect();
    let mut known = HashSet::new();
    for vertex in &mut trace.vertices {
        let found = by_digest.get(vertex.digest.as_str()).or_else(|| by_place.get(&place(vertex)?)).copied();
        let Some(found) = found.map(|index| &earlier.vertices[index]) else { continue };
        vertex.state = found.state;
        (vertex.started, vertex.completed) = (found.started, found.completed);
        vertex.error.clone_from(&found.error);
        known.insert(vertex.digest.clone());
    }
    known
}

/// The name tells vertices of the same instruction apart.
fn place(vertex: &TracedVertex) -> Option<Place<'_>> {
    let instruction = vertex.instruction.as_ref()?;
    let name = if vertex.is_step() { vertex.name.as_str() } else { "" };
    let platform = instruction.platform.as_deref();
    Some((vertex.kind, platform, &instruction.stage, instruction.position, &instruction.text, name))
}
