//! `rbuild targets`: the stages of a Dockerfile.

use super::check::DefinitionArgs;
use super::check::document::{Location, base64};
use super::outline::Format;
use crate::definition::Definition;
use crate::error::Result;
use crate::stdout;
use clap::Args;
use parser::{Dockerfile, LineIndex};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Args)]
pub struct TargetsArgs {
    #[command(flatten)]
    pub definition: DefinitionArgs,

    /// `text` or `json`
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
}

pub fn run(args: &TargetsArgs) -> Result<ExitCode> {
    let (definition, _) = args.definition.load(None)?;
    show(&definition, args.format)
}

/// Also `rbuild build --call=targets`.
pub fn show(definition: &Definition, format: Format) -> Result<ExitCode> {
    let dockerfile = parser::parse(&definition.text).map_err(|errors| definition.errors(&errors))?;
    let targets = targets(&dockerfile, &definition.text);
    match format {
        Format::Text => {
            let row = |target: &Target| {
                let mark = if target.default { "(default)" } else { "" };
                let name = format!("{} {mark}", target.name.unwrap_or_default());
                vec![name.trim().to_owned(), target.description.unwrap_or_default().to_owned()]
            };
            let heads = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
            stdout::table(&[heads, targets.iter().map(row).collect()].concat())?;
        }
        Format::Json => {
            let document = Document { targets, sources: [base64(&definition.text)] };
            stdout::line(serde_json::to_string_pretty(&document)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The document of BuildKit's `targets` request.
#[derive(Serialize)]
struct Document<'a> {
    targets: Vec<Target<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

fn targets<'a>(dockerfile: &'a Dockerfile, source: &str) -> Vec<Target<'a>> {
    let index = LineIndex::new(source);
    let last = dockerfile.stages.len() - 1;
    let target = |(position, stage): (usize, &'a parser::Stage)| Target {
        name: stage.from.name.as_ref().map(|name| name.value.as_str()),
        default: position == last,
        description: stage.from.description(),
        base: &stage.from.image.value,
        platform: stage.from.platform.as_ref().map(|platform| platform.value.as_str()),
        location: Location::new(&index, stage.from.span),
    };
    dockerfile.stages.iter().enumerate().map(target).collect()
}
