//! Drawings of builds: stages, their steps and what these take, with what became of each.
//!
//! A [`Drawing`] is made of a [`Trace`], be it of a build or of one that has not begun ([`adopt`] brings in what an earlier build tells). It is written as
//! [`text`], [`dot`], [`mermaid`], [`svg`] or [`json`]. All texts in it come from others, so each format escapes them by its own rules; what is in a drawing
//! itself has no control characters and no marks that turn the direction of writing around.

pub mod dot;
pub mod json;
mod last;
mod layout;
pub mod mermaid;
pub mod svg;
pub mod text;

pub use last::adopt;

use crate::event::VertexDigest;
use crate::trace::{Kind, State, Trace, TracedVertex};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;
use time::{OffsetDateTime, UtcOffset};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawing {
    /// In the order of the Dockerfile, those of a platform together. Only those that have nodes.
    pub stages: Vec<Stage>,
    /// Inputs before their users.
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// `build`, or `stage-0`.
    pub name: String,
    pub platform: Option<String>,
    /// The build takes something of it.
    pub is_used: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub digest: VertexDigest,
    pub kind: Kind,
    /// Its stage's index; none for what several stages take.
    pub stage: Option<usize>,
    /// One line: the instruction as written, or the name of a source.
    pub label: String,
    /// In the Dockerfile, from 1.
    pub line: Option<usize>,
    pub inputs: Vec<Edge>,
    /// `None`: it was never built, as far as is known.
    pub state: Option<State>,
    /// How long it took, if it ran.
    pub duration: Option<Duration>,
    pub is_used: bool,
    /// It is what the build gives.
    pub is_result: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The node's index.
    pub from: usize,
    pub relation: Relation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The file system that the step goes on from.
    Base,
    /// Files are taken from it, by COPY, ADD or a mount.
    Files,
}

impl Drawing {
    /// All of `trace` is used.
    pub fn new(trace: &Trace) -> Drawing {
        Drawing::with_unused(trace, trace)
    }

    /// Of `trace`, what is not in `used` as well is drawn as unused.
    pub fn with_unused(trace: &Trace, used: &Trace) -> Drawing {
        let used: HashSet<_> = used.vertices.iter().map(|vertex| vertex.digest.as_str()).collect();
        // Nothing says nothing, unless there is nothing else.
        let is_shown = |vertex: &&TracedVertex| vertex.kind != Kind::Scratch || trace.vertices.len() == 1;
        let shown: Vec<_> = trace.vertices.iter().filter(is_shown).collect();
        let indices: HashMap<_, _> =
            shown.iter().enumerate().map(|(index, vertex)| (vertex.digest.as_str(), index)).collect();
        let mut nodes: Vec<_> = shown.iter().map(|vertex| node(vertex, &indices, &used)).collect();
        let taken: HashSet<_> =
            nodes.iter().filter(|node| node.is_used).flat_map(|node| &node.inputs).map(|edge| edge.from).collect();
        for (index, node) in nodes.iter_mut().enumerate() {
            node.is_result = node.is_used && !taken.contains(&index);
        }
        let places = places(&shown, &nodes);
        let order: BTreeSet<_> = places.iter().flatten().collect();
        let stages = order.iter().map(|place| {
            let mut inside = nodes.iter().zip(&places).filter(|(_, of)| of.as_ref() == Some(*place));
            Stage {
                name: place.name.clone(),
                platform: place.platform.clone(),
                is_used: inside.any(|(node, _)| node.is_used),
            }
        });
        let stages = stages.collect();
        let positions: BTreeMap<_, _> = order.iter().enumerate().map(|(index, place)| (*place, index)).collect();
        for (node, place) in nodes.iter_mut().zip(&places) {
            node.stage = place.as_ref().map(|place| positions[place]);
        }
        Drawing { stages, nodes }
    }

    /// Says of all but the `known` nodes that nothing is known of a build of them.
    pub fn forget_all_but(&mut self, known: &HashSet<VertexDigest>) {
        for node in self.nodes.iter_mut().filter(|node| !known.contains(&node.digest)) {
            (node.state, node.duration) = (None, None);
        }
    }
}

fn duration_of(vertex: &TracedVertex) -> Option<Duration> {
    (vertex.completed? - vertex.started?).try_into().ok()
}

fn node(vertex: &TracedVertex, indices: &HashMap<&str, usize>, used: &HashSet<&str>) -> Node {
    let mut inputs: Vec<Edge> = Vec::new();
    for (position, input) in vertex.inputs.iter().enumerate() {
        let relation = match vertex.kind {
            Kind::Merge => Relation::Base,
            _ if position == 0 => Relation::Base,
            _ => Relation::Files,
        };
        if let Some(&from) = indices.get(input.as_str())
            && !inputs.iter().any(|edge| edge.from == from)
        {
            inputs.push(Edge { from, relation });
        }
    }
    let is_step = vertex.is_step() && vertex.state != State::Cached;
    Node {
        digest: vertex.digest.clone(),
        kind: vertex.kind,
        stage: None,
        label: plain(&label(vertex)),
        line: vertex.instruction.as_ref().map(|instruction| instruction.line),
        inputs,
        state: Some(vertex.state),
        duration: duration_of(vertex).filter(|_| is_step),
        is_used: used.contains(vertex.digest.as_str()),
        is_result: false,
    }
}

/// A stage of one platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    platform: Option<String>,
    position: usize,
    name: String,
}

