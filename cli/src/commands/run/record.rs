//! From flags and an image to what a container is.

use super::options::RunArgs;
use crate::error::{CliError, Result};
use crate::limits;
use cache::LayerId;
use executor::container::record::{NetworkMode, Record, Tmpfs, Volume};
use executor::container::supervisor::set;
use executor::network::DefaultNetwork;
use executor::sandbox::{Capabilities, PortMapping, Security};
use oci::Reference;
use oci::image::RunConfig;
use solver::lower::ResolvedImage;
use std::path::Path;

/// Everything but the image is checked here, before anything is fetched.
pub struct Flags {
    env: Vec<String>,
    labels: Vec<(String, String)>,
    volumes: Vec<Volume>,
    tmpfs: Vec<Tmpfs>,
    network: NetworkMode,
    ports: Vec<PortMapping>,
    security: Security,
    limits: executor::sandbox::Limits,
}

impl Flags {
    pub fn parse(args: &RunArgs, default_network: DefaultNetwork) -> Result<Flags> {
        let ports: Vec<PortMapping> =
            args.ports.iter().map(|text| text.parse().map_err(CliError::Usage)).collect::<Result<_>>()?;
        if let Some(name) = &args.name {
            check_name(name)?;
        }
        if let Some(name) = args.hostname.as_deref().filter(|name| name.is_empty() || name.len() > 64) {
            return Err(CliError::Usage(format!("invalid host name {name:?}: expected 1 to 64 characters")));
        }
        let capabilities = |given: &[String]| {
            let sets = given.iter().map(|name| Capabilities::named(name)).collect::<std::result::Result<Vec<_>, _>>();
            sets.map_err(|error| CliError::Usage(error.to_string()))
        };
        let allowed = Capabilities::default().adjusted(&capabilities(&args.cap_add)?, &capabilities(&args.cap_drop)?);
        let mut env = Vec::new();
        for file in &args.env_files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| CliError::Usage(format!("cannot read --env-file {file}: {error}")))?;
            env.extend(env_of(&text).map_err(|problem| CliError::Usage(format!("{file}: {problem}")))?);
        }
        env.extend(args.process.env.iter().filter_map(|text| with_value(text)));
        Ok(Flags {
            env,
            labels: args.labels.iter().map(|label| split(label)).collect(),
            volumes: args.volumes.iter().map(|text| volume(text)).collect::<Result<_>>()?,
            tmpfs: args.tmpfs.iter().map(|text| tmpfs(text)).collect::<Result<_>>()?,
            network: network(&args.network, !ports.is_empty(), default_network)?,
            ports,
            security: Security::Confined(allowed),
            limits: args.limits.limits()?,
        })
    }

    pub fn record(
        self,
        args: &RunArgs,
        reference: &Reference,
        image: &ResolvedImage,
        layers: Vec<LayerId>,
    ) -> Result<Record> {
        let mut config: RunConfig = image.config.config.clone();
        if let Some(program) = &args.entrypoint {
            config.entrypoint = (!program.is_empty()).then(|| vec![program.clone()]);
            config.cmd = None;
        }
        if !args.command().is_empty() {
            config.cmd = Some(args.command().to_vec());
        }
        for entry in self.env {
            set(&mut config.env, entry);
        }
        config.user = args.process.user.clone().unwrap_or(config.user);
        config.working_dir = args.process.workdir.clone().unwrap_or(config.working_dir);
        config.labels.extend(self.labels);
        let record = Record {
            id: cache::new_container_id(),
            name: args.name.clone(),
            created: time::OffsetDateTime::now_utc(),
            image: args.image().to_owned(),
            reference: reference.to_string(),
            digest: image.digest,
            manifest: image.manifest,
            platform: image.config.platform(),
            config,
            hostname: args.hostname.clone(),
            tty: args.process.tty,
            interactive: args.process.interactive,
            remove: args.rm,
            network: self.network,
            ports: self.ports,
            security: self.security,
            limits: self.limits,
            readonly_root: args.read_only,
            volumes: self.volumes,
            tmpfs: self.tmpfs,
            layers,
        };
        if record.command().is_empty() {
            return Err(CliError::Usage(format!("the image {} has no command: give one", args.image())));
        }
        Ok(record)
    }
}

