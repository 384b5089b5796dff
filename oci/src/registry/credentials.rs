//! Credentials for registries, from Docker's and containers' files and from credential helpers (spec R6.2.12 to 17).
//!
//! Files are asked in their order, and the first that has an entry for the host wins. Within a file `credHelpers` beats
//! `credsStore`, which beats `auths`. The keys of `auths` have grown over time: `host`, `https://host/v1/`, and, in
//! containers' auth.json, `host/namespace/repository`, of which the longest that fits is taken. Docker Hub has three names.

use super::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// What credential helpers and `docker login` call Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
const DOCKER_HUB_HOSTS: &[&str] = &["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// What a helper says when it has nothing, on whichever stream, with a non-zero exit.
const HELPER_HAS_NOTHING: &str = "credentials not found in native keychain";
const HELPER_PATIENCE: Duration = Duration::from_secs(60);

/// How to log in to one registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Anonymous,
    Password {
        username: String,
        password: String,
    },
    /// An OAuth refresh token, traded for access tokens at the token server.
    IdentityToken(String),
    /// Sent as a bearer token as it is (R6.2.11).
    RegistryToken(String),
}

/// Where credentials are looked up. Files are read when a registry first asks for a login.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
    fixed: BTreeMap<String, Credential>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    secret: String,
}

impl Credentials {
    /// No credentials for anything.
    pub fn anonymous() -> Self {
        Credentials::default()
    }

    /// The files of R6.2.12: `authfile` (a flag's value) first, then those that the environment names.
    pub fn from_environment(authfile: Option<PathBuf>) -> Self {
        Self::from_variables(authfile, &|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(authfile: Option<PathBuf>, variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HOME");
        let below_home = |relative: &str| home.as_ref().map(|home| home.join(relative));
        let configuration = path("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let files = [
            authfile,
            path("REGISTRY_AUTH_FILE"),
            path("DOCKER_CONFIG").map(|directory| directory.join("config.json")),
            below_home(".docker/config.json"),
            path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
            configuration.map(|directory| directory.join("containers/auth.json")),
        ];
        Credentials { files: files.into_iter().flatten().collect(), fixed: BTreeMap::new() }
    }

    pub fn from_files(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Credentials { files: files.into_iter().collect(), fixed: BTreeMap::new() }
    }

    /// Adds a credential for `host` (as names write it) that is used whatever the files say.
    #[must_use]
    pub fn with(mut self, host: &str, credential: Credential) -> Self {
        self.fixed.insert(canonical_host(host).to_owned(), credential);
        self
    }

    /// The credential for a repository. Blocks on reading files; helpers are awaited.
    pub(super) async fn lookup(&self, host: &str, repository: &str) -> Result<Credential, Error> {
        if let Some(credential) = self.fixed.get(canonical_host(host)) {
            return Ok(credential.clone());
        }
        let error = |why: String| Error::Credentials { host: host.to_owned(), why };
        // R6.2.17: a helper that cannot be run matters only if nobody else knows.
        let mut broken_helper = None;
        for path in &self.files {
            let Some(file) = read(path).map_err(error)? else {
                continue;
            };
            if let Some(helper) = file.helper_for(host) {
                match run_helper(helper, server_name(host)).await {
                    Ok(Some(credential)) => return Ok(credential),
                    Ok(None) => {}
                    Err(why) => {
                        tracing::warn!(helper, %why, "credential helper failed");
                        broken_helper = Some(why);
                    }
                }
            }
            if let Some((key, entry)) = file.entry_for(host, repository) {
                let credential =
                    entry.credential().map_err(|why| error(format!("{}: {key}: {why}", path.display())))?;
                if credential != Credential::Anonymous {
                    return Ok(credential);
                }
            }
        }
        match broken_helper {
            Some(why) => Err(error(why)),
            None => Ok(Credential::Anonymous),
        }
    }
}

impl File {
    fn helper_for(&self, host: &str) -> Option<&str> {
        let named = self.cred_helpers.iter().find(|(key, _)| canonical_host(key_host(key)) == canonical_host(host));
        named
            .map(|(_, helper)| helper)
            .or(self.creds_store.as_ref())
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    fn entry_for(&self, host: &str, repository: &str) -> Option<(&str, &Entry)> {
        let fits = |key: &str| {
            let (key_host, path) = split_key(key);
            let in_repository = path.is_empty()
                || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            (canonical_host(key_host) == canonical_host(host) && in_repository).then_some(path.len())
        };
        let best = self.auths.iter().filter_map(|(key, entry)| fits(key).map(|length| (length, key, entry)));
        best.max_by_key(|(length, ..)| *length).map(|(_, key, entry)| (key.as_str(), entry))
    }
}

impl Entry {
    fn credential(&self) -> Result<Credential, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Credential::RegistryToken(token));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Credential::IdentityToken(token));
        }
        let (username, password) = match given(&self.auth) {
            None => (given(&self.username).unwrap_or_default(), given(&self.password).unwrap_or_default()),
            Some(auth) => {
                let auth = auth.trim();
                let bytes = STANDARD
                    .decode(auth)
                    .or_else(|_| STANDARD_NO_PAD.decode(auth))
                    .map_err(|_| "auth is not base64".to_owned())?;
                let text = String::from_utf8(bytes).map_err(|_| "auth is not UTF-8".to_owned())?;
                let (username, password) =
                    text.split_once(':').ok_or_else(|| "auth is not base64 of user:password".to_owned())?;
                (username.to_owned(), password.trim_end_matches('\0').to_owned())
            }
        };
        Ok(credential(username, password))
    }
}

