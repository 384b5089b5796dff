//! `--secret`: where secrets come from, in docker buildx's spelling, and commands besides.

use crate::error::{CliError, Result};
use executor::secrets::{MAX_SIZE, SecretError, SecretSource, Secrets};
use parser::mount::csv;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The values stay where they are until a step wants them. Files are looked at now: a build that will fail should do so early.
pub fn secrets(given: &[String]) -> Result<Secrets> {
    given.iter().filter(|text| !text.is_empty()).map(|text| secret(text)).collect()
}

fn secret(text: &str) -> Result<(String, SecretSource)> {
    let (id, source) = parse(text, &|name| std::env::var_os(name).is_some()).map_err(|why| invalid(text, &why))?;
    if let SecretSource::File(path) = &source {
        check(&id, path)?;
    }
    Ok((id, source))
}

fn invalid(text: &str, why: &str) -> CliError {
    CliError::Usage(format!("invalid --secret {text:?}: {why}"))
}

fn check(id: &str, path: &Path) -> Result<()> {
    let found = path
        .metadata()
        .map_err(|error| CliError::Usage(format!("secret {id}: failed to stat {}: {error}", path.display())))?;
    if found.is_dir() {
        return Err(CliError::Usage(format!("secret {id}: {} is a directory", path.display())));
    }
    match found.len() {
        0..=MAX_SIZE => Ok(()),
        _ => Err(CliError::Usage(SecretError::TooBig { id: id.to_owned() }.to_string())),
    }
}

fn parse(text: &str, is_set: &dyn Fn(&str) -> bool) -> std::result::Result<(String, SecretSource), String> {
    let (mut id, mut source, mut variable, mut command, mut kind) = (None, None, None, None, None);
    for field in csv::record(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        let key = key.to_lowercase();
        let place = match key.as_str() {
            "id" => &mut id,
            "source" | "src" => &mut source,
            "env" => &mut variable,
            "command" => &mut command,
            "type" if !["file", "env", "command"].contains(&value) => {
                return Err(format!("unsupported secret type {value:?}: there are file, env and command"));
            }
            "type" => &mut kind,
            _ => {
                let hint = parser::suggest::closest(["id", "source", "src", "env", "command", "type"], &key);
                let hint = hint.map(|key| format!(" (did you mean {key}?)")).unwrap_or_default();
                return Err(format!("unexpected key '{key}' in '{field}'{hint}"));
            }
        };
        *place = Some(value.to_owned()).filter(|value| !value.is_empty());
    }
    match kind.as_deref() {
        Some("env") => variable = variable.or_else(|| source.take()),
        Some("command") => command = command.or_else(|| source.take()),
        _ => {}
    }
    let id = id.ok_or("it has no id")?;
    let source = match (command, variable, source) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => return Err("a command is a source of its own".into()),
        (Some(command), None, None) => SecretSource::Command(command),
        // As in BuildKit, which prefers the variable where both are given.
        (None, Some(name), _) => SecretSource::Variable(OsString::from(name)),
        (None, None, Some(path)) => SecretSource::File(PathBuf::from(path)),
        (None, None, None) if is_set(&id) => SecretSource::Variable(OsString::from(&id)),
        (None, None, None) => SecretSource::File(PathBuf::from(&id)),
    };
    Ok((id, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let file = |path: &str| SecretSource::File(path.into());
        let variable = |name: &str| SecretSource::Variable(name.into());
        let command = |text: &str| SecretSource::Command(text.into());
        for (text, source) in [
            ("id=i,src=f", file("f")),
            ("ID=i,source=f,type=file", file("f")),
            ("id=i,env=E", variable("E")),
            ("type=env,id=i,src=E", variable("E")),
            ("id=i,type=env,env=E,src=f", variable("E")),
            ("id=i,env=E,src=f", variable("E")),
            ("id=i", file("i")),
            ("id=i,src=", file("i")),
            ("id=i,\"src=a,b\"", file("a,b")),
            ("id=i,src=a=b", file("a=b")),
            ("id=i,command=pass show i", command("pass show i")),
            ("id=i,type=command,src=pass show i", command("pass show i")),
        ] {
            assert_eq!(parse(text, &|_| false), Ok(("i".into(), source)), "{text}");
        }
        assert_eq!(parse("id=i", &|name| name == "i"), Ok(("i".into(), variable("i"))));
    }

    #[test]
    fn mistakes() {
        for (text, why) in [
            ("i", "invalid field 'i' must be a key=value pair"),
            ("src=f", "it has no id"),
            ("id=", "it has no id"),
            ("id=i,type=url", "unsupported secret type \"url\""),
            ("id=i,scr=f", "unexpected key 'scr' in 'scr=f' (did you mean src?)"),
            ("id=i,command=c,src=f", "a command is a source of its own"),
            ("id=i,\"src=f", "extraneous or missing \""),
        ] {
            let error = parse(text, &|_| false).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
