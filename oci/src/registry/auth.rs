//! Answers to 401: bearer tokens and Basic (spec R6.2).
//!
//! A host is first asked without credentials. Its challenge is remembered, so that later requests, for other
//! repositories too, carry a token from the start. Tokens are kept by host and scope; whoever needs one that is being
//! fetched waits for it rather than fetching another.

use super::challenge::{Challenge, challenges};
use super::credentials::{Credential, Credentials};
use super::error::{Action, Chain, Error, shown};
use super::response::{self, MAX_ERROR_BODY};
use super::scope::Scope;
use crate::fetch::transport::{Failure, Outgoing, Transport, empty, full, is_loopback};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MAX_TOKEN_ANSWER: usize = 1 << 20;
/// R6.2.4: what a token lives if the server does not say.
const DEFAULT_LIFE: u64 = 60;
const TOKEN_ATTEMPTS: u32 = 3;
const CLIENT_ID: &str = "rbuild";

pub(super) struct Authenticator {
    credentials: Credentials,
    /// What each host asked for.
    schemes: Mutex<HashMap<String, Scheme>>,
    logins: Mutex<HashMap<(String, String), Credential>>,
    tokens: Mutex<HashMap<(String, Scope), SharedSlot>>,
}

/// Who asks for what, for tokens and for messages.
pub(super) struct Asker<'a> {
    /// The reference, or what else the request is about.
    pub what: &'a str,
    pub action: Action,
    pub host: &'a str,
    pub repository: &'a str,
    pub scope: &'a Scope,
    /// The registry is spoken to over https: then a password does not go to a token server over http.
    pub secure: bool,
    pub insecure: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Bearer { realm: String, service: Option<String> },
    Basic,
}

/// Locked while its token is being fetched.
type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

#[derive(Default)]
struct Slot {
    token: Option<Token>,
    /// What the registry asked for beyond the request's own scope.
    demanded: Scope,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    expires: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    issued_at: Option<String>,
}

impl Authenticator {
    pub(super) fn new(credentials: Credentials) -> Self {
        Authenticator { credentials, schemes: Mutex::default(), logins: Mutex::default(), tokens: Mutex::default() }
    }

    /// The `Authorization` for a request, as far as the host is known to want one.
    pub(super) async fn header(&self, transport: &Transport, asker: &Asker<'_>) -> Result<Option<HeaderValue>, Error> {
        let scheme = lock(&self.schemes).get(asker.host).cloned();
        match scheme {
            None => Ok(None),
            Some(Scheme::Basic) => match self.login(asker).await? {
                Credential::Password { username, password } => Ok(basic(&username, &password)),
                Credential::RegistryToken(token) => Ok(bearer(&token)),
                Credential::Anonymous | Credential::IdentityToken(_) => Ok(None),
            },
            Some(Scheme::Bearer { realm, service }) => {
                let slot = self.slot(asker);
                let mut slot = slot.lock().await;
                if let Some(token) = slot.token.as_ref().filter(|token| token.expires > Instant::now()) {
                    return Ok(Some(token.header.clone()));
                }
                let credential = self.login(asker).await?;
                let scope = asker.scope.clone().and(&slot.demanded);
                let token = fetch_token(transport, asker, &realm, service.as_deref(), &scope, &credential).await?;
                slot.token = Some(token.clone());
                Ok(Some(token.header))
            }
        }
    }

    /// Takes in a 401. Whether another attempt makes sense, having sent `used`.
    pub(super) async fn challenged(&self, asker: &Asker<'_>, headers: &HeaderMap, used: Option<&HeaderValue>) -> bool {
        let mut offered = challenges(headers);
        offered.sort_by_key(|challenge| *challenge == Challenge::Basic);
        match offered.into_iter().next() {
            None => false,
            Some(Challenge::Basic) => {
                lock(&self.schemes).insert(asker.host.to_owned(), Scheme::Basic);
                used.is_none()
            }
            Some(Challenge::Bearer { realm, service, scope, error }) => {
                let demanded = Scope::parse(scope.as_deref().unwrap_or_default());
                lock(&self.schemes).insert(asker.host.to_owned(), Scheme::Bearer { realm, service });
                let slot = self.slot(asker);
                let mut slot = slot.lock().await;
                let had = asker.scope.clone().and(&slot.demanded);
                // R6.2.9: the same again would be refused again.
                if used.is_some() && error.as_deref() == Some("insufficient_scope") && had.contains(&demanded) {
                    return false;
                }
                slot.demanded = std::mem::take(&mut slot.demanded).and(&demanded);
                // Another request may have put a newer token there meanwhile.
                if slot.token.as_ref().map(|token| &token.header) == used {
                    slot.token = None;
                }
                true
            }
        }
    }

