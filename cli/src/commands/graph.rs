//! `rbuild graph`: the stages and steps of a Dockerfile, drawn.

use super::check::DefinitionArgs;
use crate::app::{BaseImages, open_store};
use crate::error::{CliError, Result};
use crate::file::to_file;
use crate::stdout;
use clap::{Args, ValueEnum};
use executor::builds::Builds;
use rustix::termios::{isatty, tcgetwinsize};
use solver::draw::text::Style;
use solver::draw::{Drawing, adopt, dot, json, mermaid, minute, svg, text};
use solver::lower::{LowerOptions, Plan, Purpose, lower};
use solver::record::{BuildRecord, Identity, Outcome};
use solver::trace::{Trace, Tracer};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pub definition: DefinitionArgs,

    /// The stage to draw, with those that it needs (default: the last one)
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// Draw stages, too, that the target does not need
    #[arg(long)]
    pub all: bool,

    /// Draw the last build that was recorded, whatever it was of, instead of a Dockerfile
    #[arg(long, conflicts_with_all = ["path", "file", "build_args", "target", "all"])]
    pub last: bool,

    /// How it is drawn
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,

    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people at a terminal
    Text,
    /// For Graphviz
    Dot,
    /// For Mermaid
    Mermaid,
    /// A picture
    Svg,
    /// For programs
    Json,
}

pub fn run(args: &GraphArgs, root: Option<PathBuf>) -> Result<ExitCode> {
    let (drawing, title, build) = match args.last {
        true => {
            let build = Builds(&open_store(root)?).last(None)?;
            let build = build.ok_or_else(|| CliError::Failed("no build is recorded in the store".into()))?;
            (Drawing::new(&build.trace), build.identity.dockerfile.clone(), Some(build))
        }
        false => of_dockerfile(args, root)?,
    };
    let build = build.map_or_else(|| "never built here".to_owned(), |build| described(&build));
    let text = match args.format {
        Format::Text => format!("{}\n{build}\n", text::write(&drawing, style(args))),
        Format::Dot => dot::write(&drawing),
        Format::Mermaid => mermaid::write(&drawing),
        Format::Svg => svg::write(&drawing, &format!("{title} · {build}")),
        Format::Json => json::write(&drawing)? + "\n",
    };
    match &args.output {
        Some(path) => to_file(path, |out| out.write_all(text.as_bytes()).map_err(executor::Error::output))?,
        None => stdout::print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The drawing, the Dockerfile's name, and the last build of it.
fn of_dockerfile(args: &GraphArgs, root: Option<PathBuf>) -> Result<(Drawing, String, Option<BuildRecord>)> {
    let (definition, options) = args.definition.load(args.target.clone())?;
    let images = BaseImages::open(root.clone(), false)?;
    let runtime = crate::app::runtime()?;
    let dockerfile = parser::parse(&definition.text).map_err(|errors| definition.errors(&errors))?;
    let lowered = |options: LowerOptions, whole: bool| {
        let plan = runtime.block_on(lower(&dockerfile, &options, &images)).plan;
        plan.map(|plan| planned(&plan, whole, &definition.text)).map_err(|errors| definition.errors(&errors))
    };
    let target = LowerOptions { purpose: Purpose::Outline, ..options.clone() };
    let mut used = lowered(target, false)?;
    let mut all = match args.all {
        true => lowered(LowerOptions { purpose: Purpose::Check, target: None, ..options.clone() }, true)?,
        false => used.clone(),
    };
    // Without a store that can be read nothing is known of builds.
    let identity = identity(args, &options);
    let build = open_store(root).ok().and_then(|store| Builds(&store).last(Some(&identity)).ok().flatten());
    let earlier = build.as_ref().map(|build| &build.trace);
    let known = earlier.map(|earlier| adopt(&mut all, earlier)).unwrap_or_default();
    // What ignores the cache in one of them is another vertex.
    used.vertices.retain(|vertex| all.vertex(&vertex.digest).is_some());
    let mut drawing = Drawing::with_unused(&all, &used);
    drawing.forget_all_but(&known);
    Ok((drawing, definition.name, build))
}

/// A build that has not begun.
fn planned(plan: &Plan, whole: bool, source: &str) -> Trace {
    let vertices = if whole { plan.graph.all() } else { vec![plan.result] };
    // Nobody looks at the hashes.
    Tracer::default().trace(&plan.graph, &vertices, source, &[0; 32])
}

/// As `rbuild build` has it.
fn identity(args: &GraphArgs, options: &LowerOptions) -> Identity {
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned();
    let (context, file) = args.definition.paths();
    Identity {
        context: absolute(&context),
        dockerfile: file.map_or_else(|| "Dockerfile".to_owned(), absolute),
        target: options.target.clone(),
        platforms: options.platform.iter().map(ToString::to_string).collect(),
    }
}

fn described(build: &BuildRecord) -> String {
    let outcome = match build.outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "was cancelled",
    };
    format!("as in the build of {}, which {outcome}", minute(build.started))
}

fn style(args: &GraphArgs) -> Style {
    let out = std::io::stdout();
    match args.output.is_none() && isatty(&out) {
        true => Style {
            has_colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            width: tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col)),
        },
        false => Style::default(),
    }
}
