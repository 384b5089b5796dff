//! Where things of a drawing stand.
//!
//! As Sugiyama's method has it, nodes get *rows* by longest paths, so that edges always lead down. Within a row, order is given rather than searched for: each
//! stage has a *column*, so that its steps stand below each other. Stages share a column where they do not get into each other's way, best with the one
//! that they go on from. What several stages take is in a row of its own at the top, ordered by where it is taken (barycentres).
//!
//! An edge to the next row is drawn in the gap between the two. A longer one goes through the first gap to a *track* at the left of its target's column, down
//! along it, and through the last gap. So no edge crosses a box. Edges from one node into one column share a track.

use super::{Drawing, Relation};
use std::collections::BTreeMap;

pub const BOX_WIDTH: f64 = 268.0;
pub const BOX_HEIGHT: f64 = 58.0;
/// Between the boxes of a row.
const SPACE: f64 = 16.0;
/// Between rows, and where a stage's title stands.
const GAP: f64 = 36.0;
const TITLE_GAP: f64 = 66.0;
/// Of the frame of a stage around its boxes, and above them.
const PADDING: f64 = 10.0;
const TITLE: f64 = 30.0;
const TRACK: f64 = 10.0;
/// Between columns.
const AISLE: f64 = 28.0;
const MARGIN: f64 = 14.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

#[derive(Debug, Default, PartialEq)]
pub struct Layout {
    pub width: f64,
    pub height: f64,
    /// Of the nodes.
    pub boxes: Vec<Rect>,
    /// Of the stages.
    pub frames: Vec<Rect>,
    pub routes: Vec<Route>,
}

/// The way of an edge. Between points with different x it is a curve, else a line.
#[derive(Debug, PartialEq)]
pub struct Route {
    pub from: usize,
    pub to: usize,
    pub relation: Relation,
    pub points: Vec<(f64, f64)>,
}

/// A run of rows of one column beside the boxes.
struct Track {
    from: usize,
    column: usize,
    rows: (usize, usize),
    slot: usize,
}

struct Column {
    stages: Vec<usize>,
    /// How many boxes stand side by side, and how many tracks.
    boxes: usize,
    tracks: usize,
}

pub fn layout(drawing: &Drawing) -> Layout {
    let rows = rows(drawing);
    let (columns, column_of) = columns(drawing, &rows);
    Placing { drawing, rows, columns, column_of }.place()
}

/// By longest paths; then everything goes down to right above its first user, so that a stage stands beside the step that takes it.
fn rows(drawing: &Drawing) -> Vec<usize> {
    let nodes = &drawing.nodes;
    let is_shared = |index: usize| nodes[index].stage.is_none();
    let first = usize::from((0..nodes.len()).any(is_shared));
    let mut rows = vec![0; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let below = node.inputs.iter().map(|edge| rows[edge.from] + 1).max().unwrap_or(first);
        rows[index] = if is_shared(index) && node.inputs.is_empty() { 0 } else { below.max(first) };
    }
    let mut highest_user = vec![usize::MAX; nodes.len()];
    for (index, node) in nodes.iter().enumerate().rev() {
        if !is_shared(index) && highest_user[index] != usize::MAX {
            rows[index] = highest_user[index] - 1;
        }
        for edge in &node.inputs {
            highest_user[edge.from] = highest_user[edge.from].min(rows[index]);
        }
    }
    rows
}

/// The columns, and the one of each stage.
fn columns(drawing: &Drawing, rows: &[usize]) -> (Vec<Column>, Vec<usize>) {
    let extent = |stage: usize| {
        let of_stage = drawing.nodes.iter().zip(rows).filter(|(node, _)| node.stage == Some(stage));
        let of_stage: Vec<_> = of_stage.map(|(_, row)| *row).collect();
        (of_stage.iter().min().copied().unwrap_or(0), of_stage.iter().max().copied().unwrap_or(0))
    };
    // The stage that another one goes on from.
    let parent = |stage: usize| {
        let inside = drawing.nodes.iter().filter(|node| node.stage == Some(stage));
        let bases = inside.flat_map(|node| &node.inputs).filter(|edge| edge.relation == Relation::Base);
        bases.filter_map(|edge| drawing.nodes[edge.from].stage).find(|parent| *parent != stage)
    };
    let mut columns: Vec<Column> = Vec::new();
    let mut column_of = vec![usize::MAX; drawing.stages.len()];
    for stage in 0..drawing.stages.len() {
        let (begins, ends) = extent(stage);
        let is_free = |column: &usize| {
            columns.get(*column).is_some_and(|column: &Column| {
                column.stages.iter().map(|other| extent(*other)).all(|other| other.1 < begins || ends < other.0)
            })
        };
        let below_parent = parent(stage).and_then(|parent| column_of.get(parent).copied());
        let free = below_parent.filter(is_free).or_else(|| (0..columns.len()).find(is_free));
        let column = free.unwrap_or(columns.len());
        if column == columns.len() {
            columns.push(Column { stages: Vec::new(), boxes: 1, tracks: 0 });
        }
        columns[column].stages.push(stage);
        column_of[stage] = column;
    }
    (columns, column_of)
}

