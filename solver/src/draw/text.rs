//! A drawing for terminals: a list of stages, each with its steps in order. Every node has a number, by which others name it as their input.

use super::{Drawing, Node, cut};
use std::fmt::Write;

/// How it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    pub has_colours: bool,
    /// Columns to use; no limit if 0.
    pub width: usize,
}

/// Labels get at least so much room.
const LEAST_LABEL: usize = 24;

pub fn write(drawing: &Drawing, style: Style) -> String {
    let mut out = String::new();
    let shared = drawing.nodes.iter().any(|node| node.stage.is_none());
    let groups = shared.then_some(None).into_iter().chain((0..drawing.stages.len()).map(Some));
    for group in groups {
        let title = group.map_or_else(|| "shared by several stages".to_owned(), |index| drawing.stages[index].title());
        let blank = if out.is_empty() { "" } else { "\n" };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{blank}{}", style.painted(&title, "1"));
        let rows: Vec<_> = drawing.nodes.iter().enumerate().filter(|(_, node)| node.stage == group).collect();
        for (position, (index, node)) in rows.iter().enumerate() {
            let above = position.checked_sub(1).map(|above| rows[above].0);
            let mark = if position + 1 == rows.len() { "└" } else { "├" };
            let inputs = inputs(node, above);
            let result = if node.is_result { "  ← result" } else { "" };
            let outcome = node.outcome();
            let number = format!("{:>3}", index + 1);
            let rest =
                2 + number.len() + 2 + 2 + outcome.chars().count() + inputs.chars().count() + result.chars().count();
            let room = if style.width == 0 { usize::MAX } else { style.width.saturating_sub(rest).max(LEAST_LABEL) };
            let (label, outcome) = (cut(&node.label, room), style.painted(&outcome, code(node)));
            let (tree, notes) = (style.painted(mark, "2"), style.painted(&format!("{inputs}{result}"), "2"));
            let _ = writeln!(out, "{tree}{number}  {label}  {outcome}{notes}");
        }
    }
    out
}

/// The numbers of those inputs that do not stand right above.
fn inputs(node: &Node, above: Option<usize>) -> String {
    let others = node.inputs.iter().map(|edge| edge.from).filter(|from| Some(*from) != above);
    let numbers: Vec<_> = others.map(|from| (from + 1).to_string()).collect();
    if numbers.is_empty() { String::new() } else { format!("  from {}", numbers.join(", ")) }
}

fn code(node: &Node) -> &'static str {
    match node.class() {
        "cached" => "34",
        "ran" => "32",
        "failed" => "31",
        "cancelled" => "33",
        _ => "2",
    }
}

impl Style {
    fn painted(self, text: &str, code: &str) -> String {
        match self.has_colours && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::tests::{HOSTILE, trace};

    #[test]
    fn stages_are_listed() {
        let mut trace = trace();
        trace.vertices[3].instruction.as_mut().unwrap().text = "RUN make".into();
        let expected = "\
shared by several stages
├  1  docker.io/library/busybox:latest  ready
└  2  build context  ready

build
├  3  COPY a b /  cached  from 1, 2
└  4  RUN make  ran in 1.3 s

stage-1
├  5  RUN apt  ran in 1.3 s  from 1
├  6  COPY --from=build /x /  failed after 1.3 s  from 4
└  7  COPY . /all  not reached  from 2  ← result
";
        assert_eq!(write(&Drawing::new(&trace), Style::default()), expected);
    }

    #[test]
    fn terminals_get_colours_and_nothing_else() {
        let style = Style { has_colours: true, width: 60 };
        let text = write(&Drawing::new(&trace()), style);
        assert!(text.contains("\x1b[31mfailed after 1.3 s\x1b[0m"));
        assert!(text.lines().all(|line| line.matches("\x1b[").count() % 2 == 0), "{text}");
        let bare = write(&Drawing::new(&trace()), Style { has_colours: false, width: 60 });
        assert!(bare.lines().all(|line| line.chars().count() <= 60), "{bare}");
        assert!(!bare.contains(|c: char| c.is_control() && c != '\n'));
        assert!(HOSTILE.contains('\u{7}'));
    }
}