    fn slot(&self, asker: &Asker<'_>) -> SharedSlot {
        lock(&self.tokens).entry((asker.host.to_owned(), asker.scope.clone())).or_default().clone()
    }

    async fn login(&self, asker: &Asker<'_>) -> Result<Credential, Error> {
        let key = (asker.host.to_owned(), asker.repository.to_owned());
        if let Some(credential) = lock(&self.logins).get(&key).cloned() {
            return Ok(credential);
        }
        let credential = self.credentials.lookup(asker.host, asker.repository).await?;
        lock(&self.logins).insert(key, credential.clone());
        Ok(credential)
    }
}

/// R6.2.5 to R6.2.8.
async fn fetch_token(
    transport: &Transport,
    asker: &Asker<'_>,
    realm: &str,
    service: Option<&str>,
    scope: &Scope,
    credential: &Credential,
) -> Result<Token, Error> {
    let failed = |why: String| Error::Token { what: asker.what.to_owned(), realm: shown_realm(realm), why };
    let url: Uri = realm.parse().map_err(|_| failed("the realm is no URL".into()))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(failed("the realm is no http URL".into()));
    };
    let anonymous = *credential == Credential::Anonymous;
    if scheme == "http" && asker.secure && !anonymous && !is_loopback(authority.as_str()) {
        return Err(failed("the registry asks for credentials to be sent without encryption".into()));
    }

    let mut form: Vec<(&str, String)> = Vec::new();
    form.extend(service.map(|service| ("service", service.to_owned())));
    let post = |grant: &[(&str, String)]| {
        let mut form = form.clone();
        form.extend_from_slice(grant);
        form.extend([("client_id", CLIENT_ID.to_owned()), ("scope", scope.to_string())]);
        TokenRequest { url: url.clone(), form: Some(encoded(&form)), authorization: None }
    };
    let get = |authorization| {
        let mut query = form.clone();
        query.extend(scope.words().into_iter().map(|word| ("scope", word)));
        let separator = if url.query().is_some() { '&' } else { '?' };
        let url = if query.is_empty() { realm.to_owned() } else { format!("{realm}{separator}{}", encoded(&query)) };
        Ok::<_, Error>(TokenRequest {
            url: url.parse().map_err(|_| failed("the realm is no URL".into()))?,
            form: None,
            authorization,
        })
    };

    let answer = match credential {
        Credential::RegistryToken(token) => {
            let header = bearer(token).ok_or_else(|| failed("the stored token has unprintable characters".into()))?;
            return Ok(Token { header, expires: Instant::now() + Duration::from_secs(86400) });
        }
        Credential::Anonymous => get(None)?.send(transport, asker, realm).await?,
        Credential::IdentityToken(token) => {
            let grant = [("grant_type", "refresh_token".to_owned()), ("refresh_token", token.clone())];
            post(&grant).send(transport, asker, realm).await?
        }
        Credential::Password { username, password } => {
            let (status, body) = get(basic(username, password))?.send(transport, asker, realm).await?;
            if matches!(status, StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::METHOD_NOT_ALLOWED) {
                let grant = [
                    ("grant_type", "password".to_owned()),
                    ("username", username.clone()),
                    ("password", password.clone()),
                ];
                let (again, other_body) = post(&grant).send(transport, asker, realm).await?;
                // A server that does not know the second way says nothing about the credentials by it.
                if again.is_success() || again == StatusCode::UNAUTHORIZED {
                    (again, other_body)
                } else {
                    (status, body)
                }
            } else {
                (status, body)
            }
        }
    };
    let (status, body) = answer;
    match status {
        status if status.is_success() => token(&body).ok_or_else(|| failed("the answer holds no token".into())),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let whose = if anonymous { "gives no token without a login" } else { "refuses the stored credentials" };
            let said = response::error_detail(&body);
            let said = if said.is_empty() { said } else { format!(": {said}") };
            Err(Error::Denied {
                what: asker.what.to_owned(),
                action: asker.action,
                detail: format!("{} {whose} ({status}){said}", shown_realm(realm)),
            })
        }
        status => Err(failed(format!("{status} {}", response::error_detail(&body)).trim_end().to_owned())),
    }
}

struct TokenRequest {
    url: Uri,
    form: Option<String>,
    authorization: Option<HeaderValue>,
}

