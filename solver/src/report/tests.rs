use super::timeline::{Waiting, critical_path, entries};
use super::*;
use crate::draw::tests::{HOSTILE, trace, vertex};
use crate::event::{Event, LogEvent, Stream, VertexEvent};
use crate::trace::{Kind, Reason, State};
use std::time::Duration;
use time::OffsetDateTime;

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
}

fn report(trace: Option<Trace>, observed: Observed) -> Report {
    Report {
        identity: Identity {
            context: format!("/home/{HOSTILE}"),
            dockerfile: "Dockerfile".into(),
            ..Default::default()
        },
        outcome: Outcome::Failed,
        started: at(0),
        completed: at(10_000),
        names: vec![HOSTILE.into()],
        digest: Some("sha256:00".into()),
        error: Some(HOSTILE.into()),
        version: "rbuild 0".into(),
        trace,
        waits: HashMap::new(),
        observed,
        images: vec![ImageContents {
            platform: HOSTILE.into(),
            layers: vec![LayerContents {
                id: "l".into(),
                image: Some(HOSTILE.into()),
                size: Some(5_000_000),
                packed: None,
                entries: 2,
                biggest: vec![(HOSTILE.into(), 4_000_000)],
            }],
            hidden: 3,
            hidden_files: vec![(HOSTILE.into(), 3, 0)],
            is_partial: true,
        }],
    }
}

fn hostile() -> Report {
    let mut collector = Collector::default();
    let vertex =
        VertexEvent { digest: "make".into(), name: HOSTILE.into(), started: Some(at(0)), ..Default::default() };
    collector.see(&Event::Vertex(vertex.clone()));
    collector.see(&Event::Vertex(VertexEvent { digest: "task".into(), completed: Some(at(3)), ..vertex }));
    let data = format!("{HOSTILE}\n\x1b[31m{HOSTILE}\n").into_bytes();
    collector.see(&Event::Log(LogEvent { vertex: "make".into(), stream: Stream::Stderr, data, timestamp: at(1) }));
    let mut trace = trace();
    trace.vertices[3].reasons = vec![
        Reason::InputChanged { step: "copy".into(), name: HOSTILE.into() },
        Reason::Forced { flag: HOSTILE.into() },
        Reason::FilesChanged { from: HOSTILE.into(), changes: None },
    ];
    trace.vertices[3].error = Some(HOSTILE.into());
    report(Some(trace), collector.finish())
}

/// The page without its own script and style.
fn body(page: &str) -> String {
    let mut rest = page.to_owned();
    for tag in ["script", "style"] {
        let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
        assert_eq!(rest.matches(&start).count(), 1, "one {tag}");
        let from = rest.find(&start).unwrap();
        let to = from + rest[from..].find(&end).unwrap() + end.len();
        rest.replace_range(from..to, "");
        assert!(!rest.contains(&format!("<{tag}")) && !rest.contains(&end), "{tag}");
    }
    rest
}

#[test]
fn texts_cannot_become_markup() {
    let page = page(&hostile());
    let body = body(&page);
    assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!body.contains("-->") && !body.contains("]]>"), "ends of comments and sections");
    assert!(!page.contains(['\u{2028}', '\u{202e}', '\u{7}', '\u{1b}']));
    // All attributes are quoted, and no event handler is among them.
    assert!(!body.contains(" on") || !body.contains("onload="), "no handlers");
    for name in ["svg", "section", "details", "table", "li", "div", "g", "pre", "span"] {
        let count = |text: &str| body.matches(text).count();
        let opened = count(&format!("<{name}>")) + count(&format!("<{name} "));
        assert_eq!(opened, count(&format!("</{name}>")), "{name}");
    }
}

#[test]
fn the_policy_allows_the_page_s_own_script_and_style_only() {
    let page = page(&hostile());
    let policy =
        page.split("http-equiv=\"Content-Security-Policy\" content=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for resource in [" src=", "<link", "<img", "@import", "url(", "http://", "https://"] {
        assert!(!page.contains(resource), "{resource}");
    }
    assert!(!page.contains(" style="), "the policy would drop it");
}

#[test]
fn a_build_that_never_began_has_a_page() {
    let page = page(&Report { error: Some("no such stage".into()), ..report(None, Observed::default()) });
    assert!(page.contains("no such stage"));
}

#[test]
fn what_decides_the_time_is_found() {
    let timed = |digest: &str, inputs: &[&str], from: i64, to: i64| {
        let mut vertex = vertex(digest, Kind::Exec, (0, "s", 1), digest, inputs);
        let time = |milliseconds| Some(OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(milliseconds));
        (vertex.started, vertex.completed) = (time(from), time(to));
        vertex
    };
    let vertices = vec![
        timed("base", &[], 100, 200),
        timed("short", &["base"], 200, 1000),
        timed("long", &["base"], 200, 5000),
        // Its inputs were there at 5000; then it was read until 5500, and a lock and a slot were waited for.
        timed("last", &["short", "long"], 7000, 9000),
    ];
    let mut collector = Collector::default();
    for (digest, from, to) in [("load", 0, 90), ("export", 9000, 10_000)] {
        let event = VertexEvent {
            digest: digest.into(),
            name: digest.into(),
            started: Some(at(from)),
            completed: Some(at(to)),
            ..Default::default()
        };
        collector.see(&Event::Vertex(event));
    }
    let mut report = report(Some(Trace { vertices }), collector.finish());
    let waits = Waits { keyed: Some(at(5500)), locked: Some(at(6500)), running: Some(at(7000)) };
    report.waits.insert("last".into(), waits);
    let entries = entries(&report);
    let names: Vec<_> =
        entries.iter().map(|entry| entry.vertex.map_or(entry.name.as_str(), |v| v.digest.as_str())).collect();
    assert_eq!(names, ["load", "base", "short", "long", "last", "export"]);
    let path = critical_path(&entries);
    let seconds: Vec<_> = path.iter().map(|link| (names[link.entry], (link.seconds * 1000.0).round())).collect();
    let expected = [("load", 90.0), ("base", 110.0), ("long", 4800.0), ("last", 4000.0), ("export", 1000.0)];
    assert_eq!(seconds, expected);
    let waits: Vec<_> = entries[4].waits.iter().map(|wait| (wait.what, wait.from, wait.to)).collect();
    let expected = [
        (Waiting::Inputs, 1.0, 5.0),
        (Waiting::Reading, 5.0, 5.5),
        (Waiting::Lock, 5.5, 6.5),
        (Waiting::Slot, 6.5, 7.0),
    ];
    assert_eq!(waits, expected);
    assert_eq!(entries[4].seconds(), 2.0);
}

#[test]
fn large_logs_do_not_make_a_large_page() {
    let mut collector = Collector::default();
    let mut vertices = Vec::new();
    for step in 0..60 {
        let digest = format!("v{step}");
        vertices.push(vertex(&digest, Kind::Exec, (0, "s", step), "RUN x", &[]));
        let event = VertexEvent { digest: digest.clone(), started: Some(at(0)), ..Default::default() };
        collector.see(&Event::Vertex(event));
        let data = "0123456789 <&>\n".repeat(20_000).into_bytes();
        collector.see(&Event::Log(LogEvent { vertex: digest, stream: Stream::Stdout, data, timestamp: at(1) }));
    }
    vertices[7].state = State::Failed;
    let page = page(&report(Some(Trace { vertices }), collector.finish()));
    assert!(page.len() < 1_400_000, "{}", page.len());
    assert!(page.contains("lines are left out"));
}
