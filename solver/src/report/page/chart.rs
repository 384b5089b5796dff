//! The timeline: a row for each entry, with a bar for the time in which it ran and lines for what it waited for.

use super::{Context, seconds, state};
use crate::draw::cut;
use crate::draw::svg::escaped;
use crate::report::timeline::Waiting;
use crate::trace::State;
use std::fmt::Write;

/// How many marks the axis has at most.
const MARKS: f64 = 10.0;
/// What part of the width is time, in per cent. Beside that there is room for the text of a bar that ends with the build.
const WIDTH: f64 = 93.0;

impl Context<'_> {
    pub fn chart(&self, out: &mut String) {
        out.push_str(
            "<section id=\"timeline\" class=\"card\"><h2>Timeline</h2>\n<div class=\"tools\"><ul class=\"legend\"><li><i class=\"key ran\"></i>ran</li><li><i class=\"key cached\"></i>cached</li><li><i class=\"key failed\"></i>failed</li><li><i class=\"key cancelled\"></i>cancelled</li><li><i class=\"key other\"></i>rbuild’s own</li><li><i class=\"key inputs\"></i>waits for inputs</li><li><i class=\"key reading\"></i>reads inputs</li><li><i class=\"key lock\"></i>waits for a lock or a slot</li><li><i class=\"key critical\"></i>critical path</li></ul>\n<div class=\"zoom\"><button type=\"button\" data-zoom=\"out\">−<span class=\"hidden\"> zoom out</span></button><button type=\"button\" data-zoom=\"in\">+<span class=\"hidden\"> zoom in</span></button><button type=\"button\" data-zoom=\"fit\">fit</button></div></div>\n<div class=\"scroll chart\" tabindex=\"0\" role=\"region\" aria-label=\"Timeline\"><div class=\"lanes\" id=\"lanes\">\n",
        );
        self.axis(out);
        out.push_str("<ol>\n");
        for index in 0..self.entries.len() {
            if self.entries[index].span.is_some() {
                self.row(out, index);
            }
        }
        out.push_str("</ol></div></div></section>\n");
    }

    fn axis(&self, out: &mut String) {
        out.push_str("<div class=\"axis\" aria-hidden=\"true\"><span></span><svg width=\"100%\" height=\"18\">");
        for mark in self.marks() {
            let at = WIDTH * mark / self.total;
            let anchor = if mark == 0.0 { "start" } else { "middle" };
            let _ = write!(out, "<text x=\"{at:.3}%\" y=\"13\" text-anchor=\"{anchor}\">{}</text>", mark_text(mark));
        }
        out.push_str("</svg></div>\n");
    }

    /// At round numbers of seconds.
    fn marks(&self) -> Vec<f64> {
        let least = self.total / MARKS;
        let power = 10f64.powf(least.log10().floor());
        let minutes = [60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0];
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let round = steps.into_iter().filter(|step| least <= 30.0 || *step < 60.0).chain(minutes);
        let step = round.filter(|step| *step >= least).fold(f64::INFINITY, f64::min).min(least.max(3600.0));
        (0..).map(|mark| f64::from(mark) * step).take_while(|mark| *mark <= self.total).take(40).collect()
    }

    fn row(&self, out: &mut String, index: usize) {
        let entry = &self.entries[index];
        let (Some(span), Some((from, to))) = (entry.span, entry.running()) else { return };
        let (class, word) = state(entry);
        let critical = if self.critical.contains(&index) { " critical" } else { "" };
        let percent = |at: f64| WIDTH * at / self.total;
        let _ = write!(out, "<li class=\"{class}{critical}\">{}", self.link(index, &entry.name));
        let _ = write!(
            out,
            "<svg width=\"100%\" height=\"22\" aria-hidden=\"true\"><title>{}</title>",
            escaped(&cut(&entry.name, 300))
        );
        for wait in &entry.waits {
            let kind = match wait.what {
                Waiting::Inputs => "inputs",
                Waiting::Reading => "reading",
                Waiting::Lock | Waiting::Slot => "lock",
            };
            let (y, height) = if wait.what == Waiting::Inputs { (10.0, 2.0) } else { (7.0, 8.0) };
            let _ = write!(
                out,
                "<rect class=\"{kind}\" x=\"{:.3}%\" y=\"{y}\" width=\"{:.3}%\" height=\"{height}\"/>",
                percent(wait.from),
                percent(wait.to - wait.from)
            );
        }
        // What took no time at all is still to be seen.
        let width = percent(to - from);
        let _ = write!(out, "<rect class=\"least\" x=\"{:.3}%\" y=\"4\" width=\"2\" height=\"14\"/>", percent(from));
        let _ = write!(
            out,
            "<rect class=\"run\" x=\"{:.3}%\" y=\"4\" width=\"{width:.3}%\" height=\"14\" rx=\"2\"/>",
            percent(from)
        );
        let text = match entry.state {
            State::Cached => "cached".to_owned(),
            _ => seconds(to - from),
        };
        let _ = write!(out, "<text x=\"{:.3}%\" dx=\"6\" y=\"15\">{text}</text>", percent(to));
        let _ = writeln!(
            out,
            "</svg><span class=\"hidden\">{word}, began at {}, {}</span></li>",
            seconds(span.0),
            seconds(to - from)
        );
    }
}

fn mark_text(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 59.5 => format!("{} s", (s * 10.0).round() / 10.0),
        s if s % 60.0 < 0.5 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} min {:.0} s", (s / 60.0).floor(), s % 60.0),
    }
}
