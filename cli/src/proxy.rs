//! Proxies for RUN steps: from `--build-arg`, then from the `proxies` of Docker's configuration (R1.1.3). Their values may hold passwords: they
//! are never shown, and are part of no key and no image.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NAMES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

#[derive(Default, Deserialize)]
struct DockerConfig {
    /// By the address of a Docker engine, or `default`.
    #[serde(default)]
    proxies: BTreeMap<String, Proxies>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Proxies {
    http_proxy: String,
    https_proxy: String,
    ftp_proxy: String,
    no_proxy: String,
    all_proxy: String,
}

/// By name, which is in any case. An empty build argument takes the configured value away.
pub fn proxies(build_args: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let configured = config_file().map(|file| configured(&file)).unwrap_or_default();
    merged(build_args, configured)
}

fn merged(build_args: &BTreeMap<String, String>, configured: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let given = build_args.iter().filter(|(name, _)| NAMES.contains(&name.to_uppercase().as_str()));
    let mut proxies: BTreeMap<String, String> = given.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in configured {
        if !proxies.keys().any(|given| given.eq_ignore_ascii_case(&name)) {
            proxies.insert(name, value);
        }
    }
    proxies
}

fn config_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    directory.map(|directory| directory.join("config.json"))
}

fn configured(file: &Path) -> BTreeMap<String, String> {
    let Ok(bytes) = std::fs::read(file) else { return BTreeMap::new() };
    match serde_json::from_slice::<DockerConfig>(&bytes) {
        Ok(config) => of_host(config, std::env::var("DOCKER_HOST").ok().as_deref()),
        Err(error) => {
            // Without the error's own text, which may quote a value.
            eprintln!("note: no proxies are taken from {}, line {}: it is not valid", file.display(), error.line());
            BTreeMap::new()
        }
    }
}

fn of_host(mut config: DockerConfig, host: Option<&str>) -> BTreeMap<String, String> {
    let of_host = host.and_then(|host| config.proxies.remove(host));
    let proxies = of_host.or_else(|| config.proxies.remove("default")).unwrap_or_default();
    let values = [proxies.http_proxy, proxies.https_proxy, proxies.ftp_proxy, proxies.no_proxy, proxies.all_proxy];
    NAMES.map(str::to_owned).into_iter().zip(values).filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_engine_s_entry_comes_before_the_default() {
        let text = r#"{"auths": {}, "proxies": {"default": {"httpProxy": "http://d", "noProxy": "local"}, "tcp://h:1": {"httpsProxy": "http://h"}}}"#;
        let of = |host| of_host(serde_json::from_str(text).unwrap(), host);
        assert_eq!(of(None), map(&[("HTTP_PROXY", "http://d"), ("NO_PROXY", "local")]));
        assert_eq!(of(Some("tcp://other")), of(None));
        assert_eq!(of(Some("tcp://h:1")), map(&[("HTTPS_PROXY", "http://h")]));
    }

    #[test]
    fn build_arguments_win_in_any_case() {
        let given = map(&[("http_proxy", "http://arg"), ("NO_PROXY", ""), ("OTHER", "x")]);
        let configured = map(&[("HTTP_PROXY", "http://d"), ("NO_PROXY", "local"), ("ALL_PROXY", "http://all")]);
        let expected = map(&[("http_proxy", "http://arg"), ("NO_PROXY", ""), ("ALL_PROXY", "http://all")]);
        assert_eq!(merged(&given, configured), expected);
    }
}