impl TokenRequest {
    async fn send(&self, transport: &Transport, asker: &Asker<'_>, realm: &str) -> Result<(StatusCode, Bytes), Error> {
        let failed = |why: String| Error::Token { what: asker.what.to_owned(), realm: shown_realm(realm), why };
        let mut wait = transport.timing.backoff;
        let mut attempt = 1;
        loop {
            let last = attempt == TOKEN_ATTEMPTS;
            match self.attempt(transport, asker).await {
                Ok((status, _)) if !last && is_passing(status) => {}
                Ok(answer) => return Ok(answer),
                Err(Failure::Interrupted { .. }) if !last => {}
                Err(Failure::Interrupted { cause, .. }) => return Err(failed(Chain(&*cause).to_string())),
                Err(Failure::Connect { cause, .. }) => {
                    return Err(failed(format!("cannot connect: {}", Chain(&*cause))));
                }
                Err(Failure::Protocol { why, .. }) => return Err(failed(why)),
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
            attempt += 1;
        }
    }

    async fn attempt(&self, transport: &Transport, asker: &Asker<'_>) -> Result<(StatusCode, Bytes), Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if self.form.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        let form = self.form.clone();
        let outgoing = Outgoing {
            method: if form.is_some() { Method::POST } else { Method::GET },
            url: self.url.clone(),
            headers,
            authorization: self.authorization.clone(),
            body: &|| form.as_ref().map_or_else(empty, |form| full(Bytes::from(form.clone()))),
            insecure: asker.insecure && self.url.authority().is_some_and(|authority| authority.as_str() == asker.host),
            redirects: true,
            patience: Some(transport.timing.stall),
        };
        let (response, url) = transport.send(outgoing).await?;
        let status = response.status();
        let limit = if status.is_success() { MAX_TOKEN_ANSWER } else { MAX_ERROR_BODY };
        match response::collect(response.into_body(), limit, transport.timing.stall).await {
            Ok(body) => Ok((status, body)),
            Err(_) if !status.is_success() => Ok((status, Bytes::new())),
            Err(error) => Err(Failure::Interrupted { url, cause: error.into() }),
        }
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// R6.2.4, R6.2.7.
fn token(body: &[u8]) -> Option<Token> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let header = bearer(&filled(answer.token).or(filled(answer.access_token))?)?;
    // Nine tenths, lest it expire on the way. No server means a year; the bound keeps the sum from overflowing.
    let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).min(31_536_000)) * 9 / 10;
    let issued = answer.issued_at.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok()).map(SystemTime::from);
    // A server whose clock is ahead issues in the future: that counts as now.
    let age = issued.and_then(|issued| SystemTime::now().duration_since(issued).ok()).unwrap_or_default();
    Some(Token { header, expires: Instant::now() + life.saturating_sub(age) })
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))).ok()
}

fn bearer(token: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer {token}")).ok()
}

/// `application/x-www-form-urlencoded`, which does for queries too.
fn encoded(pairs: &[(&str, String)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={}", percent_encoded(value))).collect::<Vec<_>>().join("&")
}

pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn shown_realm(realm: &str) -> String {
    realm.parse().map_or_else(|_| "the token server".to_owned(), |url: Uri| shown(&url))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(answer: serde_json::Value) -> Option<u64> {
        token(answer.to_string().as_bytes()).map(|token| (token.expires - Instant::now()).as_secs_f64().round() as u64)
    }

    /// R6.2.4, R6.2.7.
    #[test]
    fn tokens_live_nine_tenths() {
        assert_eq!(life(serde_json::json!({ "token": "t" })), Some(54));
        assert_eq!(life(serde_json::json!({ "access_token": "t", "expires_in": 300 })), Some(270));
        assert_eq!(
            life(serde_json::json!({ "token": "t", "expires_in": 300, "issued_at": "2001-01-01T00:00:00Z" })),
            Some(0)
        );
        assert_eq!(
            life(serde_json::json!({ "token": "t", "expires_in": 10, "issued_at": "2999-01-01T00:00:00Z" })),
            Some(9)
        );
        assert!(life(serde_json::json!({ "token": "t", "expires_in": u64::MAX })).is_some());
        assert_eq!(life(serde_json::json!({ "token": "", "access_token": "" })), None);
        assert_eq!(life(serde_json::json!({ "token": "line\nbreak" })), None);
        assert_eq!(life(serde_json::json!([])), None);
    }

    #[test]
    fn forms_are_encoded() {
        let form = [("scope", "repository:a/b:pull,push".to_owned()), ("password", "p&=ä".to_owned())];
        assert_eq!(encoded(&form), "scope=repository%3Aa%2Fb%3Apull%2Cpush&password=p%26%3D%C3%A4");
    }
}
