//! Which vertex of an earlier trace stands where one of this trace stands.

use super::words::words;
use crate::trace::{Kind, Trace, TracedInstruction};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Larger tables are not made: instructions are then only found by their text.
const MOST_CELLS: usize = 250_000;

/// For each vertex, by position.
pub struct Alignment(Vec<Option<usize>>);

/// A stage of one platform: by name, and where it stands in the file.
type StageKey<'a> = (&'a str, Option<&'a str>);

struct Stage<'a> {
    position: usize,
    /// By position in the stage: the text, and the vertices that it made.
    instructions: BTreeMap<usize, (&'a str, Vec<usize>)>,
}

impl Alignment {
    pub fn new(trace: &Trace, old: &Trace) -> Alignment {
        let by_digest: HashMap<&str, usize> =
            old.vertices.iter().enumerate().map(|(at, vertex)| (vertex.digest.as_str(), at)).collect();
        let same = trace.vertices.iter().map(|vertex| by_digest.get(vertex.digest.as_str()).copied());
        let mut counterparts: Vec<Option<usize>> = same.collect();
        let (new_stages, old_stages) = (stages(trace), stages(old));
        for (key, stage) in &new_stages {
            let Some(old_stage) = counterpart(*key, stage, &new_stages, &old_stages) else { continue };
            for (vertices, old_vertices) in instruction_pairs(stage, old_stage) {
                let mut left: Vec<usize> = old_vertices.to_vec();
                for &at in vertices {
                    let kind = trace.vertices[at].kind;
                    let Some(found) = left.iter().position(|at| old.vertices[*at].kind == kind) else { continue };
                    let found = left.remove(found);
                    counterparts[at].get_or_insert(found);
                }
            }
        }
        // Equal steps of several stages are one, and it stands where the first of them does; here it may be another's.
        let by_key: HashMap<&str, usize> =
            old.vertices.iter().enumerate().filter_map(|(at, vertex)| Some((vertex.key.as_deref()?, at))).collect();
        for (vertex, counterpart) in trace.vertices.iter().zip(&mut counterparts) {
            *counterpart = counterpart.or_else(|| by_key.get(vertex.key.as_deref()?).copied());
        }
        Alignment(counterparts)
    }

    pub fn counterpart(&self, at: usize) -> Option<usize> {
        self.0.get(at).copied().flatten()
    }
}

fn stages(trace: &Trace) -> BTreeMap<StageKey<'_>, Stage<'_>> {
    let mut stages: BTreeMap<StageKey<'_>, Stage<'_>> = BTreeMap::new();
    for (at, vertex) in trace.vertices.iter().enumerate() {
        let Some(TracedInstruction { stage, stage_position, platform, position, text, .. }) = &vertex.instruction
        else {
            continue;
        };
        if vertex.kind == Kind::Scratch {
            continue;
        }
        let stage = stages
            .entry((stage, platform.as_deref()))
            .or_insert(Stage { position: *stage_position, instructions: BTreeMap::new() });
        stage.instructions.entry(*position).or_insert((text, Vec::new())).1.push(at);
    }
    stages
}

/// The stage of the same name, else the one at the same place whose name is gone.
fn counterpart<'a>(
    key: StageKey<'a>,
    stage: &Stage<'_>,
    new: &BTreeMap<StageKey<'a>, Stage<'_>>,
    old: &'a BTreeMap<StageKey<'a>, Stage<'a>>,
) -> Option<&'a Stage<'a>> {
    if let Some(same) = old.get(&key) {
        return Some(same);
    }
    let is_it = |(old_key, old_stage): &(&StageKey<'a>, &Stage<'a>)| {
        old_stage.position == stage.position && old_key.1 == key.1 && !new.contains_key(*old_key)
    };
    old.iter().find(is_it).map(|(_, stage)| stage)
}

/// The vertices of instructions that are taken for the same one.
fn instruction_pairs<'a>(new: &'a Stage<'_>, old: &'a Stage<'_>) -> Vec<(&'a [usize], &'a [usize])> {
    let list = |stage: &'a Stage<'_>| -> Vec<(Vec<&'a str>, &'a [usize])> {
        stage.instructions.values().map(|(text, vertices)| (words(text), vertices.as_slice())).collect()
    };
    let (new, old) = (list(new), list(old));
    let start = new.iter().zip(&old).take_while(|(a, b)| a.0 == b.0).count();
    let mut pairs: Vec<_> = new.iter().zip(&old).take(start).map(|(a, b)| (a.1, b.1)).collect();
    let (new, old) = (&new[start..], &old[start..]);
    let end = new.iter().rev().zip(old.iter().rev()).take_while(|(a, b)| a.0 == b.0).count();
    pairs.extend(new.iter().rev().zip(old.iter().rev()).take(end).map(|(a, b)| (a.1, b.1)));
    let (new, old) = (&new[..new.len() - end], &old[..old.len() - end]);
    if new.len().saturating_mul(old.len()) > MOST_CELLS {
        let by_text: HashMap<&[&str], &[usize]> = old.iter().map(|(text, at)| (text.as_slice(), *at)).collect();
        pairs.extend(new.iter().filter_map(|(text, at)| Some((*at, *by_text.get(text.as_slice())?))));
        return pairs;
    }
    // The pairing, in order, whose likenesses sum up to the most.
    let width = old.len() + 1;
    let mut best = vec![0_u64; (new.len() + 1) * width];
    let mut likeness = vec![0_u64; new.len() * old.len()];
    for i in (0..new.len()).rev() {
        for j in (0..old.len()).rev() {
            let alike = alike(&new[i].0, &old[j].0);
            likeness[i * old.len() + j] = alike;
            let paired = if alike > 0 { best[(i + 1) * width + j + 1] + alike } else { 0 };
            best[i * width + j] = paired.max(best[(i + 1) * width + j]).max(best[i * width + j + 1]);
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < new.len() && j < old.len() {
        let alike = likeness[i * old.len() + j];
        if alike > 0 && best[i * width + j] == best[(i + 1) * width + j + 1] + alike {
            pairs.push((new[i].1, old[j].1));
            (i, j) = (i + 1, j + 1);
        } else if best[i * width + j] == best[(i + 1) * width + j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// Of so many of its first words an instruction is known again.
const MOST_WORDS: usize = 64;

/// 0 for different instructions, up to 1000 for equal ones. So equal texts win over any pairing of others, unless many are given up for one.
fn alike(new: &[&str], old: &[&str]) -> u64 {
    let (Some(keyword), Some(old_keyword)) = (new.first(), old.first()) else { return 0 };
    if !keyword.eq_ignore_ascii_case(old_keyword) {
        return 0;
    }
    if new == old {
        return 1000;
    }
    let (new, old) = (&new[..new.len().min(MOST_WORDS)], &old[..old.len().min(MOST_WORDS)]);
    let old_words: HashSet<&str> = old.iter().copied().collect();
    let shared = new.iter().filter(|word| old_words.contains(*word)).count();
    1 + 400 * shared as u64 / new.len().max(old.len()) as u64
}
