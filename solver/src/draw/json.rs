//! A drawing as a JSON document.
//!
//! ```json
//! {"stages": [{"name": "build", "platform": "linux/arm64", "used": true}],
//!  "nodes": [{"id": 0, "digest": "blake3:…", "kind": "exec", "stage": 0, "label": "RUN make", "line": 3, "state": "ran", "seconds": 1.3, "used": true, "result": false,
//!             "inputs": [{"node": 1, "relation": "base"}]}]}
//! ```
//!
//! Stages and nodes are named by their positions; inputs come before their users. `kind` and `state` are as in traces, `relation` is `base` or `files`. `state` is
//! missing for what was never built, `seconds` for what did not run, `stage` for what several stages take, and `platform` where one alone is built.

use super::{Drawing, Relation};
use crate::trace::{Kind, State};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    stages: Vec<Stage<'a>>,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Stage<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    used: bool,
}

#[derive(Serialize)]
struct Node<'a> {
    id: usize,
    digest: &'a str,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<usize>,
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    used: bool,
    result: bool,
    inputs: Vec<Input>,
}

#[derive(Serialize)]
struct Input {
    node: usize,
    relation: &'static str,
}

pub fn write(drawing: &Drawing) -> serde_json::Result<String> {
    let stages = drawing.stages.iter().map(|stage| Stage {
        name: &stage.name,
        platform: stage.platform.as_deref(),
        used: stage.is_used,
    });
    let nodes = drawing.nodes.iter().enumerate().map(|(id, node)| Node {
        id,
        digest: &node.digest,
        kind: node.kind,
        stage: node.stage,
        label: &node.label,
        line: node.line,
        state: node.state,
        seconds: node.duration.map(|time| (time.as_secs_f64() * 1000.0).round() / 1000.0),
        used: node.is_used,
        result: node.is_result,
        inputs: node.inputs.iter().map(|edge| Input { node: edge.from, relation: edge.relation.name() }).collect(),
    });
    serde_json::to_string_pretty(&Document { stages: stages.collect(), nodes: nodes.collect() })
}

impl Relation {
    fn name(self) -> &'static str {
        match self {
            Relation::Base => "base",
            Relation::Files => "files",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::tests::trace;

    #[test]
    fn the_document_has_the_documented_shape() {
        let text = write(&Drawing::new(&trace())).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "id": 4, "digest": "apt", "kind": "exec", "stage": 1, "label": "RUN apt", "line": 12, "state": "ran", "seconds": 1.3,
            "used": true, "result": false, "inputs": [{"node": 0, "relation": "base"}],
        });
        assert_eq!(document["nodes"][4], expected);
        assert_eq!(document["stages"][1], serde_json::json!({"name": "stage-1", "used": true}));
        assert_eq!(document["nodes"][6]["state"], "not-reached");
        assert_eq!(document["nodes"][0].get("stage"), None);
    }
}
