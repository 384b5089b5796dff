//! The cache service of GitHub Actions, both versions, and the storage behind it, as far as clients can tell. That it is like the real one is shown by
//! `actions_cache.rs`, which drives it with GitHub's own client.
//!
//! - Entries have a key, a version and the branch that wrote them. They never change. A key that is reserved is taken, also before it is there.
//! - One is found by its whole key, else by its beginning, the newest first; in the caches of the branches that the token may read.
//! - The storage takes one request, or blocks and their list. Its URLs are signed and need no token.

use super::server::{self, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

const TWIRP: &str = "/twirp/github.actions.results.api.v1.CacheService/";
const REST: &str = "/_apis/artifactcache/";
const BLOBS: &str = "/account/container/";
pub const SIGNATURE: &str = "signed+/=";

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    tokens: Vec<String>,
    requests: Vec<Request>,
    /// Answers for requests whose path contains a text, before anything else.
    faults: VecDeque<(String, Response)>,
}

#[derive(Default)]
struct Entry {
    key: String,
    version: String,
    branch: String,
    data: Vec<u8>,
    blocks: BTreeMap<String, Vec<u8>>,
    is_there: bool,
}

#[derive(Clone)]
pub struct Actions {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Actions {
    pub fn start() -> Actions {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let host = server::start(move |request| {
            let mut state = shared.lock().unwrap();
            state.requests.push(request.clone());
            let fault = state.faults.iter().position(|(part, _)| request.path.contains(part.as_str()));
            match fault.and_then(|index| state.faults.remove(index)) {
                Some((_, response)) => response,
                None => state.answer(request),
            }
        });
        Actions { url: format!("http://{host}"), state }
    }

    /// A token for branches, with the bits of what it may there: 1 is reading, 2 writing.
    pub fn token(&self, branches: &[(&str, u32)]) -> String {
        let scopes = branches.iter().map(|(scope, bits)| json!({ "Scope": scope, "Permission": bits }));
        let scopes = Value::Array(scopes.collect()).to_string();
        let mut state = self.state.lock().unwrap();
        let claims = json!({ "ac": scopes, "exp": 99_999_999_999_u64, "nbf": 1, "id": state.tokens.len() }).to_string();
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        state.tokens.push(token.clone());
        token
    }

    /// Gives `response` to the next request whose path contains `part`.
    pub fn fail(&self, part: &str, response: Response) {
        self.state.lock().unwrap().faults.push_back((part.to_owned(), response));
    }

