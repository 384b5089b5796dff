use super::images::size_text;
use super::inspect::Document;
use crate::app::App;
use crate::error::Result;
use crate::stdout;
use clap::Args;
use oci::Platform;
use std::process::ExitCode;

#[derive(Args)]
pub struct HistoryArgs {
    /// Name or id of an image
    pub image: String,

    /// Of an image for several platforms, the one to show (default: this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,

    /// Show whole commands
    #[arg(long)]
    pub no_trunc: bool,
}

pub fn run(args: &HistoryArgs, app: &App) -> Result<ExitCode> {
    let found = app.find(&args.image)?;
    let document = Document::read(app, &found.image.descriptor, args.platform.as_ref())?;
    let mut layers = document.manifest.layers().iter();
    let mut rows = Vec::new();
    for entry in &document.config.history {
        let size = if entry.empty_layer { 0 } else { layers.next().map_or(0, oci::Descriptor::size) };
        let text = entry.created_by.as_deref().unwrap_or_default().replace(['\n', '\t'], " ");
        let text = if args.no_trunc || text.chars().count() <= 60 {
            text
        } else {
            text.chars().take(59).chain(['…']).collect()
        };
        let created: String = entry.created.as_deref().unwrap_or_default().chars().take(19).collect();
        let comment = entry.comment.clone().unwrap_or_default();
        rows.push(vec!["<missing>".to_owned(), created.replace('T', " "), text, size_text(size), comment]);
    }
    // The newest first; it alone has an id.
    rows.reverse();
    if let Some(first) = rows.first_mut() {
        first[0] = document.id.trim_start_matches("sha256:").chars().take(12).collect();
    }
    rows.insert(0, ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec());
    stdout::table(&rows)?;
    Ok(ExitCode::SUCCESS)
}