/// The stage that each vertex is drawn in. What several stages begin with or take is in none.
fn places(vertices: &[&TracedVertex], nodes: &[Node]) -> Vec<Option<Place>> {
    let own = vertices.iter().map(|vertex| {
        vertex.instruction.as_ref().map(|instruction| Place {
            platform: instruction.platform.as_deref().map(plain),
            position: instruction.stage_position,
            name: plain(&instruction.stage),
        })
    });
    let mut places: Vec<Option<Place>> = own.collect();
    let mut users: Vec<Vec<(usize, Relation)>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for edge in &node.inputs {
            users[edge.from].push((index, edge.relation));
        }
    }
    for index in (0..nodes.len()).rev() {
        let of_users = users[index].iter().filter_map(|(user, relation)| Some((places[*user].as_ref()?, *relation)));
        match nodes[index].kind {
            Kind::Image => {
                let bases = of_users.filter(|(_, relation)| *relation == Relation::Base).map(|(place, _)| place);
                let all: BTreeSet<_> = bases.chain(places[index].as_ref()).collect();
                places[index] = single(all);
            }
            Kind::Local | Kind::Http | Kind::Git => places[index] = single(of_users.map(|(place, _)| place).collect()),
            Kind::Scratch | Kind::Exec | Kind::File | Kind::Merge if places[index].is_none() => {
                places[index] = of_users.map(|(place, _)| place).next().cloned();
            }
            _ => {}
        }
    }
    places
}

fn single(places: BTreeSet<&Place>) -> Option<Place> {
    let mut places = places.into_iter();
    let first = places.next();
    first.filter(|_| places.next().is_none()).cloned()
}

fn label(vertex: &TracedVertex) -> String {
    let instruction = vertex.instruction.as_ref().map(|instruction| instruction.text.as_str());
    match (vertex.kind, &vertex.source, instruction) {
        (Kind::Local, Some(name), _) if name == "context" => "build context".to_owned(),
        (Kind::Local, Some(name), _) => format!("context {name}"),
        // With a digest a reference would be too long to read.
        (Kind::Image, Some(source), _) => source.split_once('@').map_or(source.as_str(), |(name, _)| name).to_owned(),
        (Kind::Http | Kind::Git, Some(source), _) => source.clone(),
        (Kind::Merge, _, Some(text)) => format!("layers of {text}"),
        (_, _, Some(text)) if !vertex.name.starts_with("[internal]") => text.to_owned(),
        _ => vertex.name.clone(),
    }
}

/// One line without anything that a reader would not see: control characters, marks that turn the direction of writing around, runs of blanks, and the backslashes
/// that continue lines.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    for word in joined.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.extend(word.chars().map(|c| if is_invisible(c) { char::REPLACEMENT_CHARACTER } else { c }));
    }
    shown
}

/// Whether a character has no shape of its own but changes how others are shown; also those that are no characters at all.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}'
            | '\u{ffff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// The first `most` characters, with an ellipsis for the rest.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// `8 ms`, `1.3 s`, `2 min 5 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s => {
            let whole = s.round() as u64;
            match whole / 3600 {
                0 => format!("{} min {} s", whole / 60, whole % 60),
                hours => format!("{hours} h {} min", whole % 3600 / 60),
            }
        }
    }
}

/// `2026-05-17 09:05 UTC`.
pub fn minute(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (date, hour, minute) = (time.date(), time.hour(), time.minute());
    format!("{}-{:02}-{:02} {hour:02}:{minute:02} UTC", date.year(), u8::from(date.month()), date.day())
}

impl Node {
    /// What became of it, in words: `cached`, `ran in 1.3 s`. Of a source, whether it was asked for.
    pub fn outcome(&self) -> String {
        let is_step = matches!(self.kind, Kind::Exec | Kind::File);
        let timed = |word: &str, preposition: &str| match self.duration {
            Some(time) => format!("{word} {preposition} {}", duration(time)),
            None => word.to_owned(),
        };
        match self.state {
            _ if !self.is_used => "unused".to_owned(),
            None => "not built yet".to_owned(),
            Some(State::Cached) => "cached".to_owned(),
            Some(State::Ran) if is_step => timed("ran", "in"),
            Some(State::Ran) => "ready".to_owned(),
            Some(State::Failed) => timed("failed", "after"),
            Some(State::Cancelled) => timed("cancelled", "after"),
            Some(State::NotReached) => "not reached".to_owned(),
        }
    }

    /// The class of [`Node::outcome`], for colours.
    fn class(&self) -> &'static str {
        match self.state {
            _ if !self.is_used => "unused",
            None => "unbuilt",
            Some(State::Ran) if !matches!(self.kind, Kind::Exec | Kind::File) => "ready",
            Some(State::Cached) => "cached",
            Some(State::Ran) => "ran",
            Some(State::Failed) => "failed",
            Some(State::Cancelled) => "cancelled",
            Some(State::NotReached) => "unreached",
        }
    }

    fn is_source(&self) -> bool {
        !matches!(self.kind, Kind::Exec | Kind::File | Kind::Merge)
    }
}

impl Stage {
    /// `build`, `build · linux/arm64`.
    pub fn title(&self) -> String {
        let platform = self.platform.as_ref().map(|platform| format!(" · {platform}")).unwrap_or_default();
        let unused = if self.is_used { "" } else { " · unused" };
        format!("{}{platform}{unused}", self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests;
