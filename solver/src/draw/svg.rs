//! A drawing as SVG.
//!
//! Labels are cut to what fits and clipped by the box, whatever the font; the whole text is the box's tooltip. Colours follow what the reader prefers, and stand beside words.

use super::layout::{BOX_HEIGHT, BOX_WIDTH, Layout, Rect, Route, layout};
use super::{Drawing, Node, Relation, cut};
use std::collections::HashSet;
use std::fmt::Write;

/// The style of drawings, for pages that hold one.
pub const STYLE: &str = include_str!("svg.css");

/// How many characters a line of a box holds.
const LINE: usize = 36;
const INSET: f64 = 10.0;
const HEADING: f64 = 40.0;
const LEGEND: f64 = 44.0;

/// What a page adds to a drawing.
#[derive(Default)]
pub struct Links<'a> {
    /// Where a node leads to.
    pub target: Option<&'a dyn Fn(usize) -> String>,
    /// Nodes to be marked as the critical path.
    pub critical: HashSet<usize>,
}

/// A file of its own, with a heading and a legend.
pub fn write(drawing: &Drawing, heading: &str) -> String {
    let layout = layout(drawing);
    let (width, height) = (layout.width.max(640.0), layout.height + HEADING + LEGEND);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"graph\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n<text class=\"heading\" x=\"14\" y=\"27\">{}</text>\n<g transform=\"translate(0 {HEADING})\">\n",
        escaped(heading),
        escaped(heading)
    );
    content(&mut out, drawing, &layout, &Links::default());
    out.push_str("</g>\n");
    legend(&mut out, drawing, HEADING + layout.height);
    out.push_str("</svg>\n");
    out
}

/// For a page that has [`STYLE`].
pub fn inline(drawing: &Drawing, links: &Links<'_>) -> String {
    let layout = layout(drawing);
    let (width, height) = (layout.width, layout.height);
    let mut out = format!(
        "<svg class=\"graph\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"group\" aria-label=\"Stages and steps\">\n"
    );
    content(&mut out, drawing, &layout, links);
    out.push_str("</svg>\n");
    out
}

fn content(out: &mut String, drawing: &Drawing, layout: &Layout, links: &Links<'_>) {
    // Writing to a string does not fail.
    for Rect { x, y, width, height } in &layout.frames {
        let _ =
            writeln!(out, "<rect class=\"frame\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>");
    }
    for route in &layout.routes {
        edge(out, route, links.critical.contains(&route.from) && links.critical.contains(&route.to));
    }
    // Over the edges, so that they can be read.
    for (index, (stage, frame)) in drawing.stages.iter().zip(&layout.frames).enumerate() {
        // Beside the tracks.
        let inside = drawing.nodes.iter().zip(&layout.boxes).filter(|(node, _)| node.stage == Some(index));
        let left = inside.map(|(_, rect)| rect.x - frame.x).fold(frame.width, f64::min);
        let class = if stage.is_used { "title" } else { "title unused" };
        let _ = writeln!(
            out,
            "{}<text class=\"{class}\" x=\"{left}\" y=\"20\">{}</text></svg>",
            clip(frame.x, frame.y, frame.width, 30.0),
            escaped(&cut(&stage.title(), 60))
        );
    }
    for (index, (node, rect)) in drawing.nodes.iter().zip(&layout.boxes).enumerate() {
        draw(out, node, rect, links.target.map(|target| target(index)), links.critical.contains(&index));
    }
}

fn clip(x: f64, y: f64, width: f64, height: f64) -> String {
    format!("<svg x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" overflow=\"hidden\">")
}

fn edge(out: &mut String, route: &Route, is_critical: bool) {
    let Some(&(x, y)) = route.points.first() else { return };
    let mut path = format!("M{x} {y}");
    for leg in route.points.windows(2) {
        let ((x1, y1), (x2, y2)) = (leg[0], leg[1]);
        let _ = match x1 == x2 {
            true => write!(path, "V{y2}"),
            false => {
                let middle = (y1 + y2) / 2.0;
                write!(path, "C{x1} {middle} {x2} {middle} {x2} {y2}")
            }
        };
    }
    let files = if route.relation == Relation::Files { " files" } else { "" };
    let critical = if is_critical { " critical" } else { "" };
    let _ = writeln!(out, "<path class=\"edge{files}{critical}\" d=\"{path}\"/>");
    if let Some((x, y)) = route.points.last() {
        let _ = writeln!(out, "<path class=\"arrow\" d=\"M{x} {y}l-4 -7h8z\"/>");
    }
}

fn draw(out: &mut String, node: &Node, rect: &Rect, link: Option<String>, is_critical: bool) {
    let classes =
        [(true, node.class()), (node.is_source(), "source"), (node.is_result, "result"), (is_critical, "critical")];
    let classes: Vec<_> = classes.iter().filter(|(is_so, _)| *is_so).map(|(_, class)| *class).collect();
    let outcome = node.outcome();
    let title = format!("{} ({outcome})", cut(&node.label, 2000));
    if let Some(link) = &link {
        let _ = write!(out, "<a href=\"{}\">", escaped(link));
    }
    let radius = if node.is_source() { BOX_HEIGHT / 2.0 } else { 6.0 };
    let inset = if node.is_source() { 22.0 } else { INSET };
    let (keyword, lines) = lines(node);
    let _ = write!(
        out,
        "<g class=\"node {}\"><title>{}</title><rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{radius}\"/>{}",
        classes.join(" "),
        escaped(&title),
        rect.x,
        rect.y,
        rect.width,
        rect.height,
        clip(rect.x, rect.y, rect.width - inset / 2.0, rect.height)
    );
    for (position, line) in lines.iter().enumerate() {
        let y = if lines.len() == 1 { 25 } else { 18 + 15 * position };
        let keyword = keyword.filter(|_| position == 0);
        let rest = keyword.map_or(line.as_str(), |keyword| &line[keyword.len()..]);
        let keyword = keyword.map(|keyword| format!("<tspan class=\"keyword\">{}</tspan>", escaped(keyword)));
        let _ = write!(
            out,
            "<text class=\"code\" x=\"{inset}\" y=\"{y}\">{}{}</text>",
            keyword.unwrap_or_default(),
            escaped(rest)
        );
    }
    let result = if node.is_result { " · result" } else { "" };
    let _ = write!(
        out,
        "<text class=\"outcome\" x=\"{inset}\" y=\"50\">{} {}{result}</text>",
        sign(node),
        escaped(&outcome)
    );
    if let Some(line) = node.line.filter(|_| !node.is_source()) {
        let _ = write!(
            out,
            "<text class=\"where\" x=\"{}\" y=\"50\" text-anchor=\"end\">line {line}</text>",
            BOX_WIDTH - INSET
        );
    }
    out.push_str("</svg></g>");
    out.push_str(if link.is_some() { "</a>\n" } else { "\n" });
}

