//! `rbuild build --call`: what docker buildx asks of a Dockerfile instead of building it.

use super::build::BuildArgs;
use super::outline::Format;
use super::{check, outline, targets};
use crate::app::BaseImages;
use crate::error::{CliError, Result};
use crate::stdout;
use check::DefinitionArgs;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

const METHODS: [&str; 5] = ["build", "check", "outline", "targets", "subrequests.describe"];

/// A method and how its answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    method: Method,
    format: Format,
    /// `check` exits with 0 whatever it warns of.
    ignore_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
    Describe,
}

impl Call {
    /// `NAME[,format=text|json][,ignorestatus=true|false]`; `None` for an ordinary build.
    pub fn parse(text: &str) -> Result<Option<Call>> {
        let mut fields = text.split(',');
        let name = fields.next().unwrap_or_default();
        let method = match name.trim_start_matches("frontend.") {
            "" | "build" => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            "subrequests.describe" => Method::Describe,
            _ => {
                let hint = parser::suggest::closest(METHODS, name).map(|name| format!(" (did you mean {name}?)"));
                let (hint, known) = (hint.unwrap_or_default(), METHODS.join(", "));
                return Err(CliError::Usage(format!("unsupported request {name:?}{hint}; there are {known}")));
            }
        };
        let mut call = Call { method, format: Format::Text, ignore_status: false };
        for field in fields {
            match field {
                "format=json" => call.format = Format::Json,
                "format=text" => call.format = Format::Text,
                "ignorestatus=true" | "ignorestatus=1" => call.ignore_status = true,
                "ignorestatus=false" | "ignorestatus=0" => call.ignore_status = false,
                _ => {
                    let message = format!("invalid --call option {field:?}: expected format=text|json");
                    return Err(CliError::Usage(message));
                }
            }
        }
        Ok(Some(call))
    }
}

pub fn run(call: Call, args: &BuildArgs, root: Option<PathBuf>) -> Result<ExitCode> {
    if call.method == Method::Describe {
        return describe(call.format);
    }
    let definition = DefinitionArgs {
        path: args.context()?.to_owned(),
        file: args.file.clone(),
        build_args: args.build_args.clone(),
        platform: args.platform.clone(),
    };
    let (definition, mut options) = definition.load(args.target()?.map(str::to_owned))?;
    options.contexts = super::build::context::names(&args.build_contexts)?;
    match call.method {
        Method::Targets => return targets::show(&definition, call.format),
        Method::Outline => {
            return outline::show(&definition, &options, &BaseImages::open(root, args.pull)?, call.format);
        }
        Method::Check | Method::Describe => {}
    }
    let images = BaseImages::open(root, args.pull)?;
    let report = crate::app::runtime()?.block_on(solver::check::check(&definition.text, &options, &images));
    check::call(&definition, &report, call.format == Format::Json, call.ignore_status)
}

fn describe(format: Format) -> Result<ExitCode> {
    let requests = [
        ("lint", "Lint a Dockerfile"),
        ("outline", "List all parameters current build target supports"),
        ("targets", "List all targets current build supports"),
        ("subrequests.describe", "List available subrequest types"),
    ];
    match format {
        Format::Text => {
            let heads = ["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec();
            let rows =
                requests.map(|(name, description)| vec![name.to_owned(), "1.0.0".into(), description.to_owned()]);
            stdout::table(&[vec![heads], rows.to_vec()].concat())?;
        }
        Format::Json => {
            let requests = requests.map(|(name, description)| {
                let opts = match name {
                    "outline" => json!([{"name": "target", "description": "Target build stage"}]),
                    _ => json!([]),
                };
                let results: &[_] = match name {
                    "lint" => &["result.json", "result.txt", "result.statuscode"],
                    _ => &["result.json", "result.txt"],
                };
                let metadata: Vec<_> = results.iter().map(|name| json!({"name": name, "description": ""})).collect();
                json!({
                    "name": format!("frontend.{name}"), "version": "1.0.0", "type": "rpc",
                    "description": description, "opts": opts, "inputs": null, "metadata": metadata, "refs": null,
                })
            });
            stdout::line(serde_json::to_string_pretty(&requests)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_formats() {
        assert_eq!(Call::parse("build").unwrap(), None);
        let check = Call { method: Method::Check, format: Format::Json, ignore_status: false };
        assert_eq!(Call::parse("check,format=json").unwrap(), Some(check));
        let ignoring = Call { ignore_status: true, ..check };
        assert_eq!(Call::parse("lint,ignorestatus=true,format=json").unwrap(), Some(ignoring));
        assert!(Call::parse("outlin").unwrap_err().to_string().contains("did you mean outline?"));
        assert!(Call::parse("check,x=y").is_err());
    }
}
