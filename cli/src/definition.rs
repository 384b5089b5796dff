//! The Dockerfile that a command is about, and how its errors quote it.

use crate::error::{CliError, Fault, Result};
use executor::source::local::{self, LocalSource};
use oci::Platform;
use parser::diagnostic::excerpt;
use parser::{Diagnostic, IgnoreFile, Span};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Beyond the first one. More than one reads at a time; files with more of them are usually no Dockerfiles.
const MAX_ERRORS: usize = 19;

/// A Dockerfile's text, and what messages call it.
pub struct Definition {
    pub name: String,
    pub path: PathBuf,
    pub text: String,
}

impl Definition {
    /// The Dockerfile of a context, or the one that `-f` names; `-` is standard input.
    pub fn load(context: &Path, file: Option<&Path>) -> Result<Definition> {
        if file == Some(Path::new("-")) {
            let mut data = Vec::new();
            std::io::stdin().read_to_end(&mut data)?;
            return Ok(Definition::new(PathBuf::from("Dockerfile"), &data));
        }
        let found = local::read_dockerfile(context, file).map_err(|error| {
            let hint = match file {
                Some(_) => "",
                None => ": put a Dockerfile into the context, or name one with -f",
            };
            let message = format!("{error}{hint}");
            CliError::Dockerfile(Fault { message, ..Fault::default() })
        })?;
        Ok(Definition::new(found.path, &found.data))
    }

    pub fn new(path: PathBuf, data: &[u8]) -> Definition {
        let name = path.file_name().map_or_else(|| "Dockerfile".into(), |name| name.to_string_lossy().into_owned());
        Definition { name, path, text: String::from_utf8_lossy(data).into_owned() }
    }

    /// What the context leaves out.
    pub fn ignore(&self, context: &Path) -> Result<Option<IgnoreFile>> {
        let source = LocalSource::open(context, "context", Some(&self.path));
        Ok(source?.ignore)
    }

    pub fn error(&self, span: Option<Span>, message: String) -> CliError {
        let excerpt = span.map(|span| excerpt(&self.text, &self.name, span, span)).unwrap_or_default();
        CliError::Dockerfile(Fault { excerpt, message, ..Fault::default() })
    }

    /// All errors, up to a number that can be read. The first one, which is what BuildKit would say, comes last, where one looks.
    pub fn errors(&self, errors: &[Diagnostic]) -> CliError {
        let Some((first, others)) = errors.split_first() else {
            return CliError::Failed("the Dockerfile could not be parsed".into());
        };
        let fault = |error: &Diagnostic| Fault {
            excerpt: excerpt(&self.text, &self.name, error.span, error.focus),
            rule: Some(error.rule),
            message: error.to_string(),
            notes: error.notes.clone(),
        };
        let mut text = String::new();
        for error in others.iter().take(MAX_ERRORS) {
            text.push_str(&format!("{}\n", CliError::Dockerfile(fault(error))));
        }
        if let Some(more) = others.len().checked_sub(MAX_ERRORS).filter(|more| *more > 0) {
            text.push_str(&format!("... and {more} more errors\n"));
        }
        let fault = fault(first);
        CliError::Dockerfile(Fault { excerpt: text + &fault.excerpt, ..fault })
    }
}

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// `--build-arg`. Without a value it is taken from the environment, and where it is unset there, it is not passed (D13.16).
pub fn build_args(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut args = BTreeMap::new();
    for text in given {
        match text.split_once('=') {
            Some(("", _)) => return Err(CliError::Usage(format!("invalid build argument {text:?}: it has no name"))),
            Some((name, value)) => drop(args.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Ok(value) = std::env::var(text) {
                    args.insert(text.clone(), value);
                }
            }
        }
    }
    // As buildx forwards it (R4.8.1).
    if let (false, Ok(epoch)) = (args.contains_key(EPOCH), std::env::var(EPOCH)) {
        args.insert(EPOCH.to_owned(), epoch);
    }
    Ok(args)
}

/// `--platform`: lists of platforms, each once, in the order given (R9.7).
pub fn platforms(given: &[String]) -> Result<Vec<Platform>> {
    let mut platforms = Vec::new();
    // The environment may hold an empty text, which says nothing.
    for text in given.iter().filter(|text| !text.is_empty()).flat_map(|text| text.split(',')) {
        let platform = text.trim().parse().map_err(|error: oci::InvalidPlatform| CliError::Usage(error.to_string()))?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R9.1, R9.2, R9.7.
    #[test]
    fn platforms_stay_in_order_and_are_there_once() {
        let given = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            platforms(&texts).map(|platforms| platforms.iter().map(Platform::to_string).collect::<Vec<_>>())
        };
        for (texts, expected) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["linux/arm64,linux/amd64"], &["linux/arm64", "linux/amd64"]),
            (
                &["linux/x86_64", "linux/arm64/v8, linux/amd64", "armhf"],
                &["linux/amd64", "linux/arm64", "linux/arm/v7"],
            ),
            (&["windows(10.0.20348.1006)/amd64,darwin"], &["windows(10.0.20348.1006)/amd64", DARWIN]),
            (&["linux/quantum"], &["linux/quantum"]),
        ] {
            assert_eq!(given(texts).unwrap(), expected, "{texts:?}");
        }
        for wrong in ["linux/amd64,", ",", "a/b/c/d", "nonsense"] {
            assert!(matches!(given(&[wrong]), Err(CliError::Usage(_))), "{wrong}");
        }
    }

    const DARWIN: &str = if cfg!(target_arch = "aarch64") { "darwin/arm64" } else { "darwin/amd64" };
}
