use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// The version of the Dockerfile language that is followed.
const DOCKERFILE_VERSION: &str = "1.20";

#[derive(Args)]
pub struct VersionArgs {
    /// `text` or `json`
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub format: String,
}

pub fn run(args: &VersionArgs) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    match args.format.as_str() {
        "text" => stdout::line(format_args!("rbuild {version} (Dockerfile {DOCKERFILE_VERSION})"))?,
        "json" => stdout::line(json!({"version": version, "dockerfileVersion": DOCKERFILE_VERSION}))?,
        other => return Err(CliError::Usage(format!("unknown format {other:?}: expected text or json"))),
    }
    Ok(ExitCode::SUCCESS)
}