struct Placing<'a> {
    drawing: &'a Drawing,
    rows: Vec<usize>,
    columns: Vec<Column>,
    column_of: Vec<usize>,
}

impl Placing<'_> {
    fn column(&self, node: usize) -> Option<usize> {
        self.drawing.nodes[node].stage.map(|stage| self.column_of[stage])
    }

    fn place(mut self) -> Layout {
        let slots = self.slots();
        let tracks = self.tracks();
        let lefts = self.lefts();
        let tops = self.tops();
        let boxes_left = |column: usize| lefts[column] + self.columns[column].tracks as f64 * TRACK;
        let nodes = self.drawing.nodes.len();
        let mut boxes: Vec<Rect> = (0..nodes)
            .map(|node| {
                let x = self.column(node).map_or(0.0, boxes_left) + slots[node] as f64 * (BOX_WIDTH + SPACE);
                Rect { x, y: tops[self.rows[node]], width: BOX_WIDTH, height: BOX_HEIGHT }
            })
            .collect();
        self.place_shared(&mut boxes);
        let frames: Vec<_> = (0..self.drawing.stages.len()).map(|stage| self.frame(stage, &boxes, &lefts)).collect();
        let track_x = |track: &Track| boxes_left(track.column) - TRACK * (track.slot as f64 + 1.0) + 2.0;
        let routes = self.routes(&boxes, &tops, &tracks, track_x);
        let all = boxes.iter().chain(&frames);
        let (width, height) = all.fold((0.0_f64, 0.0_f64), |(width, height), rect| {
            (width.max(rect.x + rect.width), height.max(rect.y + rect.height))
        });
        Layout { width: width + MARGIN, height: height + MARGIN, boxes, frames, routes }
    }

    /// Where nodes stand among those of the same row and column: what goes on from above first, so that chains are straight.
    fn slots(&mut self) -> Vec<usize> {
        let mut groups: BTreeMap<(usize, usize), Vec<(bool, usize)>> = BTreeMap::new();
        for (index, node) in self.drawing.nodes.iter().enumerate() {
            if let Some(column) = self.column(index) {
                let goes_on = node.inputs.iter().any(|edge| edge.relation == Relation::Base);
                groups.entry((self.rows[index], column)).or_default().push((!goes_on, index));
            }
        }
        let mut slots = vec![0; self.drawing.nodes.len()];
        for ((_, column), mut group) in groups {
            group.sort_unstable();
            self.columns[column].boxes = self.columns[column].boxes.max(group.len());
            for (slot, (_, index)) in group.into_iter().enumerate() {
                slots[index] = slot;
            }
        }
        slots
    }

    fn tracks(&mut self) -> Vec<Track> {
        let mut ends: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (to, node) in self.drawing.nodes.iter().enumerate() {
            let Some(column) = self.column(to) else { continue };
            for edge in node.inputs.iter().filter(|edge| self.rows[to] > self.rows[edge.from] + 1) {
                let end = ends.entry((column, edge.from)).or_default();
                *end = (*end).max(self.rows[to] - 1);
            }
        }
        let mut tracks: Vec<Track> = ends
            .into_iter()
            .map(|((column, from), end)| Track { from, column, rows: (self.rows[from] + 1, end), slot: 0 })
            .collect();
        // Short ones next to the boxes.
        tracks.sort_by_key(|track| (track.column, track.rows.1 - track.rows.0, track.rows.0, track.from));
        for index in 0..tracks.len() {
            let (before, rest) = tracks.split_at_mut(index);
            let track = &mut rest[0];
            let clashes = |other: &&Track| {
                other.column == track.column && other.rows.0 <= track.rows.1 && track.rows.0 <= other.rows.1
            };
            let taken: Vec<_> = before.iter().filter(clashes).map(|other| other.slot).collect();
            track.slot = (0..).find(|slot| !taken.contains(slot)).unwrap_or(0);
            let column = &mut self.columns[track.column];
            column.tracks = column.tracks.max(track.slot + 1);
        }
        tracks
    }

    /// Where columns begin.
    fn lefts(&self) -> Vec<f64> {
        let mut left = MARGIN + PADDING;
        let columns = self.columns.iter().map(|column| {
            let here = left;
            let boxes = column.boxes as f64;
            left += column.tracks as f64 * TRACK + boxes * BOX_WIDTH + (boxes - 1.0) * SPACE + 2.0 * PADDING + AISLE;
            here
        });
        columns.collect()
    }

    /// Where rows begin.
    fn tops(&self) -> Vec<f64> {
        let count = self.rows.iter().max().map_or(0, |last| last + 1);
        let mut has_title = vec![false; count];
        for stage in 0..self.drawing.stages.len() {
            let of_stage = self.drawing.nodes.iter().zip(&self.rows).filter(|(node, _)| node.stage == Some(stage));
            if let Some(first) = of_stage.map(|(_, row)| *row).min() {
                has_title[first] = true;
            }
        }
        let mut y = MARGIN;
        let tops = has_title.iter().enumerate().map(|(row, has_title)| {
            let gap = match (row, has_title) {
                (0, true) => TITLE,
                (0, false) => 0.0,
                (_, true) => TITLE_GAP,
                (_, false) => GAP,
            };
            let top = y + gap;
            y = top + BOX_HEIGHT;
            top
        });
        tops.collect()
    }

    /// Puts what has no column above the middle of what takes it, from left to right without overlaps.
    fn place_shared(&self, boxes: &mut [Rect]) {
        let mut wanted: Vec<(f64, usize)> = Vec::new();
        for shared in (0..boxes.len()).filter(|node| self.column(*node).is_none()) {
            let takes = |node: &usize| self.drawing.nodes[*node].inputs.iter().any(|edge| edge.from == shared);
            let users: Vec<_> = (0..boxes.len()).filter(takes).map(|user| boxes[user].x).collect();
            wanted.push((users.iter().sum::<f64>() / users.len().max(1) as f64, shared));
        }
        wanted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut ends: BTreeMap<usize, f64> = BTreeMap::new();
        for (x, shared) in wanted {
            let end = ends.entry(self.rows[shared]).or_insert(MARGIN);
            boxes[shared].x = x.max(*end);
            *end = boxes[shared].x + BOX_WIDTH + SPACE;
        }
    }

    fn frame(&self, stage: usize, boxes: &[Rect], lefts: &[f64]) -> Rect {
        let inside = self.drawing.nodes.iter().zip(boxes).filter(|(node, _)| node.stage == Some(stage));
        let (mut right, mut top, mut bottom) = (0.0_f64, f64::MAX, 0.0_f64);
        for (_, rect) in inside {
            (right, top) = (right.max(rect.x + rect.width), top.min(rect.y));
            bottom = bottom.max(rect.y + rect.height);
        }
        let x = lefts[self.column_of[stage]] - PADDING;
        Rect { x, y: top - TITLE, width: right + PADDING - x, height: bottom + PADDING - (top - TITLE) }
    }

    fn routes(&self, boxes: &[Rect], tops: &[f64], tracks: &[Track], track_x: impl Fn(&Track) -> f64) -> Vec<Route> {
        let mut routes = Vec::new();
        for (to, node) in self.drawing.nodes.iter().enumerate() {
            let mut inputs: Vec<_> = node.inputs.iter().collect();
            inputs.sort_by(|a, b| boxes[a.from].x.total_cmp(&boxes[b.from].x));
            // What comes from straight above stays straight.
            let above = inputs.iter().position(|edge| boxes[edge.from].x == boxes[to].x);
            let middle = above.map_or((inputs.len() as f64 - 1.0) / 2.0, |above| above as f64);
            for (position, edge) in inputs.into_iter().enumerate() {
                let (source, target) = (boxes[edge.from], boxes[to]);
                let spread = ((position as f64 - middle) * 14.0).clamp(-BOX_WIDTH / 2.5, BOX_WIDTH / 2.5);
                let mut points = vec![(source.x + source.width / 2.0, source.y + source.height)];
                let track =
                    tracks.iter().find(|track| track.from == edge.from && Some(track.column) == self.column(to));
                if let (Some(track), true) = (track, self.rows[to] > self.rows[edge.from] + 1) {
                    let x = track_x(track);
                    points.extend([(x, tops[track.rows.0]), (x, tops[self.rows[to] - 1] + BOX_HEIGHT)]);
                }
                points.push((target.x + target.width / 2.0 + spread, target.y));
                routes.push(Route { from: edge.from, to, relation: edge.relation, points });
            }
        }
        routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::tests::{trace, vertex};
    use crate::trace::{Kind, Trace, TracedVertex};

    fn overlap(a: &Rect, b: &Rect) -> bool {
        a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
    }

    /// Everything that must hold of any layout.
    fn check(drawing: &Drawing) -> Layout {
        let layout = layout(drawing);
        assert_eq!(layout, super::layout(drawing), "it is stable");
        for (at, rect) in layout.boxes.iter().enumerate() {
            assert!(rect.x >= 0.0 && rect.y >= 0.0, "{rect:?}");
            assert!(rect.x + rect.width <= layout.width && rect.y + rect.height <= layout.height, "{rect:?}");
            for other in &layout.boxes[at + 1..] {
                assert!(!overlap(rect, other), "{rect:?} {other:?}");
            }
            for (stage, frame) in layout.frames.iter().enumerate() {
                let is_inside = drawing.nodes[at].stage == Some(stage);
                assert_eq!(overlap(rect, frame), is_inside, "{:?} {rect:?} {frame:?}", drawing.nodes[at].label);
            }
        }
        for (at, frame) in layout.frames.iter().enumerate() {
            assert!(layout.frames[at + 1..].iter().all(|other| !overlap(frame, other)), "{frame:?}");
        }
        let edges: usize = drawing.nodes.iter().map(|node| node.inputs.len()).sum();
        assert_eq!(layout.routes.len(), edges);
        for route in &layout.routes {
            for leg in route.points.windows(2) {
                let ((x1, y1), (x2, y2)) = (leg[0], leg[1]);
                assert!(y1 <= y2, "down: {route:?}");
                // A curve lies within the box that its ends span.
                let span = Rect { x: x1.min(x2), y: y1, width: (x1 - x2).abs(), height: y2 - y1 };
                for rect in &layout.boxes {
                    assert!(!overlap(&span, rect), "{route:?} crosses {rect:?}");
                }
            }
        }
        layout
    }

    #[test]
    fn nothing_overlaps() {
        check(&Drawing::new(&trace()));
        assert_eq!(layout(&Drawing::default()).boxes, []);
    }

    #[test]
    fn a_stage_that_goes_on_stands_below() {
        let vertices = vec![
            vertex("image", Kind::Image, (0, "base", 0), "debian", &[]),
            vertex("apt", Kind::Exec, (0, "base", 1), "RUN apt", &["image"]),
            vertex("make", Kind::Exec, (1, "build", 1), "RUN make", &["apt"]),
            vertex("other", Kind::Exec, (2, "other", 1), "RUN other", &["apt"]),
            vertex("copy", Kind::File, (1, "build", 2), "COPY --from=other", &["make", "other"]),
        ];
        let drawing = Drawing::new(&Trace { vertices });
        let layout = check(&drawing);
        assert_eq!(layout.boxes[1].x, layout.boxes[2].x);
        assert!(layout.boxes[3].x > layout.boxes[2].x + BOX_WIDTH);
    }

    #[test]
    fn any_graph_is_drawn_without_overlaps() {
        // A generator of its own, so that failures come again.
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below.max(1)
        };
        for round in 0..60 {
            let (stages, count) = (1 + random(6), 1 + random(40));
            let mut vertices: Vec<TracedVertex> = Vec::new();
            for index in 0..count {
                let stage = random(stages);
                let kind = [Kind::Exec, Kind::File, Kind::Merge, Kind::Image, Kind::Local][random(5)];
                let is_source = index == 0 || matches!(kind, Kind::Image | Kind::Local);
                let inputs: Vec<String> = match is_source {
                    true => Vec::new(),
                    false => (0..1 + random(4)).map(|_| format!("v{}", random(index))).collect(),
                };
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                let name = format!("s{stage}");
                vertices.push(vertex(&format!("v{index}"), kind, (stage, &name, index), "RUN x", &inputs));
            }
            let drawing = Drawing::new(&Trace { vertices });
            let layout = check(&drawing);
            assert_eq!(layout.boxes.len(), count, "round {round}");
        }
    }
}
