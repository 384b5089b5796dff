//! The table of steps, and what is known of each.

use super::{Context, MOST_OF_TEXT, seconds, size, state};
use crate::draw::cut;
use crate::draw::svg::escaped;
use crate::event::{StatusEvent, Stream};
use crate::report::collect::{Log, LogLine};
use crate::report::log;
use crate::report::reasons::{self, count};
use crate::report::timeline::{Entry, Waiting};
use crate::trace::State;
use std::fmt::Write;

/// How many bytes of output the page holds in all. When they are used up, steps show the last few lines only.
const MOST_OF_LOGS: usize = 448 << 10;
const LAST_LINES: usize = 15;

impl Context<'_> {
    pub fn steps(&self, out: &mut String) {
        out.push_str(
            "<section id=\"steps\" class=\"card\"><h2>Steps</h2>\n<div class=\"tools\"><label class=\"filter\">Filter <input type=\"search\" id=\"filter\" placeholder=\"text of steps, logs, states\" autocomplete=\"off\"></label><output id=\"found\" for=\"filter\"></output><div class=\"zoom\"><button type=\"button\" data-all=\"open\">open all</button><button type=\"button\" data-all=\"close\">close all</button></div></div>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table of steps\"><table id=\"table\"><thead><tr>",
        );
        let columns =
            [("#", "number"), ("Step", ""), ("State", ""), ("Began", "number"), ("Took", "number"), ("Why it ran", "")];
        for (position, (name, class)) in columns.iter().enumerate() {
            let sorted = if position == 0 { " aria-sort=\"ascending\"" } else { "" };
            let _ =
                write!(out, "<th scope=\"col\" class=\"{class}\"{sorted}><button type=\"button\">{name}</button></th>");
        }
        out.push_str("</tr></thead><tbody>\n");
        for index in 0..self.entries.len() {
            self.table_row(out, index);
        }
        out.push_str("</tbody></table></div>\n<div class=\"details\">\n");
        for (index, is_full) in self.full_logs().into_iter().enumerate() {
            self.details(out, index, is_full);
        }
        out.push_str("</div></section>\n");
    }

    fn table_row(&self, out: &mut String, index: usize) {
        let entry = &self.entries[index];
        let (class, word) = state(entry);
        let why: Vec<_> = entry
            .vertex
            .map(|vertex| vertex.reasons.as_slice())
            .unwrap_or_default()
            .iter()
            .map(reasons::brief)
            .collect();
        let began = entry.span.map(|span| span.0);
        let cell = |value: Option<f64>| match value {
            Some(value) => format!("<td class=\"number\" data-value=\"{value:.6}\">{}</td>", seconds(value)),
            None => "<td class=\"number\" data-value=\"-1\"></td>".to_owned(),
        };
        let _ = writeln!(
            out,
            "<tr data-for=\"e{index}\"><td class=\"number\" data-value=\"{index}\">{}</td><td>{}</td><td><span class=\"badge {class}\">{word}</span></td>{}{}<td>{}</td></tr>",
            index + 1,
            self.link(index, &entry.name),
            cell(began),
            cell(began.map(|_| entry.seconds())),
            escaped(&cut(&why.join("; "), 300))
        );
    }

    /// Which entries show all that is kept of their output: failed ones first, then in order, as long as there is room.
    fn full_logs(&self) -> Vec<bool> {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|index| !matches!(self.entries[*index].state, State::Failed | State::Cancelled));
        let mut full = vec![false; order.len()];
        let mut used = 0;
        for index in order {
            let bytes = self.entries[index].observed.map_or(0, |observed| observed.log.bytes());
            full[index] = used + bytes <= MOST_OF_LOGS;
            used += if full[index] { bytes } else { 0 };
        }
        full
    }

    fn details(&self, out: &mut String, index: usize, is_full: bool) {
        let entry = &self.entries[index];
        let (class, word) = state(entry);
        let critical = if self.critical.contains(&index) { " critical" } else { "" };
        let open = if entry.state == State::Failed { " open" } else { "" };
        let took = entry.span.filter(|_| entry.state != State::Cached).map(|_| seconds(entry.seconds()));
        let _ = writeln!(
            out,
            "<details id=\"e{index}\" class=\"step {class}{critical}\"{open}><summary><span class=\"badge {class}\">{word}</span><span class=\"name\">{}</span><span class=\"number\">{}</span></summary>",
            escaped(&cut(&entry.name, 300)),
            took.unwrap_or_default()
        );
        self.facts_of(out, entry);
        if let Some(error) =
            entry.vertex.and_then(|vertex| vertex.error.as_ref()).or_else(|| entry.observed?.event.error.as_ref())
        {
            let _ = writeln!(out, "<h3>Error</h3><pre class=\"failed\">{}</pre>", escaped(&cut(error, MOST_OF_TEXT)));
        }
        let reasons = entry.vertex.map(|vertex| vertex.reasons.as_slice()).unwrap_or_default();
        if !reasons.is_empty() {
            let link = |digest: &str| self.by_digest.get(digest).map(|entry| format!("#e{entry}"));
            let items: String =
                reasons.iter().map(|reason| format!("<li>{}</li>\n", reasons::whole(reason, &link))).collect();
            let _ = write!(out, "<h3>Why it ran</h3><ul class=\"reasons\">\n{items}</ul>\n");
        }
        if let Some(observed) = entry.observed {
            statuses(out, &observed.statuses);
            output(out, &observed.log, is_full);
        }
        out.push_str("</details>\n");
    }

    fn facts_of(&self, out: &mut String, entry: &Entry<'_>) {
        if let Some(instruction) =
            entry.vertex.filter(|vertex| vertex.is_step()).and_then(|vertex| vertex.instruction.as_ref())
        {
            let text = escaped(&cut(&instruction.text, MOST_OF_TEXT));
            let _ = writeln!(out, "<pre class=\"instruction\">{text}</pre>");
        }
        out.push_str("<dl class=\"facts\">\n");
        let mut fact = |name: &str, value: String| {
            let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        };
        if let Some(instruction) = entry.vertex.and_then(|vertex| vertex.instruction.as_ref()) {
            let platform = instruction.platform.as_ref().map(|platform| format!(" · {platform}")).unwrap_or_default();
            fact("Stage", escaped(&format!("{}{platform}", instruction.stage)));
            fact("Line", instruction.line.to_string());
        }
        if let Some(source) = entry.vertex.and_then(|vertex| vertex.source.as_ref()) {
            fact("Source", escaped(&cut(source, 500)));
        }
        if let Some((began, ended)) = entry.span {
            fact("Began", format!("after {}", seconds(began)));
            fact("Ended", format!("after {}", seconds(ended)));
        }
        for wait in &entry.waits {
            let what = match wait.what {
                Waiting::Inputs => "Waited for inputs",
                Waiting::Reading => "Read its inputs",
                Waiting::Lock => "Waited for a lock",
                Waiting::Slot => "Waited for a slot",
            };
            fact(what, seconds(wait.to - wait.from));
        }
        let last = entry.inputs.iter().copied().filter_map(|input| Some((self.entries[input].span?.1, input)));
        if let Some((_, last)) = last.max_by(|a, b| a.0.total_cmp(&b.0)) {
            fact("Last input", self.link(last, &cut(&self.entries[last].name, 100)));
        }
        out.push_str("</dl>\n");
    }
}

