//! How git logs in: by the credentials of a URL, by a secret of the build, by keys of an agent.

use crate::secrets::{SecretError, Secrets};
use crate::ssh::{Agent, Agents, DEFAULT_ID};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parser::git::decode;
use zeroize::Zeroizing;

/// Answers git's question for credentials.
pub(super) const HELPER: &str =
    r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$RBUILD_GIT_USER" "$RBUILD_GIT_PASSWORD"; }; f"#;

/// Who signs where git logs in with keys.
#[derive(Clone, Debug, Default)]
pub struct GitKeys {
    /// `--ssh`: the Dockerfile's own sources may ask the default one.
    pub agents: Agents,
    /// The agent that the user works with, for `named`.
    pub own: Option<Agent>,
    /// Remotes that the user named on the command line.
    pub named: Vec<String>,
}

impl GitKeys {
    pub(super) fn may_log_in(&self, remote: &str) -> bool {
        self.agents.get(DEFAULT_ID).is_some() || self.is_named(remote)
    }

    pub(super) fn agent(&self, remote: &str) -> Option<&Agent> {
        self.agents.get(DEFAULT_ID).or_else(|| self.own.as_ref().filter(|_| self.is_named(remote)))
    }

    fn is_named(&self, remote: &str) -> bool {
        self.named.iter().any(|named| named == remote)
    }
}

/// Of a URL.
#[derive(Debug, PartialEq)]
pub(super) struct Credentials {
    /// Scheme and host that they are for.
    pub place: String,
    pub user: String,
    pub password: String,
}

/// Takes the credentials out of a URL of HTTP. The user of other URLs is part of the address.
pub(super) fn without_credentials(remote: &str) -> (String, Option<Credentials>) {
    let whole = || (remote.to_owned(), None);
    let Some((scheme @ ("http" | "https"), rest)) = remote.split_once("://") else { return whole() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else { return whole() };
    let place = format!("{scheme}://{host}");
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let credentials =
        Credentials { place: place.clone(), user: decode(user, false), password: decode(password, false) };
    (place + path, Some(credentials))
}

/// What git sends to log in by a secret of the build, `GIT_AUTH_HEADER` or `GIT_AUTH_TOKEN`; one for the remote's host goes first (R3.6.9).
pub(super) fn authorization(secrets: &Secrets, url: &str) -> std::result::Result<Option<Header>, SecretError> {
    let Some(("http" | "https", rest)) = url.split_once("://") else { return Ok(None) };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    for suffix in [format!(".{host}"), String::new()] {
        for (name, is_token) in [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)] {
            let id = format!("{name}{suffix}");
            let Some(secret) = secrets.get(&id)? else { continue };
            let text = secret.header_text(&id)?;
            let value = match is_token {
                true => {
                    let login = Zeroizing::new(format!("x-access-token:{}", *text));
                    Zeroizing::new(format!("basic {}", *Zeroizing::new(BASE64.encode(login.as_bytes()))))
                }
                false => text,
            };
            let value = Zeroizing::new(format!("Authorization: {}", *value));
            return Ok(Some(Header { scope: scope(url).to_owned(), value }));
        }
    }
    Ok(None)
}

/// Where a token goes to: the one repository, but all of them at GitHub, whose submodules are often of the same owner.
pub(super) fn scope(url: &str) -> &str {
    let github = ["https://github.com/", "https://www.github.com/"];
    github.into_iter().find(|prefix| url.starts_with(prefix)).unwrap_or(url)
}

pub(super) struct Header {
    /// The URLs that it is for begin like this.
    pub scope: String,
    pub value: Zeroizing<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::SecretSource;

    /// R3.6.9.
    #[test]
    fn tokens_are_for_one_host_first() {
        let secrets = |given: &[&str]| -> Secrets {
            given.iter().map(|id| ((*id).to_owned(), SecretSource::Command(format!("echo {id}")))).collect()
        };
        let header = |given: &[&str], url: &str| {
            let header = authorization(&secrets(given), url).unwrap();
            header.map(|header| (header.scope, header.value.to_string()))
        };
        let basic = |token: &str| format!("Authorization: basic {}", BASE64.encode(format!("x-access-token:{token}")));
        let url = "https://h:1/r.git";
        assert_eq!(header(&[], url), None);
        assert_eq!(header(&["GIT_AUTH_TOKEN"], url), Some((url.into(), basic("GIT_AUTH_TOKEN"))));
        let all = ["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN.h:1", "GIT_AUTH_HEADER.other"];
        assert_eq!(header(&all, url), Some((url.into(), basic("GIT_AUTH_TOKEN.h:1"))));
        assert_eq!(header(&all[..2], url), Some((url.into(), "Authorization: GIT_AUTH_HEADER".into())));
        assert_eq!(header(&all, "ssh://h/r"), None);
        assert_eq!(header(&all, "https://github.com/a/b").unwrap().0, "https://github.com/");
    }
}