/// The instruction's keyword, if the label begins with one, and what fits into the box.
fn lines(node: &Node) -> (Option<&str>, Vec<String>) {
    let label = &node.label;
    let keyword =
        label.split(' ').next().filter(|word| word.len() > 2 && word.chars().all(|c| c.is_ascii_alphabetic()));
    let keyword = keyword.filter(|_| !node.is_source() && node.line.is_some());
    if width(label) <= LINE {
        return (keyword, vec![label.clone()]);
    }
    // Breaks at a blank, if there is one not too far from the end.
    let end = fitting(label, LINE);
    let at = label[..end].rfind(' ').filter(|at| *at > end / 2).unwrap_or(end);
    let rest = label[at..].trim_start();
    let rest = match fitting(rest, LINE) {
        fits if fits == rest.len() => rest.to_owned(),
        _ => format!("{}…", &rest[..fitting(rest, LINE - 1)]),
    };
    (keyword.filter(|keyword| keyword.len() <= at), vec![label[..at].to_owned(), rest])
}

/// How many bytes of `text` fit into so many columns.
fn fitting(text: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += columns_of(c);
        if used > columns {
            return at;
        }
    }
    text.len()
}

fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// East Asian and other wide characters come after U+1100; a few that are narrow lose some room.
fn columns_of(c: char) -> usize {
    if c >= '\u{1100}' && c != '…' { 2 } else { 1 }
}

/// States are told apart without colours, too.
fn sign(node: &Node) -> &'static str {
    match node.class() {
        "cached" => "✓",
        "ran" => "▶",
        "failed" => "✗",
        "cancelled" => "■",
        "ready" => "●",
        _ => "○",
    }
}

fn legend(out: &mut String, drawing: &Drawing, top: f64) {
    let mut entries: Vec<(&'static str, &'static str)> = Vec::new();
    for (class, text) in [
        ("ready", "source"),
        ("cached", "cached"),
        ("ran", "ran"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("unreached", "not reached"),
        ("unbuilt", "not built yet"),
        ("unused", "unused"),
    ] {
        if drawing.nodes.iter().any(|node| node.class() == class) {
            entries.push((class, text));
        }
    }
    let mut x = 14.0;
    for (class, text) in entries {
        let _ = writeln!(
            out,
            "<g class=\"node {class}\"><rect class=\"box\" x=\"{x}\" y=\"{}\" width=\"18\" height=\"12\" rx=\"3\"/></g><text class=\"caption\" x=\"{}\" y=\"{}\">{text}</text>",
            top + 14.0,
            x + 24.0,
            top + 24.0
        );
        x += 44.0 + 7.5 * text.len() as f64;
    }
    let y = top + 20.0;
    for (class, text) in [("edge", "goes on from"), ("edge files", "takes files of")] {
        let _ = writeln!(
            out,
            "<path class=\"{class}\" d=\"M{x} {y}h26\"/><text class=\"caption\" x=\"{}\" y=\"{}\">{text}</text>",
            x + 32.0,
            top + 24.0
        );
        x += 50.0 + 7.0 * text.len() as f64;
    }
}

/// For text and attributes of XML and HTML. What XML cannot hold is replaced.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || super::is_invisible(c) => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::tests::trace;

    #[test]
    fn texts_cannot_become_markup() {
        let drawing = Drawing::new(&trace());
        for text in [write(&drawing, "<b>\"'&"), inline(&drawing, &Links::default())] {
            assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
            assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
            assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
            assert!(text.contains("&lt;script&gt;"));
        }
        assert_eq!(escaped("a\u{0}\u{2028}\u{ffff}<\n"), "a\u{fffd}\u{fffd}\u{fffd}&lt;\n");
    }

    #[test]
    fn nodes_lead_where_the_page_says() {
        let target = |index: usize| format!("#step-{index}");
        let links = Links { target: Some(&target), critical: HashSet::from([3, 5]) };
        let text = inline(&Drawing::new(&trace()), &links);
        assert_eq!(text.matches("<a href=\"#step-").count(), 7);
        assert_eq!(text.matches("edge files critical").count(), 1, "from 3 to 5");
    }

    #[test]
    fn long_labels_are_cut() {
        let mut trace = trace();
        trace.vertices[3].instruction.as_mut().unwrap().text = format!("RUN {}", "字".repeat(100));
        let drawing = Drawing::new(&trace);
        let (keyword, lines) = lines(&drawing.nodes[3]);
        assert_eq!(keyword, Some("RUN"));
        assert!(lines.len() == 2 && lines.iter().all(|line| width(line) <= LINE), "{lines:?}");
        assert!(lines[1].ends_with('…'));
    }
}
