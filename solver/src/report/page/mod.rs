//! The page.

mod chart;
mod layers;
mod steps;

use super::Report;
use super::reasons::count;
use super::timeline::{self, Entry, Link};
use crate::draw::svg::{self, Links, escaped};
use crate::draw::{Drawing, cut, duration, minute};
use crate::record::Outcome;
use crate::trace::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

const STYLE: &str = concat!(include_str!("style.css"), include_str!("../../draw/svg.css"));
const SCRIPT: &str = include_str!("script.js");

/// More errors and warnings than that are cut off, in characters.
const MOST_OF_TEXT: usize = 20_000;

/// What sections share.
struct Context<'a> {
    report: &'a Report,
    entries: Vec<Entry<'a>>,
    path: Vec<Link>,
    critical: HashSet<usize>,
    by_digest: HashMap<&'a str, usize>,
    /// In seconds; never 0.
    total: f64,
}

/// One HTML document, which needs nothing else and asks for nothing.
pub fn page(report: &Report) -> String {
    let entries = timeline::entries(report);
    let path = timeline::critical_path(&entries);
    let critical = path.iter().map(|link| link.entry).collect();
    let by_digest =
        entries.iter().enumerate().filter_map(|(index, entry)| Some((entry.vertex?.digest.as_str(), index)));
    let by_digest = by_digest.collect();
    let total = timeline::total(report).as_secs_f64().max(0.001);
    let context = Context { report, entries, path, critical, by_digest, total };
    let mut out = String::with_capacity(256 << 10);
    context.head(&mut out);
    context.header(&mut out);
    if !context.entries.is_empty() {
        context.critical_path(&mut out);
        context.chart(&mut out);
        context.graph(&mut out);
        context.steps(&mut out);
    }
    context.layers(&mut out);
    context.warnings(&mut out);
    let version = escaped(&report.version);
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "</main>\n<footer>Made by {version}. This page is complete: it loads nothing.</footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    );
    out
}

/// The source of a script or style that is allowed: its hash.
fn allowed(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(oci::Digest::of(text.as_bytes()).bytes()))
}

