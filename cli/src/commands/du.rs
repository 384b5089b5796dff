//! What the cache holds, and how much room it takes (R7.7.10, R10.3.3).

use super::images::size_text;
use crate::app::App;
use crate::error::{CliError, Result};
use crate::{limits, stdout};
use cache::{CacheRecord, Filter, Inventory, Kind};
use clap::{Args, ValueEnum};
use executor::container::Container;
use serde_json::json;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Args)]
pub struct DuArgs {
    /// Show only what matches: id, parents, type, description, inuse, mutable, immutable, shared or private, with
    /// =VALUE, !=VALUE, ~=REGEX or nothing, or until=24h; several must all match
    #[arg(long = "filter", value_name = "FILTER")]
    pub filters: Vec<String>,

    /// Show all that is known of each
    #[arg(long, conflicts_with = "format")]
    pub verbose: bool,

    /// How to show it
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Format {
    /// One line each, and sums
    Table,
    /// All that is known, as with --verbose
    Pretty,
    /// One JSON object a line
    Json,
}

pub fn run(args: &DuArgs, app: &App) -> Result<ExitCode> {
    let (filters, unused_for) = parse_filters(&args.filters)?;
    let Inventory { mut records, images } = app.store.inventory(&Container::images)?;
    let now = now();
    records.retain(|record| {
        filters.iter().all(|filter| filter.matches(record)) && record.last_used <= now.saturating_sub(unused_for)
    });
    // As BuildKit's, the largest first.
    records.sort_by(|a, b| (b.size, &b.id).cmp(&(a.size, &a.id)));
    match args.format.unwrap_or(if args.verbose { Format::Pretty } else { Format::Table }) {
        Format::Json => {
            let lines: String = records.iter().map(|record| format!("{}\n", as_json(record))).collect();
            return stdout::print(&lines).map(|()| ExitCode::SUCCESS);
        }
        Format::Pretty => records.iter().try_for_each(|record| stdout::print(&pretty(record)))?,
        Format::Table => {
            let rows = records.iter().map(|record| row(record, args.no_trunc));
            stdout::table(&std::iter::once(header()).chain(rows).collect::<Vec<_>>())?;
        }
    }
    if args.filters.is_empty() {
        if !records.is_empty() {
            stdout::print("\n")?;
            stdout::table(&kinds(&records))?;
        }
        stdout::print("\n")?;
        stdout::table(&sums(&records, images))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The filters, and for how many milliseconds things must not have been used (`until`).
pub fn parse_filters(texts: &[String]) -> Result<(Vec<Filter>, i64)> {
    let (mut filters, mut unused_for) = (Vec::new(), None);
    for text in texts {
        let time = ["until=", "unused-for="].iter().find_map(|key| text.strip_prefix(key));
        match time {
            Some(_) if unused_for.is_some() => {
                return Err(CliError::Usage("the filter until is given twice: one time is enough".into()));
            }
            Some(time) => {
                let time = limits::duration(time)
                    .map_err(|problem| CliError::Usage(format!("invalid filter {text:?}: {problem}")))?;
                unused_for = Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
            }
            None => filters.push(Filter::parse(text).map_err(|error| CliError::Usage(error.to_string()))?),
        }
    }
    Ok((filters, unused_for.unwrap_or(0)))
}

pub fn header() -> Vec<String> {
    ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED", "DESCRIPTION"].map(str::to_owned).into()
}

/// R7.7.10: what changes has a star at its id, what images share at its size.
pub fn row(record: &CacheRecord, is_whole: bool) -> Vec<String> {
    let star = |is_so: bool| if is_so { "*" } else { "" };
    vec![
        format!("{}{}", if is_whole { &record.id } else { short(&record.id) }, star(record.is_mutable())),
        (!record.in_use).to_string(),
        format!("{}{}", size_text(record.size), star(record.shared)),
        ago(record.last_used),
        one_line(&record.description),
    ]
}

/// Enough of an id for a filter.
fn short(id: &str) -> &str {
    let end = id.find(['-', ':']).map_or(12, |prefix| prefix + 13);
    id.get(..end).unwrap_or(id)
}

fn one_line(text: &str) -> String {
    const MOST: usize = 80;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

pub fn pretty(record: &CacheRecord) -> String {
    let mut lines = vec![("ID", record.id.clone())];
    lines.extend(record.parent().map(|parent| ("Parents", parent.to_owned())));
    lines.extend([
        ("Created at", date(record.created)),
        ("Mutable", record.is_mutable().to_string()),
        ("Reclaimable", (!record.in_use).to_string()),
        ("Shared", record.shared.to_string()),
        ("Size", size_text(record.size)),
        ("Description", record.description.clone()),
        ("Usage count", record.uses.to_string()),
        ("Last used", ago(record.last_used)),
        ("Type", record.kind.to_string()),
    ]);
    lines.into_iter().map(|(name, value)| format!("{:<14}{value}\n", format!("{name}:"))).collect::<String>() + "\n"
}

/// buildx's members, and numbers for programs.
fn as_json(record: &CacheRecord) -> serde_json::Value {
    json!({
        "ID": record.id,
        "Parents": record.parent().into_iter().collect::<Vec<_>>(),
        "CreatedAt": date(record.created),
        "Mutable": record.is_mutable(),
        "Reclaimable": !record.in_use,
        "Shared": record.shared,
        "Size": size_text(record.size),
        "Bytes": record.size,
        "Description": record.description,
        "UsageCount": record.uses,
        "LastUsedAt": ago(record.last_used),
        "LastUsed": date(record.last_used),
        "Type": record.kind.name(),
    })
}

fn kinds(records: &[CacheRecord]) -> Vec<Vec<String>> {
    let mut table = vec![["TYPE", "COUNT", "SIZE", "RECLAIMABLE"].map(str::to_owned).to_vec()];
    for kind in Kind::ALL {
        let of_kind: Vec<_> = records.iter().filter(|record| record.kind == kind).collect();
        let bytes: u64 = of_kind.iter().map(|record| record.size).sum();
        let free: u64 = of_kind.iter().filter(|record| !record.in_use).map(|record| record.size).sum();
        if !of_kind.is_empty() {
            table.push(vec![kind.to_string(), of_kind.len().to_string(), size_text(bytes), size_text(free)]);
        }
    }
    table
}

fn sums(records: &[CacheRecord], images: u64) -> Vec<Vec<String>> {
    let sum = |is_meant: &dyn Fn(&CacheRecord) -> bool| -> u64 {
        records.iter().filter(|record| is_meant(record)).map(|record| record.size).sum()
    };
    let (total, shared) = (sum(&|_| true), sum(&|record| record.shared));
    let mut table = Vec::new();
    if shared > 0 {
        table.push(("Shared:", shared));
        table.push(("Private:", total - shared));
    }
    table.push(("Reclaimable:", sum(&|record| !record.in_use)));
    table.push(("Total:", total));
    if images > 0 {
        table.push(("Images, not counted:", images));
    }
    table.into_iter().map(|(name, bytes)| vec![name.to_owned(), size_text(bytes)]).collect()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn ago(time: i64) -> String {
    format!("{} ago", super::ps::span(time::Duration::milliseconds(now().saturating_sub(time))))
}

fn date(time: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp(time / 1000).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let parse = |texts: &[&str]| parse_filters(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let (filters, unused_for) = parse(&["type=regular", "until=1h30m"]).unwrap();
        assert_eq!((filters.len(), unused_for), (1, 5_400_000));
        for (texts, problem) in [
            (&["until=tomorrow"][..], "such as 90s"),
            (&["until=1h", "unused-for=2h"], "twice"),
            (&["utnil=1h"], "did you mean until?"),
        ] {
            let Err(CliError::Usage(message)) = parse(texts) else { panic!("{texts:?}") };
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn ids_are_short_in_tables() {
        assert_eq!(short("sha256:0123456789abcdef"), "sha256:0123456789ab");
        assert_eq!(short("layer-0123456789abcdef"), "layer-0123456789ab");
        assert_eq!(short("layer-01"), "layer-01");
        assert_eq!(one_line("RUN a \\\n  b"), "RUN a \\ b");
    }
}
