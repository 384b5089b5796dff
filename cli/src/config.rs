//! Configuration files: `/etc/rbuild/config.toml`, then the user's, whose values win. Flags and the environment win over both.

use crate::error::{CliError, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// All keys, each optional.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where images and caches are kept.
    pub root: Option<PathBuf>,
    /// How progress is shown: `auto`, `plain`, `tty`, `rawjson`, `quiet` or `none`.
    pub progress: Option<String>,
    #[serde(default)]
    pub build: BuildConfig,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildConfig {
    /// The platform to build for, such as `linux/amd64`.
    pub platform: Option<String>,
    /// The network of RUN steps: `default`, `none` or `host`.
    pub network: Option<String>,
    /// How many steps of a build run at a time; 0 for no limit.
    #[serde(rename = "max-parallelism")]
    pub max_parallelism: Option<usize>,
}

impl Config {
    pub fn load() -> Result<Config> {
        let mut config = Config::default();
        let user = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        let files = [Some(PathBuf::from("/etc")), user].into_iter().flatten();
        for file in files.map(|directory| directory.join("rbuild/config.toml")) {
            if let Some(text) = read(&file)? {
                config = config.overridden_by(parse(&text, &file)?);
            }
        }
        Ok(config)
    }

    fn overridden_by(self, other: Config) -> Config {
        Config {
            root: other.root.or(self.root),
            progress: other.progress.or(self.progress),
            build: BuildConfig {
                platform: other.build.platform.or(self.build.platform),
                network: other.build.network.or(self.build.network),
                max_parallelism: other.build.max_parallelism.or(self.build.max_parallelism),
            },
        }
    }
}

fn read(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::Usage(format!("cannot read the configuration {}: {error}", file.display()))),
    }
}

fn parse(text: &str, file: &Path) -> Result<Config> {
    // The error quotes the line and names the key.
    toml::from_str(text)
        .map_err(|error| CliError::Usage(format!("the configuration {} is not valid:\n{error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_win() {
        let file = Path::new("config.toml");
        let system = parse("progress = \"plain\"\n[build]\nnetwork = \"none\"\nmax-parallelism = 2\n", file).unwrap();
        let user = parse("progress = \"tty\"\n[build]\nmax-parallelism = 0\n", file).unwrap();
        let merged = system.overridden_by(user);
        assert_eq!(merged.progress.as_deref(), Some("tty"));
        assert_eq!(merged.build.network.as_deref(), Some("none"));
        assert_eq!(merged.build.max_parallelism, Some(0), "no limit, against the system's");
        parse("[build]\nmax-parallelism = -1\n", file).unwrap_err();
    }

    #[test]
    fn unknown_keys_are_named() {
        let CliError::Usage(message) = parse("rooot = 1\n", Path::new("/etc/rbuild/config.toml")).unwrap_err() else {
            panic!("not a usage error")
        };
        assert!(message.contains("/etc/rbuild/config.toml") && message.contains("rooot"), "{message}");
    }
}
