//! The attributes of `type=gha` (R7.5), and the variables that GitHub's runners set for them.

use super::super::Attributes;
use super::token::Token;
use std::time::Duration;

/// Which of the two protocols the service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// A cache in the service of GitHub Actions.
#[derive(Clone)]
pub struct GhaConfig {
    /// Tells one cache of a repository from another.
    pub scope: String,
    /// Without a slash at its end.
    pub url: String,
    pub version: Version,
    pub token: Token,
    /// How long one request may take, with all that it is sent again.
    pub timeout: Duration,
    /// For the listing of what is there: `owner/name`, and a token for GitHub's API.
    pub listing: Option<Listing>,
}

#[derive(Clone)]
pub struct Listing {
    pub repository: String,
    /// Of GitHub's API. Without a slash at its end.
    pub api: String,
    /// Never shown.
    pub token: String,
}

impl GhaConfig {
    /// Takes what it knows. `environment` gives variables.
    pub fn new(attributes: &mut Attributes, environment: &dyn Fn(&str) -> Option<String>) -> Result<GhaConfig, String> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let version = match attributes.take("version").as_deref() {
            None => variable("ACTIONS_CACHE_SERVICE_V2").filter(|value| is_true(value)).map(|_| Version::V2),
            Some("1") => Some(Version::V1),
            Some("2") => Some(Version::V2),
            Some(version) => return Err(format!("invalid version {version:?}: expected 1 or 2")),
        };
        let (url, url_v2) = (attributes.take("url"), attributes.take("url_v2"));
        // A service that is named is asked in its own protocol; what the runner says of itself counts after that.
        let results = || variable("ACTIONS_RESULTS_URL");
        let (url, version) = match version {
            Some(Version::V1) => (url.or_else(|| variable("ACTIONS_CACHE_URL")), Version::V1),
            Some(Version::V2) => (url_v2.or(url).or_else(results), Version::V2),
            None if url_v2.is_some() => (url_v2, Version::V2),
            None => {
                let url = url.or_else(|| variable("ACTIONS_CACHE_URL")).or_else(results);
                let is_new =
                    url.as_ref().is_some_and(|url| url.contains("results-receiver.actions.githubusercontent.com"));
                (url, if is_new { Version::V2 } else { Version::V1 })
            }
        };
        let token = attributes.take("token").or_else(|| variable("ACTIONS_RUNTIME_TOKEN"));
        let (Some(url), Some(token)) = (url, token) else {
            return Err("gha needs the cache service of a GitHub runner, which steps of a workflow that are no actions do not see: let one hand \
                 on ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN (crazy-max/ghaction-github-runtime does), or set url= and token="
                .to_owned());
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err("invalid url of the cache service: expected http:// or https://".into());
        }
        let listing = match (attributes.take("repository"), attributes.take("ghtoken")) {
            (Some(repository), Some(token)) => {
                let api = variable("GITHUB_API_URL").unwrap_or_else(|| "https://api.github.com".to_owned());
                Some(Listing { repository, api: api.trim_end_matches('/').to_owned(), token })
            }
            // One alone says nothing, as for BuildKit.
            _ => None,
        };
        Ok(GhaConfig {
            scope: attributes.take("scope").unwrap_or_else(|| "buildkit".to_owned()),
            url: url.trim_end_matches('/').to_owned(),
            version,
            token: Token::parse(&token)?,
            timeout: attributes.take_duration("timeout")?.unwrap_or(Duration::from_secs(600)),
            listing,
        })
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true")
}

#[cfg(test)]
mod tests {
    use super::super::token::tests::token;
    use super::*;

    fn config(attributes: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<GhaConfig, String> {
        let token = token(r#"[{"Scope":"refs/heads/main","Permission":3}]"#, 1 << 40);
        let pairs = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut attributes = Attributes::new(pairs);
        let environment = |name: &str| {
            let variables = variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            variables.or_else(|| (name == "ACTIONS_RUNTIME_TOKEN").then(|| token.clone()))
        };
        let config = GhaConfig::new(&mut attributes, &environment)?;
        attributes.finish()?;
        Ok(config)
    }

    /// R7.5.
    #[test]
    fn attributes_and_environment() {
        let old = ("ACTIONS_CACHE_URL", "https://old/");
        let new = ("ACTIONS_RESULTS_URL", "https://results-receiver.actions.githubusercontent.com/");
        let v2 = ("ACTIONS_CACHE_SERVICE_V2", "True");
        let chosen = |attributes: &[(&str, &str)], variables: &[(&str, &str)]| {
            let config = config(attributes, variables).ok().unwrap();
            (config.url, config.version)
        };
        let new_url = new.1.trim_end_matches('/').to_owned();
        assert_eq!(chosen(&[], &[old, new]), ("https://old".to_owned(), Version::V1));
        assert_eq!(chosen(&[], &[old, new, v2]), (new_url.clone(), Version::V2));
        assert_eq!(chosen(&[], &[new]), (new_url, Version::V2));
        assert_eq!(chosen(&[("version", "1")], &[old, new, v2]), ("https://old".to_owned(), Version::V1));
        assert_eq!(chosen(&[("url_v2", "http://x")], &[old]), ("http://x".to_owned(), Version::V2));
        let config = config(
            &[("scope", "app"), ("url", "http://x/"), ("timeout", "30s"), ("repository", "o/n"), ("ghtoken", "t")],
            &[("GITHUB_API_URL", "https://github.test/api/v3")],
        );
        let config = config.ok().unwrap();
        assert_eq!((config.scope.as_str(), config.timeout), ("app", Duration::from_secs(30)));
        assert_eq!(config.listing.unwrap().api, "https://github.test/api/v3");
    }

    #[test]
    fn mistakes_are_told() {
        assert!(config(&[], &[]).err().unwrap().contains("gha needs the cache service of a GitHub runner"));
        for (attribute, message) in [
            (("version", "3"), "expected 1 or 2"),
            (("url", "x"), "invalid url"),
            (("token", "hush.hush"), "is no token"),
            (("timeout", "x"), "invalid timeout"),
        ] {
            let error = config(&[("url", "http://x"), attribute], &[]).err().unwrap();
            assert!(error.contains(message) && !error.contains("hush"), "{error}");
        }
    }
}