/// R6.2.6, R6.2.10.
fn credential(username: String, secret: String) -> Credential {
    match (username.as_str(), secret.as_str()) {
        (_, "") => Credential::Anonymous,
        ("" | "<token>", _) => Credential::IdentityToken(secret),
        _ => Credential::Password { username, password: secret },
    }
}

fn read(path: &Path) -> Result<Option<File>, String> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        // The position only: the parser's message may quote what is there.
        format!("{}: not valid JSON at line {}, column {}", path.display(), error.line(), error.column())
    })
}

/// `docker-credential-NAME get`, with the server's name on standard input (R6.2.16). `None` if it knows of nothing.
async fn run_helper(helper: &str, server: &str) -> Result<Option<Credential>, String> {
    if helper.contains('/') {
        return Err(format!("{helper:?} is not the name of a credential helper"));
    }
    ask_helper(&format!("docker-credential-{helper}"), server).await
}

async fn ask_helper(program: &str, server: &str) -> Result<Option<Credential>, String> {
    let failed = |why: &dyn fmt::Display| format!("{program}: {why}");
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input says so by its exit code.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let output = tokio::time::timeout(HELPER_PATIENCE, child.wait_with_output())
        .await
        .map_err(|_| failed(&"gave no answer within a minute"))?
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        // The message comes on standard output.
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        return match said.contains(HELPER_HAS_NOTHING) {
            true => Ok(None),
            false => Err(failed(&format!("{}: {}", output.status, said.trim().chars().take(400).collect::<String>()))),
        };
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed(&"answered with something that is not JSON"))?;
    Ok(Some(credential(answer.username, answer.secret)).filter(|credential| *credential != Credential::Anonymous))
}

/// What helpers know a host by.
fn server_name(host: &str) -> &str {
    if DOCKER_HUB_HOSTS.contains(&host) { DOCKER_HUB } else { host }
}

fn canonical_host(host: &str) -> &str {
    if DOCKER_HUB_HOSTS.contains(&host) { "docker.io" } else { host }
}

fn key_host(key: &str) -> &str {
    split_key(key).0
}

