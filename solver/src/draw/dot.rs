//! A drawing for Graphviz.

use super::{Drawing, Node, Relation, cut};
use std::fmt::Write;

/// Longer labels make boxes that nobody can look at.
const LABEL: usize = 60;

/// A digraph whose clusters are the stages.
pub fn write(drawing: &Drawing) -> String {
    let mut out = String::from(
        "digraph build {\n  rankdir=TB;\n  graph [fontname=\"Helvetica\"];\n  node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", fontsize=11];\n  edge [color=\"#64748b\"];\n",
    );
    for (index, stage) in drawing.stages.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "  subgraph cluster_{index} {{\n    label={};\n    color=\"#94a3b8\";",
            quoted(&stage.title())
        );
        nodes(&mut out, drawing, Some(index));
        out.push_str("  }\n");
    }
    nodes(&mut out, drawing, None);
    for (index, node) in drawing.nodes.iter().enumerate() {
        for edge in &node.inputs {
            let style = if edge.relation == Relation::Files { " [style=dashed]" } else { "" };
            let _ = writeln!(out, "  n{} -> n{index}{style};", edge.from);
        }
    }
    out.push_str("}\n");
    out
}

fn nodes(out: &mut String, drawing: &Drawing, stage: Option<usize>) {
    for (index, node) in drawing.nodes.iter().enumerate().filter(|(_, node)| node.stage == stage) {
        let (fill, line) = colours(node);
        let shape = if node.is_source() { ", shape=cylinder" } else { "" };
        let width = if node.is_result { ", penwidth=2.5" } else { "" };
        let label = format!("{}\\n{}", escaped(&cut(&node.label, LABEL)), escaped(&node.outcome()));
        let _ = writeln!(
            out,
            "    n{index} [label=\"{label}\", tooltip={}, fillcolor=\"{fill}\", color=\"{line}\"{shape}{width}];",
            quoted(&node.label)
        );
    }
}

/// Fill and line.
pub(super) fn colours(node: &Node) -> (&'static str, &'static str) {
    match node.class() {
        "cached" => ("#dbeafe", "#2563eb"),
        "ran" => ("#dcfce7", "#16a34a"),
        "failed" => ("#fee2e2", "#dc2626"),
        "cancelled" => ("#ffedd5", "#ea580c"),
        "unused" => ("#f1f5f9", "#cbd5e1"),
        _ => ("#ffffff", "#64748b"),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// In labels a backslash begins an escape of Graphviz's own, and an ampersand an entity.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('&', "&amp;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::tests::trace;

    #[test]
    fn labels_are_quoted() {
        let text = write(&Drawing::new(&trace()));
        let hostile = text.lines().find(|line| line.contains("n3 [")).unwrap();
        let label = r#"label="RUN echo \"<script>alert(1)</script>\" --> ]]> \\N \\\" #quot; &amp;…\nran in 1.3 s""#;
        assert!(hostile.contains(label), "{hostile}");
        assert!(hostile.contains("&amp;amp;"), "{hostile}");
        // Quotes that are not escaped come in pairs.
        let unescaped = hostile.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(unescaped.matches('"').count() % 2, 0);
        assert!(text.contains("subgraph cluster_0 {\n    label=\"build\";"));
        assert!(text.contains("  n3 -> n5 [style=dashed];\n"));
        assert!(text.contains("  n4 -> n5;\n"));
    }
}
