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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
    Describe,
}

impl Call {
    /// `NAME[,format=text|json]`; `None` for an ordinary build.
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
        let mut format = Format::Text;
        for field in fields {
            format = match field {
                "format=json" => Format::Json,
                "format=text" => Format::Text,
                _ => {
                    return Err(CliError::Usage(format!("invalid --call option {field:?}: expected format=text|json")));
                }
            };
        }
        Ok(Some(Call { method, format }))
    }
}

pub fn run(call: Call, args: &BuildArgs, root: Option<PathBuf>) -> Result<ExitCode> {
    if call.method == Method::Describe {
        return describe(call.format);
    }
    let definition = DefinitionArgs {
        path: args.context.clone(),
        file: args.file.clone(),
        build_args: args.build_args.clone(),
        platform: args.platform.clone(),
    };
    let (definition, options) = definition.load(args.target.clone())?;
    match call.method {
        Method::Targets => return targets::show(&definition, call.format),
        Method::Outline => {
            return outline::show(&definition, &options, &BaseImages::open(root, args.pull)?, call.format);
        }
        Method::Check | Method::Describe => {}
    }
    let images = BaseImages::open(root, args.pull)?;
    let report = crate::app::runtime()?.block_on(solver::check::check(&definition.text, &options, &images));
    check::call(&definition, &report, call.format == Format::Json)
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
                let metadata = ["result.json", "result.txt"].map(|name| json!({"name": name, "description": ""}));
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
        let check = Call { method: Method::Check, format: Format::Json };
        assert_eq!(Call::parse("check,format=json").unwrap(), Some(check));
        assert!(Call::parse("outlin").unwrap_err().to_string().contains("did you mean outline?"));
        assert!(Call::parse("check,x=y").is_err());
    }
}
