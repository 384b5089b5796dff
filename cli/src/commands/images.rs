use super::inspect::Document;
use crate::app::{App, familiar};
use crate::error::Result;
use crate::stdout;
use cache::StoredImage;
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct ImagesArgs {
    /// Show ids only
    #[arg(short, long)]
    pub quiet: bool,

    /// Show the digests of manifests too
    #[arg(long)]
    pub digests: bool,

    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
}

struct Row {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    created: String,
    size: String,
}

pub fn run(args: &ImagesArgs, app: &App) -> Result<ExitCode> {
    let mut rows = Vec::new();
    for image in app.store.images()? {
        rows.extend(rows_of(app, &image, args)?);
    }
    rows.sort_by(|a, b| (&a.repository, &a.tag).cmp(&(&b.repository, &b.tag)));
    if args.quiet {
        let mut ids: Vec<_> = rows.into_iter().map(|row| row.id).collect();
        ids.dedup();
        stdout::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = vec![vec!["REPOSITORY".to_owned(), "TAG".into()]];
    if args.digests {
        table[0].push("DIGEST".into());
    }
    table[0].extend(["IMAGE ID", "CREATED", "SIZE"].map(str::to_owned));
    for row in rows {
        let mut cells = vec![row.repository, row.tag];
        if args.digests {
            cells.push(row.digest);
        }
        cells.extend([row.id, row.created, row.size]);
        table.push(cells);
    }
    stdout::table(&table)?;
    Ok(ExitCode::SUCCESS)
}

fn rows_of(app: &App, image: &StoredImage, args: &ImagesArgs) -> Result<Vec<Row>> {
    let digest = image.descriptor.digest().to_string();
    // An image that cannot be read is listed all the same.
    let document = Document::read(app, &image.descriptor, None).ok();
    let id = document.as_ref().map_or(digest.clone(), |document| document.id.clone());
    let id = if args.no_trunc { id } else { id.trim_start_matches("sha256:").chars().take(12).collect() };
    let created = document.as_ref().and_then(|document| document.config.created.clone()).unwrap_or_default();
    let created: String = created.chars().take(19).collect();
    let size = document.map_or(0, |document| document.size);
    let names = if image.names.is_empty() { vec!["<none>:<none>".to_owned()] } else { image.names.clone() };
    Ok(names
        .into_iter()
        .map(|name| {
            let (repository, tag) = split_tag(&familiar(&name));
            Row {
                repository,
                tag,
                digest: digest.clone(),
                id: id.clone(),
                created: created.replace('T', " "),
                size: size_text(size),
            }
        })
        .collect())
}

/// A name without a tag has the tag `latest`.
fn split_tag(name: &str) -> (String, String) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name.to_owned(), "latest".to_owned()),
    }
}

/// `12.3MB`.
pub fn size_text(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if number < 1000.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{number:.1}{unit}") };
        }
        number /= 1000.0;
    }
    format!("{number:.1}TB")
}
