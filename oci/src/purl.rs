//! Package URLs of images (`pkg:docker/…`), by which documents about builds name them (R12.7, R12.12).

use crate::{Platform, Reference};

/// `pkg:docker/alpine@3.20?digest=sha256%3A…&platform=linux%2Famd64`.
pub fn package_url(reference: &Reference, platform: &Platform) -> String {
    let familiar = reference.familiar();
    let name = familiar.split('@').next().unwrap_or_default();
    // A colon after the last slash begins the tag.
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let mut url = format!("pkg:docker/{name}");
    if let Some(tag) = reference.tag() {
        url.push_str(&format!("@{tag}"));
    }
    url.push('?');
    if let Some(digest) = reference.digest() {
        url.push_str(&format!("digest={}&", escaped(&digest.to_string())));
    }
    url.push_str(&format!("platform={}", escaped(&platform.to_string())));
    url
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        let platform: Platform = "linux/arm/v7".parse().unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("r.example:5000/a/b:v1@{digest}");
        for (name, expected) in [
            ("alpine", "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7".to_owned()),
            ("user/x:3", "pkg:docker/user/x@3?platform=linux%2Farm%2Fv7".to_owned()),
            ("localhost:5000/x", "pkg:docker/localhost:5000/x@latest?platform=linux%2Farm%2Fv7".to_owned()),
            (
                &pinned,
                format!(
                    "pkg:docker/r.example:5000/a/b@v1?digest=sha256%3A{}&platform=linux%2Farm%2Fv7",
                    "a".repeat(64)
                ),
            ),
        ] {
            assert_eq!(package_url(&name.parse().unwrap(), &platform), expected);
        }
    }
}
