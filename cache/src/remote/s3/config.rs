//! The attributes of `type=s3` (R7.5), and what stands for them in the environment.

use super::super::Attributes;
use std::time::Duration;

/// Where a cache lies in an object store, and how it is reached.
#[derive(Clone)]
pub struct S3Config {
    pub bucket: String,
    pub region: String,
    /// Before all keys.
    pub prefix: String,
    pub blobs_prefix: String,
    pub manifests_prefix: String,
    /// Of the document; an import reads the first.
    pub names: Vec<String>,
    /// An object that is older is made new, so that rules that expire objects spare it.
    pub touch_refresh: Duration,
    /// Of another service than Amazon's.
    pub endpoint_url: Option<String>,
    /// The bucket is the first part of the path, not of the host's name.
    pub use_path_style: bool,
    pub credentials: Option<Credentials>,
    /// Requests with a body that run at the same time.
    pub upload_parallelism: usize,
    /// How often a request is sent at most.
    pub attempts: u32,
}

/// Given with the attributes. Never shown.
#[derive(Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl S3Config {
    /// Takes what it knows. `environment` gives variables.
    pub fn new(attributes: &mut Attributes, environment: &dyn Fn(&str) -> Option<String>) -> Result<S3Config, String> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let bucket = attributes.take("bucket").or_else(|| variable("AWS_BUCKET"));
        let bucket = bucket.ok_or("s3 needs a bucket: set bucket=NAME, or AWS_BUCKET")?;
        if bucket.bytes().any(|b| !b.is_ascii_alphanumeric() && !b"-._".contains(&b)) {
            return Err(format!("invalid bucket {bucket:?}: a bucket's name has letters, digits, - and ."));
        }
        let region = attributes.take("region").or_else(|| variable("AWS_REGION"));
        let region = region.or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.ok_or("s3 needs a region: set region=NAME, or AWS_REGION")?;
        if region.bytes().any(|b| !b.is_ascii_alphanumeric() && !b"-_".contains(&b)) {
            return Err(format!("invalid region {region:?}"));
        }
        let endpoint_url = attributes.take("endpoint_url");
        let endpoint_url =
            endpoint_url.or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
        if let Some(url) = endpoint_url.as_ref().filter(|url| !is_web(url)) {
            // It may hold a password.
            let scheme = url.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
            return Err(format!(
                "invalid endpoint_url: expected http:// or https://, a host and perhaps a path (it has {scheme})"
            ));
        }
        let names = attributes.take("name").unwrap_or_else(|| "buildkit".to_owned());
        let names: Vec<String> = names.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.is_empty() {
            return Err("name names nothing".into());
        }
        if let Some(mode) =
            attributes.take("retry_mode").filter(|mode| !["standard", "adaptive"].contains(&mode.as_str()))
        {
            return Err(format!("invalid retry_mode {mode:?}: expected standard or adaptive"));
        }
        // Nothing that a proxy could change is signed here.
        attributes.take_flag("disable_accept_encoding")?;
        let or = |value: Option<String>, default: &str| value.unwrap_or_else(|| default.to_owned());
        Ok(S3Config {
            bucket,
            region,
            prefix: or(attributes.take("prefix"), ""),
            blobs_prefix: or(attributes.take("blobs_prefix"), "blobs/"),
            manifests_prefix: or(attributes.take("manifests_prefix"), "manifests/"),
            names,
            touch_refresh: attributes.take_duration("touch_refresh")?.unwrap_or(Duration::from_secs(24 * 60 * 60)),
            use_path_style: attributes.take_flag("use_path_style")?.unwrap_or(false),
            credentials: credentials(attributes)?,
            endpoint_url,
            upload_parallelism: count(attributes, "upload_parallelism", 4)?.min(64),
            attempts: u32::try_from(count(attributes, "retry_max_attempts", 4)?).unwrap_or(u32::MAX),
        })
    }
}

fn credentials(attributes: &mut Attributes) -> Result<Option<Credentials>, String> {
    let (id, secret) = (attributes.take("access_key_id"), attributes.take("secret_access_key"));
    let session_token = attributes.take("session_token");
    match (id, secret, session_token) {
        (Some(access_key_id), Some(secret_access_key), session_token) => {
            Ok(Some(Credentials { access_key_id, secret_access_key, session_token }))
        }
        (None, None, None) => Ok(None),
        _ => Err("access_key_id and secret_access_key are needed together".into()),
    }
}

fn is_web(url: &str) -> bool {
    let uri = url.parse::<http::Uri>();
    uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && !uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
    })
}

fn count(attributes: &mut Attributes, name: &str, default: usize) -> Result<usize, String> {
    let Some(text) = attributes.take(name) else { return Ok(default) };
    text.parse()
        .ok()
        .filter(|&count| count > 0)
        .ok_or_else(|| format!("invalid {name} {text:?}: expected a positive integer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(attributes: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<S3Config, String> {
        let pairs = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut attributes = Attributes::new(pairs);
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let config = S3Config::new(&mut attributes, &environment)?;
        attributes.finish()?;
        Ok(config)
    }

    /// R7.5.
    #[test]
    fn attributes_and_environment() {
        let least = config(&[], &[("AWS_BUCKET", "b"), ("AWS_REGION", "r")]).ok().unwrap();
        assert_eq!((least.bucket.as_str(), least.region.as_str()), ("b", "r"));
        assert_eq!((least.blobs_prefix.as_str(), least.manifests_prefix.as_str()), ("blobs/", "manifests/"));
        assert_eq!((least.names, least.upload_parallelism), (vec!["buildkit".to_owned()], 4));
        let most = config(
            &[
                ("bucket", "c"),
                ("region", "eu-1"),
                ("name", "a;b"),
                ("touch_refresh", "1h30m"),
                ("use_path_style", "true"),
                ("endpoint_url", "http://127.0.0.1:9000"),
                ("access_key_id", "k"),
                ("secret_access_key", "s"),
                ("upload_parallelism", "9"),
                ("retry_mode", "standard"),
                ("retry_max_attempts", "2"),
                ("disable_accept_encoding", "true"),
            ],
            &[("AWS_BUCKET", "b")],
        )
        .ok()
        .unwrap();
        assert_eq!((most.bucket.as_str(), most.touch_refresh), ("c", Duration::from_secs(5400)));
        assert_eq!((most.names.len(), most.upload_parallelism, most.attempts), (2, 9, 2));
    }

    #[test]
    fn mistakes_are_told() {
        let given = [("bucket", "b"), ("region", "r")];
        for (attribute, message) in [
            (("bucket", "a/b"), "invalid bucket"),
            (("access_key_id", "k"), "are needed together"),
            (("session_token", "k"), "are needed together"),
            (("upload_parallelism", "0"), "expected a positive integer"),
            (("touch_refresh", "1x"), "invalid touch_refresh"),
            (("endpoint_url", "s3.example"), "invalid endpoint_url"),
            (("endpoint_url", "ftp://s3.example"), "invalid endpoint_url"),
            (("endpoint_url", "https://u:p@s3.example"), "invalid endpoint_url"),
            (("retry_mode", "never"), "invalid retry_mode"),
            (("nonsense", "1"), "no attribute"),
        ] {
            let attributes: Vec<_> =
                given.into_iter().filter(|(name, _)| *name != attribute.0).chain([attribute]).collect();
            let error = config(&attributes, &[]).err().unwrap();
            assert!(error.contains(message), "{error}");
        }
        assert!(config(&[("bucket", "b")], &[]).err().unwrap().contains("needs a region"));
    }
}
