//! What the layers of the result hold.

use super::{Context, size};
use crate::draw::cut;
use crate::draw::svg::escaped;
use crate::report::reasons::count;
use crate::report::{ImageContents, LayerContents};
use std::fmt::Write;

impl Context<'_> {
    pub fn layers(&self, out: &mut String) {
        if self.report.images.is_empty() {
            return;
        }
        out.push_str("<section id=\"layers\" class=\"card\"><h2>Layers of the result</h2>\n");
        for image in &self.report.images {
            if self.report.images.len() > 1 {
                let _ = writeln!(out, "<h3>{}</h3>", escaped(&image.platform));
            }
            self.image(out, image);
        }
        out.push_str("</section>\n");
    }

    fn image(&self, out: &mut String, image: &ImageContents) {
        let bytes = |layer: &LayerContents| layer.size.or(layer.packed).unwrap_or(0);
        let total: u64 = image.layers.iter().map(bytes).sum();
        let largest = image.layers.iter().map(bytes).max().unwrap_or(0).max(1);
        let _ = write!(out, "<p>{} of files in {}.", size(total), count(image.layers.len(), "layer", "layers"));
        if image.hidden > 0 {
            let share = 100.0 * image.hidden as f64 / total.max(1) as f64;
            let _ = write!(
                out,
                " <strong>{}</strong> of it ({share:.0} %) cannot be seen in the image: later layers replace or delete it.",
                size(image.hidden)
            );
        }
        if image.is_partial {
            out.push_str(" There are so many files that not all were looked at.");
        }
        out.push_str("</p>\n<ol class=\"layers\">\n");
        for layer in &image.layers {
            let share = 100.0 * bytes(layer) as f64 / largest as f64;
            let _ = writeln!(
                out,
                "<li><div class=\"layer\"><svg class=\"share\" width=\"100%\" height=\"100%\" aria-hidden=\"true\"><rect width=\"{share:.2}%\" height=\"100%\"/></svg><span class=\"number\">{}</span>{}</div>",
                self.layer_size(layer),
                self.maker(layer)
            );
            if !layer.biggest.is_empty() {
                let _ = writeln!(
                    out,
                    "<details><summary>{} · biggest files</summary>",
                    count(layer.entries, "entry", "entries")
                );
                files(out, layer.biggest.iter().map(|(path, bytes)| (path.as_str(), *bytes)));
                out.push_str("</details>");
            }
            out.push_str("</li>\n");
        }
        out.push_str("</ol>\n");
        if !image.hidden_files.is_empty() {
            out.push_str("<details><summary>The biggest hidden files</summary>\n");
            let hidden =
                image.hidden_files.iter().map(|(path, bytes, layer)| (format!("{path} (layer {})", layer + 1), *bytes));
            let hidden: Vec<_> = hidden.collect();
            files(out, hidden.iter().map(|(path, bytes)| (path.as_str(), *bytes)));
            out.push_str("</details>\n");
        }
    }

    fn layer_size(&self, layer: &LayerContents) -> String {
        match (layer.size, layer.packed) {
            (Some(bytes), _) => size(bytes),
            (None, Some(bytes)) => format!("{} packed", size(bytes)),
            (None, None) => "?".into(),
        }
    }

    /// The step or the image that a layer comes from.
    fn maker(&self, layer: &LayerContents) -> String {
        let made = self.entries.iter().position(|entry| {
            entry.vertex.is_some_and(|vertex| vertex.is_step() && vertex.result.as_deref() == Some(&layer.id))
        });
        match (&layer.image, made) {
            (Some(image), _) => format!("<span class=\"name\">of {}</span>", escaped(&cut(image, 200))),
            (None, Some(entry)) => self.link(entry, &self.entries[entry].name),
            (None, None) => format!("<span class=\"name\">{}</span>", escaped(&cut(&layer.id, 80))),
        }
    }
}

fn files<'a>(out: &mut String, files: impl Iterator<Item = (&'a str, u64)>) {
    out.push_str("<ul class=\"files\">\n");
    for (path, bytes) in files {
        let _ = writeln!(
            out,
            "<li><span class=\"number\">{}</span><code>{}</code></li>",
            size(bytes),
            escaped(&cut(path, 400))
        );
    }
    out.push_str("</ul>\n");
}