    /// Reserves a key as somebody does who dies then.
    pub fn reserve(&self, key: &str, like: &str) {
        let mut state = self.state.lock().unwrap();
        let like = state.entries.iter().find(|entry| entry.key.starts_with(like)).unwrap();
        let (version, branch) = (like.version.clone(), like.branch.clone());
        state.entries.push(Entry { key: key.to_owned(), version, branch, ..Entry::default() });
    }

    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The keys of what is there, oldest first.
    pub fn keys(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.entries.iter().filter(|entry| entry.is_there).map(|entry| entry.key.clone()).collect()
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        if let Some(id) = request.path.strip_prefix(BLOBS) {
            return self.storage(request, id);
        }
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !self.tokens.iter().any(|known| known == token) {
            return refuse(401, "unauthenticated", "not authorized");
        }
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let scopes: Vec<Value> = serde_json::from_str(claims["ac"].as_str().unwrap()).unwrap();
        let may = |bit: u64| {
            let scopes = scopes.iter().filter(move |scope| scope["Permission"].as_u64().unwrap() & bit != 0);
            scopes.map(|scope| scope["Scope"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (readable, writable) = (may(1), may(2).pop());
        let host = request.header("host").unwrap_or_default();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if let Some(method) = request.path.strip_prefix(TWIRP) {
            return self.twirp(method, &body, host, &readable, writable.as_deref());
        }
        if let Some(path) = request.path.strip_prefix(REST) {
            return self.rest(request, path, &body, host, &readable, writable.as_deref());
        }
        if request.path.starts_with("/repos/") {
            let branch = request.query("ref").unwrap_or_default();
            let prefix = request.query("key").unwrap_or_default();
            let entries = self.entries.iter().filter(|entry| entry.is_there && entry.branch == branch);
            let keys = entries.filter(|entry| entry.key.starts_with(prefix)).map(|entry| json!({ "key": entry.key }));
            let (page, size) = (number(request, "page").max(1), number(request, "per_page"));
            let keys: Vec<_> = keys.skip((page - 1) * size).take(size).collect();
            return document(&json!({ "total_count": keys.len(), "actions_caches": keys }));
        }
        Response::new(404)
    }

    fn find(&self, keys: &[&str], version: &str, branches: &[String]) -> Option<usize> {
        let candidates = || {
            let entries = self.entries.iter().enumerate().rev();
            entries.filter(|(_, entry)| entry.is_there && entry.version == version && branches.contains(&entry.branch))
        };
        let find = |key: &str| {
            let whole = candidates().find(|(_, entry)| entry.key == key);
            whole.or_else(|| candidates().find(|(_, entry)| entry.key.starts_with(key))).map(|(index, _)| index)
        };
        keys.iter().find_map(|key| find(key))
    }

    fn reserve(&mut self, body: &Value, branch: Option<&str>) -> Result<usize, Response> {
        let branch = branch.ok_or_else(|| refuse(403, "permission_denied", "the cache is read-only"))?;
        let (key, version) = (body["key"].as_str().unwrap_or_default(), body["version"].as_str().unwrap_or_default());
        if key.is_empty() || version.len() != 64 || key.len() > 512 || key.contains(',') {
            return Err(refuse(400, "invalid_argument", "key or version"));
        }
        let is_same = |entry: &Entry| entry.key == key && entry.version == version && entry.branch == branch;
        if self.entries.iter().any(is_same) {
            return Err(refuse(
                409,
                "already_exists",
                "cache entry with the same key, version, and scope already exists",
            ));
        }
        let (key, version, branch) = (key.to_owned(), version.to_owned(), branch.to_owned());
        self.entries.push(Entry { key, version, branch, ..Entry::default() });
        Ok(self.entries.len() - 1)
    }

    fn twirp(
        &mut self,
        method: &str,
        body: &Value,
        host: &str,
        readable: &[String],
        writable: Option<&str>,
    ) -> Response {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let url = |id: usize| format!("http://{host}{BLOBS}{id}?sig={}&se=never", escaped(SIGNATURE));
        match method {
            "CreateCacheEntry" => match self.reserve(body, writable) {
                Ok(id) => document(&json!({ "ok": true, "signed_upload_url": url(id) })),
                Err(refusal) => refusal,
            },
            "FinalizeCacheEntryUpload" => {
                let size =
                    body["size_bytes"].as_str().and_then(|size| size.parse().ok()).or(body["size_bytes"].as_u64());
                let is_it = |entry: &&mut Entry| {
                    entry.key == text("key")
                        && entry.version == text("version")
                        && Some(entry.branch.as_str()) == writable
                };
                match self.entries.iter_mut().find(is_it) {
                    Some(entry) if size == Some(entry.data.len() as u64) => {
                        entry.is_there = true;
                        document(&json!({ "ok": true, "entry_id": "7" }))
                    }
                    Some(_) => document(&json!({ "ok": false, "entry_id": "0" })),
                    None => refuse(404, "not_found", "no such entry"),
                }
            }
            "GetCacheEntryDownloadURL" => {
                let restore = body["restore_keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let keys: Vec<&str> = std::iter::once(text("key")).chain(restore).collect();
                match self.find(&keys, text("version"), readable) {
                    Some(id) => document(&json!({
                        "ok": true, "signed_download_url": url(id), "matched_key": self.entries[id].key
                    })),
                    None => document(&json!({ "ok": false, "signed_download_url": "", "matched_key": "" })),
                }
            }
            _ => refuse(404, "bad_route", method),
        }
    }

    fn rest(
        &mut self,
        request: &Request,
        path: &str,
        body: &Value,
        host: &str,
        readable: &[String],
        writable: Option<&str>,
    ) -> Response {
        match (request.method.as_str(), path, path.strip_prefix("caches/").and_then(|id| id.parse::<usize>().ok())) {
            ("GET", "cache", _) => {
                let keys: Vec<&str> = request.query("keys").unwrap_or_default().split(',').collect();
                match self.find(&keys, request.query("version").unwrap_or_default(), readable) {
                    Some(id) => document(&json!({
                        "cacheKey": self.entries[id].key,
                        "scope": self.entries[id].branch,
                        "archiveLocation": format!("http://{host}{BLOBS}{id}?sig={}", escaped(SIGNATURE)),
                    })),
                    None => Response::new(204),
                }
            }
            ("POST", "caches", _) => match self.reserve(body, writable) {
                Ok(id) => document(&json!({ "cacheId": id + 1 })),
                Err(refusal) if refusal.status == 409 => {
                    let error = json!({
                        "typeKey": "ArtifactCacheItemAlreadyExistsException",
                        "message": "Cache already exists. Scope: x, Key: y, Version: z",
                    });
                    Response { body: error.to_string().into_bytes(), ..refusal }
                }
                Err(refusal) => refusal,
            },
            ("PATCH", _, Some(id)) => {
                let range =
                    request.header("content-range").and_then(|range| range.strip_prefix("bytes ")).unwrap_or("");
                let from = range.split('-').next().and_then(|from| from.parse::<usize>().ok()).unwrap_or(0);
                let entry = &mut self.entries[id - 1];
                let end = from + request.body.len();
                if request.body.is_empty() || !range.ends_with(&format!("-{}/*", end - 1)) {
                    return refuse(400, "invalid_argument", "content-range");
                }
                entry.data.resize(entry.data.len().max(end), 0);
                entry.data[from..end].copy_from_slice(&request.body);
                Response::new(204)
            }
            ("POST", _, Some(id)) => {
                let entry = &mut self.entries[id - 1];
                entry.is_there = body["size"].as_u64() == Some(entry.data.len() as u64);
                if entry.is_there { Response::new(204) } else { refuse(400, "invalid_argument", "size") }
            }
            _ => Response::new(404),
        }
    }

    fn storage(&mut self, request: &Request, id: &str) -> Response {
        if request.query("sig") != Some(SIGNATURE) {
            return Response::new(403);
        }
        if request.header("authorization").is_some() {
            // Azure refuses a request that logs in twice.
            return Response::new(400);
        }
        let Some(entry) = id.parse().ok().and_then(|id: usize| self.entries.get_mut(id)) else {
            return Response::new(404);
        };
        match (request.method.as_str(), request.query("comp")) {
            ("PUT", None) => {
                if request.header("x-ms-blob-type") != Some("BlockBlob") {
                    return Response::new(400);
                }
                entry.data.clone_from(&request.body);
                stored()
            }
            ("PUT", Some("block")) => {
                entry.blocks.insert(request.query("blockid").unwrap_or_default().to_owned(), request.body.clone());
                stored()
            }
            ("PUT", Some("blocklist")) => {
                let list = String::from_utf8_lossy(&request.body).into_owned();
                let mut data = Vec::new();
                for part in list.split("<Latest>").skip(1) {
                    let id = part.split('<').next().unwrap_or_default();
                    let Some(block) = entry.blocks.get(id).filter(|_| STANDARD.decode(id).is_ok()) else {
                        return Response::new(400);
                    };
                    data.extend_from_slice(block);
                }
                entry.data = data;
                stored()
            }
            ("GET" | "HEAD", None) => {
                let range = request.header("x-ms-range").or(request.header("range"));
                let headers = |response: Response| {
                    let response =
                        response.header("etag", "\"0x1\"").header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
                    response
                        .header("x-ms-blob-type", "BlockBlob")
                        .header("x-ms-request-id", "1")
                        .header("accept-ranges", "bytes")
                };
                let total = entry.data.len();
                let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
                    return headers(Response::new(200).body(entry.data.clone()));
                };
                let (from, to) = range.split_once('-').unwrap_or((range, ""));
                let from: usize = from.parse().unwrap_or(0);
                let to = to.parse().map_or(total, |to: usize| (to + 1).min(total));
                if from >= total {
                    return Response::new(416);
                }
                let content_range = format!("bytes {from}-{}/{total}", to - 1);
                headers(Response::new(206).body(entry.data[from..to].to_vec())).header("content-range", content_range)
            }
            _ => Response::new(400),
        }
    }
}

fn stored() -> Response {
    Response::new(201)
        .header("etag", "\"0x1\"")
        .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        .header("x-ms-request-id", "1")
}

fn document(value: &Value) -> Response {
    Response::new(200).header("content-type", "application/json").body(value.to_string())
}

fn refuse(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "code": code, "msg": message }).to_string();
    Response::new(status).header("content-type", "application/json").body(body)
}

fn number(request: &Request, name: &str) -> usize {
    request.query(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