/// Host and repository prefix of a key of `auths`. The `v1` and `v2` of a URL are the API's, not a repository's.
fn split_key(key: &str) -> (&str, &str) {
    let stripped = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = stripped.unwrap_or(key).split_once('/').unwrap_or((stripped.unwrap_or(key), ""));
    let path = path.trim_matches('/');
    if stripped.is_some() && (path.starts_with("v1") || path.starts_with("v2")) { (host, "") } else { (host, path) }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Anonymous => "Anonymous",
            Credential::Password { .. } => "Password(****)",
            Credential::IdentityToken(_) => "IdentityToken(****)",
            Credential::RegistryToken(_) => "RegistryToken(****)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }

    fn auth(username: &str, password: &str) -> serde_json::Value {
        serde_json::json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
    }

    async fn lookup(files: &[serde_json::Value], host: &str, repository: &str) -> Result<Credential, Error> {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..files.len()).map(|n| directory.path().join(n.to_string())).collect();
        for (path, file) in paths.iter().zip(files) {
            std::fs::write(path, file.to_string()).unwrap();
        }
        Credentials::from_files(paths).lookup(host, repository).await
    }

    /// R6.2.13 to R6.2.15.
    #[tokio::test]
    async fn finds_entries_by_every_form_of_key() {
        let file = serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": auth("hub", "a:b"),
            "plain.example": auth("plain", "p\0\0"),
            "port.example:5000": { "username": "port", "password": "p" },
            "https://v2.example/v2/": auth("v2", "p"),
            "path.example": auth("host", "p"),
            "path.example/team": auth("team", "p"),
            "path.example/team/app": auth("app", "p"),
            "id.example": { "identitytoken": "refresh", "auth": STANDARD.encode("<token>:") },
            "reg.example": { "registrytoken": "as-is" },
            "token.example": auth("<token>", "refresh"),
            "empty.example": {},
        }});
        for (host, repository, expected) in [
            ("docker.io", "library/x", password("hub", "a:b")),
            ("registry-1.docker.io", "library/x", password("hub", "a:b")),
            ("plain.example", "x", password("plain", "p")),
            ("plain.example:443", "x", Credential::Anonymous),
            ("port.example:5000", "x", password("port", "p")),
            ("v2.example", "x", password("v2", "p")),
            ("path.example", "team/app/sub", password("app", "p")),
            ("path.example", "team/application", password("team", "p")),
            ("path.example", "teams", password("host", "p")),
            ("id.example", "x", Credential::IdentityToken("refresh".into())),
            ("reg.example", "x", Credential::RegistryToken("as-is".into())),
            ("token.example", "x", Credential::IdentityToken("refresh".into())),
            ("empty.example", "x", Credential::Anonymous),
            ("other.example", "x", Credential::Anonymous),
        ] {
            assert_eq!(
                lookup(std::slice::from_ref(&file), host, repository).await.unwrap(),
                expected,
                "{host} {repository}"
            );
        }
    }

    /// R6.2.12, R6.2.17.
    #[tokio::test]
    async fn the_first_file_that_knows_wins_and_broken_ones_matter_last() {
        let with = |user: &str| serde_json::json!({ "auths": { "a.example": auth(user, "p") } });
        let none = serde_json::json!({ "auths": { "a.example": {} } });
        assert_eq!(
            lookup(&[none, with("second"), with("third")], "a.example", "x").await.unwrap(),
            password("second", "p")
        );
        let missing = serde_json::json!({ "credsStore": "surely-not-installed" });
        assert_eq!(lookup(&[missing.clone(), with("other")], "a.example", "x").await.unwrap(), password("other", "p"));
        let error = lookup(&[missing], "a.example", "x").await.unwrap_err().to_string();
        assert!(error.contains("docker-credential-surely-not-installed"), "{error}");
        let bad = serde_json::json!({ "auths": { "a.example": { "auth": "c2VjcmV0" } } });
        let error = lookup(&[bad], "a.example", "x").await.unwrap_err().to_string();
        assert!(error.contains("user:password") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn helpers_are_chosen_by_host_then_for_all() {
        let file: File = serde_json::from_value(serde_json::json!({
            "credsStore": "all", "credHelpers": { "gcr.io": "gcr", "https://index.docker.io/v1/": "hub" }
        }))
        .unwrap();
        assert_eq!(file.helper_for("gcr.io"), Some("gcr"));
        assert_eq!(file.helper_for("registry-1.docker.io"), Some("hub"));
        assert_eq!(file.helper_for("x.example"), Some("all"));
        assert_eq!(server_name("registry-1.docker.io"), DOCKER_HUB);
        assert_eq!(server_name("gcr.io"), "gcr.io");
    }

    /// R6.2.16.
    #[tokio::test]
    async fn helpers_are_asked_on_standard_input() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("docker-credential-test");
        let script = r#"#!/bin/sh
            [ "$1" = get ] || exit 3
            case $(cat) in
                known.example) echo '{"ServerURL":"known.example","Username":"u","Secret":"p"}' ;;
                token.example) echo '{"ServerURL":"token.example","Username":"<token>","Secret":"t"}' ;;
                odd.example) echo 'no JSON, but hush' ;;
                broken.example) echo 'keychain is locked'; exit 1 ;;
                *) echo 'credentials not found in native keychain'; exit 1 ;;
            esac"#;
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = program.to_str().unwrap();
        assert_eq!(ask_helper(program, "known.example").await, Ok(Some(password("u", "p"))));
        assert_eq!(ask_helper(program, "token.example").await, Ok(Some(Credential::IdentityToken("t".into()))));
        assert_eq!(ask_helper(program, "other.example").await, Ok(None));
        let error = ask_helper(program, "broken.example").await.unwrap_err();
        assert!(error.contains("keychain is locked"), "{error}");
        let error = ask_helper(program, "odd.example").await.unwrap_err();
        assert!(error.contains("not JSON") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn the_environment_orders_the_files() {
        let variables =
            [("REGISTRY_AUTH_FILE", "/r"), ("DOCKER_CONFIG", "/d"), ("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run")];
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let files = Credentials::from_variables(Some("/flag".into()), &lookup).files;
        let expected = [
            "/flag",
            "/r",
            "/d/config.json",
            "/h/.docker/config.json",
            "/run/containers/auth.json",
            "/h/.config/containers/auth.json",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn debug_output_keeps_secrets() {
        let all =
            [password("u", "hush"), Credential::IdentityToken("hush".into()), Credential::RegistryToken("hush".into())];
        assert!(!format!("{all:?}").contains("hush"));
    }
}
