use crate::error::{CliError, Result};
use crate::stdout;
use cache::Store;
use clap::{Args, ValueEnum};
use executor::container::record::{State, Status};
use executor::container::{Container, short};
use serde_json::json;
use std::process::ExitCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Args)]
pub struct PsArgs {
    /// Show those that have ended, too
    #[arg(short, long)]
    pub all: bool,

    /// Show ids only
    #[arg(short, long)]
    pub quiet: bool,

    /// Show whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,

    /// json: one object a line
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,

    /// Show those of which this is true: id, name, ancestor (the image), status, exited (the code) or label
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

pub fn run(args: &PsArgs, store: &Store) -> Result<ExitCode> {
    let filters: Vec<(&str, &str)> = args.filters.iter().map(|text| filter(text)).collect::<Result<_>>()?;
    // As docker has it: who asks for a status means all that have it.
    let all = args.all || filters.iter().any(|(key, _)| matches!(*key, "status" | "exited"));
    let mut shown = Container::all(store)?;
    shown.retain(|container| (all || container.is_running()) && matches(container, &filters));
    let id = |container: &Container| {
        let id = container.directory.id();
        if args.no_trunc { id.to_owned() } else { short(id).to_owned() }
    };
    let now = OffsetDateTime::now_utc();
    if args.quiet {
        stdout::print(&shown.iter().map(|container| format!("{}\n", id(container))).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.format == Format::Json {
        for container in &shown {
            stdout::line(document(container, id(container), now))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table =
        vec![["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"].map(str::to_owned).to_vec()];
    for container in &shown {
        let mut command = container.record.command().join(" ");
        if !args.no_trunc && command.chars().count() > 20 {
            command = command.chars().take(19).chain(['…']).collect();
        }
        // What a command holds must not reach the terminal as it is.
        let command = format!("{command:?}");
        let created = format!("{} ago", span(now - container.record.created));
        let name = container.called().to_owned();
        table.push(vec![
            id(container),
            container.record.image.clone(),
            command,
            created,
            status(&container.state, now),
            name,
        ]);
    }
    stdout::table(&table)?;
    Ok(ExitCode::SUCCESS)
}

fn document(container: &Container, id: String, now: OffsetDateTime) -> serde_json::Value {
    let (record, state) = (&container.record, &container.state);
    json!({
        "ID": id,
        "Names": container.called(),
        "Image": record.image,
        "Command": record.command(),
        "CreatedAt": record.created.format(&Rfc3339).unwrap_or_default(),
        "State": state.status.name(),
        "Status": status(state, now),
        "ExitCode": (state.status != Status::Running && state.status != Status::Created).then(|| state.code()),
        "Labels": record.config.labels,
    })
}

fn filter(text: &str) -> Result<(&str, &str)> {
    const KEYS: [&str; 6] = ["id", "name", "ancestor", "status", "exited", "label"];
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if KEYS.contains(&key) && !value.is_empty() {
        return Ok((key, value));
    }
    Err(CliError::Usage(format!("invalid filter {text:?}: expected KEY=VALUE with one of {}", KEYS.join(", "))))
}

/// Of filters with one key, one must hold; but for labels, of which all must.
fn matches(container: &Container, filters: &[(&str, &str)]) -> bool {
    let (record, state) = (&container.record, &container.state);
    let holds = |key: &str, value: &str| match key {
        "id" => record.id.starts_with(value),
        "name" => container.called().contains(value),
        "ancestor" => record.image == value || crate::app::familiar(&record.reference) == crate::app::familiar(value),
        "status" => state.status.name() == value,
        "exited" => matches!(state.status, Status::Exited | Status::Dead) && value.parse() == Ok(state.code()),
        _ => match value.split_once('=') {
            Some((name, value)) => record.config.labels.get(name).is_some_and(|found| found == value),
            None => record.config.labels.contains_key(value),
        },
    };
    filters.iter().all(|(key, value)| match *key {
        "label" => holds(key, value),
        key => filters.iter().any(|(other, value)| *other == key && holds(key, value)),
    })
}

fn status(state: &State, now: OffsetDateTime) -> String {
    let since = |time: Option<OffsetDateTime>| time.map_or_else(String::new, |time| span(now - time));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", since(state.started)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.ended)),
        Status::Dead => "Dead".to_owned(),
    }
}

pub fn span(duration: time::Duration) -> String {
    let seconds = duration.whole_seconds().max(0);
    for (unit, length) in [("day", 86_400), ("hour", 3600), ("minute", 60)] {
        let count = seconds / length;
        if count > 0 {
            return format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
        }
    }
    format!("{seconds} second{}", if seconds == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in
            [(-3, "0 seconds"), (1, "1 second"), (59, "59 seconds"), (119, "1 minute"), (7200, "2 hours")]
        {
            assert_eq!(span(time::Duration::seconds(seconds)), text);
        }
    }

    #[test]
    fn filters_are_checked() {
        assert_eq!(filter("label=a=b").unwrap(), ("label", "a=b"));
        for text in ["label", "nonsense=1", "=x", "name="] {
            assert!(filter(text).is_err(), "{text}");
        }
    }
}
