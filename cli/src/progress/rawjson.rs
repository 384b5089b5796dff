//! One JSON object a line, fields as BuildKit's clients print them (X5.19, R8.15).

use crate::interrupt;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use solver::event::{Event, Stream};
use std::io::Write;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc::UnboundedReceiver;

pub fn show(mut events: UnboundedReceiver<Event>, mut out: impl Write) {
    let mut is_open = true;
    while let Some(event) = events.blocking_recv() {
        if is_open {
            is_open = writeln!(out, "{}", to_json(&event)).inspect_err(interrupt::output_failed).is_ok();
        }
    }
}

fn to_json(event: &Event) -> Value {
    match event {
        Event::Vertex(vertex) => {
            let mut fields = Map::new();
            fields.insert("digest".into(), vertex.digest.clone().into());
            if !vertex.inputs.is_empty() {
                fields.insert("inputs".into(), vertex.inputs.clone().into());
            }
            fields.insert("name".into(), vertex.name.clone().into());
            for (key, time) in [("started", vertex.started), ("completed", vertex.completed)] {
                fields.extend(time.map(|time| (key.to_owned(), rfc3339(time).into())));
            }
            if vertex.cached {
                fields.insert("cached".into(), true.into());
            }
            fields.extend(vertex.error.as_ref().map(|error| ("error".to_owned(), error.clone().into())));
            json!({"vertexes": [fields]})
        }
        Event::Status(status) => {
            let mut fields = Map::new();
            fields.insert("id".into(), status.id.clone().into());
            fields.insert("vertex".into(), status.vertex.clone().into());
            fields.insert("name".into(), status.id.clone().into());
            if status.total > 0 {
                fields.insert("total".into(), status.total.into());
            }
            fields.insert("current".into(), status.current.into());
            fields.insert("timestamp".into(), rfc3339(status.timestamp).into());
            for (key, time) in [("started", status.started), ("completed", status.completed)] {
                fields.extend(time.map(|time| (key.to_owned(), rfc3339(time).into())));
            }
            json!({"statuses": [fields]})
        }
        Event::Log(log) => json!({"logs": [{
            "vertex": log.vertex,
            "stream": match log.stream { Stream::Stdout => 1, Stream::Stderr => 2 },
            "data": BASE64.encode(&log.data),
            "timestamp": rfc3339(log.timestamp),
        }]}),
        Event::Warning(warning) => {
            let detail: Vec<_> = warning.detail.iter().map(|line| BASE64.encode(line)).collect();
            // A range for each line, as BuildKit has it.
            let lines = warning.lines.map(|(first, last)| first..=last).into_iter().flatten();
            let range: Vec<_> = lines.map(|line| json!({"start": {"line": line}, "end": {"line": line}})).collect();
            let mut fields = json!({
                "vertex": warning.vertex,
                "level": warning.level,
                "short": BASE64.encode(&warning.short),
                "detail": detail,
                "url": warning.url,
            });
            if let Some(source) = &warning.source {
                fields["sourceInfo"] =
                    json!({"filename": source.name, "data": BASE64.encode(&source.text), "language": "Dockerfile"});
            }
            fields["range"] = range.into();
            json!({"warnings": [fields]})
        }
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use solver::event::{LogEvent, VertexEvent};

    #[test]
    fn events_become_lists() {
        let vertex = VertexEvent {
            digest: "d".into(),
            name: "RUN \"x\"".into(),
            started: Some(SystemTime::UNIX_EPOCH),
            ..Default::default()
        };
        assert_eq!(
            to_json(&Event::Vertex(vertex)),
            json!({"vertexes": [{"digest": "d", "name": "RUN \"x\"", "started": "1970-01-01T00:00:00Z"}]})
        );
        let log = LogEvent {
            vertex: "d".into(),
            stream: Stream::Stderr,
            data: vec![0xff, 0],
            timestamp: SystemTime::UNIX_EPOCH,
        };
        let log = to_json(&Event::Log(log));
        assert_eq!((&log["logs"][0]["stream"], &log["logs"][0]["data"]), (&json!(2), &json!("/wA=")));
    }
}
