//! `rbuild outline`: what a build can be given.

use super::check::DefinitionArgs;
use super::check::document::{Location, base64};
use crate::app::BaseImages;
use crate::definition::Definition;
use crate::error::Result;
use crate::stdout;
use clap::{Args, ValueEnum};
use parser::LineIndex;
use serde::Serialize;
use solver::lower::LowerOptions;
use solver::outline::{Credential, Outline};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct OutlineArgs {
    #[command(flatten)]
    pub definition: DefinitionArgs,

    /// The stage to look at, with those that it needs (default: the last one)
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// `text` or `json`
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

pub fn run(args: &OutlineArgs, root: Option<PathBuf>) -> Result<ExitCode> {
    let (definition, options) = args.definition.load(args.target.clone())?;
    let images = BaseImages::open(root, false)?;
    show(&definition, &options, &images, args.format)
}

/// Also `rbuild build --call=outline`.
pub fn show(definition: &Definition, options: &LowerOptions, images: &BaseImages, format: Format) -> Result<ExitCode> {
    let dockerfile = parser::parse(&definition.text).map_err(|errors| definition.errors(&errors))?;
    let outline = crate::app::runtime()?.block_on(solver::outline::outline(&dockerfile, options, images));
    let outline = outline.map_err(|errors| definition.errors(&errors))?;
    match format {
        Format::Text => print_tables(&outline)?,
        Format::Json => {
            stdout::line(serde_json::to_string_pretty(&Document::new(&outline, &definition.text))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_tables(outline: &Outline) -> Result<()> {
    let text = |text: &str| text.to_owned();
    if outline.name.is_some() || outline.description.is_some() {
        stdout::line(format_args!("TARGET:      {}", outline.name.as_deref().unwrap_or("(default)")))?;
        if let Some(description) = &outline.description {
            stdout::line(format_args!("DESCRIPTION: {description}"))?;
        }
        stdout::line("")?;
    }
    let table = |heads: &[&str], rows: Vec<Vec<String>>| {
        if rows.is_empty() {
            return Ok(());
        }
        let heads = vec![heads.iter().map(|head| text(head)).collect()];
        stdout::table(&[heads, rows].concat())?;
        stdout::line("")
    };
    let args = outline.args.iter().map(|arg| {
        let value = arg.value.clone().unwrap_or_default();
        vec![arg.name.clone(), value, arg.description.clone().unwrap_or_default()]
    });
    table(&["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect())?;
    let credentials = |credentials: &[Credential]| {
        let rows = credentials
            .iter()
            .map(|credential| vec![credential.id.clone(), text(if credential.required { "true" } else { "" })]);
        rows.collect::<Vec<_>>()
    };
    table(&["SECRET", "REQUIRED"], credentials(&outline.secrets))?;
    table(&["SSH", "REQUIRED"], credentials(&outline.ssh))?;
    table(&["CACHE"], outline.caches.iter().map(|cache| vec![cache.id.clone()]).collect())
}

/// The document of BuildKit's `outline` request: lists without members are left out.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<Cache<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Arg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct Cache<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    location: Location,
}

impl<'a> Document<'a> {
    fn new(outline: &'a Outline, source: &str) -> Self {
        let index = LineIndex::new(source);
        let named = |credentials: &'a [Credential]| {
            let named = credentials.iter().map(|credential| Named {
                name: &credential.id,
                required: credential.required,
                location: Location::new(&index, credential.span),
            });
            named.collect()
        };
        let args = outline.args.iter().map(|arg| Arg {
            name: &arg.name,
            description: arg.description.as_deref(),
            value: arg.value.as_deref().unwrap_or_default(),
            location: Location::new(&index, arg.span),
        });
        let cache =
            outline.caches.iter().map(|cache| Cache { id: &cache.id, location: Location::new(&index, cache.span) });
        Document {
            name: outline.name.as_deref(),
            description: outline.description.as_deref(),
            args: args.collect(),
            secrets: named(&outline.secrets),
            ssh: named(&outline.ssh),
            cache: cache.collect(),
            sources: [base64(source)],
        }
    }
}