fn statuses(out: &mut String, statuses: &[StatusEvent]) {
    if statuses.is_empty() {
        return;
    }
    out.push_str("<h3>Parts</h3><ul class=\"statuses\">\n");
    for status in statuses {
        let bytes = match status.total.max(status.current) {
            0 => String::new(),
            bytes => format!(" · {}", size(bytes)),
        };
        let _ = writeln!(out, "<li>{}{bytes}</li>", escaped(&cut(&status.id, 300)));
    }
    out.push_str("</ul>\n");
}

fn output(out: &mut String, log: &Log, is_full: bool) {
    if log.is_empty() {
        return;
    }
    out.push_str("<h3>Output</h3><pre class=\"log\">");
    let all = log.head.len() + log.tail.len();
    let skipped = if is_full { 0 } else { all.saturating_sub(LAST_LINES) };
    let dropped = log.dropped + skipped;
    let note = |out: &mut String| {
        if dropped > 0 {
            let _ =
                writeln!(out, "<span class=\"note\">… {} left out …</span>", count(dropped, "line is", "lines are"));
        }
    };
    if skipped > 0 {
        note(out);
    }
    for (position, entry) in log.head.iter().chain(&log.tail).enumerate() {
        if position == log.head.len() && skipped == 0 {
            note(out);
        }
        if position >= skipped {
            line(out, entry);
        }
    }
    out.push_str("</pre>\n");
}

fn line(out: &mut String, line: &LogLine) {
    let class = if line.stream == Stream::Stderr { " class=\"err\"" } else { "" };
    let _ = writeln!(out, "<time{class}>{:.3}</time>{}", line.time.as_secs_f64(), log::line(&line.text));
}
