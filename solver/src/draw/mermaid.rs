//! A drawing for Mermaid, which GitHub and others show in Markdown.

use super::dot::colours;
use super::{Drawing, Relation, cut};
use std::collections::BTreeMap;
use std::fmt::Write;

const LABEL: usize = 60;

/// A flowchart whose subgraphs are the stages.
pub fn write(drawing: &Drawing) -> String {
    let mut out = String::from("flowchart TB\n");
    for (index, stage) in drawing.stages.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(out, "  subgraph s{index}[\"{}\"]", escaped(&stage.title()));
        nodes(&mut out, drawing, Some(index));
        out.push_str("  end\n");
    }
    nodes(&mut out, drawing, None);
    for (index, node) in drawing.nodes.iter().enumerate() {
        for edge in &node.inputs {
            let arrow = if edge.relation == Relation::Files { "-.->" } else { "-->" };
            let _ = writeln!(out, "  n{} {arrow} n{index}", edge.from);
        }
    }
    let classes: BTreeMap<_, _> = drawing.nodes.iter().map(|node| (node.class(), colours(node))).collect();
    for (class, (fill, line)) in classes {
        let _ = writeln!(out, "  classDef {class} fill:{fill},stroke:{line},color:#0f172a");
    }
    out
}

fn nodes(out: &mut String, drawing: &Drawing, stage: Option<usize>) {
    for (index, node) in drawing.nodes.iter().enumerate().filter(|(_, node)| node.stage == stage) {
        let (left, right) = if node.is_source() { ("[(", ")]") } else { ("[", "]") };
        let (label, outcome) = (escaped(&cut(&node.label, LABEL)), escaped(&node.outcome()));
        let _ = writeln!(out, "    n{index}{left}\"{label}<br/>{outcome}\"{right}:::{}", node.class());
    }
}

/// All ASCII but letters, digits, blanks and what has no meaning anywhere in Mermaid or Markdown becomes an entity in Mermaid's spelling, `#60;`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | ',' | ':' | '/' | '=') || !c.is_ascii() => {
                escaped.push(c);
            }
            c => {
                let _ = write!(escaped, "#{};", u32::from(c));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::tests::trace;

    #[test]
    fn labels_are_escaped() {
        let text = write(&Drawing::new(&trace()));
        let hostile = text.lines().find(|line| line.contains("n3[")).unwrap();
        assert!(hostile.starts_with("    n3[\"RUN echo #34;#60;script#62;alert#40;1#41;"), "{hostile}");
        assert!(hostile.ends_with("<br/>ran in 1.3 s\"]:::ran"), "{hostile}");
        assert_eq!(hostile.matches('"').count(), 2);
        assert!(text.contains("  n3 -.-> n5\n  n5") || text.contains("  n3 -.-> n5\n"));
        assert!(text.contains("  subgraph s1[\"stage#45;1\"]\n"));
        assert!(text.contains("  classDef cached fill:#dbeafe"));
    }
}
