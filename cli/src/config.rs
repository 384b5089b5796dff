//! Configuration files: `/etc/rbuild/config.toml`, then the user's, whose values win. Flags and the environment win over both.

use crate::error::{CliError, Result};
use cache::{Budget, Space};
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
    #[serde(default)]
    pub gc: GcConfig,
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

/// The automatic collection of build cache. Spaces are sizes such as `10GB`, or parts of the disk such as `10%`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GcConfig {
    /// Whether builds keep the cache within its budget (default: true).
    pub enabled: Option<bool>,
    /// This much always stays (default: 10%, at most 10 GB).
    #[serde(default, deserialize_with = "space")]
    pub reserved_space: Option<Space>,
    /// No more than this stays (default: 80%, at most 100 GB).
    #[serde(default, deserialize_with = "space")]
    pub max_used_space: Option<Space>,
    /// What is to be free on the disk (default: 20%).
    #[serde(default, deserialize_with = "space")]
    pub min_free_space: Option<Space>,
}

impl GcConfig {
    /// `None`: nothing is collected.
    pub fn budget(&self) -> Option<Budget> {
        let (reserved, max_used, min_free) = (self.reserved_space, self.max_used_space, self.min_free_space);
        self.enabled.unwrap_or(true).then_some(Budget { reserved, max_used, min_free })
    }
}

fn space<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Space>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
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
            gc: GcConfig {
                enabled: other.gc.enabled.or(self.gc.enabled),
                reserved_space: other.gc.reserved_space.or(self.gc.reserved_space),
                max_used_space: other.gc.max_used_space.or(self.gc.max_used_space),
                min_free_space: other.gc.min_free_space.or(self.gc.min_free_space),
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
    fn budgets() {
        let file = Path::new("config.toml");
        let text = "[gc]\nreserved-space = \"1GB\"\nmax-used-space = \"10%\"\n";
        let (gigabyte, percent) = (Some(Space::Bytes(1 << 30)), Some(Space::Percent(10)));
        let budget = Budget { reserved: gigabyte, max_used: percent, min_free: None };
        assert_eq!(parse(text, file).unwrap().gc.budget(), Some(budget));
        let off = parse(text, file).unwrap().overridden_by(parse("[gc]\nenabled = false\n", file).unwrap());
        assert_eq!((off.gc.budget(), off.gc.max_used_space), (None, percent));
        let CliError::Usage(message) = parse("[gc]\nmax-used-space = \"much\"\n", file).unwrap_err() else {
            panic!("not a usage error")
        };
        assert!(message.contains("such as 10GB"), "{message}");
    }

    #[test]
    fn unknown_keys_are_named() {
        let CliError::Usage(message) = parse("rooot = 1\n", Path::new("/etc/rbuild/config.toml")).unwrap_err() else {
            panic!("not a usage error")
        };
        assert!(message.contains("/etc/rbuild/config.toml") && message.contains("rooot"), "{message}");
    }
}
