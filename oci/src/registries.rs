//! Where images are pulled from: registries.conf, version 2 (containers-registries.conf(5); spec R6.1).
//!
//! The `[[registry]]` whose `prefix` is the longest that matches a name decides. Its mirrors are asked in their order,
//! then the registry itself; `location` takes the place of the prefix in the name. A `prefix` may begin with `*.` and
//! then stands for every host below that domain. Search registries and short-name aliases are ignored: a Dockerfile's
//! names mean what Docker means by them.

use crate::Reference;
use serde::Deserialize;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Docker Hub's name in references, and the host that serves it (R6.1.1).
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

const SYSTEM_FILE: &str = "/etc/containers/registries.conf";

/// The registries that are to be asked in a special way. Empty: every name is asked of its own host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    registries: Vec<Registry>,
}

/// A place that may have an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Host and port to connect to.
    pub host: String,
    /// The repository's path there.
    pub repository: String,
    /// Certificates are not verified, and plain http will do.
    pub insecure: bool,
    /// For a mirror, the registry that it stands for, as names write it.
    pub mirror_of: Option<String>,
}

/// The configuration forbids pulling from this registry.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{name}: registry {prefix} is blocked in registries.conf")]
pub struct Blocked {
    pub name: String,
    pub prefix: String,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidRegistriesConf {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot parse {}: {why}", path.display())]
    Parse { path: PathBuf, why: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registry {
    prefix: String,
    location: Option<Location>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    location: Location,
    insecure: bool,
    serves: Serves,
}

/// `host[:port][/path]`, the path without slashes at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Location {
    host: String,
    path: String,
}

/// Which references a mirror is asked for: `pull-from-mirror`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Serves {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<RegistryEntry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct RegistryEntry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorEntry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct MirrorEntry {
    location: String,
    insecure: bool,
    pull_from_mirror: Option<Serves>,
}

impl RegistriesConf {
    /// The file that `RBUILD_REGISTRIES_CONF` or else `CONTAINERS_REGISTRIES_CONF` names, which must exist; else the
    /// user's, else the system's, with the drop-in files beside it; else nothing.
    pub fn from_environment() -> Result<Self, InvalidRegistriesConf> {
        Self::from_variables(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, InvalidRegistriesConf> {
        if let Some(path) = variable("RBUILD_REGISTRIES_CONF").or_else(|| variable("CONTAINERS_REGISTRIES_CONF")) {
            return Self::load([PathBuf::from(path)]);
        }
        let user_configuration = variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
        let user_file = user_configuration.map(|directory| directory.join("containers/registries.conf"));
        for file in user_file.into_iter().chain([PathBuf::from(SYSTEM_FILE)]) {
            let drop_ins = drop_ins(&file.with_extension("conf.d"));
            let paths: Vec<PathBuf> = file.exists().then_some(file).into_iter().chain(drop_ins).collect();
            if !paths.is_empty() {
                return Self::load(paths);
            }
        }
        Ok(RegistriesConf::default())
    }

    /// Reads files in their order. A later entry with the same prefix replaces an earlier one.
    pub fn load<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, InvalidRegistriesConf> {
        let mut merged = RegistriesConf::default();
        for path in paths {
            let path = path.as_ref();
            let text = std::fs::read_to_string(path)
                .map_err(|source| InvalidRegistriesConf::Read { path: path.to_owned(), source })?;
            let conf = Self::parse(&text).map_err(|why| InvalidRegistriesConf::Parse {
                path: path.to_owned(),
                why: why.trim_end().to_owned(),
            })?;
            for registry in conf.registries {
                merged.registries.retain(|earlier| earlier.prefix != registry.prefix);
                merged.registries.push(registry);
            }
        }
        Ok(merged)
    }

    /// Reads the text of one file. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let registries = file.registry.into_iter().map(RegistryEntry::validated).collect::<Result<_, _>>()?;
        Ok(RegistriesConf { registries })
    }

    /// The same, but for one host whose certificates are not verified, and that may be asked by plain http.
    #[must_use]
    pub fn trusting(mut self, host: &str) -> Self {
        let of_host =
            |registry: &&mut Registry| registry.prefix == host || registry.prefix.starts_with(&format!("{host}/"));
        self.registries.iter_mut().filter(of_host).for_each(|registry| registry.insecure = true);
        if !self.registries.iter().any(|registry| registry.prefix == host) {
            let prefix = host.to_owned();
            self.registries.push(Registry { prefix, location: None, insecure: true, blocked: false, mirrors: vec![] });
        }
        self
    }

    /// Where to pull `reference` from, in the order in which to try: mirrors, then the registry itself.
    pub fn endpoints_for(&self, reference: &Reference) -> Result<Vec<Endpoint>, Blocked> {
        let origin = self.origin_for(reference)?;
        let Some((registry, matched)) = self.registry_for(reference) else {
            return Ok(vec![origin]);
        };
        let by_digest = reference.digest().is_some();
        let mirrors = registry.mirrors.iter().filter(|mirror| match mirror.serves {
            Serves::All => true,
            Serves::DigestOnly => by_digest,
            Serves::TagOnly => !by_digest,
        });
        let rest = &reference.name()[matched..];
        Ok(mirrors
            .map(|mirror| Endpoint {
                mirror_of: Some(reference.registry().to_owned()),
                ..mirror.location.endpoint(rest, mirror.insecure)
            })
            .chain([origin])
            .collect())
    }

    /// Where to push `reference` to: never a mirror (R6.1.5).
    pub fn origin_for(&self, reference: &Reference) -> Result<Endpoint, Blocked> {
        let own = Location { host: reference.registry().to_owned(), path: String::new() };
        let Some((registry, matched)) = self.registry_for(reference) else {
            return Ok(own.endpoint(reference.repository(), false));
        };
        if registry.blocked {
            return Err(Blocked { name: reference.to_string(), prefix: registry.prefix.clone() });
        }
        Ok(match &registry.location {
            Some(location) => location.endpoint(&reference.name()[matched..], registry.insecure),
            None => own.endpoint(reference.repository(), registry.insecure),
        })
    }

    /// The entry with the longest matching prefix, and how many bytes of the name it matches.
    fn registry_for(&self, reference: &Reference) -> Option<(&Registry, usize)> {
        let matching = |registry: &Registry| match_length(&registry.prefix, reference);
        self.registries
            .iter()
            .filter_map(|registry| matching(registry).map(|matched| (registry, matched)))
            // Of several wildcards that match the same host, the longer one says more.
            .max_by_key(|(registry, matched)| (*matched, registry.prefix.len()))
    }
}

impl Endpoint {
    pub fn is_mirror(&self) -> bool {
        self.mirror_of.is_some()
    }
}

impl RegistryEntry {
    fn validated(self) -> Result<Registry, String> {
        let location = match self.location.as_str() {
            "" => None,
            text => Some(Location::parse(text)?),
        };
        let prefix = match self.prefix.trim_end_matches('/') {
            "" => self.location.trim_end_matches('/').to_owned(),
            prefix => prefix.to_owned(),
        };
        if prefix.is_empty() {
            return Err("a [[registry]] needs a prefix or a location".into());
        }
        if location.is_none() && !prefix.starts_with("*.") {
            return Err(format!("registry {prefix:?} has no location"));
        }
        let mirrors = self
            .mirror
            .into_iter()
            .map(|mirror| {
                let default = if self.mirror_by_digest_only { Serves::DigestOnly } else { Serves::All };
                Ok(Mirror {
                    location: Location::parse(&mirror.location)?,
                    insecure: mirror.insecure,
                    serves: mirror.pull_from_mirror.unwrap_or(default),
                })
            })
            .collect::<Result<_, String>>()?;
        Ok(Registry { prefix, location, insecure: self.insecure, blocked: self.blocked, mirrors })
    }
}

impl Location {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err(format!("location {text:?} must not have a scheme; use insecure = true for plain http"));
        }
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        if host.is_empty() || host.parse::<http::uri::Authority>().is_err() || host.contains('@') {
            return Err(format!("location {text:?} does not begin with a host"));
        }
        Ok(Location { host: host.to_owned(), path: path.trim_matches('/').to_owned() })
    }

