//! Content keys: what makes rebuilds warm.
//!
//! A vertex's content key is the hash of its op and of its inputs' content ids. Two builds that reach the same key get the
//! same result, wherever the context lies and whatever the stages are called. How an input counts is the op's business:
//!
//! - the file system that a step changes counts whole, by the content id of its stack of layers;
//! - a tree that a step only reads from (COPY, ADD, bind mounts) counts by the digest of just the files selected.

use crate::graph;
use crate::op::{FileAction, Input, MountKind, Op, Selection};

/// Identifies content: equal ids, equal files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 32]);

/// Finds results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentKey(pub [u8; 32]);

/// Part of every key: raise it when the meaning of an op changes without its encoding changing.
const VERSION: &[u8] = b"rbuild content key 1";

/// How an input of an op enters its key.
#[derive(Clone, Debug, PartialEq)]
pub enum InputKey {
    /// All of it.
    Whole,
    /// Just these files.
    Selected { selections: Vec<Selection>, with_owner: bool },
}

/// How each of the `count` inputs of `op` enters its key.
pub fn input_keys(op: &Op, count: usize) -> Vec<InputKey> {
    (0..count)
        .map(|input| match selections(op, input) {
            (selections, _) if selections.is_empty() => InputKey::Whole,
            (selections, with_owner) => InputKey::Selected { selections, with_owner },
        })
        .collect()
}

fn selections(op: &Op, input: Input) -> (Vec<Selection>, bool) {
    match op {
        // Input 0 is the file system that the step changes.
        _ if input == 0 => (Vec::new(), false),
        Op::File(file) => {
            let mut with_owner = false;
            let mut selections = Vec::new();
            for action in &file.actions {
                if let FileAction::Copy(copy) = action
                    && copy.from == input
                {
                    with_owner |= copy.keep_owner;
                    selections.push(copy.selection.clone());
                }
            }
            (selections, with_owner)
        }
        Op::Exec(exec) => {
            let selections = exec
                .mounts
                .iter()
                .filter_map(|mount| match &mount.kind {
                    MountKind::Bind { from, source } if *from == input => Some(Selection::tree(source)),
                    MountKind::Cache { from: Some(from), source, .. } if *from == input => {
                        Some(Selection::tree(source))
                    }
                    _ => None,
                })
                .collect();
            (selections, true)
        }
        Op::Source(_) | Op::Merge => (Vec::new(), false),
    }
}

/// The key of `op` over inputs whose contributions, in order, are `inputs`.
pub fn content_key(op: &Op, inputs: &[ContentId]) -> ContentKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(VERSION);
    hasher.update(&graph::encode(op));
    for input in inputs {
        hasher.update(&input.0);
    }
    ContentKey(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Copy, File};

    #[test]
    fn only_selected_files_of_a_source_count() {
        let copy = |from, path: &str| {
            FileAction::Copy(Copy {
                from,
                selection: Selection::tree(path),
                destination: "/".into(),
                chown: None,
                chmod: None,
                unpack: false,
                keep_owner: from == 2,
            })
        };
        let op = Op::File(File { actions: vec![copy(1, "/a"), copy(1, "/b"), copy(2, "/c")] });
        let keys = input_keys(&op, 3);
        assert_eq!(keys[0], InputKey::Whole);
        assert_eq!(
            keys[1],
            InputKey::Selected { selections: vec![Selection::tree("/a"), Selection::tree("/b")], with_owner: false }
        );
        assert_eq!(keys[2], InputKey::Selected { selections: vec![Selection::tree("/c")], with_owner: true });
    }

    #[test]
    fn a_key_depends_on_op_and_inputs() {
        let (a, b) = (ContentId([1; 32]), ContentId([2; 32]));
        assert_ne!(content_key(&Op::Merge, &[a, b]), content_key(&Op::Merge, &[b, a]));
        assert_ne!(content_key(&Op::Merge, &[a]), content_key(&Op::File(File { actions: vec![] }), &[a]));
    }
}
