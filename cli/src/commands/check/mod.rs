//! `rbuild check`: what is wrong with a Dockerfile, without building it.

pub mod document;
mod github;
mod sarif;
mod text;

use crate::app::BaseImages;
use crate::config::Config;
use crate::definition::{self, Definition};
use crate::error::{CliError, Result};
use crate::stdout;
use clap::{Args, ValueEnum};
use parser::{Diagnostic, Severity};
use solver::check::{Report, violation};
use solver::lower::LowerOptions;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which Dockerfile, and what it is given.
#[derive(Args)]
pub struct DefinitionArgs {
    /// The build context, or a Dockerfile
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: PathBuf,

    /// The Dockerfile (default: PATH/Dockerfile); `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,

    /// The platform to build for; of several, the first counts
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Vec<String>,
}

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub definition: DefinitionArgs,

    /// The stage to check, with those that it needs (default: all)
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// How the findings are written
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// With the lines quoted, for people
    Text,
    /// As `docker buildx build --call=check,format=json` writes it
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Workflow commands, which GitHub shows beside the lines
    Github,
}

impl DefinitionArgs {
    /// The context's directory, and the Dockerfile if it is named.
    pub fn paths(&self) -> (PathBuf, Option<&Path>) {
        let is_file = self.file.is_none() && self.path.is_file();
        let (context, file) = match is_file {
            true => (self.path.parent().map(PathBuf::from).unwrap_or_default(), Some(self.path.as_path())),
            false => (self.path.clone(), self.file.as_deref()),
        };
        (if context.as_os_str().is_empty() { PathBuf::from(".") } else { context }, file)
    }

    /// The Dockerfile, what its context leaves out, and the options. A PATH that is a file is the Dockerfile itself.
    pub fn load(&self, target: Option<String>) -> Result<(Definition, LowerOptions)> {
        let (context, file) = self.paths();
        if !context.is_dir() {
            let path = context.display();
            return Err(CliError::Usage(format!("path {path:?} not found: give a directory or a Dockerfile")));
        }
        let definition = Definition::load(&context, file)?;
        let given = match self.platform.is_empty() {
            false => self.platform.clone(),
            true => Config::load()?.build.platform.into_iter().collect(),
        };
        let options = LowerOptions {
            target,
            build_args: definition::build_args(&self.build_args)?,
            platform: definition::platforms(&given)?.into_iter().next(),
            ignore: definition.ignore(&context)?,
            ..LowerOptions::default()
        };
        Ok((definition, options))
    }
}

/// Findings fail the command only where they would fail a build.
pub fn run(args: &CheckArgs, root: Option<PathBuf>) -> Result<ExitCode> {
    let (definition, options) = args.definition.load(args.target.clone())?;
    let images = BaseImages::open(root, false)?;
    let report = crate::app::runtime()?.block_on(solver::check::check(&definition.text, &options, &images));
    let text = match args.format {
        Format::Text => text::findings(&definition, &report),
        Format::Json => document::json(&definition, &report)?,
        Format::Sarif => sarif::log(&definition, &report)?,
        Format::Github => github::commands(&definition, &report),
    };
    stdout::print(&text)?;
    if args.format != Format::Text {
        eprint!("{}", text::unresolved(&report));
    }
    let fails = !report.errors.is_empty() || (report.warnings_are_errors && !report.warnings.is_empty());
    if fails && report.errors.is_empty() && args.format == Format::Text {
        eprintln!("error: {}", violation(&report.warnings));
    }
    Ok(ExitCode::from(u8::from(fails)))
}

/// `rbuild build --call=check`, whose text and exit code are those of docker buildx: errors are told as a build tells them, and warnings
/// fail the command unless `ignore_status`.
pub fn call(definition: &Definition, report: &Report, as_json: bool, ignore_status: bool) -> Result<ExitCode> {
    match as_json {
        true => stdout::print(&document::json(definition, report)?)?,
        false => stdout::print(&text::as_buildx(definition, report))?,
    }
    match (report.errors.is_empty(), report.warnings.is_empty()) {
        (false, _) => Err(definition.errors(&report.errors)),
        (true, false) if report.warnings_are_errors => Err(CliError::build(violation(&report.warnings))),
        (true, no_warnings) => Ok(ExitCode::from(u8::from(!no_warnings && !ignore_status))),
    }
}

/// Errors first: they have to be mended before the rest matters.
fn all_findings(report: &Report) -> impl Iterator<Item = &Diagnostic> {
    report.errors.iter().chain(&report.warnings)
}

fn is_error(finding: &Diagnostic, report: &Report) -> bool {
    finding.severity == Severity::Error || report.warnings_are_errors
}

/// A file name relative to the working directory where that is possible, for tools that look for it there.
fn location(definition: &Definition) -> String {
    let path = definition.path.strip_prefix(".").unwrap_or(&definition.path);
    let absolute = std::env::current_dir().ok().and_then(|directory| path.strip_prefix(directory).ok());
    absolute.unwrap_or(path).to_string_lossy().into_owned()
}

/// For tests of the formats: a report without images and without a context.
#[cfg(test)]
fn report_of(text: &str) -> (Definition, Report) {
    let definition = Definition { name: "Dockerfile".into(), path: "Dockerfile".into(), text: text.to_owned() };
    let options = LowerOptions::default();
    let report = crate::app::runtime().unwrap().block_on(solver::check::check(text, &options, &crate::app::NoImages));
    (definition, report)
}