    fn endpoint(&self, rest: &str, insecure: bool) -> Endpoint {
        let (hub_name, hub_host) = DOCKER_HUB;
        let host = if self.host == hub_name { hub_host.to_owned() } else { self.host.clone() };
        let rest = rest.trim_matches('/');
        let repository = match (self.path.as_str(), rest) {
            ("", rest) => rest.to_owned(),
            (path, "") => path.to_owned(),
            (path, rest) => format!("{path}/{rest}"),
        };
        Endpoint { host, repository, insecure, mirror_of: None }
    }
}

/// How many bytes of `reference`'s name `prefix` stands for; `None` if it does not match.
fn match_length(prefix: &str, reference: &Reference) -> Option<usize> {
    let name = reference.name();
    if let Some(domain) = prefix.strip_prefix('*') {
        // `*.example.com` stands for the whole host; `*.example.com/path` for host and path.
        let (domain, path) = domain.split_once('/').unwrap_or((domain, ""));
        if !reference.registry().ends_with(domain) || reference.registry().len() == domain.len() {
            return None;
        }
        let whole = [reference.registry(), path].join("/");
        let whole = whole.trim_end_matches('/');
        return is_path_prefix(whole, &name).then_some(whole.len());
    }
    if is_path_prefix(prefix, &name) {
        return Some(prefix.len());
    }
    // A prefix may also name one tag or digest.
    let is_reference = prefix.contains('/') && reference.to_string() == prefix;
    is_reference.then_some(name.len())
}