/// `--network`, with or without `-p`.
fn network(mode: &str, has_ports: bool, default: DefaultNetwork) -> Result<NetworkMode> {
    match mode {
        "default" | "" if has_ports => Ok(NetworkMode::Isolated { required: true }),
        "default" | "" => Ok(match default {
            DefaultNetwork::Host => NetworkMode::Host,
            DefaultNetwork::Isolated => NetworkMode::Isolated { required: false },
        }),
        "pasta" => Ok(NetworkMode::Isolated { required: true }),
        "host" | "none" if has_ports => Err(CliError::Usage(format!(
            "-p needs a network of the container's own: it cannot go with --network={mode}"
        ))),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => {
            let modes = "expected default, pasta, host or none";
            Err(CliError::Usage(format!("invalid network mode {other:?}: {modes}")))
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_first = |c: char| c.is_ascii_alphanumeric();
    let is_rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let is_valid = name.len() <= 128 && name.starts_with(is_first) && name.chars().all(is_rest);
    let message = || format!("invalid container name {name:?}: expected letters, digits, `_`, `.` and `-`");
    if is_valid { Ok(()) } else { Err(CliError::Usage(message())) }
}

/// A variable without a value has that of rbuild's own environment, or is left out.
pub fn with_value(text: &str) -> Option<String> {
    match text.split_once('=') {
        Some(_) => Some(text.to_owned()),
        None => std::env::var(text).ok().map(|value| format!("{text}={value}")),
    }
}

/// Docker's rules: a line is a variable, blank ones and those that begin with `#` are none, and nothing is quoted.
fn env_of(text: &str) -> std::result::Result<Vec<String>, String> {
    let mut env = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("line {}: invalid variable name {name:?}", number + 1));
        }
        env.extend(with_value(line));
    }
    Ok(env)
}

fn split(label: &str) -> (String, String) {
    let (name, value) = label.split_once('=').unwrap_or((label, ""));
    (name.to_owned(), value.to_owned())
}

/// `SRC:DST[:ro|rw]`.
fn volume(text: &str) -> Result<Volume> {
    let invalid = || CliError::Usage(format!("invalid volume {text:?}: expected SRC:DST[:ro]"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, readonly) = match parts.as_slice() {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(invalid()),
    };
    if !is_target(target) || source.is_empty() {
        return Err(invalid());
    }
    let path = Path::new(source)
        .canonicalize()
        .map_err(|error| CliError::Usage(format!("cannot use the volume {source:?}: {error}")))?;
    let source = path.into_os_string().into_string();
    let source =
        source.map_err(|path| CliError::Usage(format!("cannot use the volume {path:?}: its name is not UTF-8")))?;
    Ok(Volume { source, target: (*target).to_owned(), readonly })
}

fn is_target(target: &str) -> bool {
    target.starts_with('/') && parser::path::clean(target) != "/"
}

/// `DIR[:size=BYTES]`. The other options of docker are what is done anyway.
fn tmpfs(text: &str) -> Result<Tmpfs> {
    const IMPLIED: [&str; 5] = ["rw", "nosuid", "nodev", "exec", "mode=1777"];
    let invalid = || CliError::Usage(format!("invalid --tmpfs {text:?}: expected DIR or DIR:size=BYTES"));
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut size = 0;
    for option in options.split(',').filter(|option| !option.is_empty() && !IMPLIED.contains(option)) {
        size = option.strip_prefix("size=").and_then(limits::bytes).ok_or_else(invalid)?;
    }
    if !is_target(target) { Err(invalid()) } else { Ok(Tmpfs { target: target.to_owned(), size }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files_are_read_as_docker_reads_them() {
        let text = "# comment\n\nA=1\n  B = x y \"z\"\nC=a=b\n";
        assert!(env_of(text).unwrap_err().contains("line 4"), "blanks in a name");
        assert_eq!(env_of("\u{feff}A=1\n #x\n\tC=a=\"b\" \n").unwrap(), ["A=1", "C=a=\"b\" "]);
        assert!(env_of("=x").is_err());
        assert_eq!(env_of("RBUILD_SURELY_NOT_SET").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn names_are_checked() {
        for name in ["web", "a.b_c-1", "0"] {
            check_name(name).unwrap();
        }
        for name in ["", "-a", "a/b", "a b", ".", "é"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn file_systems_in_memory() {
        let parsed = tmpfs("/run:rw,size=1m").unwrap();
        assert_eq!((parsed.target.as_str(), parsed.size), ("/run", 1 << 20));
        for text in ["run", "/", "/run:size=x", "/run:uid=3", "/.."] {
            assert!(tmpfs(text).is_err(), "{text}");
        }
    }
}
