//! The token of a workflow's run: a JWT whose claim `ac` says which branches' caches may be read and written. The service checks its signature; here it is only
//! read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const READ: u32 = 1;
const WRITE: u32 = 2;

/// Never shown, so it has no `Debug`.
#[derive(Clone)]
pub struct Token {
    raw: String,
    scopes: Vec<Scope>,
    expires: SystemTime,
}

/// A branch (`refs/heads/main`, `refs/pull/7/merge`).
#[derive(Clone, Deserialize)]
struct Scope {
    #[serde(rename = "Scope")]
    name: String,
    /// Bits.
    #[serde(rename = "Permission")]
    permission: u32,
}

#[derive(Deserialize)]
struct Claims {
    ac: String,
    exp: f64,
}

impl Token {
    /// The errors do not show it.
    pub fn parse(raw: &str) -> Result<Token, String> {
        let invalid = |why: &str| format!("the token of the cache service (ACTIONS_RUNTIME_TOKEN) {why}");
        let mut parts = raw.trim().split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(invalid("is no token: it has not three parts"));
        };
        let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| invalid("is no token"))?;
        let claims: Claims =
            serde_json::from_slice(&claims).map_err(|_| invalid("does not say which caches it is for"))?;
        let scopes = serde_json::from_str(&claims.ac).map_err(|_| invalid("does not say which caches it is for"))?;
        let seconds = Duration::try_from_secs_f64(claims.exp).unwrap_or_default();
        let expires = UNIX_EPOCH.checked_add(seconds).ok_or_else(|| invalid("does not expire"))?;
        if raw.trim().bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(invalid("is no token"));
        }
        Ok(Token { raw: raw.trim().to_owned(), scopes, expires })
    }

    /// The value of `Authorization`.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.raw)
    }

    pub fn has_expired(&self) -> bool {
        SystemTime::now() >= self.expires
    }

    /// The branches whose caches may be read: first the one that may be written too.
    pub fn readable(&self) -> Vec<&str> {
        let mut scopes: Vec<&Scope> = self.scopes.iter().filter(|scope| scope.permission & READ != 0).collect();
        scopes.sort_by_key(|scope| scope.permission & WRITE == 0);
        scopes.into_iter().map(|scope| scope.name.as_str()).collect()
    }

    /// The branch whose cache may be written: the last such, as for BuildKit.
    pub fn writable(&self) -> Option<&str> {
        self.scopes.iter().rfind(|scope| scope.permission & WRITE != 0).map(|scope| scope.name.as_str())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn token(ac: &str, exp: u64) -> String {
        let claims = serde_json::json!({ "ac": ac, "exp": exp, "nbf": 1, "iss": "x" }).to_string();
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn branches_of_a_token() {
        let pull = r#"[{"Scope":"refs/heads/main","Permission":1},{"Scope":"refs/pull/7/merge","Permission":3}]"#;
        let token = Token::parse(&token(pull, 1 << 40)).ok().unwrap();
        assert_eq!(token.readable(), ["refs/pull/7/merge", "refs/heads/main"]);
        assert_eq!(token.writable(), Some("refs/pull/7/merge"));
        assert!(!token.has_expired());
        assert!(Token::parse(&tests::token("[]", 1000)).ok().unwrap().has_expired());
    }

    #[test]
    fn what_is_no_token_is_not_shown() {
        for raw in ["hush", "a.hush.c", "a.e30.hush", &token("hush", 5), "a.b.c.hush"] {
            let error = Token::parse(raw).err().unwrap();
            assert!(error.contains("ACTIONS_RUNTIME_TOKEN") && !error.contains("hush"), "{error}");
        }
    }
}