fn is_path_prefix(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
        unqualified-search-registries = ["example.com"]

        [aliases]
        "busybox" = "example.com/other"

        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "localhost:5000"
        insecure = true
        [[registry.mirror]]
        location = "mirror.example.com/hub/"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.example.com"
        pull-from-mirror = "tag-only"

        [[registry]]
        location = "docker.io/blocked"
        blocked = true

        [[registry]]
        prefix = "*.corp.example"
        insecure = true

        [[registry]]
        prefix = "*.eu.corp.example"
        location = "eu-proxy.example/all"

        [[registry]]
        prefix = "old.example/team/app"
        location = "new.example:8443/app2"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "only-digests.example"
    "#;

    fn endpoints(text: &str) -> Vec<String> {
        let conf = RegistriesConf::parse(CONF).unwrap();
        let reference: Reference = text.parse().unwrap();
        match conf.endpoints_for(&reference) {
            Err(blocked) => vec![blocked.to_string()],
            Ok(endpoints) => endpoints
                .iter()
                .map(|e| {
                    let insecure = if e.insecure { " insecure" } else { "" };
                    let mirror = e.mirror_of.as_ref().map(|origin| format!(" for {origin}")).unwrap_or_default();
                    format!("{} {}{insecure}{mirror}", e.host, e.repository)
                })
                .collect(),
        }
    }

    #[test]
    fn mirrors_come_before_the_origin() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            endpoints("busybox"),
            [
                "localhost:5000 library/busybox insecure for docker.io",
                "tags.example.com library/busybox for docker.io",
                "registry-1.docker.io library/busybox"
            ]
        );
        assert_eq!(
            endpoints(&format!("user/app@{digest}")),
            [
                "localhost:5000 user/app insecure for docker.io",
                "mirror.example.com hub/user/app for docker.io",
                "registry-1.docker.io user/app"
            ]
        );
        assert_eq!(endpoints("old.example/team/app:1"), ["new.example:8443 app2"]);
        assert_eq!(
            endpoints(&format!("old.example/team/app/sub@{digest}")),
            ["only-digests.example sub for old.example", "new.example:8443 app2/sub"]
        );
    }

    #[test]
    fn the_longest_prefix_at_a_boundary_decides() {
        assert_eq!(
            endpoints("blocked/x"),
            ["docker.io/blocked/x:latest: registry docker.io/blocked is blocked in registries.conf"]
        );
        assert_eq!(endpoints("blockedx/x").len(), 3);
        assert_eq!(endpoints("old.example/team/application"), ["old.example team/application"]);
        assert_eq!(endpoints("docker.io.example/x"), ["docker.io.example x"]);
        assert_eq!(endpoints("a.corp.example/x"), ["a.corp.example x insecure"]);
        assert_eq!(endpoints("corp.example/x"), ["corp.example x"]);
        assert_eq!(endpoints("evilcorp.example/x"), ["evilcorp.example x"]);
        assert_eq!(endpoints("b.eu.corp.example/x"), ["eu-proxy.example all/x"]);
        assert_eq!(endpoints("quay.io/x/y"), ["quay.io x/y"]);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("[[registry]]\nprefix = 'a.example'", "registry \"a.example\" has no location"),
            ("[[registry]]\ninsecure = true", "needs a prefix or a location"),
            ("[[registry]]\nlocation = 'http://a.example'", "must not have a scheme"),
            ("[[registry]]\nlocation = '/x'", "does not begin with a host"),
            (
                "[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\ninsecure = true",
                "does not begin with a host",
            ),
            ("[[registry]\n", "TOML parse error at line 1"),
            ("[[registry]]\nlocation = 5", "invalid type: integer"),
        ] {
            let error = RegistriesConf::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_can_be_trusted() {
        let conf = RegistriesConf::parse("[[registry]]\nprefix = 'a.example/x'\nlocation = 'b.example/y'\n").unwrap();
        let conf = conf.trusting("a.example");
        let origin = |name: &str| conf.origin_for(&name.parse().unwrap()).unwrap();
        assert!(origin("a.example/z").insecure && origin("a.example/x/z").insecure);
        assert!(!origin("c.example/z").insecure && !origin("b.example/y/z").insecure);
    }

    #[test]
    fn finds_the_file_by_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, location: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!("[[registry]]\nlocation = {location:?}\n")).unwrap();
            path.into_os_string()
        };
        let (ours, theirs) = (write("ours.conf", "ours.example"), write("theirs.conf", "theirs.example"));
        write("config/containers/registries.conf", "user.example");
        write("config/containers/registries.conf.d/10.conf", "drop-in.example");
        let prefixes = |variables: &[(&str, &OsString)]| {
            let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).clone());
            let conf = RegistriesConf::from_variables(&lookup)?;
            Ok::<_, InvalidRegistriesConf>(conf.registries.into_iter().map(|r| r.prefix).collect::<Vec<_>>())
        };
        let config = directory.path().join("config").into_os_string();
        let all =
            [("RBUILD_REGISTRIES_CONF", &ours), ("CONTAINERS_REGISTRIES_CONF", &theirs), ("XDG_CONFIG_HOME", &config)];
        assert_eq!(prefixes(&all).unwrap(), ["ours.example"]);
        assert_eq!(prefixes(&all[1..]).unwrap(), ["theirs.example"]);
        assert_eq!(prefixes(&all[2..]).unwrap(), ["user.example", "drop-in.example"]);
        let missing = directory.path().join("missing").into_os_string();
        let error = prefixes(&[("RBUILD_REGISTRIES_CONF", &missing)]).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
