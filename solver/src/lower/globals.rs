//! The scope before the first FROM.

use super::environment::Environment;
use super::{LowerOptions, Result, expand};
use crate::outline::{Arg, Parameters};
use oci::Platform;
use parser::Diagnostic;
use parser::ast::{Dockerfile, InstructionKind};
use parser::expand::{Expander, Expansion};
use std::collections::BTreeMap;

/// What FROM sees: platform ARGs, and the ARGs before the first FROM (D13.3, D13.11).
#[derive(Clone, Default)]
pub struct Globals {
    pub environment: Environment,
    /// The declared ARGs, also those without a value.
    pub parameters: Parameters,
    /// The names that FROM may use.
    pub names: Vec<String>,
}

impl Globals {
    /// Platform ARGs alone.
    pub fn of_platform(dockerfile: &Dockerfile, options: &LowerOptions, target: &Platform) -> Self {
        let host = Platform::host();
        let stage = options.target.clone().or_else(|| {
            let last = dockerfile.stages.last()?;
            last.from.name.as_ref().map(|name| name.value.clone())
        });
        let mut environment = Environment::default();
        for (prefix, platform) in [("BUILD", &host), ("TARGET", target)] {
            environment.set(&format!("{prefix}PLATFORM"), &platform.to_string());
            environment.set(&format!("{prefix}OS"), &platform.os);
            environment.set(&format!("{prefix}OSVERSION"), platform.os_version.as_deref().unwrap_or_default());
            environment.set(&format!("{prefix}ARCH"), &platform.architecture);
            environment.set(&format!("{prefix}VARIANT"), platform.variant.as_deref().unwrap_or_default());
        }
        environment.set("TARGETSTAGE", stage.as_deref().unwrap_or("default"));
        let names = environment.names();
        for name in &names {
            if let Some(value) = options.build_args.get(name) {
                environment.set(name, value);
            }
        }
        Globals { environment, parameters: Parameters::default(), names }
    }

    /// Adds the declared ARGs, with values from `build_args` before their defaults.
    pub fn declare(
        &mut self,
        dockerfile: &Dockerfile,
        expander: &Expander,
        build_args: &BTreeMap<String, String>,
    ) -> Result<()> {
        for instruction in &dockerfile.global_args {
            let InstructionKind::Arg(declarations) = &instruction.kind else { continue };
            for declaration in declarations {
                let name = &declaration.name.value;
                let whole = |mut error: Box<Diagnostic>| {
                    error.span = instruction.span;
                    error
                };
                let expansion = match (build_args.get(name), &declaration.default) {
                    (Some(value), _) => Some(Expansion { text: value.clone(), ..Expansion::default() }),
                    (None, Some(default)) => Some(expand(expander, default, &self.environment).map_err(whole)?),
                    (None, None) => None,
                };
                self.names.push(name.clone());
                if let Some(expansion) = &expansion {
                    self.environment.set(name, &expansion.text);
                }
                let (value, uses) = expansion.map(|expansion| (expansion.text, expansion.used)).unzip();
                let description = instruction.description(name).map(str::to_owned);
                let arg = Arg { name: name.clone(), description, value, span: instruction.span };
                self.parameters.declare(arg, uses.unwrap_or_default());
            }
        }
        Ok(())
    }
}