impl Context<'_> {
    fn head(&self, out: &mut String) {
        let _ = write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>{} · rbuild</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
            allowed(SCRIPT),
            allowed(STYLE),
            escaped(&cut(&self.title(), 200))
        );
    }

    fn title(&self) -> String {
        match self.report.names.first() {
            Some(name) => name.clone(),
            None => {
                let context = &self.report.identity.context;
                let last = context.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                format!("Build of {}", if last.is_empty() { context } else { last })
            }
        }
    }

    fn header(&self, out: &mut String) {
        let report = self.report;
        let (class, word) = match report.outcome {
            Outcome::Succeeded => ("ran", "succeeded"),
            Outcome::Failed => ("failed", "failed"),
            Outcome::Cancelled => ("cancelled", "cancelled"),
        };
        let time = duration(Duration::from_secs_f64(self.total));
        let _ = write!(
            out,
            "<header>\n<h1>{} <span class=\"badge {class}\">{word}</span></h1>\n<nav aria-label=\"Sections\">",
            escaped(&self.title())
        );
        let has_steps = !self.entries.is_empty();
        let sections = [
            (has_steps, "time", "Time"),
            (has_steps, "timeline", "Timeline"),
            (has_steps && report.trace.is_some(), "graph", "Graph"),
            (has_steps, "steps", "Steps"),
            (!report.images.is_empty(), "layers", "Layers"),
        ];
        for (_, id, name) in sections.iter().filter(|(is_there, ..)| *is_there) {
            let _ = write!(out, "<a href=\"#{id}\">{name}</a>");
        }
        out.push_str("</nav>\n</header>\n<main>\n<section class=\"tiles\" aria-label=\"Result\">\n");
        let steps = || self.entries.iter().filter(|entry| entry.vertex.is_some_and(|vertex| vertex.is_step()));
        let number = |state: State| steps().filter(|entry| entry.state == state).count();
        let mut tiles = vec![("", time, "in all".to_owned())];
        tiles.push(("ran", number(State::Ran).to_string(), "ran".into()));
        tiles.push(("cached", number(State::Cached).to_string(), "cached".into()));
        for (state, class, word) in [
            (State::Failed, "failed", "failed"),
            (State::Cancelled, "cancelled", "cancelled"),
            (State::NotReached, "", "not reached"),
        ] {
            if number(state) > 0 {
                tiles.push((class, number(state).to_string(), word.into()));
            }
        }
        for (class, number, word) in tiles {
            let _ = writeln!(out, "<p class=\"tile {class}\"><strong>{number}</strong> {word}</p>");
        }
        out.push_str("</section>\n");
        if let Some(error) = &report.error {
            let _ = writeln!(
                out,
                "<section class=\"error\" role=\"alert\"><h2>Why it {}</h2><pre>{}</pre></section>",
                if report.outcome == Outcome::Cancelled { "ended" } else { "failed" },
                escaped(&cut(error, MOST_OF_TEXT))
            );
        }
        self.facts(out);
    }

    fn facts(&self, out: &mut String) {
        let report = self.report;
        let identity = &report.identity;
        let mut facts: Vec<(&str, String)> = Vec::new();
        if !report.names.is_empty() {
            facts.push((if report.names.len() == 1 { "Name" } else { "Names" }, report.names.join(", ")));
        }
        facts.extend(report.digest.clone().map(|digest| ("Digest", digest)));
        let platforms: Vec<_> = match identity.platforms.is_empty() {
            true => report.images.iter().map(|image| image.platform.clone()).collect(),
            false => identity.platforms.clone(),
        };
        if !platforms.is_empty() {
            facts.push((if platforms.len() == 1 { "Platform" } else { "Platforms" }, platforms.join(", ")));
        }
        facts.extend(identity.target.clone().map(|target| ("Target", target)));
        facts.push(("Dockerfile", identity.dockerfile.clone()));
        facts.push(("Context", identity.context.clone()));
        facts.push(("Started", minute(report.started.into())));
        out.push_str("<dl class=\"facts\">\n");
        for (name, value) in facts {
            let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value));
        }
        out.push_str("</dl>\n");
    }

    /// The links that matter, and what they make up together.
    fn critical_path(&self, out: &mut String) {
        let mut longest: Vec<&Link> = self.path.iter().filter(|link| link.seconds >= 0.01 * self.total).collect();
        longest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let mut sum = 0.0;
        let enough = longest.iter().position(|link| {
            sum += link.seconds;
            sum >= 0.9 * self.total
        });
        longest.truncate(enough.map_or(longest.len(), |last| last + 1).clamp(1, 12));
        let chosen: Vec<&Link> = self.path.iter().filter(|link| longest.contains(link)).collect();
        let share = 100.0 * chosen.iter().map(|link| link.seconds).sum::<f64>() / self.total;
        out.push_str("<section id=\"time\" class=\"card\"><h2>Where the time went</h2>\n");
        let lead = match chosen.len() {
            0 => "Nothing took long.".to_owned(),
            1 => format!("This step makes up {share:.0} % of the time. Making another one faster gains little."),
            count => format!(
                "These {count} steps make up {share:.0} % of the time: each had to wait for the one before. Making another one faster gains little."
            ),
        };
        let _ = write!(out, "<p>{lead}</p>\n<ol class=\"path\">\n");
        for link in chosen {
            let entry = &self.entries[link.entry];
            let share = 100.0 * link.seconds / self.total;
            let _ = writeln!(
                out,
                "<li><svg class=\"share\" width=\"100%\" height=\"100%\" aria-hidden=\"true\"><rect width=\"{share:.2}%\" height=\"100%\"/></svg><span class=\"number\">{}</span><span class=\"number\">{share:.0} %</span>{}</li>",
                seconds(link.seconds),
                self.link(link.entry, &entry.name)
            );
        }
        out.push_str("</ol></section>\n");
    }

    fn graph(&self, out: &mut String) {
        let Some(trace) = &self.report.trace else { return };
        let drawing = Drawing::new(trace);
        let entry = |node: usize| self.by_digest.get(drawing.nodes[node].digest.as_str()).copied();
        let target = |node: usize| entry(node).map_or_else(|| "#steps".to_owned(), |entry| format!("#e{entry}"));
        let critical =
            (0..drawing.nodes.len()).filter(|node| entry(*node).is_some_and(|entry| self.critical.contains(&entry)));
        let links = Links { target: Some(&target), critical: critical.collect() };
        let _ = write!(
            out,
            "<section id=\"graph\" class=\"card\"><h2>Stages and steps</h2>\n<p>A step leads to its details. Lines lead from what a step goes on from; dashed ones from what it takes files of. The critical path is <span class=\"critical\">violet</span>.</p>\n<div class=\"tools\"><div class=\"zoom\"><button type=\"button\" data-scale=\"out\">−<span class=\"hidden\"> zoom out</span></button><button type=\"button\" data-scale=\"in\">+<span class=\"hidden\"> zoom in</span></button><button type=\"button\" data-scale=\"fit\">fit</button></div></div>\n<div class=\"scroll\" id=\"drawing\" tabindex=\"0\" role=\"region\" aria-label=\"Graph\">{}</div></section>\n",
            svg::inline(&drawing, &links)
        );
    }

    fn warnings(&self, out: &mut String) {
        let warnings = &self.report.observed.warnings;
        if warnings.is_empty() {
            return;
        }
        let _ = write!(
            out,
            "<section id=\"warnings\" class=\"card\"><h2>{}</h2>\n<ul>\n",
            count(warnings.len(), "warning", "warnings")
        );
        for warning in warnings {
            let _ = writeln!(out, "<li>{}</li>", escaped(&cut(warning, MOST_OF_TEXT)));
        }
        out.push_str("</ul></section>\n");
    }

    fn link(&self, entry: usize, text: &str) -> String {
        format!("<a class=\"name\" href=\"#e{entry}\">{}</a>", escaped(&cut(text, 300)))
    }
}

fn seconds(seconds: f64) -> String {
    duration(Duration::from_secs_f64(seconds.max(0.0)))
}

/// `10.9 MB`, in powers of 1000.
fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if number < 999.5 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{number:.1} {unit}") };
        }
        number /= 1000.0;
    }
    format!("{number:.1} TB")
}

/// The class and the word of a state.
fn state(entry: &Entry<'_>) -> (&'static str, &'static str) {
    match entry.state {
        State::Cached => ("cached", "cached"),
        State::Ran if entry.vertex.is_some_and(|vertex| vertex.is_step()) => ("ran", "ran"),
        State::Ran => ("other", "done"),
        State::Failed => ("failed", "failed"),
        State::Cancelled => ("cancelled", "cancelled"),
        State::NotReached => ("unreached", "not reached"),
    }
}
