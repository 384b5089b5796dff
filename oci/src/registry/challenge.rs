//! `WWW-Authenticate` headers (RFC 9110, 11.6.1), as registries send them.
//!
//! One header may carry several challenges, and commas separate challenges as well as parameters: what follows a comma
//! is a parameter if it reads `name=`, and else a new scheme.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Bearer {
        /// URL of the token server.
        realm: String,
        service: Option<String>,
        scope: Option<String>,
        /// `invalid_token`, `insufficient_scope`, …: why the token that was sent did not do.
        error: Option<String>,
    },
    Basic,
}

/// All challenges of a response that this client can meet, in their order. Others are skipped.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).flat_map(parse).collect()
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let after_space = after.trim_start();
        match (after_space.strip_prefix('='), schemes.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = parameter_value(value.trim_start());
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            // A parameter before any scheme: nothing that can be understood.
            (Some(_), None) => break,
            (None, _) => {
                schemes.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    schemes.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let get = |name: &str| {
        parameters.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.clone())
    };
    match scheme {
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service"),
            scope: get("scope"),
            error: get("error"),
        }),
        "basic" => Some(Challenge::Basic),
        _ => None,
    }
}

/// A token of RFC 9110, 5.6.2, and what comes after it.
fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// A quoted string with its escapes undone, or whatever stands before the next comma or space: URLs are sent without
/// quotes too, although they are no tokens.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, after) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (value.to_owned(), after);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str, error: &str) -> Challenge {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Challenge::Bearer { realm: realm.into(), service: some(service), scope: some(scope), error: some(error) }
    }

    /// R6.2.1, R6.2.2.
    #[test]
    fn parses_what_registries_send() {
        let table: &[(&str, Vec<Challenge>)] = &[
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer("https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push", "")],
            ),
            (r#"bearer REALM=https://a.example/t , Service="s""#, vec![bearer("https://a.example/t", "s", "", "")]),
            (
                r#"Bearer realm="https://a/t?x=\"y\\\"",error="insufficient_scope""#,
                vec![bearer(r#"https://a/t?x="y\""#, "", "", "insufficient_scope")],
            ),
            (
                r#"Basic realm="Registry, inc.", Bearer realm="https://a/t""#,
                vec![Challenge::Basic, bearer("https://a/t", "", "", "")],
            ),
            ("Basic", vec![Challenge::Basic]),
            ("Negotiate, Basic realm=x", vec![Challenge::Basic]),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="unterminated"#, vec![bearer("unterminated", "", "", "")]),
            (r#"Bearer realm="\"#, vec![]),
            (r#"realm="x""#, vec![]),
            ("", vec![]),
            (",,=,", vec![]),
        ];
        for (header, expected) in table {
            assert_eq!(parse(header), *expected, "{header}");
        }
    }

    #[test]
    fn reads_every_header() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"https://a/t\"".parse().unwrap());
        assert_eq!(challenges(&headers), [Challenge::Basic, bearer("https://a/t", "", "", "")]);
    }
}
