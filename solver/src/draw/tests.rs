use super::*;
use crate::trace::TracedInstruction;
use time::OffsetDateTime;

/// What every format must make harmless.
pub const HOSTILE: &str =
    "RUN echo \"<script>alert(1)</script>\" --> ]]> \\N \\\" #quot; &amp; `x` $y {z} [w] | ; %% \u{2028}\u{202e}\u{7}'";

pub fn vertex(digest: &str, kind: Kind, place: (usize, &str, usize), text: &str, inputs: &[&str]) -> TracedVertex {
    let (stage_position, stage, position) = place;
    let started = OffsetDateTime::UNIX_EPOCH;
    TracedVertex {
        digest: digest.into(),
        name: format!("[{stage} {position}] {text}"),
        kind,
        source: match kind {
            Kind::Image => Some(format!("docker.io/library/{text}:latest@sha256:00")),
            Kind::Local => Some("context".into()),
            _ => None,
        },
        instruction: Some(TracedInstruction {
            stage: stage.into(),
            stage_position,
            position,
            line: 10 * stage_position + position + 1,
            text: text.into(),
            ..Default::default()
        }),
        inputs: inputs.iter().map(|&input| input.into()).collect(),
        state: State::Ran,
        started: Some(started),
        completed: Some(started + Duration::from_millis(1300)),
        key: None,
        contributions: Vec::new(),
        result: None,
        error: None,
        reasons: Vec::new(),
        definition: Default::default(),
    }
}

/// Two stages and what they share.
pub fn trace() -> Trace {
    let mut vertices = vec![
        vertex("base", Kind::Image, (0, "build", 0), "busybox", &[]),
        vertex("context", Kind::Local, (0, "build", 1), "", &[]),
        vertex("copy", Kind::File, (0, "build", 1), "COPY a \\\n  b /", &["base", "context"]),
        vertex("make", Kind::Exec, (0, "build", 2), HOSTILE, &["copy"]),
        vertex("apt", Kind::Exec, (1, "stage-1", 1), "RUN apt", &["base"]),
        vertex("take", Kind::File, (1, "stage-1", 2), "COPY --from=build /x /", &["apt", "make"]),
        vertex("end", Kind::File, (1, "stage-1", 3), "COPY . /all", &["take", "context"]),
    ];
    vertices[2].state = State::Cached;
    vertices[5].state = State::Failed;
    vertices[6].state = State::NotReached;
    Trace { vertices }
}

#[test]
fn what_is_shared_is_in_no_stage() {
    let drawing = Drawing::new(&trace());
    let titles: Vec<_> = drawing.stages.iter().map(Stage::title).collect();
    assert_eq!(titles, ["build", "stage-1"]);
    let stages: Vec<_> = drawing.nodes.iter().map(|node| node.stage).collect();
    assert_eq!(stages, [None, None, Some(0), Some(0), Some(1), Some(1), Some(1)]);
    let labels: Vec<_> = drawing.nodes.iter().map(|node| node.label.as_str()).collect();
    assert_eq!(labels[..3], ["docker.io/library/busybox:latest", "build context", "COPY a b /"]);
    let outcomes: Vec<_> = drawing.nodes.iter().map(Node::outcome).collect();
    let expected = ["ready", "ready", "cached", "ran in 1.3 s", "ran in 1.3 s", "failed after 1.3 s", "not reached"];
    assert_eq!(outcomes, expected);
    assert_eq!(drawing.nodes.iter().filter(|node| node.is_result).count(), 1);
    assert_eq!(
        drawing.nodes[5].inputs,
        [Edge { from: 4, relation: Relation::Base }, Edge { from: 3, relation: Relation::Files }]
    );
}

#[test]
fn what_one_stage_takes_is_in_it() {
    let mut trace = trace();
    trace.vertices.truncate(4);
    let drawing = Drawing::new(&trace);
    assert!(drawing.nodes.iter().all(|node| node.stage == Some(0)), "{drawing:?}");
}

#[test]
fn unused_stages_are_marked() {
    let all = trace();
    let mut used = all.clone();
    used.vertices.truncate(4);
    let drawing = Drawing::with_unused(&all, &used);
    assert_eq!(drawing.stages[1].title(), "stage-1 · unused");
    assert_eq!(drawing.nodes[4].outcome(), "unused");
    assert!(drawing.nodes[3].is_result);
}

#[test]
fn nothing_invisible_is_in_a_label() {
    assert_eq!(plain("a\u{202e}b \t\u{1b}[31m\r\n c\\\n   d\u{0}e"), "a\u{fffd}b [31m c d e");
    assert!(!Drawing::new(&trace()).nodes[3].label.contains(['\u{2028}', '\u{202e}', '\u{7}']));
}

#[test]
fn durations_are_short() {
    let text = |milliseconds| duration(Duration::from_millis(milliseconds));
    let texts = [0, 8, 99, 100, 1349, 9949, 9950, 119_499, 125_000, 7_260_000].map(text);
    let expected = ["0 ms", "8 ms", "99 ms", "0.1 s", "1.3 s", "9.9 s", "10 s", "119 s", "2 min 5 s", "2 h 1 min"];
    assert_eq!(texts, expected);
}

#[test]
fn an_earlier_build_tells_what_became_of_equal_steps() {
    let earlier = trace();
    let mut now = trace();
    for vertex in &mut now.vertices {
        vertex.state = State::NotReached;
        (vertex.started, vertex.completed) = (None, None);
    }
    // What stands on a base that nobody could be asked about has another digest.
    now.vertices[3].digest = "other".into();
    now.vertices[5].inputs[1] = "other".into();
    now.vertices[4].digest = "edited".into();
    now.vertices[4].instruction.as_mut().unwrap().text = "RUN apt-get".into();
    let known = adopt(&mut now, &earlier);
    let mut drawing = Drawing::new(&now);
    drawing.forget_all_but(&known);
    let outcomes: Vec<_> = drawing.nodes.iter().map(Node::outcome).collect();
    let expected = ["ready", "ready", "cached", "ran in 1.3 s", "not built yet", "failed after 1.3 s", "not reached"];
    assert_eq!(outcomes, expected);
}
